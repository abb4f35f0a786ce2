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
		if err := only(need, 2); err != nil { // the running statistics are no parameters
			return nil, err
		}
		din := make([]*tensor.Tensor, len(need))
		d, scale, v := tensor.Of[T](dout[0]), tensor.Of[T](in[1]), tensor.Of[T](in[4])
		if need[1] {
			din[1] = s.New(s.Shape(1))
			x, mean := tensor.Of[T](in[0]), tensor.Of[T](in[3])
			perChannel(s.Pool, tensor.Of[T](din[1]), shape, func(c, at, n int) float64 {
				var sum float64
				for i, d := range d[at : at+n] {
					sum += float64(d) * (float64(x[at+i]) - float64(mean[c]))
				}
				return sum / math.Sqrt(float64(v[c])+eps)
			})
		}
		if need[2] {
			din[2] = planeSums(s, d)
		}
		if need[0] {
			each(s.Pool, shape[0]*c, 1, func(lo, hi int) {
				for p := lo; p < hi; p++ {
					k := T(float64(scale[p%c]) / math.Sqrt(float64(v[p%c])+eps))
					row := d[p*inner : (p+1)*inner]
					for i := range row {
						row[i] *= k
					}
				}
			})
			din[0] = dout[0]
		}
		return din, nil
	}, nil
}

// instanceNorm normalises each plane by its own mean and variance: with x̂ the normalised plane and k = scale/σ, the
// gradient is k · (d - mean(d) - x̂ · mean(d·x̂)).
func instanceNorm[T kernel.Float](s *Site) (Step, error) {
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	shape := s.Shape(0)
	c, inner := shape[1], shape[2:].Elems()
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		if err := only(need, 2); err != nil {
			return nil, err
		}
		din := make([]*tensor.Tensor, len(need))
		d, x, scale := tensor.Of[T](dout[0]), tensor.Of[T](in[0]), tensor.Of[T](in[1])
		if need[1] {
			din[1] = s.New(s.Shape(1))
			perChannel(s.Pool, tensor.Of[T](din[1]), shape, func(_, at, n int) float64 {
				return normPlaneOf(d[at:at+n], x[at:at+n], eps).mdx * float64(n)
			})
		}
		if need[2] {
			din[2] = planeSums(s, d)
		}
		if need[0] {
			each(s.Pool, shape[0]*c, 1, func(lo, hi int) {
				for p := lo; p < hi; p++ {
					d, x := d[p*inner:(p+1)*inner], x[p*inner:(p+1)*inner]
					q := normPlaneOf(d, x, eps)
					k := float64(scale[p%c]) / q.sigma
					for i, v := range x {
						d[i] = T(k * (float64(d[i]) - q.md - (float64(v)-q.mean)/q.sigma*q.mdx))
					}
				}
			})
			din[0] = dout[0]
		}
		return din, nil
	}, nil
}

// normPlane is what a normalised plane's gradient takes: mean and deviation of x, and the means of d and of d·x̂.
type normPlane struct{ mean, sigma, md, mdx float64 }

func normPlaneOf[T kernel.Float](d, x []T, eps float64) (q normPlane) {
	n := float64(len(x))
	for i, v := range x {
		q.mean += float64(v) / n
		q.md += float64(d[i]) / n
	}
	var square float64
	for _, v := range x {
		square += (float64(v) - q.mean) * (float64(v) - q.mean) / n
	}
	q.sigma = math.Sqrt(square + eps)
	for i, v := range x {
		q.mdx += float64(d[i]) * (float64(v) - q.mean) / q.sigma / n
	}
	return q
}

// softmax is y · (d - Σ d·y) over the axis; before opset 13 over everything from the axis on.
func softmax[T kernel.Float](s *Site) (Step, error) {
	return alongAxis(s, func(d, y []T, at, n, inner int) {
		var sum T
		for i := range n {
			sum += d[at+i*inner] * y[at+i*inner]
		}
		for i := range n {
			d[at+i*inner] = y[at+i*inner] * (d[at+i*inner] - sum)
		}
	})
}

// logSoftmax is d - exp(y) · Σ d.
func logSoftmax[T kernel.Float](s *Site) (Step, error) {
	return alongAxis(s, func(d, y []T, at, n, inner int) {
		var sum T
		for i := range n {
			sum += d[at+i*inner]
		}
		for i := range n {
			d[at+i*inner] -= T(math.Exp(float64(y[at+i*inner]))) * sum
		}
	})
}

// alongAxis calls f for each line of n elements, from at on, inner apart, that is normalised together.
func alongAxis[T kernel.Float](s *Site, f func(d, y []T, at, n, inner int)) (Step, error) {
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
					f(d, y, k/inner*n*inner+k%inner, n, inner)
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
