package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// constantFamily is the operators that make tensors from attributes and constants.
var constantFamily = slices.Concat(
	since(folded("Constant", constantValue), 1, 9, 11, 12, 13, 19, 21, 23, 24, 25),
	since(Def{Op: "ConstantOfShape", Infer: inferConstantOfShape, New: newConstantOfShape}, 9, 20, 21, 23, 24, 25),
	since(Def{Op: "Range", Infer: inferRange, New: newRange}, 11),
)

// constantValue reads whichever attribute holds the value, floating point as the site runs it.
func constantValue(s *Site) (*tensor.Tensor, error) {
	var t *tensor.Tensor
	for _, a := range s.Attrs() {
		if t != nil {
			return nil, fmt.Errorf("more than one attribute holds the value")
		}
		switch a.Name {
		case "value":
			t = a.Tensor
		case "value_float":
			t = tensor.Scalar(a.Float)
		case "value_floats":
			t = tensor.From(a.Floats, len(a.Floats))
		case "value_int":
			t = tensor.Scalar(a.Int)
		case "value_ints":
			t = tensor.From(a.Ints, len(a.Ints))
		case "value_string":
			t = &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{}, Strings: [][]byte{a.Str}}
		case "value_strings":
			t = &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{len(a.Strs)}, Strings: a.Strs}
		case "sparse_value":
			return nil, s.Unsupported("attribute sparse_value")
		}
	}
	if t == nil {
		return nil, fmt.Errorf("no attribute holds the value")
	}
	if t.DType.IsFloat() {
		return t.Float(s.Float)
	}
	return t, nil
}

// filler is the one element that ConstantOfShape repeats: 0 of floating point unless attribute value says otherwise.
func (s *Site) filler() (*tensor.Tensor, error) {
	t := s.Attrs().Tensor("value")
	if t == nil {
		return tensor.New(s.Float, 1), nil
	}
	if t.Elems() != 1 {
		return nil, fmt.Errorf("attribute value has %d elements, want 1", t.Elems())
	}
	if t.DType.IsFloat() {
		return t.Float(s.Float)
	}
	switch t.DType.Bits() {
	case 8, 16, 32, 64:
		return t, nil
	}
	return nil, s.Unsupported("elements of type %v", t.DType)
}

func inferConstantOfShape(s *Site) ([]tensor.Type, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	shape, err := s.ConstInts(0)
	if err != nil {
		return nil, err
	}
	for _, d := range shape {
		if d < 0 {
			return nil, fmt.Errorf("shape %v has dimension %d", shape, d)
		}
	}
	v, err := s.filler()
	if err != nil {
		return nil, err
	}
	return s.sized(v.DType, append(tensor.Shape{}, shape...))
}

func newConstantOfShape(s *Site) (Kernel, error) {
	v, err := s.filler()
	if err != nil {
		return nil, err
	}
	n, err := newNest([]int{s.Out[0].Shape.Elems()}, offsets{}, []int{1}, []int{0})
	if err != nil {
		return nil, err
	}
	return BindFunc(func(env *Env, out, _ []*tensor.Tensor) func() error {
		run := n.move(env, v.DType.Bits()/8, out[0], v)
		return func() error { run(); return nil }
	}), nil
}

// span gives start, limit and delta of Range, which must be constants of one type.
func (s *Site) span() ([3]*tensor.Tensor, error) {
	var v [3]*tensor.Tensor
	if err := s.require(3); err != nil {
		return v, err
	}
	for i := range v {
		a := s.Arg(i)
		if a.Const == nil {
			return v, s.Unsupported("input %d depends on the data; it must be constant once shapes are known", i)
		}
		if a.Type.DType != s.DType(0) || a.Const.Elems() != 1 {
			return v, fmt.Errorf("input %d is %v, want one %v", i, a.Type, s.DType(0))
		}
		v[i] = a.Const
	}
	if !isReal(s.DType(0)) {
		return v, s.Unsupported("elements of type %v", s.DType(0))
	}
	return v, nil
}

// inferRange counts max(ceil((limit-start)/delta), 0) elements.
func inferRange(s *Site) ([]tensor.Type, error) {
	v, err := s.span()
	if err != nil {
		return nil, err
	}
	var f [3]float64
	for i, t := range v {
		x, ok := t.Float64s()
		if !ok {
			return nil, s.Unsupported("elements of type %v", t.DType)
		}
		f[i] = x[0]
	}
	if f[2] == 0 {
		return nil, fmt.Errorf("delta is 0")
	}
	// float64 counts exactly up to the limit, whatever the type: what differs beyond 2^53 is far too long anyway, but for
	// integers whose difference is small.
	n := math.Ceil((f[1] - f[0]) / f[2])
	if v[0].DType.IsInt() && math.Abs(f[0]) > 1<<52 {
		return nil, s.Unsupported("a range that begins at %g", f[0])
	}
	if math.IsNaN(n) || n > maxElems {
		return nil, s.Unsupported("its output would have %g elements, more than %d", n, maxElems)
	}
	return s.sized(v[0].DType, tensor.Shape{int(max(n, 0))})
}

func newRange(s *Site) (Kernel, error) {
	v, err := s.span()
	if err != nil {
		return nil, err
	}
	f, ok := byReal(s.DType(0), count[float32], count[float64], count[int8], count[int16], count[int32], count[int64],
		count[uint8], count[uint16], count[uint32], count[uint64])
	if !ok {
		return nil, s.Unsupported("elements of type %v", s.DType(0))
	}
	return Func(func(out, _ []*tensor.Tensor) error { f(out[0], v[0], v[2]); return nil }), nil
}

func count[T real](out, start, delta *tensor.Tensor) {
	a, d := tensor.Of[T](start)[0], tensor.Of[T](delta)[0]
	y := tensor.Of[T](out)
	for i := range y {
		y[i] = a + T(i)*d
	}
}
