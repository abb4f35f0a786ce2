package op

import (
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var softmaxFamily = slices.Concat(
	since(Def{Op: "Softmax", InPlace: true, Infer: inferSoftmax, New: newSoftmax}, 1, 11, 13),
	since(Def{Op: "LogSoftmax", InPlace: true, Infer: inferSoftmax, New: newSoftmax}, 1, 11, 13),
)

func inferSoftmax(s *Site) ([]tensor.Type, error) {
	t, err := inferUnary(s)
	if err == nil {
		_, _, _, err = softmaxDims(s)
	}
	return t, err
}

// softmaxDims gives the shape as [outer, n, inner], of which n is normalised. Before opset 13 everything from the axis
// on was; since then the axis alone is.
func softmaxDims(s *Site) (outer, n, inner int, err error) {
	x := s.Shape(0)
	def := -1
	if s.Opset < 13 {
		def = 1
	}
	a := s.Attrs().Int("axis", def)
	if len(x) == 0 {
		return 1, 1, 1, nil
	}
	if s.Opset < 13 && a == len(x) {
		return x.Elems(), 1, 1, nil
	}
	if a, err = axisOf(a, len(x)); err != nil {
		return 0, 0, 0, err
	}
	if s.Opset < 13 {
		return x[:a].Elems(), x[a:].Elems(), 1, nil
	}
	return x[:a].Elems(), x[a], x[a+1:].Elems(), nil
}

func newSoftmax(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return softmax[float32](s) }, func() (Kernel, error) { return softmax[float64](s) })
}

// softmax is e^(x−max) over its sum, or its logarithm. A group of neighbouring columns is worked on at once, so that
// memory is read in order whatever the axis.
func softmax[T kernel.Float](s *Site) (Kernel, error) {
	outer, n, inner, err := softmaxDims(s)
	if err != nil {
		return nil, err
	}
	log := s.Node.Op == "LogSoftmax"
	const width = 64
	groups := (inner + width - 1) / width
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		run := share(env, outer*groups, n*min(width, inner), func(lo, hi int) {
			var top, sum [width]float64
			for p := lo; p < hi; p++ {
				first := p % groups * width
				at := p/groups*n*inner + first
				w := min(width, inner-first)
				for j := range w {
					top[j], sum[j] = math.Inf(-1), 0
				}
				for i := range n {
					for j, v := range x[at+i*inner:][:w] {
						top[j] = max(top[j], float64(v))
					}
				}
				for i := range n {
					for j, v := range x[at+i*inner:][:w] {
						sum[j] += math.Exp(float64(v) - top[j])
					}
				}
				for i := range n {
					row := y[at+i*inner:][:w]
					for j, v := range x[at+i*inner:][:w] {
						if d := float64(v) - top[j]; log {
							row[j] = T(d - math.Log(sum[j]))
						} else {
							row[j] = T(math.Exp(d) / sum[j])
						}
					}
				}
			}
		})
		return func() error { run(); return nil }
	}), nil
}
