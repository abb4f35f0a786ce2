package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var poolFamily = slices.Concat(
	since(Def{Op: "MaxPool", Infer: inferPool, New: newMaxPool}, 1, 8, 10, 11, 12, 22),
	since(Def{Op: "AveragePool", Infer: inferPool, New: newAveragePool}, 1, 7, 10, 11, 19, 22),
	since(Def{Op: "GlobalAveragePool", Infer: inferGlobalPool, New: newGlobalPool}, 1, 22),
	since(Def{Op: "GlobalMaxPool", Infer: inferGlobalPool, New: newGlobalPool}, 1, 22),
)

// poolWindow gives the geometry of a pool.
func poolWindow(s *Site) (spatial, error) {
	if err := s.require(1); err != nil {
		return spatial{}, err
	}
	w, err := s.window(nil)
	if err != nil {
		return w, err
	}
	if len(w.in) > 3 {
		return w, s.Unsupported("%d spatial axes; pools run in one to three dimensions", len(w.in))
	}
	return w, w.slide(s.Attrs(), s.Attrs().Int("ceil_mode", 0) != 0)
}

func inferPool(s *Site) ([]tensor.Type, error) {
	w, err := poolWindow(s)
	if err != nil {
		return nil, err
	}
	dt := s.DType(0)
	if small := dt == tensor.Int8 || dt == tensor.Uint8; dt != s.Float && !(small && s.Node.Op == "MaxPool") {
		return nil, s.Unsupported("elements of type %v", dt)
	}
	x := s.Shape(0)
	out, err := s.sized(dt, append(tensor.Shape{x[0], x[1]}, w.out...))
	if err == nil && s.Node.Op == "MaxPool" && len(s.Node.Outputs) > 1 {
		out = append(out, tensor.Type{DType: tensor.Int64, Shape: out[0].Shape})
	}
	return out, err
}

// cube is a pool's geometry in three dimensions, of which the first may be 1.
type cube struct {
	in, out, kernel, stride, dilation, begin, end [3]int
}

func (w *spatial) cube() cube {
	c := cube{in: [3]int{1, 1, 1}, out: [3]int{1, 1, 1}, kernel: [3]int{1, 1, 1}, stride: [3]int{1, 1, 1}, dilation: [3]int{1, 1, 1}}
	o := 3 - len(w.in)
	copy(c.in[o:], w.in)
	copy(c.out[o:], w.out)
	copy(c.kernel[o:], w.kernel)
	copy(c.stride[o:], w.stride)
	copy(c.dilation[o:], w.dilation)
	copy(c.begin[o:], w.begin)
	copy(c.end[o:], w.end)
	return c
}

// taps gives the first position that window i of an axis reads within the input, and how many.
func (c *cube) taps(axis, i int) (first, n int) {
	at, d := i*c.stride[axis]-c.begin[axis], c.dilation[axis]
	skip := 0
	if at < 0 {
		skip = (-at + d - 1) / d
	}
	n = c.kernel[axis] - skip
	first = at + skip*d
	if last := first + (n-1)*d; last >= c.in[axis] {
		n -= (last - c.in[axis] + d) / d
	}
	return first, max(n, 0)
}

func (c *cube) plane() int { return c.in[0] * c.in[1] * c.in[2] }

func newMaxPool(s *Site) (Kernel, error) {
	w, err := poolWindow(s)
	if err != nil {
		return nil, err
	}
	c, column := w.cube(), s.Attrs().Int("storage_order", 0) == 1
	switch s.DType(0) {
	case tensor.Float32:
		return maxPool[float32](c, column, float32(math.Inf(-1))), nil
	case tensor.Float64:
		return maxPool[float64](c, column, math.Inf(-1)), nil
	case tensor.Int8:
		return maxPool[int8](c, column, math.MinInt8), nil
	case tensor.Uint8:
		return maxPool[uint8](c, column, 0), nil
	}
	return nil, s.Unsupported("elements of type %v", s.DType(0))
}

// maxPool takes the largest element under each window; padding is lower than any. Indices, if asked for, are into the
// whole input, with the last two axes in column-major order if so told.
func maxPool[T real](c cube, column bool, lowest T) Kernel {
	halves := c.in[0] == 1 && c.kernel == [3]int{1, 2, 2} && c.stride == [3]int{1, 2, 2} && c.dilation == [3]int{1, 1, 1} &&
		c.begin == [3]int{} && c.out[1]*2 <= c.in[1] && c.out[2]*2 <= c.in[2]
	rows, byRows := newRowPool(&c, vec.Max, float32(math.Inf(-1)))
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		var index []int64
		if len(out) > 1 && out[1] != nil {
			index = tensor.Of[int64](out[1])
		}
		if x, ok := any(x).([]float32); ok && halves && index == nil {
			run := kernel.MaxHalves(env.Pool, any(y).([]float32), x, in[0].Shape[0]*in[0].Shape[1], c.out[1], c.out[2], c.in[1], c.in[2])
			return func() error { run(); return nil }
		}
		if x := floats32(x); x != nil && byRows && index == nil {
			run := rows.bind(env, floats32(y), x, in[0].Shape[0]*in[0].Shape[1], nil)
			return func() error { run(); return nil }
		}
		size, plane := c.out[0]*c.out[1]*c.out[2], c.plane()
		run := share(env, in[0].Shape[0]*in[0].Shape[1], plane, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				yp, xp := y[p*size:(p+1)*size], x[p*plane:(p+1)*plane]
				switch {
				case index != nil:
					maxIndexPlane(&c, yp, index[p*size:], xp, p*plane, column, lowest)
				default:
					maxPlane(&c, yp, xp, lowest)
				}
			}
		})
		return func() error { run(); return nil }
	})
}

func maxPlane[T real](c *cube, y, x []T, lowest T) {
	i := 0
	for a := range c.out[0] {
		fa, na := c.taps(0, a)
		for b := range c.out[1] {
			fb, nb := c.taps(1, b)
			for d := range c.out[2] {
				fd, nd := c.taps(2, d)
				top := lowest
				for ka := range na {
					for kb := range nb {
						row := x[((fa+ka*c.dilation[0])*c.in[1]+fb+kb*c.dilation[1])*c.in[2]:]
						for kd := range nd {
							top = max(top, row[fd+kd*c.dilation[2]])
						}
					}
				}
				y[i] = top
				i++
			}
		}
	}
}

func maxIndexPlane[T real](c *cube, y []T, index []int64, x []T, base int, column bool, lowest T) {
	i := 0
	for a := range c.out[0] {
		fa, na := c.taps(0, a)
		for b := range c.out[1] {
			fb, nb := c.taps(1, b)
			for d := range c.out[2] {
				fd, nd := c.taps(2, d)
				top, at := lowest, -1
				for ka := range na {
					for kb := range nb {
						for kd := range nd {
							pa, pb, pd := fa+ka*c.dilation[0], fb+kb*c.dilation[1], fd+kd*c.dilation[2]
							if v := x[(pa*c.in[1]+pb)*c.in[2]+pd]; at < 0 || v > top {
								top, at = v, base+(pa*c.in[1]+pb)*c.in[2]+pd
								if column {
									at = base + (pa*c.in[2]+pd)*c.in[1] + pb
								}
							}
						}
					}
				}
				y[i], index[i] = top, int64(at)
				i++
			}
		}
	}
}

func newAveragePool(s *Site) (Kernel, error) {
	w, err := poolWindow(s)
	if err != nil {
		return nil, err
	}
	c, all := w.cube(), s.Attrs().Int("count_include_pad", 0) != 0
	return byFloat(s, func() (Kernel, error) { return averagePool[float32](c, all), nil }, func() (Kernel, error) { return averagePool[float64](c, all), nil })
}

// averagePool divides by the elements under the window: those of the input, or with count_include_pad those of the
// padding as well, but never what ceil_mode reaches beyond it.
func averagePool[T kernel.Float](c cube, includePad bool) Kernel {
	rows, byRows := newRowPool(&c, vec.Add, 0)
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		if x := floats32(x); x != nil && byRows {
			run := rows.bind(env, floats32(y), x, in[0].Shape[0]*in[0].Shape[1], rows.mean(includePad))
			return func() error { run(); return nil }
		}
		size, plane := c.out[0]*c.out[1]*c.out[2], c.plane()
		run := share(env, in[0].Shape[0]*in[0].Shape[1], plane, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				averagePlane(&c, y[p*size:(p+1)*size], x[p*plane:(p+1)*plane], includePad)
			}
		})
		return func() error { run(); return nil }
	})
}

func averagePlane[T kernel.Float](c *cube, y, x []T, includePad bool) {
	i := 0
	for a := range c.out[0] {
		fa, na := c.taps(0, a)
		for b := range c.out[1] {
			fb, nb := c.taps(1, b)
			rows := na * nb
			if includePad {
				rows = c.padded(0, a) * c.padded(1, b)
			}
			for d := range c.out[2] {
				fd, nd := c.taps(2, d)
				var sum T
				for ka := range na {
					for kb := range nb {
						row := x[((fa+ka*c.dilation[0])*c.in[1]+fb+kb*c.dilation[1])*c.in[2]:]
						for kd := range nd {
							sum += row[fd+kd*c.dilation[2]]
						}
					}
				}
				cols := nd
				if includePad {
					cols = c.padded(2, d)
				}
				y[i] = sum / T(rows*cols)
				i++
			}
		}
	}
}

// mean gives what divides a row of sums by the elements that each is of.
func (p *rowPool) mean(includePad bool) func(y []float32, row, taps int) {
	c := p.c
	count := make([]float32, c.out[2])
	for i := range count {
		_, n := c.taps(2, i)
		if includePad {
			n = c.padded(2, i)
		}
		count[i] = float32(n)
	}
	return func(y []float32, row, taps int) {
		if includePad {
			taps = c.padded(1, row)
		}
		for i, n := range count {
			y[i] /= n * float32(taps)
		}
	}
}

// padded is how many taps of window i lie within the input and its padding.
func (c *cube) padded(axis, i int) int {
	at := i*c.stride[axis] - c.begin[axis]
	end := c.in[axis] + c.end[axis]
	return min(c.kernel[axis], (end-at+c.dilation[axis]-1)/c.dilation[axis])
}

func inferGlobalPool(s *Site) ([]tensor.Type, error) {
	if _, err := inferUnary(s); err != nil {
		return nil, err
	}
	x := s.Shape(0)
	if len(x) < 3 {
		return nil, fmt.Errorf("input is %v, want batch, channels and at least one axis more", s.Arg(0).Type)
	}
	out := x.Clone()
	for i := range out[2:] {
		out[2+i] = 1
	}
	return one(s.Float, out...), nil
}

func newGlobalPool(s *Site) (Kernel, error) {
	largest := s.Node.Op == "GlobalMaxPool"
	return byFloat(s, func() (Kernel, error) { return globalPool[float32](largest), nil }, func() (Kernel, error) { return globalPool[float64](largest), nil })
}

func globalPool[T kernel.Float](largest bool) Kernel {
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		plane := in[0].Shape[2:].Elems()
		run := share(env, len(y), plane, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				v := x[p*plane : (p+1)*plane]
				if largest {
					y[p] = T(math.Inf(-1)) // of nothing, as MaxPool
					for _, a := range v {
						y[p] = max(y[p], a)
					}
					continue
				}
				var sum float64
				for _, a := range v {
					sum += float64(a)
				}
				y[p] = T(sum / float64(plane))
			}
		})
		return func() error { run(); return nil }
	})
}
