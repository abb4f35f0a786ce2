"""Segmentation networks that no package has, or not as small: what scripts/export_zoo.py and scripts/zoo.py export, beside those of
packages.
"""

import torch
import torch.nn.functional as F
from torch import nn


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


class Listed(nn.Module):
    """A network that yields a dictionary, as a tuple of its values."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return tuple(self.net(x).values())


class U2Net(nn.Module):
    """U²-Net (Qin et al., 2020), the small one: units of five depths, side outputs, and their fusion."""

    class Unit(nn.Module):
        """RSU-L; dilated where maps have become too small to halve."""

        def __init__(self, depth, i, m, o, dilated=False):
            super().__init__()
            self.dilated, self.first = dilated, self.conv(i, o, 1)
            rate = (lambda k: 1 << k) if dilated else (lambda k: 1)
            self.down = nn.ModuleList(self.conv(o if k == 0 else m, m, rate(k)) for k in range(depth - 1))
            self.bottom = self.conv(m, m, rate(depth - 1) if dilated else 2)
            self.up = nn.ModuleList(self.conv(2 * m, o if k == 0 else m, rate(k)) for k in range(depth - 1))

        @staticmethod
        def conv(i, o, rate):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=rate, dilation=rate), nn.BatchNorm2d(o), nn.ReLU())

        def forward(self, x):
            x = y = self.first(x)
            skips = []
            for k, f in enumerate(self.down):
                if k and not self.dilated:
                    y = F.max_pool2d(y, 2, ceil_mode=True)
                y = f(y)
                skips.append(y)
            y = self.bottom(y)
            for f, s in zip(reversed(self.up), reversed(skips)):
                if y.shape[2:] != s.shape[2:]:
                    y = F.interpolate(y, size=s.shape[2:], mode="bilinear")
                y = f(torch.cat([y, s], 1))
            return x + y

    def __init__(self, m=16, o=64):
        super().__init__()
        unit = self.Unit
        self.enc = nn.ModuleList([unit(7, 3, m, o), unit(6, o, m, o), unit(5, o, m, o), unit(4, o, m, o), unit(4, o, m, o, True), unit(4, o, m, o, True)])
        self.dec = nn.ModuleList([unit(4, 2 * o, m, o, True), unit(4, 2 * o, m, o), unit(5, 2 * o, m, o), unit(6, 2 * o, m, o), unit(7, 2 * o, m, o)])
        self.side = nn.ModuleList(nn.Conv2d(o, 1, 3, padding=1) for _ in range(6))
        self.fuse = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        size, skips = x.shape[2:], []
        for k, e in enumerate(self.enc):
            x = e(F.max_pool2d(x, 2, ceil_mode=True) if k else x)
            skips.append(x)
        maps = [skips.pop()]
        for d in self.dec:
            s = skips.pop()
            maps.append(d(torch.cat([F.interpolate(maps[-1], size=s.shape[2:], mode="bilinear"), s], 1)))
        sides = [F.interpolate(f(y), size=size, mode="bilinear") for f, y in zip(self.side, reversed(maps))]
        return tuple(torch.sigmoid(y) for y in [self.fuse(torch.cat(sides, 1)), *sides])


class PraNet(nn.Module):
    """PraNet (Fan et al., 2020): Res2Net, receptive field blocks, a partial decoder and reverse attention on three levels."""

    class Field(nn.Module):
        """Four branches of growing kernels and dilations, joined."""

        def __init__(self, i, o):
            super().__init__()
            self.branch = nn.ModuleList([block(i, o, k=1)])
            for k in (3, 5, 7):
                self.branch.append(nn.Sequential(
                    block(i, o, k=1), nn.Conv2d(o, o, (1, k), padding=(0, k // 2)), nn.ReLU(), nn.Conv2d(o, o, (k, 1), padding=(k // 2, 0)),
                    nn.BatchNorm2d(o), nn.ReLU(), nn.Conv2d(o, o, 3, padding=k, dilation=k, bias=False), nn.BatchNorm2d(o)))
            self.join, self.direct = nn.Conv2d(4 * o, o, 3, padding=1), nn.Conv2d(i, o, 1)

        def forward(self, x):
            return F.relu(self.join(torch.cat([b(x) for b in self.branch], 1)) + self.direct(x))

    def __init__(self, encoder, widths, c=32):
        super().__init__()
        self.encoder = encoder
        self.field = nn.ModuleList(self.Field(w, c) for w in widths)
        self.up = nn.ModuleList(block(c, c) for _ in range(3))
        self.decode = nn.Sequential(block(3 * c, 3 * c), nn.Conv2d(3 * c, 1, 1))
        self.reverse = nn.ModuleList(nn.Sequential(block(w, c, k=1), block(c, c), block(c, c), nn.Conv2d(c, 1, 3, padding=1)) for w in widths)

    @staticmethod
    def sized(x, y):
        return F.interpolate(x, size=y.shape[2:], mode="bilinear")

    def forward(self, image):
        maps = self.encoder(image)
        a, b, c = (f(x) for f, x in zip(self.field, maps))
        b2 = self.up[0](self.sized(c, b)) * b
        a2 = self.up[1](self.sized(b2, a)) * self.up[2](self.sized(c, a)) * a
        y = self.decode(torch.cat([a2, self.sized(b2, a), self.sized(c, a)], 1))
        outs = [self.sized(y, image)]
        for x, f in zip(reversed(maps), reversed(self.reverse)):
            y = self.sized(y, x)
            y = f((1 - torch.sigmoid(y)).expand(-1, x.shape[1], -1, -1) * x) + y
            outs.append(self.sized(y, image))
        return tuple(reversed(outs))


def res2net50():
    """The encoder that PraNet has, and the widths of its maps."""
    import timm
    net = timm.create_model("res2net50_26w_4s", pretrained=False, features_only=True, out_indices=(2, 3, 4))
    return net, net.feature_info.channels()


class Res2Net(nn.Module):
    """Res2Net's unit: parts of the channels, each through a convolution that also sees the part before, and a residual sum."""

    def __init__(self, c, parts=4):
        super().__init__()
        self.i, self.o, self.parts = block(c, c, k=1), nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)), parts
        self.f = nn.ModuleList(block(c // parts, c // parts) for _ in range(parts - 1))

    def forward(self, x):
        first, *rest = self.i(x).chunk(self.parts, 1)
        ys, y = [first], 0
        for f, p in zip(self.f, rest):
            y = f(p + y)
            ys.append(y)
        return F.relu(self.o(torch.cat(ys, 1)) + x)


class Pyramid(nn.Module):
    """A small encoder of Res2Net's units that yields its last three maps."""

    def __init__(self, widths=(16, 24, 32)):
        super().__init__()
        self.stem, ws = block(3, widths[0]), (widths[0], *widths)
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), Res2Net(o)) for i, o in zip(ws, widths))

    def forward(self, x):
        x, ys = self.stem(x), []
        for f in self.stages:
            x = f(x)
            ys.append(x)
        return ys


class FCN(nn.Module):
    """A fully convolutional network as torchvision has it: dilated stages, a head and one more for training that stays in the file."""

    def __init__(self, c=16):
        super().__init__()
        self.a, self.b = nn.Sequential(block(3, c), nn.MaxPool2d(3, 2, 1), NeXt(c)), nn.Sequential(nn.Conv2d(c, 2 * c, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(2 * c), nn.ReLU())
        self.head, self.aux = (nn.Sequential(block(i, i // 4), nn.Dropout(0.1), nn.Conv2d(i // 4, 2, 1)) for i in (2 * c, c))

    def forward(self, x):
        a = self.a(x)
        return tuple(F.interpolate(y, size=x.shape[-2:], mode="bilinear") for y in (self.head(self.b(a)), self.aux(a)))


class ColonSegNet(nn.Module):
    """ColonSegNet (Jha et al., 2021): residual blocks with squeeze and excitation, two depths of skips, transposed convolutions."""

    class Residual(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.f = nn.Sequential(block(i, o), nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o))
            self.direct = nn.Sequential(nn.Conv2d(i, o, 1), nn.BatchNorm2d(o))
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(o, o // 8, bias=False), nn.ReLU(), nn.Linear(o // 8, o, bias=False), nn.Sigmoid())

        def forward(self, x):
            y = self.f(x)
            return F.relu(y * self.gate(y)[:, :, None, None] + self.direct(x))

    def __init__(self, c=64):
        super().__init__()
        r = self.Residual
        self.e1, self.d1 = r(3, c), nn.Conv2d(c, c, 3, stride=2, padding=1)
        self.e2, self.e3, self.d2 = r(c, c), r(c, 4 * c), nn.Conv2d(4 * c, 4 * c, 3, stride=2, padding=1)
        self.e4 = r(4 * c, 4 * c)
        self.t1, self.t2, self.t3, self.t4 = (nn.ConvTranspose2d(i, o, k, s, p) for i, o, k, s, p in ((4 * c, 2 * c, 4, 2, 1), (4 * c, 2 * c, 4, 2, 1), (4 * c, c // 2, 8, 4, 2), (2 * c, c // 2, 4, 2, 1)))
        self.r1, self.r2, self.r3 = r(2 * c + c, 2 * c), r(2 * c + c, 2 * c), r(c, c // 2)
        self.head = nn.Conv2d(c // 2 + c // 2 + c // 2, 1, 1)

    def forward(self, x):
        s1 = self.e1(x)
        s2 = self.e2(self.d1(s1))
        x3 = self.e3(s2)
        x4 = self.e4(F.max_pool2d(self.d2(x3), 1))
        a = self.r1(torch.cat([self.t1(x4), s2], 1))
        b = self.r2(torch.cat([self.t2(x3), s1], 1))
        c = self.t3(x4)
        d = self.t4(a)
        return self.head(torch.cat([self.r3(torch.cat([d, c], 1)), c, b[:, : c.shape[1]]], 1))


class ResUNetPlusPlus(nn.Module):
    """ResUNet++ (Jha et al., 2019): residual units before the activation, squeeze and excitation, ASPP, attention in the decoder."""

    class Unit(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.f = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU(), nn.Conv2d(o, o, 3, 1, 1))
            self.direct = nn.Sequential(nn.Conv2d(i, o, 1, stride), nn.BatchNorm2d(o))
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(o, o // 8, 1), nn.ReLU(), nn.Conv2d(o // 8, o, 1), nn.Sigmoid())

        def forward(self, x):
            y = self.f(x) + self.direct(x)
            return y * self.gate(y)

    class Pyramid(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.f = nn.ModuleList(nn.Sequential(nn.Conv2d(i, o, 3, padding=r, dilation=r), nn.BatchNorm2d(o)) for r in (1, 6, 12, 18))
            self.join = nn.Conv2d(o, o, 1)

        def forward(self, x):
            return self.join(sum(f(x) for f in self.f))

    class Gate(nn.Module):
        def __init__(self, skip, deep):
            super().__init__()
            pre = lambda i, o: nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, o, 3, padding=1))
            self.a, self.b, self.join = nn.Sequential(pre(skip, deep), nn.MaxPool2d(2, 2)), pre(deep, deep), pre(deep, deep)

        def forward(self, s, x):
            return self.join(self.a(s) + self.b(x)) * x

    def __init__(self, w=(16, 32, 64, 128, 256)):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, w[0], 3, padding=1), nn.BatchNorm2d(w[0]), nn.ReLU(), nn.Conv2d(w[0], w[0], 3, padding=1))
        self.direct = nn.Conv2d(3, w[0], 1)
        self.enc = nn.ModuleList(self.Unit(i, o, 2) for i, o in zip(w[:3], w[1:4]))
        self.bridge = self.Pyramid(w[3], w[4])
        self.gates = nn.ModuleList(self.Gate(s, d) for s, d in ((w[2], w[4]), (w[1], w[3]), (w[0], w[2])))
        self.dec = nn.ModuleList(self.Unit(i, o, 1) for i, o in ((w[4] + w[2], w[3]), (w[3] + w[1], w[2]), (w[2] + w[0], w[1])))
        self.head = nn.Sequential(self.Pyramid(w[1], w[0]), nn.Conv2d(w[0], 1, 1), nn.Sigmoid())

    def forward(self, x):
        x = self.first(x) + self.direct(x)
        skips = []
        for e in self.enc:
            skips.append(x)
            x = e(x)
        x = self.bridge(x)
        for g, d, s in zip(self.gates, self.dec, reversed(skips)):
            x = d(torch.cat([F.interpolate(g(s, x), scale_factor=2.0, mode="nearest"), s], 1))
        return self.head(x)


def keras_unet(k, size, base=32):
    """A U-Net as Keras' guides write it: separable convolutions, residual sums, transposed convolutions, channels last."""
    L = k.layers
    x = inputs = L.Input((size, size, 3))
    x = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(base, 3, strides=2, padding="same")(x)))
    before = x
    for c in (2 * base, 4 * base, 8 * base):
        for _ in range(2):
            x = L.BatchNormalization()(L.SeparableConv2D(c, 3, padding="same")(L.Activation("relu")(x)))
        x = L.MaxPooling2D(3, strides=2, padding="same")(x)
        before = x = L.add([x, L.Conv2D(c, 1, strides=2, padding="same")(before)])
    for c in (8 * base, 4 * base, 2 * base, base):
        for _ in range(2):
            x = L.BatchNormalization()(L.Conv2DTranspose(c, 3, padding="same")(L.Activation("relu")(x)))
        x = L.UpSampling2D(2)(x)
        before = x = L.add([x, L.Conv2D(c, 1, padding="same")(L.UpSampling2D(2)(before))])
    return k.Model(inputs, L.Conv2D(2, 3, activation="softmax", padding="same")(x))


def keras_mobilenet(k, size):
    """MobileNetV2 as an encoder and a decoder of transposed convolutions, as in TensorFlow's tutorial on segmentation."""
    L = k.layers
    base = k.applications.MobileNetV2(input_shape=(size, size, 3), include_top=False, weights=None)
    *skips, x = [base.get_layer(n).output for n in ("block_1_expand_relu", "block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "block_16_project")]
    for c, s in zip((512, 256, 128, 64), reversed(skips)):
        x = L.ReLU()(L.BatchNormalization()(L.Conv2DTranspose(c, 3, strides=2, padding="same", use_bias=False)(x)))
        x = L.Concatenate()([x, s])
    return k.Model(base.input, L.Conv2DTranspose(2, 3, strides=2, padding="same")(x))


def keras_deeplab(k, size):
    """DeepLabV3+ as in Keras' examples: dilated convolutions, a pooled branch, bilinear resizing, channels last."""
    L = k.layers

    def conv(x, c, n=3, rate=1, strides=1):
        return L.ReLU()(L.BatchNormalization()(L.Conv2D(c, n, strides=strides, dilation_rate=rate, padding="same", use_bias=False)(x)))

    inputs = L.Input((size, size, 3))
    low = conv(conv(inputs, 32, strides=2), 64, strides=2)
    x = conv(conv(conv(low, 128, strides=2), 128), 256, strides=2)
    pooled = L.UpSampling2D(size // 16, interpolation="bilinear")(conv(L.AveragePooling2D(size // 16)(x), 128, 1))
    x = conv(L.Concatenate()([pooled, conv(x, 128, 1), *[conv(x, 128, 3, r) for r in (2, 4, 6)]]), 128, 1)
    x = L.Concatenate()([L.UpSampling2D((4, 4), interpolation="bilinear")(x), conv(low, 48, 1)])
    x = L.UpSampling2D((4, 4), interpolation="bilinear")(conv(conv(x, 128), 128))
    return k.Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))
