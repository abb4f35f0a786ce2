package grad

import (
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// concat gives each input its part of the gradient. It is move's rule without asking the operator where elements go: that
// takes many times the memory of the largest tensor that a decoder has.
func concat[T kernel.Float](s *Site) (Step, error) {
	shape := s.Out[0].Shape
	axis, err := axisOf(s.Attrs().Int("axis", 1), len(shape)) // 1 was what opset 1 left out
	if err != nil {
		return nil, err
	}
	outer, inner := shape[:axis].Elems(), shape[axis+1:].Elems()
	row := shape[axis] * inner
	return func(_, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		d, at := tensor.Of[T](dout[0]), 0
		for i := range need {
			n := s.Shape(i)[axis] * inner
			if need[i] {
				din[i] = s.New(s.Shape(i))
				g := tensor.Of[T](din[i])
				each(s.Pool, outer, max(1, 1<<14/max(n, 1)), func(lo, hi int) {
					for o := lo; o < hi; o++ {
						copy(g[o*n:(o+1)*n], d[o*row+at:])
					}
				})
			}
			at += n
		}
		return din, nil
	}, nil
}
