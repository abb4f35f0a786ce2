"""The networks that scripts/zoo.py exports: those of public packages, and those that no package has, written here.

ROWS says of each how to make it, by which exporter and opset, and whether its height and width stay open in the file. Opsets and
exporters are spread over the networks, so that each occurs with several. Nothing is downloaded: weights are random.
"""

import os

import torch
import torch.nn.functional as F
from torch import nn

from export_zoo import Attention, ChannelsLast, HRNet, RSU, block


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
                    block(i, o, k=1), nn.Conv2d(o, o, (1, k), padding=(0, k // 2)), nn.Conv2d(o, o, (k, 1), padding=(k // 2, 0)),
                    nn.Conv2d(o, o, 3, padding=k, dilation=k, bias=False), nn.BatchNorm2d(o)))
            self.join, self.direct = nn.Conv2d(4 * o, o, 3, padding=1), nn.Conv2d(i, o, 1)

        def forward(self, x):
            return F.relu(self.join(torch.cat([b(x) for b in self.branch], 1)) + self.direct(x))

    def __init__(self, encoder="res2net50_26w_4s", c=32):
        super().__init__()
        import timm
        self.encoder = timm.create_model(encoder, pretrained=False, features_only=True, out_indices=(2, 3, 4))
        widths = self.encoder.feature_info.channels()
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


def keras_unet(k, size):
    """A U-Net as Keras' guides write it: separable convolutions, residual sums, transposed convolutions, channels last."""
    L = k.layers
    x = inputs = L.Input((size, size, 3))
    x = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(32, 3, strides=2, padding="same")(x)))
    before = x
    for c in (64, 128, 256):
        for _ in range(2):
            x = L.BatchNormalization()(L.SeparableConv2D(c, 3, padding="same")(L.Activation("relu")(x)))
        x = L.MaxPooling2D(3, strides=2, padding="same")(x)
        before = x = L.add([x, L.Conv2D(c, 1, strides=2, padding="same")(before)])
    for c in (256, 128, 64, 32):
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
    pooled = L.UpSampling2D(size // 8, interpolation="bilinear")(conv(L.AveragePooling2D(size // 8)(x), 128, 1))
    x = conv(L.Concatenate()([pooled, conv(x, 128, 1), *[conv(x, 128, 3, r) for r in (2, 4, 6)]]), 128, 1)
    x = L.Concatenate()([L.UpSampling2D((4, 4), interpolation="bilinear")(x), conv(low, 48, 1)])
    x = L.UpSampling2D((4, 4), interpolation="bilinear")(conv(conv(x, 128), 128))
    return k.Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


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
    "smp-fpn-convnext-atto": (smp("FPN", "tu-convnext_atto", encoder_depth=4), DYNAMO, 20, False),
    "smp-pspnet-resnet18": (smp("PSPNet", "resnet18"), TS, 13, False),
    "smp-pspnet-mobilenetv3-large": (smp("PSPNet", "tu-mobilenetv3_large_100"), DYNAMO, 18, False),
    "smp-pan-resnet18": (smp("PAN", "resnet18"), TS, 17, False),
    "smp-pan-mobilenetv3-small": (smp("PAN", "tu-mobilenetv3_small_100"), DYNAMO, 18, False),
    "smp-deeplabv3-resnet18": (smp("DeepLabV3", "resnet18"), TS, 17, True),
    "smp-deeplabv3-mobilenetv2": (smp("DeepLabV3", "mobilenet_v2"), DYNAMO, 18, False),
    "smp-deeplabv3+-resnet50": (smp("DeepLabV3Plus", "resnet50"), DYNAMO, 18, True),
    "smp-deeplabv3+-efficientnet-b0": (smp("DeepLabV3Plus", "efficientnet-b0"), TS, 13, False),
    "smp-upernet-resnet18": (smp("UPerNet", "resnet18"), TS, 17, False),
    "smp-upernet-convnext-atto": (smp("UPerNet", "tu-convnext_atto", encoder_depth=4), DYNAMO, 18, False),
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
    "pranet-res2net50": (ours(PraNet), TS, 13, False),
    "pranet-res2net50-dynamo": (ours(PraNet), DYNAMO, 18, False),
    "colonsegnet": (ours(ColonSegNet), TS, 17, True),
    "resunet++": (ours(ResUNetPlusPlus), DYNAMO, 18, True),
    "attention-u-net": (ours(Attention, base=16), DYNAMO, 20, False),
    "hrnet": (ours(HRNet, c=24), DYNAMO, 18, False),
    "channels-last": (lambda size: ChannelsLast(HRNet(c=24)), TS, 13, False),
    "keras-unet-xception": (keras(keras_unet), TS, 17, True),
    "keras-mobilenetv2-u-net": (keras(keras_mobilenet), TS, 13, False),
    "keras-deeplabv3+": (keras(keras_deeplab), DYNAMO, 18, False),
}
