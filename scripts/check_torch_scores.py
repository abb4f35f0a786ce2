#!/usr/bin/env python3
"""Compares the scores of `secateur score` with the same criterion by PyTorch's autograd, on the same weights and images.

    python3 -m venv .cache/venv-tp && .cache/venv-tp/bin/pip install -r scripts/requirements-torch-pruning.txt
    .cache/venv-tp/bin/python scripts/check_torch_scores.py --models DIR --data DIR/calib --secateur bin/secateur

DIR of --models holds NAME.onnx, torch/arch.py and torch/NAME.pt. The criterion (TaylorFO, read at the edges): for each
image the gradient of cross-entropy plus soft Dice at the logits, scaled to length 1, is taken back, and every channel of
every convolution's input has the signed sum over its pixels of value times gradient through that convolution alone.
PyTorch's side is written down here from that definition; it shares no line with ours.

Decoders and resizing differ by a gray value here and there, which is not what is asked: both sides get the same PNG files
at the network's own size. Each row is an edge: max |difference| / max |sum| over its channels and images. Status 1 if one
in float64 is not below the limit.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from compare_torch_pruning import SIZE, model_spec

LIMIT = 1e-4
SMOOTH = 1  # of soft Dice


# The same images for both.

def write_images(data, folder, count):
    """The first count images of data and their masks, at the network's size, as files that decode to the same bytes everywhere."""
    import cv2
    masks = {p.stem: p for p in (data / "masks").iterdir()}
    for k in ("images", "masks"):
        (folder / k).mkdir(parents=True)
    for p in sorted((data / "images").iterdir())[:count]:
        im = cv2.resize(cv2.imread(str(p), cv2.IMREAD_COLOR), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        mask = cv2.imread(str(masks[p.stem]), cv2.IMREAD_GRAYSCALE) >= 128
        mask = cv2.resize(255 * mask.astype("uint8"), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
        for k, v in (("images", im), ("masks", mask)):
            if not cv2.imwrite(str(folder / k / (p.stem + ".png")), v):
                raise SystemExit(f"{folder}: cannot be written")


def read_images(folder):
    """The bytes of the images and of their masks, by name."""
    return {p.stem: (p.read_bytes(), (folder / "masks" / p.name).read_bytes()) for p in sorted((folder / "images").iterdir())}


def prepare(image, mask, spec):
    """A file of an image and of its mask as the network and the loss take them."""
    import cv2
    import numpy as np
    import torch
    im = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if spec["color"] == "RGB":
        im = im[:, :, ::-1]
    # Rounded once: an input off by a last bit turns a unit at the edge of its ReLU on or off, which moves sums by 1e-4.
    x = ((im * spec["scale"] - np.asarray(spec["mean"])) / np.asarray(spec["std"])).astype(np.float32).transpose(2, 0, 1)[None]
    t = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_GRAYSCALE) >= 128
    return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(t[None, None].astype(np.float32))


# PyTorch's side.

def network(models, name):
    import torch
    sys.path.insert(0, str(models / "torch"))
    import arch
    net = getattr(arch, name.replace("-", "_"))()
    net.load_state_dict(torch.load(models / "torch" / (name + ".pt"), weights_only=True))
    return net


def folded(net, path):
    """The network with the weights that the ONNX file has, where the exporter multiplied a BatchNorm into a convolution.

    Multiplying again would round otherwise, see prepare. That the file's weights are the network's is checked here.
    """
    import numpy as np
    import onnx
    import torch
    calls, hooks, nn = [], [], torch.nn
    for n, m in net.named_modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            hooks.append(m.register_forward_hook(lambda m, i, o, n=n: calls.append((n, m))))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, SIZE, SIZE))
    for h in hooks:
        h.remove()
    g = onnx.load(str(path)).graph
    inits = {t.name: t for t in g.initializer}
    nodes = [k for k in g.node if k.op_type in ("Conv", "ConvTranspose")]
    for i, (n, m) in enumerate(calls):
        if isinstance(m, nn.BatchNorm2d):
            continue
        node = nodes.pop(0)
        if m.bias is not None or len(node.input) < 3:
            continue
        to, bn = calls[i + 1]
        w, b = (torch.from_numpy(np.array(onnx.numpy_helper.to_array(inits[k]))) for k in node.input[1:])
        scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
        for got, want in ((w, m.weight.double() * scale.view(-1, 1, 1, 1)), (b, bn.bias.double() - bn.running_mean.double() * scale)):
            if not torch.allclose(got.double(), want, rtol=1e-5, atol=1e-6 * want.abs().max().item()):
                raise SystemExit(f"{path}: {node.name} is not {n} times {to}")
        m.weight, m.bias = nn.Parameter(w), nn.Parameter(b)
        net.set_submodule(to, getattr(bn, "act", None) or nn.Identity())  # timm's norms have the activation in them
    return net


def readers(net):
    """The convolutions that a cut takes channels from by slicing what they read; a depthwise one keeps its own."""
    import torch
    found = []
    for n, m in net.named_modules():
        if isinstance(m, torch.nn.Linear):
            raise SystemExit(f"{n}: products of matrices are not here")
        if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) and (m.groups == 1 or m.weight.shape[1] > 1):
            found.append((n, m))
    return found


class Scorer:
    """TaylorFO of one image after another. Every convolution's input goes through a node of its own on the tape."""

    def __init__(self, net):
        import torch
        self.torch, self.sums, self.image = torch, {}, None
        self.net = net.eval().requires_grad_(False)
        scorer = self

        class Edge(torch.autograd.Function):
            """The identity, whose reverse sees the gradient through one convolution alone before others are added."""

            @staticmethod
            def forward(ctx, x, name):
                ctx.save_for_backward(x)
                ctx.name = name
                return x.view_as(x)

            @staticmethod
            def backward(ctx, g):
                x, = ctx.saved_tensors
                scorer.sums[ctx.name] = (x * g).sum((0, 2, 3))
                return g, None

        def hook(name):
            def before(module, args):
                x, = args
                if x is scorer.image:  # no channel of the image can go, and nothing before it wants a gradient
                    return None
                if not x.requires_grad:
                    x = x.detach().requires_grad_()
                return (Edge.apply(x, name),)
            return before

        for n, m in readers(self.net):
            m.register_forward_pre_hook(hook(n))

    def __call__(self, x, t):
        """The signed sums of one image by name of the convolution, in the order of the reverse pass."""
        torch, self.sums, self.image = self.torch, {}, x
        z = self.net(x)
        at = z.detach().requires_grad_()
        p = at.sigmoid()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(at, t)
        loss = loss + 1 - (2 * (p * t).sum() + SMOOTH) / (p.sum() + t.sum() + SMOOTH)
        g, = torch.autograd.grad(loss, at)
        z.backward(g / (g.norm() + 1e-12))
        return self.sums


def edges_in_order(net):
    """Names of the convolutions as a run calls them, but for those that read the image."""
    import torch
    names, hooks, x = [], [], torch.zeros(1, 3, SIZE, SIZE)
    for n, m in readers(net):
        hooks.append(m.register_forward_pre_hook(lambda m, args, n=n: None if args[0] is x else names.append(n)))
    with torch.no_grad():
        net.eval()(x)
    for h in hooks:
        h.remove()
    return names


def torch_sums(models, name, files, spec, dtype):
    """[edge][image][channel], and the edges' names."""
    net = folded(network(models, name), models / (name + ".onnx"))
    order = edges_in_order(net)
    scorer = Scorer(net.to(dtype))
    rows = {n: [] for n in order}
    for image, mask in files.values():
        x, t = prepare(image, mask, spec)
        sums = scorer(x.to(dtype), t.to(dtype))
        if set(sums) != set(order):
            raise SystemExit(f"{name}: autograd reached {len(sums)} of {len(order)} edges")
        for n, s in sums.items():
            rows[n].append(s.tolist())
    return [rows[n] for n in order], order


# Ours.

def our_sums(binary, model, folder, files, threads, exact):
    cmd = [str(binary), "score", "--model", str(model), "--calib", str(folder), "--json", "--samples", "--threads", str(threads)]
    p = subprocess.run(cmd + (["--float64"] if exact else []), stdout=subprocess.PIPE, check=True)
    edges = json.loads(p.stdout)["edges"]
    rows = []
    for e in edges:
        by = {s["image"]: s["sums"] for s in e["samples"]}
        rows.append([by[n] for n in files])
    return rows, [e["node"] for e in edges]


def error(a, b):
    """max |a - b| / max |b| of rows of images."""
    if [len(r) for r in a] != [len(r) for r in b]:
        raise SystemExit(f"channels differ: {len(a[0])} and {len(b[0])}")
    top = max(abs(v) for r in b for v in r)
    worst = max(abs(v - w) for r, s in zip(a, b) for v, w in zip(r, s))
    return worst / top if top else worst


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", type=pathlib.Path, required=True, help="folder of NAME.onnx and torch/")
    p.add_argument("--data", type=pathlib.Path, required=True, help="folder of images/ and masks/")
    p.add_argument("--secateur", type=pathlib.Path, default="bin/secateur", help="our binary")
    p.add_argument("--model", default="polyp-unet,polyp-lite0", help="which, by commas")
    p.add_argument("--images", type=int, default=4, help="how many")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    bad = False
    for name in args.model.split(","):
        model = args.models / (name + ".onnx")
        spec, post = model_spec(model)
        if post["activation"] != "sigmoid" or spec["layout"] != "NCHW" or list(spec["size"]) != [SIZE, SIZE]:
            raise SystemExit(f"{name}: only a sigmoid behind NCHW of {SIZE} x {SIZE} is here")
        with tempfile.TemporaryDirectory() as tmp:
            folder = pathlib.Path(tmp) / "set"
            write_images(args.data, folder, args.images)
            files = read_images(folder)
            want, names = torch_sums(args.models, name, files, spec, torch.float64)
            single, _ = torch_sums(args.models, name, files, spec, torch.float32)
            got, nodes = our_sums(args.secateur, model, folder, files, args.threads, True)
            short, _ = our_sums(args.secateur, model, folder, files, args.threads, False)
        if len(want) != len(got):
            raise SystemExit(f"{name}: PyTorch reads channels at {len(want)} convolutions, we at {len(got)}")
        print(f"| {name}, {len(files)} images: convolution | PyTorch's name | channels | float64 | float32 | PyTorch's float32 |\n|---|---|---|---|---|---|")
        top = [0.0] * 3
        for i, w in enumerate(want):
            e = [error(k[i], w) for k in (got, short, single)]
            top = [max(a, b) for a, b in zip(top, e)]
            print(f"| {nodes[i]} | {names[i]} | {len(w[0])} | " + " | ".join(f"{v:.1e}" for v in e) + " |")
        print(f"| the largest | | {sum(len(w[0]) for w in want)} | " + " | ".join(f"{v:.1e}" for v in top) + " |\n")
        if not top[0] < LIMIT:
            print(f"{name}: {top[0]:.2e} is not below {LIMIT:g}", file=sys.stderr)
            bad = True
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
