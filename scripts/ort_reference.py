"""Runs models in ONNX Runtime and writes inputs and outputs as an ONNX test tree.

usage: ort_reference.py OUT MODEL.onnx...

For each model, which ONNX's checker must accept, and size: OUT/NAME-HxW/model.onnx (a link) and
test_data_set_0/{input_0,output_0,...}.pb. The input is seeded noise over a smooth field, of the order of normalised images;
a model of one size is run at that size, its channels first or last. Go's TestReference reads the tree.
"""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

SIZES = [(256, 256), (96, 160), (352, 288)]


def image(h, w, channels, seed):
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    field = np.stack([np.sin(x / (17 + 5 * c) + c) * np.cos(y / (23 - 3 * c)) for c in range(channels)])
    return (field + 0.5 * r.standard_normal(field.shape)).astype(np.float32)[None]


def main(out, models):
    for path in map(pathlib.Path, models):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        inp = session.get_inputs()[0]
        last = inp.shape[3] == 3
        channels, *size = [inp.shape[d] for d in ((3, 1, 2) if last else (1, 2, 3))]
        for i, (h, w) in enumerate([size] if all(isinstance(d, int) for d in size) else SIZES):
            x = image(h, w, channels, i)
            if last:
                x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
            case = out / f"{path.stem}-{h}x{w}"
            data = case / "test_data_set_0"
            data.mkdir(parents=True, exist_ok=True)
            link = case / "model.onnx"
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
            (data / "input_0.pb").write_bytes(numpy_helper.from_array(x, inp.name).SerializeToString())
            names = [o.name for o in session.get_outputs()]
            for k, y in enumerate(session.run(names, {inp.name: x})):
                (data / f"output_{k}.pb").write_bytes(numpy_helper.from_array(y, names[k]).SerializeToString())
            print(f"{case.name}: onnxruntime {ort.__version__}, {len(names)} outputs")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
