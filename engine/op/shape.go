package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// shapeFamily is the operators that read shapes, and those whose output is the input's elements in another shape.
var shapeFamily = slices.Concat(
	since(folded("Shape", foldShape), 1, 13, 15, 19, 21, 23, 24, 25),
	since(folded("Size", foldSize), 1, 13, 19, 21, 23, 24, 25),
	since(view("Reshape", reshapeAttr), 1),
	since(view("Reshape", reshapeInput), 5, 13, 14, 19, 21, 23, 24, 25),
	since(view("Flatten", flatten), 1, 9, 11, 13, 21, 23, 24, 25),
	since(view("Squeeze", squeeze), 1, 11, 13, 21, 23, 24, 25),
	since(view("Unsqueeze", unsqueeze), 1, 11, 13, 21, 23, 24, 25),
	since(view("Identity", func(s *Site) (tensor.Shape, error) { return s.Shape(0), nil }), 1, 13, 14, 16, 19, 21, 23, 24, 25),
	since(Def{Op: "Dropout", InPlace: true, Infer: inferDropout, New: newDropout}, 1, 6, 7, 10, 12, 13, 22),
	since(Def{Op: "Expand", Infer: inferExpand, New: newExpand}, 8, 13),
)

// folded is an operator whose one output follows from the types of the inputs.
func folded(op string, fold func(s *Site) (*tensor.Tensor, error)) Def {
	return Def{Op: op,
		Infer: func(s *Site) ([]tensor.Type, error) {
			t, err := fold(s)
			if err != nil {
				return nil, err
			}
			return []tensor.Type{t.Type()}, nil
		},
		New: func(s *Site) (Kernel, error) {
			t, err := fold(s)
			if err != nil {
				return nil, err
			}
			return Func(func(out, _ []*tensor.Tensor) error { return assign(out[0], t) }), nil
		},
		Fold: func(s *Site) ([]*tensor.Tensor, error) {
			t, err := fold(s)
			if err != nil {
				return nil, err
			}
			return []*tensor.Tensor{t}, nil
		},
	}
}

// assign copies the elements of x, which y has as many of.
func assign(y, x *tensor.Tensor) error {
	copy(y.Data, x.Data)
	copy(y.Strings, x.Strings)
	return nil
}

func foldShape(s *Site) (*tensor.Tensor, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	shape := s.Shape(0)
	start, end := 0, len(shape)
	if s.Opset >= 15 {
		clamp := func(i int) int {
			if i < 0 {
				i += len(shape)
			}
			return min(max(i, 0), len(shape))
		}
		start, end = clamp(s.Attrs().Int("start", 0)), clamp(s.Attrs().Int("end", len(shape)))
		end = max(end, start)
	}
	dims := make([]int64, 0, len(shape))
	for _, d := range shape[start:end] {
		dims = append(dims, int64(d))
	}
	return tensor.From(dims, len(dims)), nil
}

func foldSize(s *Site) (*tensor.Tensor, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	return tensor.Scalar(int64(s.Shape(0).Elems())), nil
}

// view is an operator whose output is the elements of input 0 in the shape that shape gives.
func view(op string, shape func(s *Site) (tensor.Shape, error)) Def {
	return Def{Op: op, View: func(*Site) []int { return []int{0} },
		Infer: func(s *Site) ([]tensor.Type, error) {
			if err := s.require(1); err != nil {
				return nil, err
			}
			out, err := shape(s)
			if err != nil {
				return nil, err
			}
			if s.DType(0) == tensor.String && s.Arg(0).Const == nil {
				return nil, s.Unsupported("strings that are not constant")
			}
			if was := s.Shape(0); out.Elems() != was.Elems() {
				return nil, fmt.Errorf("shape %v does not hold the elements of %v", []int(out), []int(was))
			}
			return []tensor.Type{{DType: s.DType(0), Shape: out}}, nil
		},
		New: func(*Site) (Kernel, error) {
			return Func(func(out, in []*tensor.Tensor) error { return assign(out[0], in[0]) }), nil
		},
	}
}

func reshapeAttr(s *Site) (tensor.Shape, error) {
	return reshape(s.Shape(0), s.Attrs().Ints("shape"), false)
}

func reshapeInput(s *Site) (tensor.Shape, error) {
	if err := s.require(2); err != nil {
		return nil, err
	}
	want, err := s.ConstInts(1)
	if err != nil {
		return nil, err
	}
	return reshape(s.Shape(0), want, s.Opset >= 14 && s.Attrs().Int("allowzero", 0) != 0)
}

// reshape resolves the 0 (copied from the input, unless it is allowed to mean itself) and the -1 (what remains) of want.
func reshape(in tensor.Shape, want []int, allowZero bool) (tensor.Shape, error) {
	out := make(tensor.Shape, len(want))
	rest := -1
	for i, d := range want {
		switch {
		case d == -1 && rest >= 0:
			return nil, fmt.Errorf("shape %v has -1 twice", want)
		case d == -1:
			rest, out[i] = i, 1
			continue
		case d < 0 || d > tensor.MaxElements:
			return nil, fmt.Errorf("shape %v has dimension %d", want, d)
		case d == 0 && !allowZero && i >= len(in):
			return nil, fmt.Errorf("shape %v copies a dimension that %v does not have", want, []int(in))
		case d == 0 && !allowZero:
			d = in[i]
		}
		out[i] = d
	}
	if rest < 0 {
		return out, nil
	}
	n, known := in.Elems(), out.Elems()
	if known <= 0 || n%known != 0 {
		return nil, fmt.Errorf("shape %v does not divide the %d elements of %v", want, n, []int(in))
	}
	out[rest] = n / known
	return out, nil
}

func flatten(s *Site) (tensor.Shape, error) {
	shape := s.Shape(0)
	axis := s.Attrs().Int("axis", 1)
	if axis < -len(shape) || axis > len(shape) {
		return nil, fmt.Errorf("axis %d of a tensor of rank %d", axis, len(shape))
	}
	if axis < 0 {
		axis += len(shape)
	}
	out := tensor.Shape{shape[:axis].Elems(), shape[axis:].Elems()}
	if min(out[0], out[1]) < 0 {
		return nil, fmt.Errorf("shape %v is too large to flatten", []int(shape))
	}
	return out, nil
}

// axesArg reads axes where the opset keeps them: an attribute before 13, an input from then on. It is nil if absent.
func (s *Site) axesArg() ([]int, error) {
	if s.Opset < 13 {
		return s.Attrs().Ints("axes"), nil
	}
	return s.ConstInts(1)
}

func squeeze(s *Site) (tensor.Shape, error) {
	shape := s.Shape(0)
	axes, err := s.axesArg()
	if err != nil {
		return nil, err
	}
	out := tensor.Shape{}
	if axes == nil {
		for _, d := range shape {
			if d != 1 {
				out = append(out, d)
			}
		}
		return out, nil
	}
	if axes, err = axesOf(axes, len(shape)); err != nil {
		return nil, err
	}
	for i, d := range shape {
		if !slices.Contains(axes, i) {
			out = append(out, d)
		} else if d != 1 {
			return nil, fmt.Errorf("axis %d of shape %v is not 1", i, []int(shape))
		}
	}
	return out, nil
}

func unsqueeze(s *Site) (tensor.Shape, error) {
	axes, err := s.axesArg()
	if err != nil {
		return nil, err
	}
	if axes == nil {
		return nil, fmt.Errorf("axes are missing")
	}
	rank := len(s.Shape(0)) + len(axes)
	if axes, err = axesOf(axes, rank); err != nil {
		return nil, err
	}
	out := make(tensor.Shape, rank)
	for i, old := 0, 0; i < rank; i++ {
		if slices.Contains(axes, i) {
			out[i] = 1
			continue
		}
		out[i] = s.Shape(0)[old]
		old++
	}
	return out, nil
}

// inferDropout admits what is the identity: inference, and training with ratio 0. Output 1 is the mask of what was kept:
// all of it.
func inferDropout(s *Site) ([]tensor.Type, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	ratio, training, err := s.dropout()
	if err != nil {
		return nil, err
	}
	if training && ratio != 0 {
		return nil, s.Unsupported("training mode")
	}
	mask := tensor.Bool
	if s.Opset < 10 {
		mask = s.DType(0)
	}
	return []tensor.Type{{DType: s.DType(0), Shape: s.Shape(0)}, {DType: mask, Shape: s.Shape(0)}}, nil
}

func (s *Site) dropout() (ratio float64, training bool, err error) {
	switch {
	case s.Opset < 7:
		return float64(s.Attrs().Float("ratio", 0.5)), s.Attrs().Int("is_test", 0) == 0, nil
	case s.Opset < 12:
		return 0, false, nil
	}
	ratio = 0.5
	if a := s.Arg(1); a.Given() && a.Const != nil {
		if v, ok := a.Const.Float64s(); ok && len(v) == 1 {
			ratio = v[0]
		}
	}
	a := s.Arg(2)
	if !a.Given() {
		return ratio, false, nil
	}
	if a.Const == nil {
		return 0, false, s.Unsupported("input 2, training_mode, depends on the data")
	}
	if a.Const.DType != tensor.Bool || a.Const.Elems() != 1 {
		return 0, false, fmt.Errorf("training_mode is %v, want one bool", a.Const.Type())
	}
	return ratio, tensor.Of[bool](a.Const)[0], nil
}

func newDropout(s *Site) (Kernel, error) {
	return Func(func(out, in []*tensor.Tensor) error {
		if out[0] != nil {
			copy(out[0].Data, in[0].Data)
		}
		if len(out) < 2 || out[1] == nil {
			return nil
		}
		switch out[1].DType {
		case tensor.Bool:
			fill(tensor.View[uint8](out[1]), 1)
		case tensor.Float32:
			fill(tensor.Of[float32](out[1]), 1)
		case tensor.Float64:
			fill(tensor.Of[float64](out[1]), 1)
		default:
			return fmt.Errorf("a mask of type %v", out[1].DType)
		}
		return nil
	}), nil
}

func fill[T tensor.Number](y []T, v T) {
	for i := range y {
		y[i] = v
	}
}

func inferExpand(s *Site) ([]tensor.Type, error) {
	if err := s.require(2); err != nil {
		return nil, err
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	want, err := s.ConstInts(1)
	if err != nil {
		return nil, err
	}
	for _, d := range want {
		if d < 0 {
			return nil, fmt.Errorf("shape %v has dimension %d", want, d)
		}
	}
	out, err := broadcast(s.Shape(0), want)
	if err != nil {
		return nil, err
	}
	return s.sized(s.DType(0), out)
}

func newExpand(s *Site) (Kernel, error) {
	out := s.Out[0].Shape
	return s.mover(out, offsets{}, out.Strides(), broadcastStrides(s.Shape(0), out))
}
