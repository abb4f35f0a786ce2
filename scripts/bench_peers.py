#!/usr/bin/env python3
"""Times Secateur beside ONNX Runtime, OpenVINO, PyTorch, MNN and ncnn, and writes docs/PERFORMANCE.md.

Each engine is a process of its own that runs once when it is told to, so that nobody's threads disturb another's. They
take turns, with a pause and an untimed run before every timed one, since some spin on for a while after theirs. A peer that
is not installed or refuses a model has no figure. Errors are max|delta|/max|y| of the first output against Secateur in
float64, which for the generated U-Nets is checked against PyTorch in float64.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROWS = [
    ("unet-64", 256), ("unet-64", 352), ("unet-32", 256), ("unet-32", 352), ("unet-16", 256), ("unet-16", 352),
    ("polyp-unet", 256), ("polyp-lite0", 256), ("polyp-unet-half", 256),
]
PEERS = ["secateur", "onnxruntime", "openvino f32", "openvino default", "pytorch", "mnn", "ncnn"]
ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "bin" / "secateur"


# The children: each makes run(), which returns the first output.

def ort_runner(model, x, threads):
    import onnxruntime
    o = onnxruntime.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    s = onnxruntime.InferenceSession(model, o, providers=["CPUExecutionProvider"])
    name = s.get_inputs()[0].name
    return lambda: s.run(None, {name: x})[0], "ONNX Runtime " + onnxruntime.__version__


def openvino_runner(model, x, threads, exact):
    import openvino
    core = openvino.Core()
    m = core.read_model(model)
    m.reshape(list(x.shape))
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    if exact:
        config["INFERENCE_PRECISION_HINT"] = "f32"
    c = core.compile_model(m, "CPU", config)
    r = c.create_infer_request()
    return lambda: r.infer({0: x})[0], "OpenVINO " + openvino.__version__.split("-")[0]


def torch_module(model, dtype):
    """An interpreter of the operators that the table's models have, as a module that can be traced."""
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper
    g = onnx.load(model).graph
    consts = {i.name: torch.from_numpy(np.array(numpy_helper.to_array(i))) for i in g.initializer}
    consts = {k: v.to(dtype) if v.is_floating_point() else v for k, v in consts.items()}
    f = torch.nn.functional

    def attrs(n):
        return {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}

    for n in g.node:
        if n.op_type == "Constant":
            consts[n.output[0]] = torch.from_numpy(np.array(numpy_helper.to_array(attrs(n)["value"])))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for k, v in consts.items():
                if v.is_floating_point():
                    self.register_buffer("b" + re.sub(r"\W", "_", k), v)

        def forward(self, image):
            v = {g.input[0].name: image}
            get = lambda k: v[k] if k in v else (getattr(self, "b" + re.sub(r"\W", "_", k)) if consts[k].is_floating_point() else consts[k])
            for n in g.node:
                if n.op_type == "Constant":
                    continue
                a = attrs(n)
                i = [get(k) if k else None for k in n.input]
                if any(k and get(k) is None for k in n.input) and n.op_type != "Resize":
                    y = None  # shape arithmetic, which ends in a Resize by two
                elif n.op_type == "Conv":
                    p = a.get("pads", [0, 0, 0, 0])
                    x = i[0]
                    if p[0] != p[2] or p[1] != p[3]:
                        x, p = f.pad(x, (p[1], p[3], p[0], p[2])), [0, 0, 0, 0]
                    y = f.conv2d(x, i[1], i[2] if len(i) > 2 else None, a.get("strides", [1, 1]), p[:2], a.get("dilations", [1, 1]), a.get("group", 1))
                elif n.op_type == "ConvTranspose":
                    y = f.conv_transpose2d(i[0], i[1], i[2] if len(i) > 2 else None, a.get("strides", [1, 1]), a.get("pads", [0, 0, 0, 0])[:2])
                elif n.op_type == "BatchNormalization":
                    y = f.batch_norm(i[0], i[3], i[4], i[1], i[2], False, 0.0, a.get("epsilon", 1e-5))
                elif n.op_type == "Relu":
                    y = f.relu(i[0])
                elif n.op_type == "Clip":
                    y = torch.clamp(i[0], float(i[1]), float(i[2]))
                elif n.op_type == "Add":
                    y = i[0] + i[1]
                elif n.op_type == "Concat":
                    y = torch.cat(i, a["axis"])
                elif n.op_type == "MaxPool":
                    y = f.max_pool2d(i[0], a["kernel_shape"], a["strides"])
                elif n.op_type == "Resize":
                    y = f.interpolate(i[0], scale_factor=2.0, mode="nearest")
                elif n.op_type == "Shape":
                    y = None
                else:
                    raise NotImplementedError(n.op_type)
                v[n.output[0]] = y
            return v[g.output[0].name]

    return Net().eval()


def torch_runner(model, x, threads):
    import torch
    torch.set_num_threads(threads)
    with torch.no_grad():
        t = torch.from_numpy(x)
        net = torch.jit.freeze(torch.jit.trace(torch_module(model, torch.float32), t))
        net = torch.jit.optimize_for_inference(net)

    def run():
        with torch.no_grad():
            return net(t).numpy()
    return run, "PyTorch " + torch.__version__.split("+")[0]


def mnn_runner(model, x, threads):
    import MNN
    import numpy as np
    dst = model + ".mnn"
    if not os.path.exists(dst):
        tool = pathlib.Path(sys.executable).with_name("mnnconvert")
        subprocess.run([tool, "-f", "ONNX", "--modelFile", model, "--MNNModel", dst], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rt = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": threads},))
    net = MNN.nn.load_module_from_file(dst, ["image"], ["logits"], runtime_manager=rt)
    v = MNN.expr.const(x, list(x.shape), MNN.expr.NCHW)

    def run():
        y = net.forward([v])[0]
        if y.data_format == MNN.expr.NC4HW4:
            y = MNN.expr.convert(y, MNN.expr.NCHW)
        return np.array(y.read())
    return run, "MNN " + str(MNN.version())


def ncnn_runner(model, x, threads):
    import ncnn
    import numpy as np
    folder = pathlib.Path(model).parent
    if not list(folder.glob("*.ncnn.param")):
        tool = pathlib.Path(sys.executable).with_name("pnnx")
        subprocess.run([tool, model, f"inputshape={json.dumps(list(x.shape)).replace(' ', '')}", "fp16=0"], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = str(next(folder.glob("*.ncnn.param")))[: -len(".param")]
    net = ncnn.Net()
    o = net.opt
    o.num_threads = threads
    o.use_fp16_packed = o.use_fp16_storage = o.use_fp16_arithmetic = o.use_bf16_storage = False
    o.use_winograd_convolution = o.use_sgemm_convolution = o.use_packing_layout = True
    net.load_param(base + ".param")
    net.load_model(base + ".bin")
    m = ncnn.Mat(np.ascontiguousarray(x[0]))

    def run():
        e = net.create_extractor()
        e.input("in0", m)
        _, y = e.extract("out0")
        return np.array(y)[None]
    return run, "ncnn " + ncnn.__version__


def child(peer, model, size, threads):
    import numpy as np
    x = np.fromfile(os.path.join(os.path.dirname(model), "x.raw"), np.float32).reshape(1, 3, size, size)
    run, version = {
        "onnxruntime": lambda: ort_runner(model, x, threads),
        "openvino f32": lambda: openvino_runner(model, x, threads, True),
        "openvino default": lambda: openvino_runner(model, x, threads, False),
        "pytorch": lambda: torch_runner(model, x, threads),
        "mnn": lambda: mnn_runner(model, x, threads),
        "ncnn": lambda: ncnn_runner(model, x, threads),
    }[peer]()
    print("ready", version, flush=True)
    for line in sys.stdin:
        verb, _, file = line.strip().partition(" ")
        if verb == "run":
            t = time.perf_counter()
            run()
            print(f"{(time.perf_counter() - t) * 1e3:.4f}", flush=True)
        elif verb == "output":
            np.ascontiguousarray(run(), np.float32).tofile(file)
            print("ok", flush=True)
        else:
            break


# The parent.

class Process:
    def __init__(self, args, env=None):
        self.p = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        while True:
            line = self.p.stdout.readline()
            if line.startswith("ready"):
                self.version = line[len("ready"):].strip()
                return
            if not line:
                err = self.p.stderr.read().strip().splitlines()
                raise RuntimeError(err[-1] if err else "it ended")

    def ask(self, line):
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()
        answer = self.p.stdout.readline().strip()
        if not answer:
            raise RuntimeError("it ended: " + self.p.stderr.read()[-300:])
        return answer

    def close(self):
        self.p.kill()
        self.p.wait()


def start(peer, name, model, size, threads, env):
    if peer == "secateur":
        x = os.path.join(os.path.dirname(model), "x.raw")
        return Process([BINARY, "bench", "--stdio", "--model", model, "--size", str(size), "--threads", str(threads), "--input", x], env)
    return Process([sys.executable, __file__, "--child", peer, "--model", model, "--size", str(size), "--threads", str(threads)])


def row(name, size, threads, peers, runs, folder, env):
    import numpy as np
    dir = pathlib.Path(folder) / f"{name}-{size}"
    model = str(dir / f"{name}.onnx")
    if not dir.exists():
        dir.mkdir()
        subprocess.run([BINARY, "bench", "--model", name, "--export", model], check=True, stderr=subprocess.DEVNULL)
        rng = np.random.default_rng(1)
        rng.standard_normal((1, 3, size, size), dtype=np.float32).tofile(dir / "x.raw")
        p = start("secateur", name, model, size, 1, env)
        p.ask(f"reference {dir / 'reference.raw'}")
        p.close()
        if name.startswith("unet") and "pytorch" in peers:
            check_reference(model, dir, size)
    reference = np.fromfile(dir / "reference.raw", np.float32)
    procs, result = {}, {}
    for peer in peers:
        try:
            procs[peer] = start(peer, name, model, size, threads, env)
            procs[peer].ask(f"output {dir / 'y.raw'}")
            y = np.fromfile(dir / "y.raw", np.float32)
            result[peer] = {"error": float(np.abs(y - reference).max() / np.abs(reference).max()), "version": procs[peer].version, "ms": []}
        except Exception as e:  # a peer that does not run has no figure
            print(f"  {peer}: {e}", file=sys.stderr)
            if peer in procs:
                procs.pop(peer).close()
    for i in range(runs + 2):
        for peer in list(procs):
            time.sleep(0.05)
            procs[peer].ask("run")  # untimed: its weights are in no cache, its cores may be asleep
            ms = float(procs[peer].ask("run"))
            if i >= 2:
                result[peer]["ms"].append(ms)
    for p in procs.values():
        p.close()
    for r in result.values():
        r["ms"] = statistics.median(r["ms"])
    return result


def check_reference(model, dir, size):
    """The float64 reference is ours: hold it against PyTorch's."""
    import numpy as np
    try:
        import torch
    except Exception:
        return
    x = np.fromfile(dir / "x.raw", np.float32).reshape(1, 3, size, size)
    with torch.no_grad():
        y = torch_module(model, torch.float64)(torch.from_numpy(x).double()).numpy().ravel()
    r = np.fromfile(dir / "reference.raw", np.float32)
    d = np.abs(y - r).max() / np.abs(y).max()
    print(f"  reference against PyTorch in float64: {d:.1e}", file=sys.stderr)
    assert d < 1e-6, "the float64 references differ"


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", info).group(1)
    flags = re.search(r"flags\s*: (.*)", info).group(1).split()
    isa = [n for f, n in [("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_bf16", "AVX-512 bf16"), ("amx_bf16", "AMX")] if f in flags]
    return f"{name}, {os.cpu_count()} cores, {', '.join(isa)}"


def tables(results, peers, isa):
    out = []
    versions = {p: r[p]["version"] for r in results.values() for p in r if r[p]["version"]}
    what = {"openvino f32": "OpenVINO f32", "openvino default": "OpenVINO default", "pytorch": "PyTorch", "onnxruntime": "ONNX Runtime",
            "mnn": "MNN", "ncnn": "ncnn", "secateur": "Secateur"}
    out.append(f"{machine()}; Secateur's kernels: {isa}; {', '.join(sorted(set(versions.values())))}.\n")
    for threads in sorted({t for _, _, t in results}):
        out.append(f"\n**{threads} thread{'s' if threads > 1 else ''}**: milliseconds, and in brackets how many times Secateur's\n")
        out.append("| model | " + " | ".join(what[p] for p in peers) + " |")
        out.append("|---|" + "---|" * len(peers))
        for (name, size, t), r in results.items():
            if t != threads:
                continue
            cells = []
            for p in peers:
                if p not in r:
                    cells.append("-")
                elif p == "secateur":
                    cells.append(f"{r[p]['ms']:.1f}")
                else:
                    cells.append(f"{r[p]['ms']:.1f} ({r[p]['ms'] / r['secateur']['ms']:.2f})")
            out.append(f"| {name} @{size} | " + " | ".join(cells) + " |")
    out.append("\n**Errors**: max\\|Δ\\|/max\\|y\\| against float64\n")
    out.append("| model | " + " | ".join(what[p] for p in peers) + " |")
    out.append("|---|" + "---|" * len(peers))
    seen = set()
    for (name, size, _), r in results.items():
        if (name, size) not in seen:
            seen.add((name, size))
            out.append(f"| {name} @{size} | " + " | ".join(f"{r[p]['error']:.1e}" if p in r else "-" for p in peers) + " |")
    return "\n".join(out) + "\n"


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--child", help=argparse.SUPPRESS)
    a.add_argument("--model", help=argparse.SUPPRESS)
    a.add_argument("--size", type=int, help=argparse.SUPPRESS)
    a.add_argument("--threads", default="1,2", help="thread counts")
    a.add_argument("--rows", default="", help="only rows whose name@size contains one of these, comma-separated")
    a.add_argument("--peers", default=",".join(PEERS), help="which engines")
    a.add_argument("--runs", type=int, default=9, help="timed runs of each")
    a.add_argument("--isa", default="", help="SECATEUR_ISA of Secateur: avx2, avx512")
    a.add_argument("--no-write", action="store_true", help="print only")
    o = a.parse_args()
    if o.child:
        return child(o.child, o.model, o.size, int(o.threads))
    env = dict(os.environ)
    if o.isa:
        env["SECATEUR_ISA"] = o.isa
    peers = [p for p in PEERS if p in o.peers.split(",")]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in ROWS:
            if o.rows and not any(w in f"{name}@{size}" for w in o.rows.split(",")):
                continue
            for threads in map(int, o.threads.split(",")):
                print(f"{name} @{size}, {threads} threads", file=sys.stderr, flush=True)
                results[name, size, threads] = row(name, size, threads, peers, o.runs, folder, env)
    text = tables(results, peers, o.isa or "the best there are")
    print(text)
    if not o.no_write:
        doc = ROOT / "docs" / "PERFORMANCE.md"
        mark = f"<!-- peers{' ' + o.isa if o.isa else ''} -->"
        head, _, rest = doc.read_text().partition(mark)
        _, _, tail = rest.partition("<!-- end -->")
        doc.write_text(head + mark + "\n" + text + "<!-- end -->" + tail)


if __name__ == "__main__":
    main()
