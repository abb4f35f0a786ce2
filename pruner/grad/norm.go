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

// instanceNorm is groupNorm with a channel to each group.
func instanceNorm[T kernel.Float](s *Site) (Step, error) { return groups[T](s, s.Shape(0)[1]) }

// groupNorm normalises groups of channels.
func groupNorm[T kernel.Float](s *Site) (Step, error) {
	return groups[T](s, s.Attrs().Int("num_groups", 1))
}

// groups is the reverse of normalising each of so many groups of channels by its own mean and variance: with x̂ the
// normalised group and g = scale·d, the gradient is (g − mean(g) − x̂·mean(g·x̂))/σ. Equal parts of a group, its channels or
// (before opset 21) all of it, have a scale and a bias each.
func groups[T kernel.Float](s *Site, count int) (Step, error) {
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	shape, k := s.Shape(0), s.Shape(1)[0]
	size, parts := shape[1:].Elems()/max(count, 1), k/max(count, 1)
	part := size / max(parts, 1)
	stats, sums := make([]moments, shape[0]*count), make([]against, shape[0]*k)
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		if err := only(need, 2); err != nil {
			return nil, err
		}
		din := make([]*tensor.Tensor, len(need))
		d, x, scale := tensor.Of[T](dout[0]), tensor.Of[T](in[0]), tensor.Of[T](in[1])
		each(s.Pool, len(stats), 1, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				stats[p] = momentsOf(x[p*size:(p+1)*size], eps)
				for i := p * parts; i < (p+1)*parts; i++ {
					sums[i] = againstOf(stats[p], d[i*part:(i+1)*part], x[i*part:(i+1)*part])
				}
			}
		})
		if need[1] {
			din[1] = s.New(s.Shape(1))
			overBatch(tensor.Of[T](din[1]), sums, func(a against) float64 { return a.dx })
		}
		if need[2] {
			din[2] = s.New(s.Shape(2))
			overBatch(tensor.Of[T](din[2]), sums, func(a against) float64 { return a.d })
		}
		if need[0] {
			each(s.Pool, len(stats), 1, func(lo, hi int) {
				for p := lo; p < hi; p++ {
					var mean against // of scale·d
					for i := p * parts; i < (p+1)*parts; i++ {
						mean.d += float64(scale[i%k]) * sums[i].d / float64(size)
						mean.dx += float64(scale[i%k]) * sums[i].dx / float64(size)
					}
					for i := p * parts; i < (p+1)*parts; i++ {
						c, d, x := float64(scale[i%k]), d[i*part:(i+1)*part], x[i*part:(i+1)*part]
						for j, v := range x {
							d[j] = T((c*float64(d[j]) - mean.d - stats[p].normal(float64(v))*mean.dx) / stats[p].sigma)
						}
					}
				}
			})
			din[0] = dout[0]
		}
		return din, nil
	}, nil
}

// moments are the mean and the deviation, √(variance+ε), of what is normalised together.
type moments struct{ mean, sigma float64 }

func momentsOf[T kernel.Float](x []T, eps float64) (p moments) {
	for _, v := range x {
		p.mean += float64(v)
	}
	p.mean /= float64(len(x))
	for _, v := range x {
		p.sigma += (float64(v) - p.mean) * (float64(v) - p.mean)
	}
	p.sigma = math.Sqrt(p.sigma/float64(len(x)) + eps)
	return p
}

// normal is x̂.
func (p moments) normal(x float64) float64 { return (x - p.mean) / p.sigma }

// against is the sums, or means, of d and of d·x̂: the gradients of a bias and a scale.
type against struct{ d, dx float64 }

func againstOf[T kernel.Float](p moments, d, x []T) (a against) {
	for i, v := range d {
		a.d += float64(v)
		a.dx += float64(v) * (float64(x[i]) - p.mean)
	}
	a.dx /= p.sigma
	return a
}

// overBatch sets y to the sums over the batch of what f takes of a.
func overBatch[T kernel.Float](y []T, a []against, f func(against) float64) {
	for c := range y {
		var sum float64
		for i := c; i < len(a); i += len(y) {
			sum += f(a[i])
		}
		y[c] = T(sum)
	}
}

// layerNorm is the reverse of normalising each row, all from the axis on, by its own mean and variance, as groups is, with
// a scale and a bias for each element of a row. Mean and InvStdDev = 1/σ may have gradients, too: by x these outputs have
// the derivatives 1/n and −x̂/(n·σ²).
func layerNorm[T kernel.Float](s *Site) (Step, error) {
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	shape := s.Shape(0)
	axis, err := axisOf(s.Attrs().Int("axis", -1), len(shape))
	if err != nil {
		return nil, err
	}
	n := shape[axis:].Elems()
	rows := make([]moments, shape[:axis].Elems())
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		if err := only(need, 2); err != nil {
			return nil, err
		}
		din := make([]*tensor.Tensor, len(need))
		if dout[0] == nil {
			dout[0] = s.New(shape)
			clear(tensor.Of[T](dout[0]))
		}
		d, x, scale := tensor.Of[T](dout[0]), tensor.Of[T](in[0]), tensor.Of[T](in[1])
		each(s.Pool, len(rows), 1, func(lo, hi int) {
			for r := lo; r < hi; r++ {
				rows[r] = momentsOf(x[r*n:(r+1)*n], eps)
			}
		})
		if need[1] {
			din[1] = s.New(s.Shape(1))
			overRows(s.Pool, tensor.Of[T](din[1]), len(rows), func(r, i int) float64 {
				return float64(d[r*n+i]) * rows[r].normal(float64(x[r*n+i]))
			})
		}
		if len(need) > 2 && need[2] {
			din[2] = s.New(s.Shape(2))
			overRows(s.Pool, tensor.Of[T](din[2]), len(rows), func(r, i int) float64 { return float64(d[r*n+i]) })
		}
		if need[0] {
			ofRow := func(i, r int) float64 { // the gradient of an output of a number for each row
				if i >= len(dout) || dout[i] == nil {
					return 0
				}
				return float64(tensor.Of[T](dout[i])[r])
			}
			each(s.Pool, len(rows), 1, func(lo, hi int) {
				for r := lo; r < hi; r++ {
					d, x, p := d[r*n:(r+1)*n], x[r*n:(r+1)*n], rows[r]
					var mean against // of scale·d
					for i, v := range d {
						g := float64(scale[i]) * float64(v)
						mean.d += g / float64(n)
						mean.dx += g * p.normal(float64(x[i])) / float64(n)
					}
					mean.d -= ofRow(1, r) * p.sigma / float64(n)
					mean.dx += ofRow(2, r) / (p.sigma * float64(n))
					for i, v := range x {
						d[i] = T((float64(scale[i])*float64(d[i]) - mean.d - p.normal(float64(v))*mean.dx) / p.sigma)
					}
				}
			})
			din[0] = dout[0]
		}
		return din, nil
	}, nil
}

// overRows sets y[i] to the sum over the rows of f(row, i), which one worker adds up in order.
func overRows[T kernel.Float](p *kernel.Pool, y []T, rows int, f func(r, i int) float64) {
	const width = 64 // columns at a time, so that memory is read in order
	each(p, len(y), width, func(lo, hi int) {
		var sums [width]float64
		for r := range rows {
			for i := lo; i < hi; i++ {
				sums[i-lo] += f(r, i)
			}
		}
		for i := lo; i < hi; i++ {
			y[i] = T(sums[i-lo])
		}
	})
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
