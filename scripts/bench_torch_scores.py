#!/usr/bin/env python3
"""Times `secateur score` beside the same criterion by PyTorch's autograd, and writes docs/measured/torch-scores.json.

    .cache/venv-tp/bin/python scripts/bench_torch_scores.py --models DIR --data DIR/calib --secateur bin/secateur

Installing and DIR are as in check_torch_scores.py, which shows that both compute the same numbers. A time is that of all
images once, from the bytes of their PNG files (of the network's size) in memory, which both decode while they compute, to
the mean importance of every channel; starting a process and reading files is not in it, preparing the model for its input's
size is. PyTorch takes gradients of activations alone, one reverse pass an image, none before the first layer that reads
channels which can go. It has the memory format that is faster in a trial. Sides take turns, each after some untimed images.
Figures are medians.

polyp-lite0's ONNX file has BatchNorm folded into the convolutions before it; PyTorch's network has it apart, as it is
trained, or folded like that, a row each.

unet-32 is `secateur bench --model unet-32`, whose random weights PyTorch's U-Net is given.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import check_torch_scores as c
from compare_torch_pruning import model_spec

GENERATED = "unet-32"
WARM, TRIAL = 5, 10  # images


def say(*a):
    print(*a, file=sys.stderr, flush=True)


class Ours:
    def __init__(self, args, model, folder):
        self.cmd = [str(args.secateur), "score", "--model", str(model), "--calib", str(folder), "--json",
                    "--threads", str(args.threads), "--repeat", "2"]

    def __call__(self):
        p = subprocess.run(self.cmd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        return json.loads(p.stdout)["seconds"][-1]


class Torch:
    def __init__(self, net, memory_format, files, spec):
        self.format = memory_format
        self.pool = concurrent.futures.ThreadPoolExecutor(1)  # decodes ahead, as ours does
        self.scorer, self.files, self.spec = c.Scorer(net.to(memory_format=self.format)), files, spec

    def run(self, count=None):
        total, files = {}, list(self.files.values())[:count]
        for x, t in self.pool.map(lambda f: c.prepare(*f, self.spec), files):
            for n, s in self.scorer(x.to(memory_format=self.format), t).items():
                total[n] = total.get(n, 0) + s.abs()
        return {n: s / len(files) for n, s in total.items()}

    def __call__(self, count=None):
        self.run(WARM)
        start = time.perf_counter()
        self.run(count)
        return time.perf_counter() - start


def networks(args, name, path):
    """PyTorch's forms of the model, by name: what makes each."""
    import numpy as np
    import onnx
    import torch
    if name != GENERATED:
        plain = {"": lambda: c.network(args.models, name)}
        if name == "polyp-lite0":
            return {"BatchNorm apart": plain[""], "BatchNorm folded": lambda: c.folded(c.network(args.models, name), path)}
        return plain

    def generated():
        sys.path.insert(0, str(args.models / "torch"))
        import arch
        net = arch.UNet(int(GENERATED.split("-")[1]))
        inits = {t.name: t for t in onnx.load(str(path)).graph.initializer}
        weights = iter([torch.from_numpy(np.array(onnx.numpy_helper.to_array(t))) for t in inits.values()])
        calls, hooks = [], []
        for m in net.modules():
            if list(m.parameters(recurse=False)):
                hooks.append(m.register_forward_hook(lambda m, i, o: calls.append(m)))
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, c.SIZE, c.SIZE))
            for m in calls:
                for k in ("weight", "bias", "running_mean", "running_var"):
                    v = getattr(m, k, None)
                    if v is not None:
                        v.copy_(next(weights))
        for h in hooks:
            h.remove()
        return net
    return {"": generated}


def bench(args, name, tmp):
    """The rows of a model."""
    path = args.models / (name + ".onnx")
    if name == GENERATED:
        path = pathlib.Path(tmp) / (name + ".onnx")
        subprocess.run([str(args.secateur), "bench", "--model", name, "--export", str(path)], check=True)
    spec, _ = model_spec(path)
    folder = pathlib.Path(tmp) / "set"
    if not folder.exists():
        c.write_images(args.data, folder, args.images)
    files = c.read_images(folder)
    return [pairs(args, name, path, folder, files, spec, label, make) for label, make in networks(args, name, path).items()]


def pairs(args, name, path, folder, files, spec, label, make):
    """The row of one form of PyTorch's network, in the memory format that is faster."""
    import torch
    forms = {"contiguous": Torch(make(), torch.contiguous_format, files, spec), "channels last": Torch(make(), torch.channels_last, files, spec)}
    trials = {k: min(t(TRIAL) for _ in range(3)) for k, t in forms.items()}
    say(name, label, {k: round(v, 3) for k, v in trials.items()})
    how = min(trials, key=trials.get)
    theirs, ours, times = forms[how], Ours(args, path, folder), []
    for _ in range(args.pairs):
        time.sleep(0.2)
        a = ours()
        time.sleep(0.2)
        times.append((a, theirs()))
        say(name, "ours %.3f s, PyTorch %.3f s" % times[-1])
    per = [1000 * statistics.median(t) / len(files) for t in zip(*times)]
    return {"model": name, "size": c.SIZE, "images": len(files), "secateur_ms": round(per[0], 2), "torch_ms": round(per[1], 2),
            "ratio": round(statistics.median(b / a for a, b in times), 2), "torch": ", ".join(k for k in (label, how) if k),
            "torch_trials_ms": {k: round(1000 * v / min(TRIAL, len(files)), 2) for k, v in trials.items()},
            "seconds": [[round(v, 4) for v in t] for t in times]}


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    name = next((k.split(":", 1)[1].strip() for k in text.splitlines() if k.startswith("model name")), platform.machine())
    flags = next((k.split() for k in text.splitlines() if k.startswith("flags")), [])
    return f"{name}, {os.cpu_count()} cores" + (", AVX-512" if "avx512f" in flags else "")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", type=pathlib.Path, required=True, help="folder of NAME.onnx and torch/")
    p.add_argument("--data", type=pathlib.Path, required=True, help="folder of images/ and masks/")
    p.add_argument("--secateur", type=pathlib.Path, default="bin/secateur", help="our binary")
    p.add_argument("--model", default="polyp-unet,polyp-lite0," + GENERATED, help="which, by commas")
    p.add_argument("--images", type=int, default=100, help="how many at most; a prune scores on those of its folder")
    p.add_argument("--pairs", type=int, default=5, help="turns of each")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--results", type=pathlib.Path, default="docs/measured/torch-scores.json")
    args = p.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as tmp:
        rows = [r for name in args.model.split(",") for r in bench(args, name, tmp)]
    doc = {"machine": machine(), "threads": args.threads, "torch": torch.__version__, "python": platform.python_version()}
    lines = ",\n".join(json.dumps(r) for r in rows)
    args.results.write_text(json.dumps(doc)[:-1] + ', "rows": [\n' + lines + "\n]}\n")
    print(f"| {args.threads} threads, ms an image | Secateur | PyTorch | ratio | PyTorch's form |\n|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['model']} | {r['secateur_ms']:.1f} | {r['torch_ms']:.1f} | {r['ratio']:.2f} | {r['torch']} |")


if __name__ == "__main__":
    main()
