package gorgonia

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"
)

// Constants, sizes, and the operators that see the same elements in another shape.

// whole makes a known list of integers.
func whole(v []int) value {
	return value{shape: []int{len(v)}, array: convert(v), whole: true}
}

func (s *site) constant() (value, error) {
	for _, name := range []string{"value", "value_float", "value_int", "value_floats", "value_ints"} {
		switch a := s.op.Attributes[name].(type) {
		case nil:
		case tensor.Tensor:
			return constant(a)
		case []int64:
			return whole(ints(convert(a))), nil
		case []float32:
			return known(convert(a), len(a)), nil
		case int64:
			return value{shape: []int{}, array: []float64{float64(a)}, whole: true}, nil
		case float32:
			return known([]float64{float64(a)}), nil
		}
	}
	return value{}, fmt.Errorf("the constant is of a kind that is not lowered")
}

func (s *site) constantOfShape() (value, error) {
	shape, err := s.ints(0)
	if err != nil {
		return value{}, err
	}
	fill := known([]float64{0}, 1)
	if t, ok := s.op.Attributes["value"].(tensor.Tensor); ok {
		if fill, err = constant(t); err != nil {
			return value{}, err
		}
	}
	if elements(shape) > maxElements {
		return value{}, fmt.Errorf("%v: %w", shape, errTooLarge)
	}
	return value{shape: shape, array: slices.Repeat(fill.array[:1], elements(shape)), whole: fill.whole}, nil
}

func (s *site) shapeOf() (value, error) {
	shape := s.in[0].shape
	clamp := func(a int) int {
		if a < 0 {
			a += len(shape)
		}
		return min(max(a, 0), len(shape))
	}
	a, b := clamp(s.integer("start", 0)), clamp(s.integer("end", len(shape)))
	return whole(shape[a:max(a, b)]), nil
}

// cast truncates known numbers where integers are asked for; activations stay as they are.
func (s *site) cast() (value, error) {
	const float32s, float16s, float64s, bfloat16s = 1, 10, 11, 16
	x := s.in[0]
	switch s.integer("to", 0) {
	case float32s, float16s, float64s, bfloat16s:
		x.whole = false
		return x, nil
	}
	if !x.known() {
		return value{}, fmt.Errorf("activations are not cast to integers")
	}
	y := value{shape: x.shape, array: slices.Clone(x.array), whole: true}
	for i, v := range y.array {
		y.array[i] = math.Trunc(v)
	}
	return y, nil
}

// reshape gives x another shape.
func (l *lowering) reshape(name string, x value, shape []int) (value, error) {
	if elements(shape) != elements(x.shape) {
		return value{}, fmt.Errorf("%v does not become %v", x.shape, shape)
	}
	return l.move(name, x, func(a array) (array, error) { return array{shape, a.v}, nil })
}

func (s *site) reshapeTo() (value, error) {
	shape, err := s.ints(1)
	if err != nil {
		return value{}, err
	}
	from, open, rest := s.in[0].shape, -1, 1
	for i, d := range shape {
		if d == 0 && s.integer("allowzero", 0) == 0 {
			if i >= len(from) {
				return value{}, fmt.Errorf("shape %v of %v", shape, from)
			}
			shape[i] = from[i]
		}
		if d == -1 {
			open = i
		} else {
			rest *= shape[i]
		}
	}
	if open >= 0 && rest > 0 {
		shape[open] = elements(from) / rest
	}
	return s.reshape(s.name, s.in[0], shape)
}

func (s *site) flatten() (value, error) {
	x := s.in[0]
	a := s.integer("axis", 1)
	if a < 0 {
		a += s.rank()
	}
	if a < 0 || a > s.rank() {
		return value{}, fmt.Errorf("axis %d of a tensor of rank %d", a, s.rank())
	}
	return s.reshape(s.name, x, []int{elements(x.shape[:a]), elements(x.shape[a:])})
}

func (s *site) squeeze() (value, error) {
	x := s.in[0]
	as, err := s.list("axes", 1, 13)
	if err != nil {
		return value{}, err
	}
	axes, err := axesOf(as, s.rank())
	if err != nil {
		return value{}, err
	}
	shape := []int{}
	for a, d := range x.shape {
		if as == nil && d == 1 || slices.Contains(axes, a) {
			continue
		}
		shape = append(shape, d)
	}
	return s.reshape(s.name, x, shape)
}

func (s *site) unsqueeze() (value, error) {
	as, err := s.list("axes", 1, 13)
	if err != nil {
		return value{}, err
	}
	axes, err := axesOf(as, s.rank()+len(as))
	if err != nil {
		return value{}, err
	}
	shape := slices.Clone(s.in[0].shape)
	slices.Sort(axes)
	for _, a := range axes {
		shape = slices.Insert(shape, a, 1)
	}
	return s.reshape(s.name, s.in[0], shape)
}
