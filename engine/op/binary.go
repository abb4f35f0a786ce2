package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// binaryFamily is the element-wise operators of two or more operands, with numpy's broadcasting. Before opset 7 (8 for
// those of many operands) the second operand was aligned at an attribute axis instead; see legacyShape.
var binaryFamily = slices.Concat(
	since(arithmeticDef("Add"), 1, 6, 7, 13, 14),
	since(arithmeticDef("Sub"), 1, 6, 7, 13, 14),
	since(arithmeticDef("Mul"), 1, 6, 7, 13, 14),
	since(arithmeticDef("Div"), 1, 6, 7, 13, 14),
	since(arithmeticDef("Mod"), 10, 13),
	since(powDef, 1, 7, 12, 13, 15),
	since(variadicDef("Min"), 1, 6, 8, 12, 13),
	since(variadicDef("Max"), 1, 6, 8, 12, 13),
	since(variadicDef("Sum"), 1, 6, 8, 13),
	since(variadicDef("Mean"), 1, 6, 8, 13),
	since(logicDef("And"), 1, 7),
	since(logicDef("Or"), 1, 7),
	since(logicDef("Xor"), 1, 7),
	since(notDef, 1),
	since(comparisonDef("Equal"), 1, 7, 11, 13, 19),
	since(comparisonDef("Greater"), 1, 7, 9, 13),
	since(comparisonDef("GreaterOrEqual"), 12, 16),
	since(comparisonDef("Less"), 1, 7, 9, 13),
	since(comparisonDef("LessOrEqual"), 12, 16),
)

func arithmeticDef(op string) Def {
	return Def{Op: op, InPlace: true,
		Infer: func(s *Site) ([]tensor.Type, error) {
			dt, err := s.sameReal(2)
			if err != nil {
				return nil, err
			}
			return s.inferBinary(dt)
		},
		New: func(s *Site) (Kernel, error) {
			f, err := arithmeticOf(s.DType(0), op, s.Attrs().Int("fmod", 0) != 0)
			return s.newBinary(f, err)
		},
	}
}

func comparisonDef(op string) Def {
	return Def{Op: op,
		Infer: func(s *Site) ([]tensor.Type, error) {
			if op != "Equal" || s.DType(0) != tensor.Bool || s.DType(1) != tensor.Bool {
				if _, err := s.sameReal(2); err != nil {
					return nil, err
				}
			}
			return s.inferBinary(tensor.Bool)
		},
		New: func(s *Site) (Kernel, error) {
			f, err := logic(op)
			if s.DType(0) != tensor.Bool {
				f, err = comparisonOf(s.DType(0), op)
			}
			return s.newBinary(f, err)
		},
	}
}

func logicDef(op string) Def {
	return Def{Op: op,
		Infer: func(s *Site) ([]tensor.Type, error) {
			if err := s.require(2); err != nil {
				return nil, err
			}
			if s.DType(0) != tensor.Bool || s.DType(1) != tensor.Bool {
				return nil, fmt.Errorf("inputs are %v and %v, want bool", s.DType(0), s.DType(1))
			}
			return s.inferBinary(tensor.Bool)
		},
		New: func(s *Site) (Kernel, error) {
			f, err := logic(op)
			return s.newBinary(f, err)
		},
	}
}

// sameReal checks that n inputs at least are there and that all have one element type, which arithmetic is defined on.
func (s *Site) sameReal(n int) (tensor.DType, error) {
	if err := s.require(max(n, len(s.In))); err != nil {
		return 0, err
	}
	dt := s.DType(0)
	for i := range s.In {
		if s.DType(i) != dt {
			return 0, fmt.Errorf("inputs are %v and %v, want the same type", dt, s.DType(i))
		}
	}
	if !isReal(dt) {
		return 0, s.Unsupported("elements of type %v", dt)
	}
	return dt, nil
}

// operands is the shapes of two operands, ready for numpy's rule.
func (s *Site) operands() (a, b tensor.Shape, err error) {
	a, b = s.Shape(0), s.Shape(1)
	if s.Opset >= 7 {
		return a, b, nil
	}
	b, err = s.legacyShape(a, b)
	return a, b, err
}

// legacyShape is the shape of the second operand before opset 7. With broadcast=1 its dimensions are a run of the first's,
// beginning at axis, or by default at the end; without, both have one shape.
func (s *Site) legacyShape(a, b tensor.Shape) (tensor.Shape, error) {
	if s.Attrs().Int("broadcast", 0) == 0 {
		if !slices.Equal(a, b) {
			return nil, fmt.Errorf("shapes %v and %v differ, and attribute broadcast is not set", []int(a), []int(b))
		}
		return b, nil
	}
	if len(b) > len(a) {
		return nil, fmt.Errorf("shape %v has more dimensions than %v", []int(b), []int(a))
	}
	axis := len(a) - len(b)
	if s.Attrs().Has("axis") {
		var err error
		if axis, err = axisOf(s.Attrs().Int("axis", 0), max(len(a), 1)); err != nil {
			return nil, err
		}
		// Exporters of the time wrote axis with a second operand of shape [1] or [].
		if axis+len(b) > len(a) {
			return nil, fmt.Errorf("shape %v does not fit into %v at axis %d", []int(b), []int(a), axis)
		}
	}
	b = slices.Clone(b)
	for len(b) < len(a)-axis {
		b = append(b, 1)
	}
	if out, err := broadcast(a, b); err != nil || !slices.Equal(out, a) {
		return nil, fmt.Errorf("shape %v does not broadcast to %v", []int(b), []int(a))
	}
	return b, nil
}

func (s *Site) inferBinary(dt tensor.DType) ([]tensor.Type, error) {
	if len(s.In) > 2 {
		return nil, fmt.Errorf("%d inputs, want 2", len(s.In))
	}
	a, b, err := s.operands()
	if err != nil {
		return nil, err
	}
	out, err := broadcast(a, b)
	if err != nil {
		return nil, err
	}
	return s.sized(dt, out)
}

func (s *Site) newBinary(f binder, err error) (Kernel, error) {
	if err != nil {
		return nil, err
	}
	a, b, err := s.operands()
	if err != nil {
		return nil, err
	}
	n, err := s.binaryNest(a, b)
	if err != nil {
		return nil, err
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		return f(env, n, out[0], in[0], in[1])
	}), nil
}

// binaryNest walks output 0 and two operands that broadcast to it.
func (s *Site) binaryNest(a, b tensor.Shape) (*nest, error) {
	out := s.Out[0].Shape
	n, err := newNest(out, offsets{}, out.Strides(), broadcastStrides(a, out), broadcastStrides(b, out))
	if err != nil {
		return nil, s.Unsupported("%v", err)
	}
	return n, nil
}

var notDef = Def{Op: "Not", InPlace: true,
	Infer: func(s *Site) ([]tensor.Type, error) {
		if s.DType(0) != tensor.Bool {
			return nil, fmt.Errorf("input is %v, want bool", s.DType(0))
		}
		return s.sized(tensor.Bool, s.Shape(0))
	},
	New: func(*Site) (Kernel, error) {
		return Func(func(out, in []*tensor.Tensor) error {
			y := tensor.Of[bool](out[0])
			for i, x := range tensor.Of[bool](in[0]) {
				y[i] = !x
			}
			return nil
		}), nil
	},
}

// variadicDef folds its operands from the left. The first may share its memory with the output, whose elements are read
// before they are written.
func variadicDef(op string) Def {
	return Def{Op: op, InPlace: true,
		Infer: func(s *Site) ([]tensor.Type, error) {
			dt, err := s.sameReal(1)
			if err != nil {
				return nil, err
			}
			if (op == "Mean" || op == "Sum") && dt != s.Float {
				return nil, fmt.Errorf("inputs are %v, want floating point", dt)
			}
			shapes := make([]tensor.Shape, len(s.In))
			for i := range s.In {
				shapes[i] = s.Shape(i)
				if s.Opset < 8 && !slices.Equal(shapes[i], shapes[0]) {
					return nil, fmt.Errorf("shapes %v and %v differ", []int(shapes[0]), []int(shapes[i]))
				}
			}
			out, err := broadcast(shapes...)
			if err != nil {
				return nil, err
			}
			return s.sized(dt, out)
		},
		New: func(s *Site) (Kernel, error) { return newVariadic(s, op) },
	}
}

func newVariadic(s *Site, op string) (Kernel, error) {
	f, err := arithmeticOf(s.DType(0), op, false)
	if err != nil {
		return nil, err
	}
	scale, err := arithmeticOf(s.DType(0), "Div", false)
	if err != nil {
		return nil, err
	}
	out := s.Out[0].Shape
	nests := make([]*nest, len(s.In))
	for i := range s.In {
		first := out // what was gathered so far; for operand 1 that is operand 0 itself
		if i == 1 {
			first = s.Shape(0)
		}
		if nests[i], err = s.binaryNest(first, s.Shape(i)); err != nil {
			return nil, err
		}
	}
	divide, err := s.binaryNest(out, tensor.Shape{})
	if err != nil {
		return nil, err
	}
	count, err := tensor.Scalar(float64(len(s.In))).Float(s.Float)
	if err != nil {
		return nil, err
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		if len(in) == 1 {
			return func() error { copy(out[0].Data, in[0].Data); return nil }
		}
		steps := []func() error{f(env, nests[1], out[0], in[0], in[1])}
		for i := 2; i < len(in); i++ {
			steps = append(steps, f(env, nests[i], out[0], out[0], in[i]))
		}
		if op == "Mean" {
			steps = append(steps, scale(env, divide, out[0], out[0], count))
		}
		return func() error {
			for _, run := range steps {
				if err := run(); err != nil {
					return err
				}
			}
			return nil
		}
	}), nil
}
