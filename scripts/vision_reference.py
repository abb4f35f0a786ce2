#!/usr/bin/env python3
"""Writes the reference data of engine/vision: what OpenCV and Pillow make of small synthetic pictures.

    python scripts/vision_reference.py            # writes engine/vision/testdata
    python scripts/vision_reference.py --check    # exits 1 if a file there would change

Every picture is drawn here from a seed. Needs numpy, opencv-python-headless and pillow (scripts/requirements.txt).

resize.json   for each size a source picture and each method's result, as PNGs; planes of probabilities as floats.
decode/       one file per format and variant, and beside each its pixels as PNG, decoded by Pillow.
"""
import argparse
import base64
import io
import json
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parent.parent / "engine" / "vision" / "testdata"


def picture(rng, w, h):
    """A smooth ramp, a disc and noise: edges and texture, few enough bits to compress."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    im = np.stack([255 * x / max(w - 1, 1), 255 * y / max(h - 1, 1), 128 + 100 * np.sin(x / 3) * np.cos(y / 4)], -1)
    im[(x - w * 0.6) ** 2 + (y - h * 0.4) ** 2 < (min(w, h) * 0.3) ** 2] = (230, 60, 40)
    im += rng.integers(-3, 4, im.shape)
    return im.clip(0, 255).astype(np.uint8)


def png(a):
    b = io.BytesIO()
    Image.fromarray(a).save(b, "PNG", optimize=True)
    return b.getvalue()


def resize_cases():
    rng = np.random.default_rng(1)
    methods = {
        "area": lambda a, w, h: cv2.resize(a, (w, h), interpolation=cv2.INTER_AREA),
        "bilinear": lambda a, w, h: cv2.resize(a, (w, h), interpolation=cv2.INTER_LINEAR),
        "bilinear-antialias": lambda a, w, h: np.asarray(Image.fromarray(a).resize((w, h), Image.Resampling.BILINEAR)),
        "nearest": lambda a, w, h: cv2.resize(a, (w, h), interpolation=cv2.INTER_NEAREST),
    }
    # whole and broken factors, up, down and mixed, one pixel
    sizes = [((24, 16), (12, 8)), ((24, 16), (8, 4)), ((31, 23), (14, 9)), ((14, 9), (31, 23)), ((23, 13), (15, 24)),
             ((13, 23), (24, 15)), ((1, 1), (8, 6)), ((23, 19), (1, 1)), ((2, 24), (16, 16)), ((21, 17), (20, 16)),
             ((21, 17), (21, 8))]
    cases = []
    for (w, h), (dw, dh) in sizes:
        a = picture(rng, w, h)
        cases.append({"src": [w, h], "dst": [dw, dh], "in": base64.b64encode(png(a)).decode(),
                      "out": {name: base64.b64encode(png(f(a, dw, dh))).decode() for name, f in methods.items()}})
    planes = []
    for (w, h), (dw, dh) in [((8, 6), (19, 13)), ((16, 16), (7, 5)), ((1, 3), (4, 4)), ((5, 1), (9, 3))]:
        p = rng.random((h, w)).astype(np.float32)
        q = cv2.resize(p, (dw, dh), interpolation=cv2.INTER_LINEAR)
        planes.append({"src": [w, h], "dst": [dw, dh], "in": [float(v) for v in p.ravel()],
                       "out": [round(float(v), 8) for v in q.ravel()]})
    text = json.dumps({"versions": {"opencv": cv2.__version__, "pillow": Image.__version__}, "images": cases, "planes": planes}, indent=0)
    return {"resize.json": text.encode() + b"\n"}


def tiff(a, photometric, bits_count, order="<"):
    """A baseline TIFF, tags chosen freely: CVC-ClinicDB's say BlackIsZero with three samples."""
    h, w = a.shape[:2]
    n = a.shape[2] if a.ndim == 3 else 1
    data = a.astype(order + ("u2" if a.dtype == np.uint16 else "u1")).tobytes()
    bits = 16 if a.dtype == np.uint16 else 8
    tags, extra, base = [], b"", 8 + len(data) + len(data) % 2
    entries = [(256, 3, [w]), (257, 3, [h]), (258, 3, [bits] * bits_count), (259, 3, [1]), (262, 3, [photometric]), (273, 4, [8]),
               (277, 3, [n]), (278, 3, [h]), (279, 4, [len(data)]), (284, 3, [1])]
    ifd_len = 2 + 12 * len(entries) + 4
    for tag, kind, values in entries:
        body = b"".join(struct.pack(order + ("H" if kind == 3 else "I"), v) for v in values)
        if len(body) > 4:
            at = base + ifd_len + len(extra)
            extra += body
            body = struct.pack(order + "I", at)
        tags.append(struct.pack(order + "HHI", tag, kind, len(values)) + body.ljust(4, b"\0"))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, base)
    return head + data + b"\0" * (len(data) % 2) + struct.pack(order + "H", len(tags)) + b"".join(tags) + b"\0\0\0\0" + extra


def decode_cases():
    rng = np.random.default_rng(2)
    a = picture(rng, 21, 14)
    im = Image.fromarray(a)
    files = {}

    def save(name, image, want=None, **kw):
        b = io.BytesIO()
        image.save(b, name.rsplit(".", 1)[1].replace("jpg", "jpeg"), **kw)
        add(name, b.getvalue(), want)

    def add(name, data, want=None):
        if want is None:
            with Image.open(io.BytesIO(data)) as f:
                want = np.asarray(ImageOps.exif_transpose(f).convert("RGB"))
        files["decode/" + name] = data
        files["decode/" + name + ".want.png"] = png(want)

    gray = np.asarray(im.convert("L"))
    gray16 = (gray.astype(np.uint16) * 257 + rng.integers(-100, 100, gray.shape)).clip(0, 65535).astype(np.uint16)
    upper = np.repeat((gray16 >> 8).astype(np.uint8)[..., None], 3, -1)
    alpha = np.dstack([a, rng.integers(0, 256, gray.shape).astype(np.uint8)])  # some pixels fully transparent
    rgba = Image.fromarray(alpha)
    save("rgb.png", im)
    save("gray.png", Image.fromarray(gray))
    save("gray16.png", Image.fromarray(gray16), want=upper)
    save("palette.png", im.quantize(16))
    save("palette-alpha.png", im.quantize(16), transparency=3, want=np.asarray(im.quantize(16).convert("RGB")))
    save("bilevel.png", Image.fromarray(gray > 128))
    save("alpha.png", rgba, want=a)
    save("pixel.png", Image.fromarray(a[:1, :1]))
    exif6 = Image.Exif()
    exif6[0x0112] = 6
    save("exif.png", im, exif=exif6)
    save("q90-420.jpg", im, quality=90, subsampling=2)
    save("q90-422.jpg", im, quality=90, subsampling=1)
    save("q90-444.jpg", im, quality=90, subsampling=0)
    save("progressive.jpg", im, quality=90, progressive=True)
    save("gray.jpg", Image.fromarray(gray), quality=90)
    save("cmyk.jpg", im.convert("CMYK"), quality=95)
    save("pixel.jpg", Image.fromarray(a[:1, :1]), quality=90)
    for o in range(1, 9):
        e = Image.Exif()
        e[0x0112] = o
        save(f"orientation{o}.jpg", Image.fromarray(a[:8, :16]), quality=90, subsampling=0, exif=e)
    save("rgb.bmp", im)
    save("gray.bmp", Image.fromarray(gray))
    save("lossless.webp", im, lossless=True)
    save("lossy.webp", im, quality=90)
    save("alpha.webp", rgba, lossless=True, exact=True, want=a)
    save("exif.webp", im, lossless=True, exif=exif6)
    save("rgb.tiff", im)
    save("lzw.tiff", im, compression="tiff_lzw")
    save("gray16.tiff", Image.fromarray(gray16), want=upper)
    add("blackiszero3.tiff", tiff(a, 1, 3), want=a)
    add("blackiszero3-be.tiff", tiff(a, 1, 3, order=">"), want=a)
    add("blackiszero3-onedepth.tiff", tiff(a, 1, 1), want=a)
    add("rgb-onedepth.tiff", tiff(a, 2, 1), want=a)
    add("blackiszero3-16.tiff", tiff(a.astype(np.uint16) * 257, 1, 3), want=a)
    return files


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    args = p.parse_args()
    files = {**resize_cases(), **decode_cases()}
    changed = [n for n, b in files.items() if not (OUT / n).is_file() or (OUT / n).read_bytes() != b]
    if args.check:
        print("\n".join(changed) or "up to date")
        sys.exit(1 if changed else 0)
    for n in changed:
        (OUT / n).parent.mkdir(parents=True, exist_ok=True)
        (OUT / n).write_bytes(files[n])
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes, {len(changed)} changed")


if __name__ == "__main__":
    main()
