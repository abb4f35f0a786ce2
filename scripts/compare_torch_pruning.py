#!/usr/bin/env python3
"""Prunes the same trained models with Torch-Pruning and with Secateur, and compares the Dice that is left.

    make compare MODELS=DIR DATA=DIR                     # all of it, as below
    P="nice -n 10 .cache/venv-tp/bin/python scripts/compare_torch_pruning.py --models DIR --data DIR"
    $P                                                   # Torch-Pruning, every variant, nothing trained afterwards
    $P --torch none --secateur bin/secateur              # ours
    $P --variants best --repair-seconds ours             # its best variants again, each repaired for as long as ours was
    $P --draw docs/pruning-curve.svg --markdown          # no run: the picture, and the tables on standard output

DIR of --models holds NAME.onnx, torch/arch.py and torch/NAME.pt; that of --data holds calib/ and val/, each with images/ and
masks/. Rows go to --results as they come, and those that are there are not measured again, so a run may be cut off at
any time; --limit-seconds ends one by itself (exit status 3: there is more to do).

How it is kept equal:
- Images are prepared as the model's metadata says and masks judged at each image's own size, by the same lines for both
  tools. The dense model, by PyTorch and by ONNX Runtime, must have the Dice that the models' README says.
- Multiply-adds are those of convolutions, transposed ones and products of matrices, at 256 x 256, counted by one rule.
- No layer loses more than 90 % of its channels, Secateur's default. Torch-Pruning is stepped until the target is met, and
  within its last step no further than it takes.
- Taylor scores come from the loss that Secateur uses, cross-entropy plus soft Dice, on all calibration images.
- Nothing but the calibration images is trained on. Torch-Pruning has no repair of its own; it is given the same seconds of
  Adam towards the original's probabilities, with BatchNorm's statistics frozen. Computing those probabilities is free. Seconds
  are those of the processor over the number of threads, which other work on the machine does not lengthen.
- Its best variant is picked on the images that judge it, which favours it, and so is whether its distillation is kept; ours is one setting for all.
"""

import argparse
import copy
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

SIZE = 256
DENSE = {"polyp-unet": 0.8181, "polyp-lite0": 0.8915}  # as the models' README has them
CLOSE = 0.002
MOST = 0.9  # of a layer's channels
# importance/scope, then what differs from Torch-Pruning's defaults: "raw" scores are not divided by their layer's mean,
# which only a global ranking can tell, "again" scores anew whenever another tenth of the multiply-adds has gone, and
# "most70" leaves every layer 30 % of its channels. Taylor sums the gradients of all images first, taylor-example their
# absolute values, hessian their squares; taylor-sum adds up a channel's weights with their signs (multivariable). After
# "bn", BatchNorm's means and variances are measured anew on the calibration images: no training, but a repair.
VARIANTS = [
    "taylor/global", "taylor/global/raw", "taylor/local",
    "taylor-sum/global", "taylor-sum/global/raw", "taylor-sum/local",
    "taylor-example/global", "taylor-example/global/raw", "taylor-example/local", "taylor-example/global/again",
    "taylor-example/global/most70",
    "hessian/global", "hessian/global/raw", "hessian/local", "hessian/global/most70",
    "taylor-example/global/bn", "taylor-example/global/most70/bn", "taylor-example/local/bn", "taylor-sum/global/bn",
    "hessian/global/bn", "magnitude/global/bn", "magnitude/local/bn",
    "magnitude/global", "magnitude/global/raw", "magnitude/local",
    "random/global", "random/local",
]
RANDOM_SEEDS = 3


def say(*a):
    print(time.strftime("%H:%M:%S", time.gmtime()), *a, file=sys.stderr, flush=True)


# Images, and what a model is judged by: the same for every tool.

class Images:
    """The images of a folder as the network takes them, and their masks as they are."""

    def __init__(self, folder, spec):
        import cv2
        import numpy as np
        if spec["layout"] != "NCHW" or list(spec["size"]) != [SIZE, SIZE] or spec["resize"] != "area":
            raise SystemExit(f"preprocessing {spec}: only NCHW, {SIZE} x {SIZE} and area are here")
        mean, std = (np.asarray(spec[k], np.float32) for k in ("mean", "std"))
        self.names, x, self.masks = [], [], []
        masks = {p.stem: p for p in (folder / "masks").iterdir()}
        for p in sorted((folder / "images").iterdir()):
            im = cv2.imread(str(p), cv2.IMREAD_COLOR)
            mask = cv2.imread(str(masks[p.stem]), cv2.IMREAD_GRAYSCALE) >= 128
            if im.shape[:2] != mask.shape:
                raise SystemExit(f"{p}: {im.shape} has a mask of {mask.shape}")
            if spec["color"] == "RGB":
                im = im[:, :, ::-1]
            small = cv2.resize(np.ascontiguousarray(im), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            x.append(((small.astype(np.float32) * np.float32(spec["scale"]) - mean) / std).transpose(2, 0, 1))
            self.names.append(p.name)
            self.masks.append(mask)
        self.x = np.ascontiguousarray(np.stack(x))

    def small_masks(self):
        import cv2
        import numpy as np
        t = [cv2.resize(m.astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) for m in self.masks]
        return np.stack(t)[:, None].astype(np.float32)

    def dice(self, logits, threshold):
        """Mean and standard deviation of Dice over the images, from logits of all of them; empty masks are left out."""
        import cv2
        import numpy as np
        d = []
        for z, mask in zip(logits, self.masks):
            if not mask.any():
                continue
            p = 1 / (1 + np.exp(-z[0].astype(np.float64)))
            h, w = mask.shape
            got = cv2.resize(p.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR) >= threshold
            d.append(2 * (got & mask).sum() / (got.sum() + mask.sum()))
        return {"dice": round(float(np.mean(d)), 5), "sd": round(float(np.std(d, ddof=1)), 5), "n": len(d)}


def onnx_logits(path, x, threads):
    import numpy as np
    import onnxruntime
    o = onnxruntime.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    s = onnxruntime.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])
    name = s.get_inputs()[0].name
    return np.concatenate([s.run(None, {name: x[i:i + 1]})[0] for i in range(len(x))])


def onnx_macs(path):
    """Multiply-adds of a file at one image of SIZE x SIZE: elements of the weights times the places they are used at."""
    import onnx
    m = onnx.load(str(path))
    d = m.graph.input[0].type.tensor_type.shape.dim
    for i, n in enumerate((1, 3, SIZE, SIZE)):
        d[i].dim_value = n
    for o in m.graph.output:
        o.type.tensor_type.ClearField("shape")
    for v in list(m.graph.value_info):
        m.graph.value_info.remove(v)
    g = onnx.shape_inference.infer_shapes(m, strict_mode=True, data_prop=True).graph
    shape = {v.name: [k.dim_value for k in v.type.tensor_type.shape.dim] for v in itertools.chain(g.input, g.value_info, g.output)}
    elems = {t.name: math.prod(t.dims) for t in g.initializer}
    total = 0
    for n in g.node:
        if n.op_type in ("Conv", "ConvTranspose"):
            at = shape[n.output[0] if n.op_type == "Conv" else n.input[0]]
            if not all(at):
                raise SystemExit(f"{path}: the shape at {n.name} is not known")
            total += elems[n.input[1]] * math.prod(at[2:])
        elif n.op_type in ("MatMul", "Gemm"):
            raise SystemExit(f"{path}: {n.op_type} is not counted here")
    return total


def model_spec(path):
    import onnx
    meta = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return json.loads(meta["secateur.preprocess"]), json.loads(meta["secateur.postprocess"])


# Results.

class Results:
    KEY = ("tool", "variant", "model", "asked", "repair_seconds", "seed", "recipe")

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.rows = json.loads(self.path.read_text())["rows"] if self.path.exists() else []

    def key(self, row):
        return tuple(row.get(k) for k in self.KEY)

    def has(self, **row):
        return any(self.key(r) == self.key(row) for r in self.rows)

    def drop(self, **row):
        self.rows = [r for r in self.rows if any(r.get(k) != v for k, v in row.items())]

    def add(self, **row):
        self.rows.append(row)
        self.rows.sort(key=lambda r: json.dumps(self.key(r)))
        new = self.path.with_name(self.path.name + ".new")
        lines = ",\n".join(json.dumps(r) for r in self.rows)
        new.write_text('{"rows": [\n' + lines + "\n]}\n")
        os.replace(new, self.path)
        say(f"{row['tool']} {row['variant']} {row['model']} asked {row['asked']} got {row['got']:.4f} "
            f"repair {row['repair_seconds']} s: Dice {row['dice']:.4f}")


class Clock:
    def __init__(self, limit):
        self.end = time.monotonic() + limit if limit else math.inf

    def check(self):
        if time.monotonic() > self.end:
            say("time is up; run again for the rest")
            raise SystemExit(3)


# Torch-Pruning.

class Peer:
    def __init__(self, name, args, calib, val, threshold):
        import torch
        sys.path.insert(0, str(args.models / "torch"))
        import arch
        torch.set_num_threads(args.threads)
        self.torch, self.name, self.args, self.calib, self.val, self.threshold = torch, name, args, calib, val, threshold
        net = getattr(arch, name.replace("-", "_"))()
        net.load_state_dict(torch.load(args.models / "torch" / (name + ".pt"), weights_only=True))
        self.dense = net.eval()
        self.places = self.count_places(net)
        self.before = self.macs(net)
        self.x = torch.from_numpy(calib.x)
        self.truth = torch.from_numpy(calib.small_masks())
        self.grads = None
        self.soft = None

    def layers(self, net):
        nn = self.torch.nn
        return [(n, m) for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]

    def count_places(self, net):
        """How often an image uses each element of a layer's weights: pruning changes the elements, never that."""
        torch, places, hooks = self.torch, {}, []
        for n, m in self.layers(net):
            def hook(m, i, o, n=n):
                at = i[0] if isinstance(m, torch.nn.ConvTranspose2d) else o
                places[n] = math.prod(at.shape[2:]) if at.dim() == 4 else math.prod(at.shape[:-1])
            hooks.append(m.register_forward_hook(hook))
        with torch.no_grad():
            net(torch.zeros(1, 3, SIZE, SIZE))
        for h in hooks:
            h.remove()
        return places

    def macs(self, net):
        return sum(m.weight.numel() * self.places[n] for n, m in self.layers(net))

    def logits(self, net, x):
        torch = self.torch
        net = copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
        with torch.no_grad():
            return torch.cat([net(b.to(memory_format=torch.channels_last)) for b in torch.from_numpy(x).split(4)])

    def judge(self, net):
        return self.val.dice(self.logits(net, self.val.x).numpy(), self.threshold)

    def gradients(self, net):
        """Of every weight over the calibration images: the sum, that of its absolute value, and that of its square."""
        torch = self.torch
        work = copy.deepcopy(net).to(memory_format=torch.channels_last)
        params = list(work.parameters())
        sums = {k: [torch.zeros_like(p) for p in params] for k in ("taylor", "taylor-example", "hessian")}
        for x, t in zip(self.x.split(1), self.truth.split(1)):
            z = work(x.to(memory_format=torch.channels_last))
            p = z.sigmoid()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(z, t)
            loss = loss + 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            for i, g in enumerate(torch.autograd.grad(loss, params)):
                sums["taylor"][i] += g
                sums["taylor-example"][i] += g.abs()
                sums["hessian"][i] += g * g
        return {k: [v.contiguous() for v in vs] for k, vs in sums.items()}

    def score(self, net, importance, fresh):
        """Puts the gradients where Torch-Pruning looks for them; it cuts them as it cuts the weights."""
        if importance in ("magnitude", "random"):
            return
        if fresh:
            g = self.gradients(net)
        else:
            if self.grads is None:
                say(self.name, "scoring")
                self.grads = self.gradients(self.dense)
            g = self.grads
        for p, v in zip(net.parameters(), g["taylor" if importance == "taylor-sum" else importance]):
            p.grad = v.clone()

    def prune(self, variant, seed, ratios):
        """Yields (ratio, network) for each of the ratios, which ascend, from one walk of the pruner."""
        import torch_pruning as tp
        torch = self.torch
        importance, scope, *more = variant.split("/")
        norm = None if "raw" in more else "mean"
        most = next((int(k[4:]) / 100 for k in more if k.startswith("most")), MOST)
        how = {
            "taylor": lambda: tp.importance.TaylorImportance(normalizer=norm),
            "taylor-sum": lambda: tp.importance.TaylorImportance(normalizer=norm, multivariable=True),
            "taylor-example": lambda: tp.importance.TaylorImportance(normalizer=norm),
            "hessian": lambda: tp.importance.HessianImportance(normalizer=norm),
            "magnitude": lambda: tp.importance.MagnitudeImportance(p=2, normalizer=norm),
            "random": tp.importance.RandomImportance,
        }[importance]()
        torch.manual_seed(seed)
        net = copy.deepcopy(self.dense)
        last = [m for _, m in self.layers(net)][-1]  # gives the logits
        x = torch.zeros(1, 3, SIZE, SIZE)
        self.score(net, importance, False)
        pruner = tp.pruner.BasePruner(net, x, importance=how, global_pruning=scope == "global", pruning_ratio=1.0,
                                      max_pruning_ratio=most, iterative_steps=self.args.steps, ignored_layers=[last])
        least = {m: math.ceil(round(n * (1 - most), 6)) for m, n in pruner.layer_init_out_ch.items() if n}
        todo, scored = sorted(ratios), 0.0
        for _ in range(self.args.steps):
            for group in pruner.step(interactive=True):
                group = self.bounded(pruner.DG, group, least)
                if group is None:
                    continue
                group.prune()
                while todo and 1 - self.macs(net) / self.before >= todo[0]:
                    done = copy.deepcopy(net)
                    for p in done.parameters():
                        p.grad = None
                    if "bn" in more:
                        self.measure_statistics(done)
                    yield todo.pop(0), done
                if not todo:
                    return
            gone = 1 - self.macs(net) / self.before
            if "again" in more and gone >= scored + 0.1:
                scored = gone
                with torch.enable_grad():
                    self.score(net, importance, True)
        for r in todo:
            say(f"{variant} {self.name}: {r} cannot be reached, {1 - self.macs(net) / self.before:.3f} at most")

    def bounded(self, graph, group, least):
        """The group, less what would leave a layer below its least; its step may ask for more than the limit of a layer."""
        dep, idxs = group[0].dep, group[0].idxs
        spare = min((graph.get_out_channels(d.target.module) - least[d.target.module] for d, _ in group
                     if graph.is_out_channel_pruning_fn(d.handler) and d.target.module in least), default=len(idxs))
        if spare >= len(idxs):
            return group
        if spare <= 0:
            return None
        return graph.get_pruning_group(dep.target.module, dep.handler, sorted(idxs)[:spare])

    def measure_statistics(self, net):
        torch = self.torch
        norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        was = [m.momentum for m in norms]
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # the mean over all batches
            m.train()
        net.to(memory_format=torch.channels_last)
        with torch.no_grad():
            for x in self.x.split(10):
                net(x.to(memory_format=torch.channels_last))
        for m, k in zip(norms, was):
            m.momentum = k
            m.eval()

    def repair(self, net, seconds):
        """Self-distillation: the pruned network learns the original's probabilities on the calibration images."""
        torch = self.torch
        if self.soft is None:
            self.soft = self.logits(self.dense, self.calib.x).sigmoid()
        net = copy.deepcopy(net).eval().to(memory_format=torch.channels_last)  # eval: the statistics stay
        for p in net.parameters():
            p.requires_grad_(True)
        if self.args.repair_affine == "frozen":
            for m in net.modules():
                if isinstance(m, torch.nn.BatchNorm2d):
                    m.weight.requires_grad_(False), m.bias.requires_grad_(False)
        opt = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=self.args.repair_lr)
        rng = torch.Generator().manual_seed(1)
        steps, start = 0, time.process_time()
        while True:
            for i in torch.randperm(len(self.x), generator=rng).split(self.args.repair_batch):
                gone = (time.process_time() - start) / self.args.threads / seconds
                if gone >= 1:
                    return net, steps
                if self.args.repair_rate == "falling":
                    for g in opt.param_groups:
                        g["lr"] = self.args.repair_lr * (1 - gone)
                z = net(self.x[i].to(memory_format=torch.channels_last))
                loss = torch.nn.functional.binary_cross_entropy_with_logits(z, self.soft[i])
                opt.zero_grad()
                loss.backward()
                opt.step()
                steps += 1


def best_variants(res, model, ratio, count):
    rows = [r for r in res.rows if r["tool"] == "torch-pruning" and r["model"] == model and r["asked"] == ratio
            and r["repair_seconds"] == 0 and not r["variant"].startswith("random")]
    return [r["variant"] for r in sorted(rows, key=lambda r: -r["dice"])[:count]]


def seconds_of(res, model, ratio, args):
    """How long a repair may take: as said, or as ours did, rounded up; None if ours is not known."""
    if args.repair_seconds != "ours":
        return args.repair_seconds
    ours = [r["repair_seconds"] for r in res.rows if r["tool"] == "secateur" and r["variant"] == args.secateur_name
            and r["model"] == model and r["asked"] == ratio]
    return math.ceil(ours[0]) if ours else None


def run_torch(name, args, res, calib, val, threshold, clock):
    tool, version = "torch-pruning", importlib.metadata.version("torch-pruning")
    repair = {r: seconds_of(res, name, r, args) for r in args.ratios}
    variants, wanted = VARIANTS, {}
    recipe = (f"lr {args.repair_lr:g} {args.repair_rate}, batch {args.repair_batch}, scale and shift {args.repair_affine}"
              if args.repair_seconds else None)
    m = re.fullmatch(r"best(\d*)", args.variants)
    for r in args.ratios:
        if repair[r] is None:
            say(f"{name} {r}: ours has not been measured, so that how long it repairs is not known")
            continue
        if m:
            variants = best_variants(res, name, r, int(m[1] or 1))
        elif args.variants != "all":
            variants = args.variants.split(",")
        for v in variants:
            for seed in range(1, 1 + (RANDOM_SEEDS if v.startswith("random") and not repair[r] else 1)):
                if not res.has(tool=tool, variant=v, model=name, asked=r, repair_seconds=repair[r], seed=seed, recipe=recipe):
                    wanted.setdefault((v, seed), []).append(r)
    dense = not res.has(tool="pytorch", variant="dense", model=name, asked=0, repair_seconds=0, seed=1)
    if not wanted and not dense:
        return
    peer = Peer(name, args, calib, val, threshold)
    if dense:
        d = peer.judge(peer.dense)
        check_dense(name, "PyTorch", d["dice"])
        res.add(tool="pytorch", variant="dense", model=name, asked=0, repair_seconds=0, seed=1, got=0.0, macs=peer.before, **d)
    for (v, seed), ratios in wanted.items():
        clock.check()
        for r, net in peer.prune(v, seed, ratios):
            macs, more = peer.macs(net), {}
            if repair[r]:
                net, steps = peer.repair(net, repair[r])
                more = {"recipe": recipe, "repair_steps": steps}
            res.add(tool=tool, variant=v, model=name, asked=r, repair_seconds=repair[r], seed=seed, got=round(1 - macs / peer.before, 5),
                    macs=macs, params=sum(p.numel() for p in net.parameters()), **peer.judge(net), **more,
                    version=version)
            clock.check()


def check_dense(name, by, dice):
    if name in DENSE and abs(dice - DENSE[name]) > CLOSE:
        raise SystemExit(f"{name} by {by}: Dice {dice:.4f} instead of {DENSE[name]}: the comparison would mean nothing")


# Ours.

def cpu_seconds(pid):
    """What a process has used of all cores together."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_ours(name, args, res, val, threshold, clock):
    tool, variant = "secateur", args.secateur_name
    path = args.models / (name + ".onnx")
    if not res.has(tool="onnxruntime", variant="dense", model=name, asked=0, repair_seconds=0, seed=1):
        d = val.dice(onnx_logits(path, val.x, args.threads), threshold)
        check_dense(name, "ONNX Runtime", d["dice"])
        res.add(tool="onnxruntime", variant="dense", model=name, asked=0, repair_seconds=0, seed=1, got=0.0, macs=onnx_macs(path), **d)
    binary = hashlib.sha256(args.secateur.read_bytes()).hexdigest()[:16]
    for r in args.ratios:
        # The seconds of our repair are known only afterwards: any row of this setting by this binary will do.
        this = {"tool": tool, "variant": variant, "model": name, "asked": r}
        if any(k.get("binary") == binary and k.get("args") == args.secateur_args for k in res.rows if this.items() <= k.items()):
            continue
        clock.check()
        with tempfile.TemporaryDirectory() as tmp:
            out = pathlib.Path(tmp) / "pruned.onnx"
            cmd = [str(args.secateur), "prune", "--model", str(path), "--calib", str(args.data / "calib"), "--val", str(args.data / "val"),
                   "--target", f"macs={r:g}", "--out", str(out), "--report", tmp, "--threads", str(args.threads), *args.secateur_args.split()]
            start, used, said = time.monotonic(), {}, []
            with subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
                for line in p.stdout:
                    said.append(line)
                    used.setdefault(line.split(" ")[0], cpu_seconds(p.pid))  # when a stage began: it says how far it is
            seconds = time.monotonic() - start
            if not out.exists():  # a verdict other than pass is an exit status of its own, and leaves the file
                raise SystemExit(f"{' '.join(cmd)}: status {p.returncode}\n{''.join(said)}")
            report = json.loads((pathlib.Path(tmp) / "report.json").read_text())
            macs, before = onnx_macs(out), onnx_macs(path)
            for said, counted in ((report["macs"]["before"], before), (report["macs"]["after"], macs)):
                if abs(said / counted - 1) > 0.001:
                    raise SystemExit(f"{name} {r}: the report says {said} multiply-adds, the file has {counted}")
            again = val.dice(onnx_logits(out, val.x, args.threads), threshold)
            steps = [{k: s[k] for k in ("method", "kept", "before", "after")} for s in report["repair"].get("steps") or []]
            res.drop(**this)
            res.add(**this, repair_seconds=round((used["gate"] - used["repair"]) / args.threads, 1), seed=1,
                    got=round(1 - macs / before, 5), macs=macs, params=report["parameters"]["after"], **again,
                    verdict=report["verdict"], repair=steps, seconds=round(seconds, 1), binary=binary, args=args.secateur_args)


# What is shown.

def gather(rows, model):
    """The lines of a model: label to {ratio: (MACs removed, Dice, which variant)}. Of each kind, the best at each ratio."""
    lines = {}

    def put(label, r, which):
        old = lines.setdefault(label, {}).get(r["asked"])
        if old is None or r["dice"] > old[1]:
            lines[label][r["asked"]] = (r["got"], r["dice"], which)

    rows = [r for r in rows if r["model"] == model and r["asked"]]
    for r in rows:
        if r["tool"] == "secateur":
            put("Secateur" + ("" if r["variant"] == "default" else ", " + r["variant"]), r, "")
    peer = [r for r in rows if r["tool"] == "torch-pruning"]
    trained = [r for r in peer if r["repair_seconds"]]
    ours = {r["asked"]: math.ceil(r["repair_seconds"]) for r in rows if r["tool"] == "secateur"}
    for t in trained:
        as_long = t["repair_seconds"] == ours.get(t["asked"])
        label = "Torch-Pruning, best, distilled " + ("as long as ours" if as_long else f"{t['repair_seconds']:g} s")
        put(label, t, f"{t['variant']} ({t['repair_seconds']:g} s)")
        for r in peer:
            if r["asked"] == t["asked"] and not r["repair_seconds"]:  # ours is kept only where it helps, too
                put(label, r, r["variant"] + " (not distilled)")
    for r in peer:
        if not r["repair_seconds"] and r["variant"].endswith("/bn"):
            put("Torch-Pruning, best, BatchNorm measured anew", r, r["variant"])
    for kind, label in (("taylor-example", "Taylor by example"), ("taylor-sum", "Taylor, summed"), ("taylor", "Taylor"),
                        ("hessian", "Hessian"), ("magnitude", "magnitude")):
        for r in peer:
            if not r["repair_seconds"] and r["variant"].split("/")[0] == kind and not r["variant"].endswith("/bn"):
                put(f"Torch-Pruning, {label}", r, r["variant"].split("/", 1)[1])
    draws = {}
    for r in peer:
        if not r["repair_seconds"] and r["variant"].startswith("random"):
            draws.setdefault((r["variant"], r["asked"]), []).append(r)
    for (v, asked), rs in sorted(draws.items()):
        mean = {"asked": asked, "got": statistics.mean(r["got"] for r in rs), "dice": statistics.mean(r["dice"] for r in rs)}
        put("Torch-Pruning, random", mean, v.split("/", 1)[1])
    return {k: dict(sorted(v.items())) for k, v in lines.items()}


def dense_dice(rows, model):
    return next((r["dice"] for r in rows if r["model"] == model and r["variant"] == "dense"), DENSE.get(model))


def models_of(rows):
    return sorted({r["model"] for r in rows}, key=lambda m: (m not in DENSE, list(DENSE).index(m) if m in DENSE else 0, m))


def markdown(rows):
    out = []
    for model in models_of(rows):
        lines = gather(rows, model)
        ratios = sorted({a for v in lines.values() for a in v})
        head = [f"{model}, dense {dense_dice(rows, model):.3f}"] + [f"−{100 * r:.0f} %" for r in ratios]
        out += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        top = {a: max((v[a][1] for k, v in lines.items() if a in v)) for a in ratios}
        for label, v in lines.items():
            cells = []
            for a in ratios:
                if a not in v:
                    cells.append("")
                    continue
                cell = f"{v[a][1]:.3f}"
                cells.append(f"**{cell}**" if v[a][1] == top[a] else cell)
            out.append("| " + " | ".join([label] + cells) + " |")
        out.append("")
    out += ["Which variant of Torch-Pruning each figure is:", ""]
    for model in models_of(rows):
        for label, v in gather(rows, model).items():
            if any(k[2] for k in v.values()):
                out.append(f"- {model}, {label}: " + ", ".join(f"{100 * a:.0f} % {k[2]}" for a, k in v.items() if k[2]))
    got = [abs(r["got"] - r["asked"]) for r in rows if r["asked"]]
    if got:
        out += ["", f"MACs removed exceed what was asked by {100 * statistics.mean(got):.1f} points in the mean, {100 * max(got):.1f} at most."]
    return "\n".join(out) + "\n"


COLOURS = ["#0b6e4f", "#5fb58f", "#c2410c", "#f59e0b", "#7c3aed", "#2563eb", "#64748b", "#94a3b8", "#be185d"]


def svg(rows):
    """One panel a model, lines named at the foot. Written by hand: the same rows give the same bytes."""
    models = models_of(rows)
    all_lines = {m: gather(rows, m) for m in models}
    labels = []
    for m in models:
        labels += [k for k in all_lines[m] if k not in labels]
    first = [k for k in labels if k.startswith("Secateur")]
    labels = first + [k for k in labels if k not in first]
    # ours are green; what needs training afterwards is drawn in the first colour that is not
    greens, others = iter(COLOURS[:2] * len(labels)), iter(COLOURS[2:] * len(labels))
    colour = {k: next(greens if k in first else others) for k in labels}
    w, h, left, top, gap = 400, 300, 52, 40, 64
    columns = min(2, len(models))
    foot = 20 * math.ceil((len(labels) + 1) / columns) + 62
    width, height = left + len(models) * w + (len(models) - 1) * gap + 20, top + h + foot
    o = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
         'font-family="system-ui, sans-serif" font-size="12" fill="#1f2937">',
         "<title>Dice on held-out images against multiply-adds removed</title>", f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for i, m in enumerate(models):
        x0 = left + i * (w + gap)
        lines = all_lines[m]
        ratios = [k[0] for v in lines.values() for k in v.values()] or [0.5]
        lo, hi = 0.0, max(0.7, max(ratios)) + 0.02
        y_hi = math.ceil(10 * max([dense_dice(rows, m)] + [k[1] for v in lines.values() for k in v.values()]) + 0.2) / 10

        def px(v):
            return f"{x0 + w * (v - lo) / (hi - lo):.1f}"

        def py(v):
            return f"{top + h * (1 - v / y_hi):.1f}"

        o.append(f'<text x="{x0 + w / 2:.0f}" y="{top - 16}" text-anchor="middle" font-size="14" font-weight="600">{m}</text>')
        for k in range(round(10 * y_hi) + 1):
            o.append(f'<path d="M{x0} {py(k / 10)}h{w}" stroke="#e5e7eb"/>')
            if k % 2 == 0:
                o.append(f'<text x="{x0 - 8}" y="{float(py(k / 10)) + 4:.1f}" text-anchor="end">{k / 10:.1f}</text>')
        for k in range(0, 8):
            o.append(f'<text x="{px(k / 10)}" y="{top + h + 18}" text-anchor="middle">{10 * k}</text>')
        o.append(f'<text x="{x0 + w / 2:.0f}" y="{top + h + 36}" text-anchor="middle">multiply-adds removed, %</text>')
        o.append(f'<path d="M{x0} {py(dense_dice(rows, m))}h{w}" stroke="#111827" stroke-dasharray="6 4"/>')
        for label in reversed([k for k in labels if k in lines]):
            v = lines[label]
            at = [(0.0, dense_dice(rows, m))] + [(k[0], k[1]) for k in v.values()]
            thick = 2.6 if label in first else 1.6
            o.append(f'<polyline fill="none" stroke="{colour[label]}" stroke-width="{thick}" points="{" ".join(f"{px(a)},{py(b)}" for a, b in at)}"/>')
            o += [f'<circle cx="{px(a)}" cy="{py(b)}" r="{3 if label in first else 2.4}" fill="{colour[label]}"/>' for a, b in at[1:]]
    y = top + h + 66
    o.append(f'<text x="14" y="{top + h / 2:.0f}" transform="rotate(-90 14 {top + h / 2:.0f})" text-anchor="middle">mean Dice, held-out images</text>')
    for i, label in enumerate(labels + ["dense"]):
        x, yy = left + i % columns * (width // 2), y + 20 * (i // columns)
        stroke = f'stroke="{colour[label]}" stroke-width="3"' if label in colour else 'stroke="#111827" stroke-dasharray="6 4"'
        o.append(f'<path d="M{x} {yy - 4}h26" {stroke}/><text x="{x + 34}" y="{yy}">{label}</text>')
    return "\n".join(o) + "\n</svg>\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", type=pathlib.Path, help="folder of NAME.onnx and torch/")
    p.add_argument("--data", type=pathlib.Path, help="folder of calib/ and val/")
    p.add_argument("--results", default="docs/measured/torch-pruning.json")
    p.add_argument("--model", default="polyp-unet,polyp-lite0", help="which, by commas")
    p.add_argument("--ratios", default="0.2,0.3,0.4,0.5,0.6,0.7", help="parts of the multiply-adds to remove, by commas")
    p.add_argument("--torch", choices=["run", "none"], default="run", help="whether Torch-Pruning runs")
    p.add_argument("--variants", default="all", help="all, names by commas, or bestN: the N best of each ratio without repair")
    p.add_argument("--steps", type=int, default=200, help="steps of Torch-Pruning from nothing to everything")
    p.add_argument("--repair-seconds", default="0", help="of distillation after the cut: a number, or ours, as long as ours took there")
    p.add_argument("--repair-lr", type=float, default=3e-4)
    p.add_argument("--repair-batch", type=int, default=4)
    p.add_argument("--repair-rate", choices=["falling", "constant"], default="falling", help="falling: to nothing over those seconds")
    p.add_argument("--repair-affine", choices=["trained", "frozen"], default="trained", help="BatchNorm's scale and shift")
    p.add_argument("--secateur", type=pathlib.Path, help="our binary; without it ours does not run")
    p.add_argument("--secateur-args", default="", help="more arguments for it")
    p.add_argument("--secateur-name", default="default", help="what those arguments are called in results and tables")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--limit-seconds", type=float, default=0, help="start nothing new after these; status 3 if something is left")
    p.add_argument("--draw", type=pathlib.Path, help="write the picture there, and measure nothing")
    p.add_argument("--markdown", action="store_true", help="print the tables, and measure nothing")
    args = p.parse_args()
    args.ratios = [float(r) for r in args.ratios.split(",")]
    if args.repair_seconds != "ours":
        args.repair_seconds = float(args.repair_seconds)
        if args.repair_seconds == int(args.repair_seconds):
            args.repair_seconds = int(args.repair_seconds)
    res = Results(args.results)
    if args.draw or args.markdown:
        if args.draw:
            args.draw.write_text(svg(res.rows))
        if args.markdown:
            print(markdown(res.rows), end="")
        return
    if not args.models or not args.data:
        p.error("--models and --data say where the models and the images are")
    clock = Clock(args.limit_seconds)
    for name in args.model.split(","):
        pre, post = model_spec(args.models / (name + ".onnx"))
        if post["activation"] != "sigmoid":
            raise SystemExit(f"{name}: activation {post['activation']} is not here")
        calib, val = Images(args.data / "calib", pre), Images(args.data / "val", pre)
        if set(calib.names) & set(val.names):
            raise SystemExit("the same image is in calib and in val")
        if args.torch == "run":
            run_torch(name, args, res, calib, val, post["threshold"], clock)
        if args.secateur:
            run_ours(name, args, res, val, post["threshold"], clock)


if __name__ == "__main__":
    main()
