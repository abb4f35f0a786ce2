package loss

import (
	"slices"
	"testing"

	"github.com/secateur/secateur/engine/tensor"
)

// Whatever shape logits have, the losses see the same planes and the gradient comes back as they lie.
func TestPlanar(t *testing.T) {
	for _, c := range []struct {
		shape tensor.Shape
		last  bool
		want  tensor.Shape
	}{
		{tensor.Shape{1, 3, 2, 5}, false, tensor.Shape{3, 2, 5}},
		{tensor.Shape{1, 2, 5, 3}, true, tensor.Shape{3, 2, 5}},
		{tensor.Shape{1, 2, 5, 1}, true, tensor.Shape{1, 2, 5}},
		{tensor.Shape{1, 2, 5}, false, tensor.Shape{1, 2, 5}},
		{tensor.Shape{2, 5}, false, tensor.Shape{1, 2, 5}},
	} {
		for _, dt := range []tensor.DType{tensor.Float32, tensor.Float64} {
			logits := tensor.New(dt, c.shape...)
			for i := range c.shape.Elems() {
				if dt == tensor.Float32 {
					tensor.Of[float32](logits)[i] = float32(i)
				} else {
					tensor.Of[float64](logits)[i] = float64(i)
				}
			}
			v, d, err := Planar(logits, c.last, func(p *tensor.Tensor) (float64, *tensor.Tensor, error) {
				x, _ := p.Float64s()
				if !slices.Equal(p.Shape, c.want) {
					t.Errorf("%v, last %t: planes of shape %v, want %v", c.shape, c.last, p.Shape, c.want)
				}
				if classes := c.want[0]; c.last && classes > 1 && !slices.Equal(x[:2], []float64{0, float64(classes)}) {
					t.Errorf("%v: the first plane begins with %v", c.shape, x[:2])
				}
				return 7, p.Clone(), nil
			})
			if err != nil || v != 7 || !tensor.Equal(d, logits) {
				t.Errorf("%v, last %t: %g, %v, error %v; want the logits back", c.shape, c.last, v, d, err)
			}
		}
	}
	if _, err := Planes(tensor.New(tensor.Float32, 2, 1, 4, 4), false); err == nil {
		t.Error("two images are no error")
	}
}
