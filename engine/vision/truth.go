package vision

import (
	"errors"
	"fmt"
	"image"
)

// DecodeMask reads a ground-truth mask from an image file: 1 where its gray value is at least 128, else 0. It accepts what
// Decode accepts; every error is a *FormatError.
func DecodeMask(b []byte, lim Limits) (*Mask, error) {
	img, err := Decode(b, lim)
	if err != nil {
		if fe := (*FormatError)(nil); errors.As(err, &fe) {
			return nil, &FormatError{"mask", fe.Reason}
		}
		return nil, err
	}
	m := NewMask(img.W, img.H)
	for i := range m.Pix {
		if gray(img.Pix[3*i], img.Pix[3*i+1], img.Pix[3*i+2]) >= 128 {
			m.Pix[i] = 1
		}
	}
	return m, nil
}

// DecodeLabels reads a ground-truth mask of so many classes beside the background.
//
// Several classes take a PNG whose gray value or palette index is the class of each pixel, 0 being the background, as
// [Mask.PNG] writes it; an index greater than classes is an error, and so is a format that may have changed the values.
// One class is read as by DecodeMask, or as indices if the file holds 0 and 1 only. Every error is a *FormatError.
func DecodeLabels(b []byte, classes int, lim Limits) (*Mask, error) {
	if classes <= 1 {
		m, err := DecodeMask(b, lim)
		if err != nil || m.Area(1) > 0 {
			return m, err
		}
		if idx, err := decodeIndices(b, 1, lim); err == nil {
			return idx, nil
		}
		return m, nil
	}
	return decodeIndices(b, classes, lim)
}

func badMask(format string, args ...any) error {
	return &FormatError{"mask", fmt.Sprintf(format, args...)}
}

func decodeIndices(b []byte, classes int, lim Limits) (*Mask, error) {
	src, f, orientation, err := open(b, lim)
	if err != nil {
		if fe := (*FormatError)(nil); errors.As(err, &fe) {
			return nil, badMask("%s", fe.Reason)
		}
		return nil, err
	}
	if f.name != "PNG" {
		return nil, badMask("a mask of %d classes is a PNG whose gray value or palette index is the class, not a %s", classes, f.name)
	}
	depth, kind := b[24], b[25] // of the header, which open has read
	if depth > 8 {
		return nil, badMask("a mask of classes has 8 bits a pixel at most, not %d", depth)
	}
	if p, ok := src.(*image.Paletted); ok { // what counts is the index, not its colour
		src = &image.Gray{Pix: p.Pix, Stride: p.Stride, Rect: p.Rect}
	}
	img := orient(toRGB(src, false), orientation)
	scale := byte(1)
	if kind == 0 { // the decoder stretches gray of 1, 2 or 4 bits to 0-255
		scale = 255 / (1<<depth - 1)
	}
	m := &Mask{W: img.W, H: img.H, Pix: make([]byte, img.W*img.H), Classes: classes}
	for i := range m.Pix {
		v := img.Pix[3*i]
		if v != img.Pix[3*i+1] || v != img.Pix[3*i+2] {
			return nil, badMask("the pixel at %d, %d is a colour, want a gray value or a palette index that is its class", i%m.W, i/m.W)
		}
		if v /= scale; int(v) > classes {
			return nil, badMask("the pixel at %d, %d has class %d, the model knows 0 to %d", i%m.W, i/m.W, v, classes)
		}
		m.Pix[i] = v
	}
	return m, nil
}
