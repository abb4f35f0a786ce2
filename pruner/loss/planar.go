package loss

import (
	"fmt"

	"github.com/secateur/secateur/engine/tensor"
)

// Planar calls f with logits as the losses want them, plane by plane, and gives its gradient as the logits lie.
func Planar(logits *tensor.Tensor, last bool, f func(*tensor.Tensor) (float64, *tensor.Tensor, error)) (float64, *tensor.Tensor, error) {
	p, err := Planes(logits, last)
	if err != nil {
		return 0, nil, err
	}
	value, d, err := f(p)
	if err != nil {
		return 0, nil, err
	}
	if c := p.Shape[0]; last && c > 1 {
		d = transposed(d, c, p.Shape[1]*p.Shape[2])
	}
	d.Shape = logits.Shape
	return value, d, nil
}

// Planes gives logits as [classes,h,w]. They are [1,c,h,w], or with last [1,h,w,c]; [1,h,w] and [h,w] are one plane. What
// need not move is shared.
func Planes(logits *tensor.Tensor, last bool) (*tensor.Tensor, error) {
	s := logits.Shape
	var c, h, w int
	switch {
	case len(s) == 4 && s[0] == 1 && last:
		c, h, w = s[3], s[1], s[2]
	case len(s) == 4 && s[0] == 1:
		c, h, w = s[1], s[2], s[3]
	case len(s) == 3 && s[0] == 1:
		c, h, w = 1, s[1], s[2]
	case len(s) == 2:
		c, h, w = 1, s[0], s[1]
	default:
		return nil, fmt.Errorf("logits are of shape %v, want one map a class", []int(s))
	}
	p := &tensor.Tensor{DType: logits.DType, Shape: tensor.Shape{c, h, w}, Data: logits.Data}
	if last && c > 1 {
		p = transposed(p, h*w, c)
	}
	return p, nil
}

// transposed is the transpose of the matrix [rows, columns] that t's elements are.
func transposed(t *tensor.Tensor, rows, columns int) *tensor.Tensor {
	out := tensor.New(t.DType, t.Shape...)
	if t.DType == tensor.Float64 {
		transpose(tensor.Of[float64](out), tensor.Of[float64](t), rows, columns)
	} else {
		transpose(tensor.Of[float32](out), tensor.Of[float32](t), rows, columns)
	}
	return out
}

func transpose[T float32 | float64](dst, src []T, rows, columns int) {
	for i := range rows {
		for j := range columns {
			dst[j*rows+i] = src[i*columns+j]
		}
	}
}
