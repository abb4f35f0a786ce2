package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

var argFamily = slices.Concat(
	since(argDef("ArgMax"), 1, 11, 12, 13),
	since(argDef("ArgMin"), 1, 11, 12, 13),
)

func argDef(name string) Def {
	return Def{Op: name,
		Infer: func(s *Site) ([]tensor.Type, error) {
			r, _, err := argAxis(s)
			if err != nil {
				return nil, err
			}
			return one(tensor.Int64, r.out...), nil
		},
		New: newArg,
	}
}

// argAxis gives the shape without the axis, or with it as 1, and which axis it is.
func argAxis(s *Site) (*reduction, int, error) {
	if err := s.require(1); err != nil {
		return nil, 0, err
	}
	if !isReal(s.DType(0)) {
		return nil, 0, s.Unsupported("elements of type %v", s.DType(0))
	}
	x := s.Shape(0)
	if len(x) == 0 {
		return nil, 0, s.Unsupported("a scalar input")
	}
	axis, err := axisOf(s.Attrs().Int("axis", 0), len(x))
	if err != nil {
		return nil, 0, err
	}
	if x[axis] == 0 {
		return nil, 0, fmt.Errorf("axis %d of %v has no elements", axis, s.Arg(0).Type)
	}
	r, err := s.reduce([]int{axis}, false, s.Attrs().Int("keepdims", 1) != 0)
	return r, axis, err
}

func newArg(s *Site) (Kernel, error) {
	_, axis, err := argAxis(s)
	if err != nil {
		return nil, err
	}
	x := s.Shape(0)
	a := argument{n: x[axis], inner: x[axis+1:].Elems(), least: s.Node.Op == "ArgMin", last: s.Attrs().Int("select_last_index", 0) != 0}
	k, ok := byReal(s.DType(0), argKernel[float32](a), argKernel[float64](a), argKernel[int8](a), argKernel[int16](a), argKernel[int32](a),
		argKernel[int64](a), argKernel[uint8](a), argKernel[uint16](a), argKernel[uint32](a), argKernel[uint64](a))
	if !ok {
		return nil, s.Unsupported("elements of type %v", s.DType(0))
	}
	return k, nil
}

// argument is the index along the middle axis of [outer, n, inner] of the largest or least element; of equals, the first
// or the last.
type argument struct {
	n, inner    int
	least, last bool
}

func argKernel[T real](a argument) Kernel {
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[int64](out[0]), tensor.Of[T](in[0])
		run := share(env, len(y), a.n, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				p := i/a.inner*a.n*a.inner + i%a.inner
				best, at := x[p], 0
				for k := 1; k < a.n; k++ {
					p += a.inner
					if v := x[p]; a.least && v < best || !a.least && v > best || a.last && v == best {
						best, at = v, k
					}
				}
				y[i] = int64(at)
			}
		})
		return func() error { run(); return nil }
	})
}
