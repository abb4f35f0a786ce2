package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var reduceFamily = slices.Concat(
	// axes became an input at 18, for ReduceSum at 13.
	since(reduceDef("ReduceMean", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceSum", 13), 1, 11, 13),
	since(reduceDef("ReduceMax", 18), 1, 11, 12, 13, 18, 20),
	since(reduceDef("ReduceMin", 18), 1, 11, 12, 13, 18, 20),
	since(reduceDef("ReduceL2", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceSumSquare", 18), 1, 11, 13, 18),
	since(argDef("ArgMax"), 1, 11, 12, 13),
	since(argDef("ArgMin"), 1, 11, 12, 13),
)

// reduceDef is a reduction; axes are an input from opset asInput on.
func reduceDef(name string, asInput int) Def {
	return Def{Op: name,
		Infer: func(s *Site) ([]tensor.Type, error) {
			r, err := reductionOf(s, asInput)
			if err != nil {
				return nil, err
			}
			return one(s.DType(0), r.out...), nil
		},
		New: func(s *Site) (Kernel, error) {
			r, err := reductionOf(s, asInput)
			if err != nil {
				return nil, err
			}
			if r.none { // noop_with_empty_axes: the input, element by element
				if name == "ReduceSumSquare" {
					return nil, s.Unsupported("noop_with_empty_axes")
				}
				return Func(func(out, in []*tensor.Tensor) error { copy(out[0].Data, in[0].Data); return nil }), nil
			}
			switch s.DType(0) {
			case tensor.Float32:
				return reduceKernel[float32](r, name), nil
			case tensor.Float64:
				return reduceKernel[float64](r, name), nil
			case tensor.Int32:
				return reduceKernel[int32](r, name), nil
			case tensor.Int64:
				return reduceKernel[int64](r, name), nil
			case tensor.Int8:
				return reduceKernel[int8](r, name), nil
			case tensor.Uint8:
				return reduceKernel[uint8](r, name), nil
			}
			return nil, s.Unsupported("elements of type %v", s.DType(0))
		},
	}
}

// reduction says which axes go.
type reduction struct {
	in, out tensor.Shape
	outer   tensor.Shape // dimensions that stay
	outerSt []int
	inner   tensor.Shape // dimensions that go
	innerSt []int
	none    bool
}

func reductionOf(s *Site, asInput int) (*reduction, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	switch s.DType(0) {
	case s.Float, tensor.Int32, tensor.Int64, tensor.Int8, tensor.Uint8:
	default:
		return nil, s.Unsupported("elements of type %v", s.DType(0))
	}
	axes := s.Attrs().Ints("axes")
	if s.Opset >= asInput {
		var err error
		if axes, err = s.ConstInts(1); err != nil {
			return nil, err
		}
	}
	return s.reduce(axes, s.Attrs().Int("keepdims", 1) != 0, s.Opset >= asInput && s.Attrs().Int("noop_with_empty_axes", 0) != 0)
}

func (s *Site) reduce(axes []int, keep, noop bool) (*reduction, error) {
	x := s.Shape(0)
	r := &reduction{in: x}
	axes, err := axesOf(axes, len(x))
	if err != nil {
		return nil, err
	}
	if len(axes) == 0 {
		r.none = noop
	}
	st := x.Strides()
	r.out, r.outer, r.inner = tensor.Shape{}, tensor.Shape{}, tensor.Shape{}
	for i, d := range x {
		if r.none || len(axes) > 0 && !slices.Contains(axes, i) {
			r.out, r.outer, r.outerSt = append(r.out, d), append(r.outer, d), append(r.outerSt, st[i])
			continue
		}
		r.inner, r.innerSt = append(r.inner, d), append(r.innerSt, st[i])
		if keep {
			r.out = append(r.out, 1)
		}
	}
	return r, nil
}

// reduceKernel adds up in float64, or keeps the largest or smallest.
func reduceKernel[T real](r *reduction, name string) Kernel {
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		at := positions(r.inner, r.innerSt)
		from := positions(r.outer, r.outerSt)
		run := share(env, len(y), len(at), func(lo, hi int) {
			for i := lo; i < hi; i++ {
				y[i] = reduceOne(name, x[from[i]:], at)
			}
		})
		return func() error { run(); return nil }
	})
}

func reduceOne[T real](name string, x []T, at []int) T {
	switch name {
	case "ReduceMax", "ReduceMin":
		if len(at) == 0 {
			return emptyExtreme[T](name == "ReduceMax")
		}
		m := x[at[0]]
		for _, p := range at[1:] {
			if name == "ReduceMax" {
				m = max(m, x[p])
			} else {
				m = min(m, x[p])
			}
		}
		return m
	}
	var sum float64
	for _, p := range at {
		v := float64(x[p])
		if name == "ReduceSumSquare" || name == "ReduceL2" {
			v *= v
		}
		sum += v
	}
	switch name {
	case "ReduceMean":
		sum /= float64(len(at))
	case "ReduceL2":
		sum = math.Sqrt(sum)
	}
	return T(sum)
}

// emptyExtreme is the maximum or minimum of nothing: the least or greatest value of the type.
func emptyExtreme[T real](largest bool) (v T) {
	lo, hi := math.Inf(-1), math.Inf(1)
	switch p := any(&v).(type) {
	case *int64:
		if *p = math.MaxInt64; largest {
			*p = math.MinInt64
		}
		return v
	case *int32:
		lo, hi = math.MinInt32, math.MaxInt32
	case *int8:
		lo, hi = math.MinInt8, math.MaxInt8
	case *uint8:
		lo, hi = 0, math.MaxUint8
	}
	if largest {
		return T(lo)
	}
	return T(hi)
}

// positions lists the offsets of all elements of a shape, in order.
func positions(shape tensor.Shape, strides []int) []int {
	p := []int{0}
	for i, d := range shape {
		next := make([]int, 0, len(p)*d)
		for _, o := range p {
			for k := range d {
				next = append(next, o+k*strides[i])
			}
		}
		p = next
	}
	return p
}

func argDef(name string) Def {
	dims := func(s *Site) (*reduction, error) {
		if err := s.require(1); err != nil {
			return nil, err
		}
		if err := s.floatOnly(); err != nil {
			return nil, err
		}
		if len(s.Shape(0)) == 0 {
			return nil, s.Unsupported("a scalar input")
		}
		r, err := s.reduce([]int{s.Attrs().Int("axis", 0)}, s.Attrs().Int("keepdims", 1) != 0, false)
		if err == nil && r.inner.Elems() == 0 {
			err = fmt.Errorf("axis of length 0")
		}
		return r, err
	}
	return Def{Op: name,
		Infer: func(s *Site) ([]tensor.Type, error) {
			r, err := dims(s)
			if err != nil {
				return nil, err
			}
			return one(tensor.Int64, r.out...), nil
		},
		New: func(s *Site) (Kernel, error) {
			r, err := dims(s)
			if err != nil {
				return nil, err
			}
			last := s.Attrs().Int("select_last_index", 0) != 0
			return byFloat(s, func() (Kernel, error) { return argKernel[float32](r, name == "ArgMax", last), nil },
				func() (Kernel, error) { return argKernel[float64](r, name == "ArgMax", last), nil })
		},
	}
}

// argKernel gives the index of the largest or smallest element along an axis, the first or the last of equals.
func argKernel[T kernel.Float](r *reduction, largest, last bool) Kernel {
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[int64](out[0]), tensor.Of[T](in[0])
		from := positions(r.outer, r.outerSt)
		n, st := r.inner[0], r.innerSt[0]
		run := share(env, len(y), n, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				v := x[from[i]:]
				best := 0
				for k := 1; k < n; k++ {
					a, b := v[k*st], v[best*st]
					if !largest {
						a, b = -a, -b
					}
					if a > b || last && a == b {
						best = k
					}
				}
				y[i] = int64(best)
			}
		})
		return func() error { run(); return nil }
	})
}
