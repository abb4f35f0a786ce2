#!/usr/bin/env python3
"""Exports networks, runs each beside ONNX Runtime, prunes it, and writes docs/MODELS.md.

    make zoo                                        # all of it
    .cache/venv-zoo/bin/python scripts/zoo.py --only u2net-p --no-time

ROWS says of each network how to make it, by which exporter and opset, and whether its height and width stay open in the file.
Opsets and exporters are spread over the networks, so that each occurs with several. Nothing is downloaded.

Files go to .cache/zoo, with random weights from a seed, and are exported once; what was measured is kept in results.json
there, so that --only brings single rows of the page up to date. Weights are drawn so that values neither vanish nor explode
on the way: an output that hardly varies would prove nothing, and is an error.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import warnings

from zoo_networks import Attention, ChannelsLast, ColonSegNet, HRNet, Listed, PraNet, ResUNetPlusPlus, U2Net, keras_deeplab, keras_mobilenet, keras_unet, res2net50

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "bin/secateur-ort"
CACHE = ROOT / ".cache/zoo"
AGREE = 1e-4  # max|Δ|/max|y|


def smp(arch, encoder, **more):
    def make(size):
        import segmentation_models_pytorch
        return getattr(segmentation_models_pytorch, arch)(encoder_name=encoder, encoder_weights=None, classes=1, **more)
    return make


def vision(name):
    def make(size):
        import torchvision
        net = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, num_classes=2, **({} if name[0] == "l" else {"aux_loss": True}))
        return Listed(net)
    return make


def monai(name, *args, **more):
    def make(size):
        import monai.networks.nets as nets
        return getattr(nets, name)(*args, **more)
    return make


def keras(build):
    def make(size):
        os.environ["KERAS_BACKEND"] = "torch"
        import keras as k
        k.utils.set_random_seed(0)
        return build(k, size)
    return make


def ours(net, **more):
    return lambda size: net(**more)


TS, DYNAMO = "TorchScript", "dynamo"

# The heights and widths that files are compared and timed at, unless SIZES says otherwise: pyramids of pools are exported only
# where the map divides by their sizes.
SMALL, REAL = 128, 256
SIZES = {"smp-pspnet-resnet18": (96, 288), "smp-upernet-resnet18": (192, 384)}

# Name: maker, exporter, opset, and whether height and width are open.
ROWS = {
    "smp-unet-resnet34": (smp("Unet", "resnet34"), TS, 17, True),
    "smp-unet-efficientnet-b0": (smp("Unet", "efficientnet-b0"), DYNAMO, 18, False),
    "smp-unet-mobilenetv3-large": (smp("Unet", "tu-mobilenetv3_large_100"), TS, 13, False),
    "smp-unet-mobileone-s0": (smp("Unet", "mobileone_s0"), DYNAMO, 18, True),
    "smp-unet-convnext-atto": (smp("Unet", "tu-convnext_atto", encoder_depth=4, decoder_channels=(128, 64, 32, 16)), TS, 17, False),
    "smp-unet-scse-resnet18": (smp("Unet", "resnet18", decoder_attention_type="scse"), DYNAMO, 20, False),
    "smp-unet-hrnet-w18-small": (smp("Unet", "tu-hrnet_w18_small"), TS, 17, False),
    "smp-unet++-resnet18": (smp("UnetPlusPlus", "resnet18"), DYNAMO, 20, False),
    "smp-unet++-efficientnet-b0": (smp("UnetPlusPlus", "efficientnet-b0"), TS, 13, True),
    "smp-manet-resnet18": (smp("MAnet", "resnet18"), TS, 17, True),
    "smp-manet-mobilenetv3-small": (smp("MAnet", "tu-mobilenetv3_small_100"), DYNAMO, 18, False),
    "smp-linknet-resnet18": (smp("Linknet", "resnet18"), TS, 13, True),
    "smp-linknet-mobileone-s0": (smp("Linknet", "mobileone_s0"), TS, 17, False),
    "smp-fpn-resnet50": (smp("FPN", "resnet50"), DYNAMO, 18, False),
    "smp-fpn-efficientnet-b0": (smp("FPN", "efficientnet-b0"), TS, 17, True),
    "smp-fpn-convnext-atto": (smp("FPN", "tu-convnext_atto"), DYNAMO, 20, False),
    "smp-pspnet-resnet18": (smp("PSPNet", "resnet18"), TS, 13, False),
    "smp-pspnet-mobilenetv3-large": (smp("PSPNet", "tu-mobilenetv3_large_100"), DYNAMO, 18, False),
    "smp-pan-resnet18": (smp("PAN", "resnet18"), TS, 17, False),
    "smp-pan-mobilenetv3-small": (smp("PAN", "tu-mobilenetv3_small_100"), DYNAMO, 18, False),
    "smp-deeplabv3-resnet18": (smp("DeepLabV3", "resnet18"), TS, 17, True),
    "smp-deeplabv3-mobilenetv2": (smp("DeepLabV3", "mobilenet_v2"), DYNAMO, 18, False),
    "smp-deeplabv3+-resnet50": (smp("DeepLabV3Plus", "resnet50"), DYNAMO, 18, True),
    "smp-deeplabv3+-efficientnet-b0": (smp("DeepLabV3Plus", "efficientnet-b0"), TS, 13, False),
    "smp-upernet-resnet18": (smp("UPerNet", "resnet18"), TS, 17, False),
    "smp-upernet-convnext-atto": (smp("UPerNet", "tu-convnext_atto"), DYNAMO, 18, False),
    "smp-segformer-mit-b0": (smp("Segformer", "mit_b0"), TS, 17, False),
    "smp-segformer-resnet18": (smp("Segformer", "resnet18"), DYNAMO, 18, True),
    "torchvision-fcn-resnet50": (vision("fcn_resnet50"), TS, 17, True),
    "torchvision-deeplabv3-resnet50": (vision("deeplabv3_resnet50"), DYNAMO, 18, False),
    "torchvision-deeplabv3-mobilenetv3": (vision("deeplabv3_mobilenet_v3_large"), TS, 13, False),
    "torchvision-lraspp": (vision("lraspp_mobilenet_v3_large"), TS, 17, True),
    "torchvision-lraspp-dynamo": (vision("lraspp_mobilenet_v3_large"), DYNAMO, 18, False),
    "monai-unet": (monai("UNet", spatial_dims=2, in_channels=3, out_channels=1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2), TS, 17, True),
    "monai-unet-dynamo": (monai("UNet", spatial_dims=2, in_channels=3, out_channels=2, channels=(16, 32, 64, 128), strides=(2, 2, 2), norm="batch"), DYNAMO, 18, False),
    "monai-basicunet": (monai("BasicUNet", spatial_dims=2, in_channels=3, out_channels=2), TS, 13, False),
    "monai-segresnet": (monai("SegResNet", spatial_dims=2, in_channels=3, out_channels=1, init_filters=16), TS, 17, False),
    "monai-segresnet-dynamo": (monai("SegResNet", spatial_dims=2, in_channels=3, out_channels=1, init_filters=16), DYNAMO, 21, False),
    "monai-dynunet": (monai("DynUNet", 2, 3, 1, [3, 3, 3, 3], [1, 2, 2, 2], [2, 2, 2]), DYNAMO, 18, False),
    "monai-attentionunet": (monai("AttentionUnet", spatial_dims=2, in_channels=3, out_channels=1, channels=(16, 32, 64, 128), strides=(2, 2, 2)), TS, 17, True),
    "monai-unet-3d": (monai("UNet", spatial_dims=3, in_channels=1, out_channels=1, channels=(8, 16, 32), strides=(2, 2)), TS, 17, False),
    "u2net-p": (ours(U2Net), TS, 17, True),
    "u2net-p-dynamo": (ours(U2Net), DYNAMO, 18, False),
    "pranet-res2net50": (lambda size: PraNet(*res2net50()), TS, 13, False),
    "pranet-res2net50-dynamo": (lambda size: PraNet(*res2net50()), DYNAMO, 18, False),
    "colonsegnet": (ours(ColonSegNet), TS, 17, True),
    "resunet++": (ours(ResUNetPlusPlus), DYNAMO, 18, False),
    "attention-u-net": (ours(Attention, base=16), DYNAMO, 20, False),
    "hrnet": (ours(HRNet, c=24), DYNAMO, 18, False),
    "channels-last": (lambda size: ChannelsLast(HRNet(c=24)), TS, 13, False),
    "keras-unet-xception": (keras(keras_unet), TS, 17, True),
    "keras-mobilenetv2-u-net": (keras(keras_mobilenet), TS, 13, False),
    "keras-deeplabv3+": (keras(keras_deeplab), DYNAMO, 18, False),
}


def settle(net, x):
    """Draws weights for inputs like x, and has batch normalisations see their statistics."""
    import torch
    from torch import nn
    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)
    for m in net.modules():
        if isinstance(m, (nn.modules.conv._ConvNd, nn.Linear)):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.normal_(m.bias, std=0.1)
        elif isinstance(m, norms) and m.weight is not None:
            nn.init.normal_(m.weight, 1, 0.2)
            nn.init.normal_(m.bias, 1, 0.2)  # of zero, every layer that cuts at zero would blow up rounding by a fifth
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = None  # the mean of all batches
    for name, p in net.named_parameters():
        if name.endswith("gamma") and p.ndim <= 4 and p.numel() == max(p.shape):  # ConvNeXt's scales begin at 1e-6
            nn.init.normal_(p, 0.5, 0.1)
    net.train()
    with torch.no_grad():
        for _ in range(2):
            run(net, torch.cat([torch.randn_like(x) for _ in range(4)]))
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):  # a channel that hardly varied would be blown up, and rounding with it
            m.running_var.clamp_(min=m.running_var.mean().item() / 2)
    return net.eval()


def run(net, x):
    """The outputs, as a list. Keras is told whether it trains with each call."""
    if hasattr(net, "layers"):
        for layer in net.layers:
            if hasattr(layer, "moving_mean"):
                layer.momentum = 0.0
        y = net(x, training=net.training)
    else:
        y = net(x)
    return list(y) if isinstance(y, (list, tuple)) else [y]


def export(name, size, file):
    import numpy as np
    import torch
    make, exporter, opset, opened = ROWS[name]
    torch.manual_seed(0)
    np.random.seed(0)
    net = make(size)
    last = name.startswith(("keras", "channels-last"))
    shape = (1, size, size, 3) if last else (1, 3, size, size) if "3d" not in name else (1, 1, 32, 32, 32)
    x = torch.randn(shape)
    net = settle(net, x)
    with torch.no_grad():
        for i, y in enumerate(run(net, x)):
            if not y.std() > 0.01 * y.abs().max():
                raise SystemExit(f"{name}: output {i} varies by {y.std():.2g} of {y.abs().max():.2g}")
    high = 1 if last else 2
    part = file.with_suffix(".part")
    if exporter == TS:
        axes = {"image": {0: "batch", high: "height", high + 1: "width"}} if opened else None
        torch.onnx.export(net, (x,), str(part), opset_version=opset, input_names=["image"], dynamic_axes=axes, dynamo=False)
    else:
        auto = torch.export.Dim.AUTO
        shapes = ({high: auto, high + 1: auto},) if opened else None
        torch.onnx.export(net, (x,), str(part), opset_version=opset, input_names=["image"], dynamic_shapes=shapes, dynamo=True, external_data=False, verbose=False)
    if opened:
        import onnx
        d = onnx.load(part).graph.input[0].type.tensor_type.shape.dim[high]
        if not d.dim_param:
            raise SystemExit(f"{name}: the exporter has fixed the height")
    part.rename(file)


def files(name):
    """The files of a network, with the size that each is run at: the small one and the real one."""
    small, real = SIZES.get(name, (SMALL, REAL))
    if ROWS[name][3]:
        return (CACHE / f"{name}.onnx", small), (CACHE / f"{name}.onnx", real)
    return (CACHE / f"{name}.onnx", small), (CACHE / f"{name}-{real}.onnx", real)


def bench(file, size, runs, library):
    """What `secateur bench` says of a file, or the sentence with which it refuses."""
    p = subprocess.run([BINARY, "bench", "--json", "--vs=ort", "--threads=2", f"--size={size}", f"--runs={runs}", f"--ort-lib={library}", f"--model={file}"],
                       capture_output=True, text=True)
    if p.returncode:
        return None, p.stderr.strip().splitlines()[-1].removeprefix("secateur: ").removeprefix(f"{file}: ")
    return json.loads(p.stdout), None


def examine(name, library, timed):
    """Compares a network with ONNX Runtime at both of its sizes, and times it at the real one."""
    (small, at), (real, wide) = files(name)
    r = {}
    for file, size, runs in ((small, at, 1), (real, wide, 5 if timed else 1)):
        b, problem = bench(file, size, runs, library)
        if problem:
            return {"problem": problem}
        row = b["rows"][0]
        r["agreement"] = max(r.get("agreement", 0), row.get("max_error", 0))
        r |= {"parameters": row["parameters"], "macs": row["macs"], "size": wide, "cpu": b["cpu"], "kernels": b["kernels"], "ort": b["ort_version"], "go": b["go"]}
    if timed:
        r |= {"ms": row["ms"], "ort_ms": row["ort_ms"]}
    return r


def prune(names):
    """Cuts 30 % from each small file, by the pruner's own test, to CACHE/cut: a file, or a text that says why not."""
    cut = CACHE / "cut"
    cut.mkdir(exist_ok=True)
    todo = [{"model": str(file), "size": size, "out": str(cut / name)} for name in names for (file, size), _ in [files(name)]]
    (CACHE / "todo.json").write_text(json.dumps(todo))
    subprocess.run(["go", "test", "./pruner", "-run", "^TestExportsLoseAThird$", "-count=1", "-timeout=60m"], cwd=ROOT, check=True,
                   env={**os.environ, "SECATEUR_ZOO": str(CACHE / "todo.json")})


def pruned(name, library):
    """What became of the cut: "yes", or a sentence."""
    import onnx
    file, why = CACHE / "cut" / f"{name}.onnx", CACHE / "cut" / f"{name}.txt"
    if why.exists():
        return why.read_text().strip()
    onnx.checker.check_model(str(file), full_check=True)
    b, problem = bench(file, files(name)[0][1], 1, library)
    if problem:
        return problem
    return "yes" if b["rows"][0].get("max_error", 0) <= AGREE else "it differs from ONNX Runtime by %.0e" % b["rows"][0]["max_error"]


def page(results):
    rows = [(n, results[n]) for n in ROWS if n in results]
    some = next(r for _, r in rows if "cpu" in r)
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "torchvision", "segmentation-models-pytorch", "timm", "monai", "keras", "onnxscript", "onnx"))
    stops = [(n, r["problem"]) for n, r in rows if "problem" in r]
    pins = [(n, r["pruned"]) for n, r in rows if r.get("pruned", "yes") != "yes"]
    out = ["# Models", "", "Written by `make zoo`, which exports these networks with random weights, runs each beside ONNX Runtime on the same input, and prunes it.",
           "", f"{some['cpu']}, 2 threads, kernels {some['kernels']}, {some['go']}; ONNX Runtime {some['ort']}. Exported with {versions}.", "",
           "- *agreement* is max|Δ|/max|y|, the largest over outputs and two input sizes;",
           "- *ratio* is the engine's time over ONNX Runtime's, medians of five runs in turns, at the size given: below 1 the engine is faster;",
           "- *loses 30 %*: the pruner takes 30 % of the multiply-adds, what is left computes what the network computes with the same",
           "  channels masked, and the file passes ONNX's checker and agrees with ONNX Runtime.", "",
           "| network | exporter | opset | parameters | size | multiply-adds | agreement | ms | ratio | loses 30 % |", "|---|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for n, r in rows:
        _, exporter, opset, opened = ROWS[n]
        head = f"| {n} | {exporter} | {opset} |"
        if "problem" in r:
            out.append(head + " | | | refused, see below | | | |")
            continue
        ms, ratio = (f"{r['ms']:.1f}", f"{r['ms'] / r['ort_ms']:.2f}") if "ms" in r else ("", "")
        loses = "" if "pruned" not in r else "yes" if r["pruned"] == "yes" else "no, see below"
        out.append(f"{head} {r['parameters'] / 1e6:.2f} M | {r['size']}{' open' if opened else ''} | {r['macs'] / 1e9:.2f} G | {r['agreement']:.0e} | {ms} | {ratio} | {loses} |")
    for title, lines in (("What stops the engine", stops), ("What stops the pruner", pins)):
        if lines:
            out += ["", f"## {title}", ""] + [f"- **{n}**: {why}" for n, why in lines]
    (ROOT / "docs/MODELS.md").write_text("\n".join(out) + "\n")


def main():
    warnings.filterwarnings("ignore")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", action="append", choices=list(ROWS), help="by default all")
    p.add_argument("--export", action="store_true", help="export and stop")
    p.add_argument("--no-time", action="store_true", help="compare, but keep the times of the page as they are")
    p.add_argument("--no-prune", action="store_true")
    a = p.parse_args()
    names = a.only or list(ROWS)
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in names:
        for file, size in dict.fromkeys(files(name)):
            if not file.exists():
                print(f"export {file.name}", flush=True)
                export(name, size, file)
    if a.export:
        return
    import onnxruntime
    library = next(pathlib.Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    log = CACHE / "results.json"
    results = json.loads(log.read_text()) if log.exists() else {}
    if not a.no_prune:
        prune(names)
    bad = 0
    for name in names:
        old = results.get(name, {})
        r = examine(name, library, not a.no_time)
        if a.no_time and "problem" not in r:
            r |= {k: old[k] for k in ("ms", "ort_ms") if k in old}
        if "problem" not in r:
            r["pruned"] = old.get("pruned", "") if a.no_prune else pruned(name, library)
        results[name] = r
        bad += r.get("agreement", 0) > AGREE
        print(name, {k: v for k, v in r.items() if k not in ("cpu", "kernels", "go", "ort")}, flush=True)
        log.write_text(json.dumps(results, indent=1))
    page(results)
    if bad:
        raise SystemExit(f"{bad} networks differ from ONNX Runtime by more than {AGREE}")


if __name__ == "__main__":
    main()
