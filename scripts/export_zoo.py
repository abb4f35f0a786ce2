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
import pathlib

import numpy as np
import onnx
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

SIZE = 64


def block(i, o, norm=nn.BatchNorm2d, act=nn.ReLU, k=3, groups=1):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, groups=groups, bias=False), norm(o), act())


class UNet(nn.Module):
    """A U-Net of three levels, each of two of what make yields."""

    def __init__(self, make=block, base=8, classes=1, up="transposed", head=nn.Identity):
        super().__init__()
        self.enc = nn.ModuleList()
        c = 3
        for i in range(3):
            self.enc.append(nn.Sequential(make(c, base << i), make(base << i, base << i)))
            c = base << i
        self.up, self.dec = nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(2)):
            o = base << i
            self.up.append({
                "transposed": lambda: nn.ConvTranspose2d(c, o, 2, 2),
                "shuffle": lambda: nn.Sequential(nn.Conv2d(c, 4 * o, 1), nn.PixelShuffle(2)),
                "resize": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(c, o, 1)),
            }[up]())
            self.dec.append(nn.Sequential(make(2 * o, o), make(o, o)))
            c = o
        self.head = nn.Sequential(nn.Conv2d(c, classes, 1), head())

    def forward(self, x):
        skips = []
        for i, e in enumerate(self.enc):
            x = e(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        skips.pop()
        for up, dec in zip(self.up, self.dec):
            x = dec(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


class Shuffle2(nn.Module):
    """ShuffleNetV2's unit: half of the channels go by, the other half through a branch, and both are shuffled."""

    def __init__(self, c):
        super().__init__()
        h = c // 2
        self.branch = nn.Sequential(block(h, h, k=1), nn.Conv2d(h, h, 3, padding=1, groups=h, bias=False), nn.BatchNorm2d(h), block(h, h, k=1))

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return shuffle(torch.cat([a, self.branch(b)], 1), 2)


class Shuffle1(nn.Module):
    """ShuffleNet's unit: grouped convolutions with a shuffle between, and a residual sum."""

    def __init__(self, c, g=4):
        super().__init__()
        self.a, self.g = block(c, c, k=1, groups=g), g
        self.b = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.BatchNorm2d(c), nn.Conv2d(c, c, 1, groups=g, bias=False), nn.BatchNorm2d(c))

    def forward(self, x):
        return F.relu(x + self.b(shuffle(self.a(x), self.g)))


def shuffle(x, g):
    n, c, h, w = x.shape
    return x.view(n, g, c // g, h, w).transpose(1, 2).reshape(n, c, h, w)


class NeXt(nn.Module):
    """ResNeXt's unit: a grouped 3x3 between two 1x1, and a residual sum."""

    def __init__(self, c, g=4):
        super().__init__()
        self.f = nn.Sequential(block(c, c, k=1), block(c, c, groups=g), nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))

    def forward(self, x):
        return F.relu(x + self.f(x))


class ConvNeXt(nn.Module):
    """ConvNeXt's unit: a depthwise 7x7, then channels last a norm and two matrices with Gelu, scaled, and a residual sum."""

    def __init__(self, c):
        super().__init__()
        self.dw, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
        self.up, self.down, self.scale = nn.Linear(c, 4 * c), nn.Linear(4 * c, c), nn.Parameter(torch.full((c,), 0.5))

    def forward(self, x):
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class CSP(nn.Module):
    """A cross-stage partial unit: split, a residual branch on one part, and all parts joined."""

    def __init__(self, c):
        super().__init__()
        self.i, self.m, self.o = block(c, c, act=nn.SiLU, k=1), block(c // 2, c // 2, act=nn.SiLU), block(c // 2 * 3, c, act=nn.SiLU, k=1)

    def forward(self, x):
        a, b = self.i(x).split([x.shape[1] // 2, x.shape[1] // 2], 1)
        return self.o(torch.cat([a, b, b + self.m(b)], 1))


class Attention(UNet):
    """A U-Net whose skips pass gates, which one channel multiplies into all."""

    def __init__(self, base=8):
        super().__init__(base=base)
        self.gates = nn.ModuleList()
        for i in reversed(range(2)):
            c = base << i
            self.gates.append(nn.ModuleList([nn.Conv2d(c, c // 2, 1), nn.Conv2d(c, c // 2, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(c // 2, 1, 1), nn.Sigmoid())]))

    def forward(self, x):
        skips = []
        for i, e in enumerate(self.enc):
            x = e(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        skips.pop()
        for up, dec, (a, b, psi) in zip(self.up, self.dec, self.gates):
            s, x = skips.pop(), up(x)
            x = dec(torch.cat([s * psi(a(s) + b(x)), x], 1))
        return self.head(x)


class HRNet(nn.Module):
    """Two resolutions beside each other that exchange what they have found, twice."""

    def __init__(self, c=12):
        super().__init__()
        self.stem, self.low = block(3, c), nn.Sequential(nn.Conv2d(c, 2 * c, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * c), nn.ReLU())
        self.hi = nn.ModuleList(block(c, c) for _ in range(2))
        self.lo = nn.ModuleList(block(2 * c, 2 * c) for _ in range(2))
        self.raise_ = nn.ModuleList(nn.Sequential(nn.Conv2d(2 * c, c, 1, bias=False), nn.BatchNorm2d(c), nn.Upsample(scale_factor=2, mode="nearest")) for _ in range(2))
        self.drop = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 2 * c, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * c)) for _ in range(2))
        self.head = nn.Conv2d(3 * c, 1, 1)

    def forward(self, x):
        h = self.stem(x)
        l = self.low(h)
        for i in range(2):
            a, b = self.hi[i](h), self.lo[i](l)
            h, l = F.relu(a + self.raise_[i](b)), F.relu(b + self.drop[i](a))
        return self.head(torch.cat([h, F.interpolate(l, size=h.shape[2:], mode="bilinear")], 1))


class RSU(nn.Module):
    """U²-Net's unit: a small U inside, with a residual sum around."""

    def __init__(self, i, m, o):
        super().__init__()
        self.x, self.a, self.b, self.c = block(i, o), block(o, m), block(m, m), block(m, m)
        self.d, self.e = block(2 * m, m), block(2 * m, o)

    def forward(self, x):
        x = self.x(x)
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2, ceil_mode=True))
        d = self.d(torch.cat([self.c(b), b], 1))
        return x + self.e(torch.cat([F.interpolate(d, size=a.shape[2:], mode="bilinear"), a], 1))


class ChannelsLast(nn.Module):
    """A network as converters from TensorFlow write it: images and maps have their channels last."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Group(torch.autograd.Function):
    """A group normalisation that is exported as the operator, not taken apart."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups):
        return F.group_norm(x, groups, weight, bias)

    @staticmethod
    def symbolic(g, x, weight, bias, groups):
        return g.op("GroupNormalization", x, weight, bias, num_groups_i=groups, epsilon_f=1e-5).setType(x.type())


class GroupNorm(nn.GroupNorm):
    def forward(self, x):
        return Group.apply(x, self.weight, self.bias, self.num_groups)


def units(unit):
    """Convolutions that change the width, each followed by a unit that keeps it."""
    return lambda i, o: nn.Sequential(block(i, o), unit(o))


def encoder(arch, name):
    return lambda: arch(encoder_name=name, encoder_weights=None, classes=1)


def same(norm):
    return lambda i, o: block(i, o, norm=norm)


# Name: the network, then its opset, and whether its images have their channels last.
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
}


def export(make, opset, last):
    torch.manual_seed(0)
    net = make().eval()
    shape = (1, SIZE, SIZE, 3) if last else (1, 3, SIZE, SIZE)
    f = io.BytesIO()
    torch.onnx.export(net, torch.zeros(shape), f, opset_version=min(opset, 20), input_names=["image"], output_names=["logits"], dynamo=False)
    m = onnx.load_from_string(f.getvalue())
    m.opset_import[0].version = opset  # the exporter stops at 20; what it writes is the same in 21
    for n in m.graph.node:
        n.doc_string = ""
        del n.metadata_props[:]
    m.graph.doc_string, m.producer_name, m.producer_version = "", "", ""
    return m


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
        m = export(make, opset, last)
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
