package vision

import (
	"fmt"

	"github.com/secateur/secateur/engine/tensor"
)

// InputType is the tensor that an image becomes: float32 [1,c,h,w] or [1,h,w,c] at Pre.Size, or, where Size is absent, at
// the image's own size, each side rounded to the nearest multiple of Pre.Multiple and at least one.
func (s Spec) InputType(img *Image) tensor.Type {
	if s.Pre.Size != nil {
		return s.typeAt(s.Pre.Size[0], s.Pre.Size[1])
	}
	round := func(n int) int { return max((n+s.Pre.Multiple/2)/s.Pre.Multiple, 1) * s.Pre.Multiple }
	return s.typeAt(round(img.H), round(img.W))
}

// typeAt is the input tensor's type at a given height and width.
func (s Spec) typeAt(h, w int) tensor.Type {
	if s.Pre.Layout == "NHWC" {
		return tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, h, w, s.Pre.Channels}}
	}
	return tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, s.Pre.Channels, h, w}}
}

// Prepare fills dst, float32 or float64 of a shape as InputType gives, with the image: resized to dst's height and width,
// scaled, normalised, laid out.
func (s Spec) Prepare(dst *tensor.Tensor, img *Image) error {
	if len(dst.Shape) != 4 || dst.Shape[0] != 1 || dst.Shape[channelAxis(s.Pre.Layout)] != s.Pre.Channels {
		return fmt.Errorf("preparing an image: input of shape %v, want one %s image of %d channels", []int(dst.Shape), s.Pre.Layout, s.Pre.Channels)
	}
	h, w := sides(dst.Shape, s.Pre.Layout)
	if err := img.check(); err != nil {
		return err
	}
	if img.W != w || img.H != h {
		var err error
		if img, err = Resize(img, w, h, s.Pre.Resize); err != nil {
			return err
		}
	}
	switch dst.DType {
	case tensor.Float32:
		layOut(tensor.Of[float32](dst), img.Pix, s.Pre)
	case tensor.Float64:
		layOut(tensor.Of[float64](dst), img.Pix, s.Pre)
	default:
		return fmt.Errorf("preparing an image: input of %v, want float32 or float64", dst.DType)
	}
	return nil
}

// layOut normalises by table: a channel has only 256 values.
func layOut[T float32 | float64](dst []T, pix []byte, p Preprocess) {
	table := make([][256]T, p.Channels)
	for c := range table {
		mean, std := 0.0, 1.0
		if len(p.Mean) > 0 {
			mean = p.Mean[c]
		}
		if len(p.Std) > 0 {
			std = p.Std[c]
		}
		for v := range table[c] {
			table[c][v] = T((float64(v)*p.Scale - mean) / std)
		}
	}
	if p.Channels == 1 {
		for i := range dst {
			dst[i] = table[0][gray(pix[3*i], pix[3*i+1], pix[3*i+2])]
		}
		return
	}
	n, step := len(pix)/3, 1
	if p.Layout == "NHWC" {
		n, step = 1, 3
	}
	for c := range table {
		from := c
		if p.Color == "BGR" {
			from = 2 - c
		}
		t := &table[c]
		for i, o := from, c*n; i < len(pix); i, o = i+3, o+step {
			dst[o] = t[pix[i]]
		}
	}
}
