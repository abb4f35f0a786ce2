package grad

import (
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// tap says where one output position of an axis reads: (1-frac) of element at, frac of the next.
type tap struct {
	at   int
	frac float64
}

// resize is the transpose, axis by axis, of a nearest or linear Resize or Upsample.
//
// The taps are not derived from the coordinate modes a second time but asked of the operator: resizing the ramp f(i)=i
// along an axis yields the very coordinate at which each output position reads (nearest: the element), edges clamped
// as the operator does it. Agreement with the forward pass is thus by construction.
func resize[T kernel.Float](s *Site) (Step, error) {
	switch m := s.Attrs().Str("mode", "nearest"); {
	case m != "nearest" && m != "linear" && m != "bilinear":
		return nil, fmt.Errorf("mode %q has no rule", m)
	case m != "nearest" && s.Attrs().Int("antialias", 0) != 0:
		return nil, fmt.Errorf("antialias has no rule")
	}
	in, out := s.Shape(0), s.Out[0].Shape
	if in.Elems() == 0 || out.Elems() == 0 {
		return nil, fmt.Errorf("%v to %v has no element", in, out)
	}
	inside, start, err := insideOf(s)
	if err != nil {
		return nil, err
	}
	taps := make([][]tap, len(in))
	for a := range in {
		if in[a] == out[a] && inside == nil { // only a crop can do something to an axis that keeps its length
			continue
		}
		taps[a] = make([]tap, out[a])
		if start >= 0 {
			if taps[a], err = rampTaps(s, a, start); err != nil {
				return nil, err
			}
		}
		for i, st := 0, out.Strides()[a]; i < out[a] && inside != nil; i++ { // outside the image nothing is read
			if start < 0 || !inside[start+(i-start/st%out[a])*st] {
				taps[a][i].at = -1
			}
		}
	}
	doubles := len(in) == 4 && taps[0] == nil && taps[1] == nil && twice(taps[2], in[2]) && twice(taps[3], in[3])
	return func(_, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			d := dout[0]
			if doubles {
				return sumsOfFour[T](s, d)
			}
			for a, t := range taps {
				if t != nil {
					d = transposeAxis[T](s, d, a, in[a], t)
				}
			}
			return d
		})
	}, nil
}

// insideOf says which output elements read the image, and the first that does (-1: none). tf_crop_and_resize puts a
// constant where it looks outside; in the other modes, where inside is nil, every element reads.
func insideOf(s *Site) (inside []bool, start int, err error) {
	if s.Attrs().Str("coordinate_transformation_mode", "") != "tf_crop_and_resize" {
		return nil, 0, nil
	}
	constant, err := probe(s, 0, nil)
	if err != nil {
		return nil, 0, err
	}
	ones, err := probe(s, 0, func(int) float64 { return 1 })
	if err != nil {
		return nil, 0, err
	}
	inside, start = make([]bool, len(ones[0])), -1
	for i := range inside {
		inside[i] = math.Abs(ones[0][i]-constant[0][i]-1) < 1e-9
		if inside[i] && start < 0 {
			start = i
		}
	}
	return inside, start, nil
}

// rampTaps reads the taps of axis a off the line along it through the output's element start.
func rampTaps(s *Site, a, start int) ([]tap, error) {
	in, out := s.Shape(0), s.Out[0].Shape
	si, so := in.Strides()[a], out.Strides()[a]
	y, err := probe(s, 0, func(i int) float64 { return float64(i / si % in[a]) })
	if err != nil {
		return nil, err
	}
	taps := make([]tap, out[a])
	base := start - start/so%out[a]*so
	for i := range taps {
		x := math.Max(0, math.Min(y[0][base+i*so], float64(in[a]-1)))
		at, frac := math.Modf(x)
		// Rounding within the operator must not turn a whole coordinate into two taps.
		if frac < 1e-9 {
			frac = 0
		} else if frac > 1-1e-9 {
			at, frac = at+1, 0
		}
		taps[i] = tap{int(at), frac}
	}
	return taps, nil
}

// transposeAxis takes a gradient over len(taps) positions of an axis back to the n that they were read from.
func transposeAxis[T kernel.Float](s *Site, d *tensor.Tensor, axis, n int, taps []tap) *tensor.Tensor {
	shape := d.Shape.Clone()
	shape[axis] = n
	r := s.New(shape)
	outer, inner, m := shape[:axis].Elems(), shape[axis+1:].Elems(), len(taps)
	g, x := tensor.Of[T](r), tensor.Of[T](d)
	each(s.Pool, outer, max(1, 1<<12/max(m*inner, 1)), func(lo, hi int) {
		clear(g[lo*n*inner : hi*n*inner])
		for o := lo; o < hi; o++ {
			for i, t := range taps {
				if t.at < 0 {
					continue
				}
				if inner == 1 {
					v := x[o*m+i]
					g[o*n+t.at] += T(1-t.frac) * v
					if t.frac != 0 {
						g[o*n+t.at+1] += T(t.frac) * v
					}
					continue
				}
				from := x[(o*m+i)*inner : (o*m+i+1)*inner]
				axpy(g[(o*n+t.at)*inner:], from, T(1-t.frac))
				if t.frac != 0 {
					axpy(g[(o*n+t.at+1)*inner:], from, T(t.frac))
				}
			}
		}
	})
	return r
}

// twice reports whether each of n positions is read by a pair, in order.
func twice(taps []tap, n int) bool {
	for i, t := range taps {
		if t != (tap{at: i / 2}) {
			return false
		}
	}
	return len(taps) == 2*n
}

// sumsOfFour is transposeAxis over rows and then columns where a plane was doubled by repetition.
func sumsOfFour[T kernel.Float](s *Site, d *tensor.Tensor) *tensor.Tensor {
	r := s.New(s.Shape(0))
	g, x, w := tensor.Of[T](r), tensor.Of[T](d), s.Shape(0)[3]
	each(s.Pool, len(g)/w, max(1, 1<<12/w), func(lo, hi int) {
		for y := lo; y < hi; y++ {
			a, b := x[4*y*w:(4*y+2)*w], x[(4*y+2)*w:(4*y+4)*w]
			g := g[y*w : (y+1)*w]
			for i := range g {
				g[i] = (a[2*i] + b[2*i]) + (a[2*i+1] + b[2*i+1])
			}
		}
	})
	return r
}

// axpy adds k·x to the beginning of y.
func axpy[T kernel.Float](y, x []T, k T) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += k * v
	}
}

// probe runs the node itself, in float64, on an input k whose element i is f(i) (nil: zeros), other floating-point
// inputs that are not constant being zero, and returns its floating-point outputs (nil for others).
func probe(s *Site, k int, f func(i int) float64) ([][]float64, error) {
	site := s.Site
	site.Float, site.Out, site.In = tensor.Float64, nil, make([]op.Arg, len(s.In))
	in := make([]*tensor.Tensor, len(s.In))
	for i, a := range s.In {
		if !a.Given() {
			continue
		}
		if a.Const != nil {
			in[i] = a.Const
			if a.Type.DType.IsFloat() {
				var err error
				if in[i], err = a.Const.Float(tensor.Float64); err != nil {
					return nil, err
				}
			}
			a.Const = in[i]
		} else {
			in[i] = tensor.New(a.Type.DType, a.Type.Shape...)
			if a.Type.DType.IsFloat() {
				in[i] = tensor.New(tensor.Float64, a.Type.Shape...)
			}
		}
		if i == k {
			a.Const, in[i] = nil, tensor.New(tensor.Float64, a.Type.Shape...)
			x := tensor.Of[float64](in[i])
			for j := range x {
				if f != nil {
					x[j] = f(j)
				}
			}
		}
		a.Type = in[i].Type()
		site.In[i] = a
	}
	out, err := op.Eval(&site, in)
	if err != nil {
		return nil, fmt.Errorf("probing the operator: %w", err)
	}
	y := make([][]float64, len(out))
	for i, t := range out {
		if t != nil && t.DType == tensor.Float64 {
			y[i] = tensor.Of[float64](t)
		}
	}
	return y, nil
}
