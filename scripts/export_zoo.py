#!/usr/bin/env python3
"""Exports the topologies that tests run on, without their weights.

    python3 -m venv .cache/venv-zoo && .cache/venv-zoo/bin/pip install -r scripts/requirements-zoo.txt
    .cache/venv-zoo/bin/python scripts/export_zoo.py                     # all, to engine/zoo/networks
    .cache/venv-zoo/bin/python scripts/export_zoo.py --only u-net --full DIR   # one, and with random weights to DIR

A stripped file is a valid ONNX model of a few kilobytes whose weights are inputs: package engine/zoo makes them from a seed.
Nothing is downloaded.
"""

import argparse
import io
import os
import pathlib

import numpy as np
import onnx
import monai.networks.nets as monai
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import nn

from zoo_networks import CSP, FCN, RSU, Attention, ChannelsLast, ColonSegNet, ConvNeXt, GroupNorm, HRNet, Listed, NeXt, PraNet, Pyramid, ResUNetPlusPlus, Shuffle1, Shuffle2, UNet, block, keras_unet

SIZE, LARGER = 64, {"mobilenet-v3-pan": 128}  # its attention halves the smallest map three times
SMALL = "tu-mobilenetv3_small_050"


def units(unit):
    """Convolutions that change the width, each followed by a unit that keeps it."""
    return lambda i, o: nn.Sequential(block(i, o), unit(o))


def encoder(arch, name, **more):
    return lambda: arch(encoder_name=name, encoder_weights=None, classes=1, **more)


def keras():
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    keras.utils.set_random_seed(0)
    return keras


def same(norm):
    return lambda i, o: block(i, o, norm=norm)


def export(make, opset, last, size):
    torch.manual_seed(0)
    net = make().eval()
    shape = (1, size, size, 3) if last else (1, 3, size, size)
    if opset == 18:
        m = torch.onnx.export(net, (torch.zeros(shape),), opset_version=18, input_names=["image"], dynamo=True, verbose=False).model_proto
    else:
        f = io.BytesIO()
        torch.onnx.export(net, torch.zeros(shape), f, opset_version=min(opset, 20), input_names=["image"], output_names=["logits"], dynamo=False)
        m = onnx.load_from_string(f.getvalue())
    m.opset_import[0].version = opset  # the exporter stops at 20; what it writes is the same in 21
    for n in m.graph.node:
        n.doc_string = ""
        del n.metadata_props[:]
    m.graph.doc_string, m.producer_name, m.producer_version = "", "", ""
    return m


def tensorflow(c=8):
    """A U-Net with the units of MobileNetV2 and squeeze and excitation, as tf2onnx writes it: channels last at its edges alone, batch
    normalisations folded, pads of one side, shapes computed by slices of shapes, and the outputs of transposed convolutions cut to size."""
    h, r = onnx.helper, np.random.default_rng(0)
    nodes, weights = [], []

    def const(v, dtype):
        weights.append(onnx.numpy_helper.from_array(np.asarray(v, dtype), f"const_{len(weights)}"))
        return weights[-1].name

    def put(op, *xs, **attrs):
        nodes.append(h.make_node(op, xs, [f"model/{op}_{len(nodes)}:0"], f"model/{op}_{len(nodes)}", **attrs))
        return nodes[-1].output[0]

    def conv(x, i, o, k=1, pads=None, group=1, **attrs):
        p = k // 2
        return put("Conv", x, const(r.standard_normal((o, i // group, k, k)), np.float32), const(r.standard_normal(o), np.float32), pads=pads or [p] * 4, group=group, kernel_shape=[k, k], **attrs)

    def relu6(x):
        return put("Clip", x, const(0, np.float32), const(6, np.float32))

    def unit(x, i, o, stride):
        y = relu6(conv(x, i, 3 * i))
        y = relu6(conv(y, 3 * i, 3 * i, 3, [0, 0, 1, 1] if stride == 2 else None, 3 * i, strides=[stride] * 2))
        gate = relu6(conv(put("ReduceMean", y, axes=[2, 3], keepdims=1), 3 * i, 8))
        y = conv(put("Mul", y, put("Sigmoid", conv(gate, 8, 3 * i))), 3 * i, o)
        return put("Add", x, y) if i == o and stride == 1 else y

    def piece(v, a, b):
        return put("Slice", v, const([a], np.int64), const([b], np.int64), const([0], np.int64))

    image = put("Transpose", "image", perm=[0, 3, 1, 2])
    a = relu6(conv(image, 3, c, 3, [0, 0, 1, 1], strides=[2, 2]))
    b = unit(unit(a, c, 2 * c, 2), 2 * c, 2 * c, 1)
    x = unit(unit(b, 2 * c, 4 * c, 2), 4 * c, 4 * c, 1)
    size = put("Concat", piece(put("Shape", x), 0, 2), piece(put("Shape", b), 2, 4), axis=0)
    x = put("Resize", x, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel", nearest_mode="floor")
    x = relu6(conv(put("Concat", x, b, axis=1), 6 * c, 2 * c, 3))
    w = const(r.standard_normal((2 * c, c, 3, 3)), np.float32)
    x = put("ConvTranspose", x, w, strides=[2, 2], kernel_shape=[3, 3])
    sides = piece(put("Shape", a), 2, 4)
    x = put("Slice", x, const([0, 0], np.int64), sides, const([2, 3], np.int64))
    x = put("Add", x, const(r.standard_normal((1, c, 1, 1)), np.float32))
    x = relu6(conv(put("Concat", put("Relu", x), a, axis=1), 2 * c, c, 3))
    x = put("Resize", x, "", const([1, 1, 2, 2], np.float32), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    put("Transpose", put("Sigmoid", conv(x, c, 1)), perm=[0, 2, 3, 1])
    info = h.make_tensor_value_info
    image, y = (info(v, onnx.TensorProto.FLOAT, shape) for v, shape in (("image", (1, SIZE, SIZE, 3)), (nodes[-1].output[0], (1, SIZE, SIZE, 1))))
    m = h.make_model(h.make_graph(nodes, "tf2onnx", [image], [y], weights), opset_imports=[h.make_opsetid("", 13)], ir_version=8)
    m.producer_name = ""
    return m


# Name: the network, then its opset, and whether its images have their channels last. Opset 18 stands for PyTorch's newer exporter,
# dynamo, all else for the older one.
NETWORKS = {
    "u-net": (lambda: UNet(), 17, False),
    "u-net-resize": (lambda: UNet(up="resize"), 13, False),
    "u-net-pixelshuffle": (lambda: UNet(up="shuffle"), 17, False),
    "u-net-classes": (lambda: UNet(classes=4, head=lambda: nn.Softmax(1)), 17, False),
    "u-net-channels-last": (lambda: ChannelsLast(UNet()), 17, True),
    "u-net-instancenorm": (lambda: UNet(same(lambda c: nn.InstanceNorm2d(c, affine=True))), 17, False),
    "u-net-groupnorm-17": (lambda: UNet(same(lambda c: nn.GroupNorm(8, c)), base=16), 17, False),
    "u-net-groupnorm-21": (lambda: UNet(same(lambda c: GroupNorm(8, c)), base=16), 21, False),
    "u-net-prelu": (lambda: UNet(lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.PReLU(o))), 17, False),
    "attention-u-net": (lambda: Attention(), 17, False),
    "shufflenet-v1": (lambda: UNet(units(Shuffle1)), 17, False),
    "shufflenet-v2": (lambda: UNet(units(Shuffle2)), 17, False),
    "resnext": (lambda: UNet(units(NeXt), base=16), 17, False),
    "convnext": (lambda: UNet(units(ConvNeXt)), 17, False),
    "csp": (lambda: UNet(units(CSP)), 17, False),
    "hrnet": (lambda: HRNet(), 17, False),
    "u2-net": (lambda: UNet(lambda i, o: RSU(i, 8, o)), 17, False),
    "resnet18-u-net": (encoder(smp.Unet, "resnet18"), 17, False),
    "resnet18-u-net++": (encoder(smp.UnetPlusPlus, "resnet18"), 17, False),
    "resnet18-fpn": (encoder(smp.FPN, "resnet18"), 17, False),
    "resnet18-linknet": (encoder(smp.Linknet, "resnet18"), 17, False),
    "efficientnet-b0-u-net": (encoder(smp.Unet, "efficientnet-b0"), 17, False),
    "mobilenet-v3-u-net": (encoder(smp.Unet, "tu-mobilenetv3_small_100"), 17, False),
    "mobilenet-v2-deeplab-v3+": (encoder(smp.DeepLabV3Plus, "mobilenet_v2"), 17, False),
    "mobilenet-v3-manet": (encoder(smp.MAnet, SMALL, decoder_channels=(64, 32, 16, 16, 8)), 17, False),
    "mobilenet-v3-pan": (encoder(smp.PAN, SMALL), 18, False),
    "mobilenet-v3-pspnet": (encoder(smp.PSPNet, SMALL, psp_out_channels=64), 18, False),
    "mobilenet-v3-upernet": (encoder(smp.UPerNet, SMALL, decoder_channels=32), 18, False),
    "mobilenet-v3-lraspp": (lambda: Listed(torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)), 17, False),
    "segformer": (encoder(smp.Segformer, "mit_b0"), 18, False),
    "keras-u-net": (lambda: keras_unet(keras(), SIZE, 8), 17, True),
    "fcn": (lambda: FCN(), 17, False),
    "monai-unet": (lambda: monai.UNet(spatial_dims=2, in_channels=3, out_channels=1, channels=(8, 16, 32), strides=(2, 2), num_res_units=2), 17, False),
    "segresnet": (lambda: monai.SegResNet(spatial_dims=2, in_channels=3, out_channels=1, init_filters=8), 17, False),
    "segresnet-18": (lambda: monai.SegResNet(spatial_dims=2, in_channels=3, out_channels=1, init_filters=8), 18, False),
    "dynunet": (lambda: monai.DynUNet(2, 3, 1, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32]), 18, False),
    "pranet": (lambda: PraNet(Pyramid(), (16, 24, 32), c=8), 17, False),
    "colonsegnet": (lambda: ColonSegNet(c=16), 17, False),
    "tensorflow": (tensorflow, 13, True),
    "resunet++": (lambda: ResUNetPlusPlus((8, 16, 24, 32, 40)), 18, False),
}


def strip(m):
    """Makes inputs of all float initializers and constants but the smallest."""
    s = onnx.ModelProto()
    s.CopyFrom(m)

    def weighty(t):
        return t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 0 and int(np.prod(t.dims)) > 4

    for t in list(s.graph.initializer):
        if weighty(t):
            s.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
            s.graph.initializer.remove(t)
    for n in list(s.graph.node):
        if n.op_type == "Constant" and n.attribute[0].name == "value" and weighty(n.attribute[0].t):
            t = n.attribute[0].t
            s.graph.input.append(onnx.helper.make_tensor_value_info(n.output[0], t.data_type, list(t.dims)))
            s.graph.node.remove(n)
    del s.graph.value_info[:]
    return s


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "engine/zoo/networks")
    p.add_argument("--full", type=pathlib.Path, help="a folder for the files with random weights")
    p.add_argument("--only", action="append", choices=sorted(NETWORKS))
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for name, (make, opset, last) in NETWORKS.items():
        if a.only and name not in a.only:
            continue
        m = make() if make is tensorflow else export(make, opset, last, LARGER.get(name, SIZE))
        if a.full:
            a.full.mkdir(parents=True, exist_ok=True)
            onnx.save(m, a.full / f"{name}.onnx")
        s = strip(m)
        onnx.checker.check_model(s)
        b = s.SerializeToString(deterministic=True)
        (a.out / f"{name}.onnx").write_bytes(b)
        print(f"{name}: {len(m.graph.node)} nodes, {len(b)} bytes")


if __name__ == "__main__":
    main()
