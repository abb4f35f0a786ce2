package grad

import (
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// batchNorm is inference's scale and shift by running statistics: d · scale / sqrt(var + eps), by channel.
func batchNorm[T kernel.Float](s *Site) (Step, error) {
	if s.Attrs().Int("training_mode", 0) != 0 {
		return nil, fmt.Errorf("batch statistics (training_mode 1) have no rule")
	}
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	shape := s.Shape(0)
	if len(shape) < 2 {
		return nil, fmt.Errorf("input %v has no channel axis", shape)
	}
	c, inner := shape[1], shape[2:].Elems()
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			d, scale, v := tensor.Of[T](dout[0]), tensor.Of[T](in[1]), tensor.Of[T](in[4])
			each(s.Pool, shape[0]*c, 1, func(lo, hi int) {
				for p := lo; p < hi; p++ {
					k := T(float64(scale[p%c]) / math.Sqrt(float64(v[p%c])+eps))
					row := d[p*inner : (p+1)*inner]
					for i := range row {
						row[i] *= k
					}
				}
			})
			return dout[0]
		})
	}, nil
}

// softmax is y · (d - Σ d·y) over the axis; before opset 13 over everything from the axis on.
func softmax[T kernel.Float](s *Site) (Step, error) {
	shape := s.Shape(0)
	def := -1
	if s.Opset < 13 {
		def = 1
	}
	axis, err := axisOf(s.Attrs().Int("axis", def), len(shape))
	if err != nil {
		return nil, err
	}
	outer, n, inner := shape[:axis].Elems(), shape[axis:].Elems(), 1
	if s.Opset >= 13 {
		n, inner = shape[axis], shape[axis+1:].Elems()
	}
	return func(_, out, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			d, y := tensor.Of[T](dout[0]), tensor.Of[T](out[0])
			each(s.Pool, outer*inner, 1<<10, func(lo, hi int) {
				for k := lo; k < hi; k++ {
					at := k/inner*n*inner + k%inner
					var sum T
					for i := range n {
						sum += d[at+i*inner] * y[at+i*inner]
					}
					for i := range n {
						d[at+i*inner] = y[at+i*inner] * (d[at+i*inner] - sum)
					}
				}
			})
			return dout[0]
		})
	}, nil
}

// axisOf counts a negative axis from the end.
func axisOf(axis, rank int) (int, error) {
	if axis < 0 {
		axis += rank
	}
	if axis < 0 || axis >= rank {
		return 0, fmt.Errorf("axis %d is outside rank %d", axis, rank)
	}
	return axis, nil
}
