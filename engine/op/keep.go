package op

import (
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// Keeps says which input, if any, output 0 is, element for element and whatever the data: that of Identity, of a Slice of
// everything, of a Mul by 1. The sign of a zero counts for nothing. s.Out must be known.
func Keeps(s *Site) (input int, ok bool) {
	if s.Node.Domain != "" && s.Node.Domain != "ai.onnx" || len(s.Out) == 0 {
		return 0, false
	}
	same := func(i int) bool {
		a := s.Arg(i).Type
		return a.DType == s.Out[0].DType && a.Shape != nil && slices.Equal(a.Shape, s.Out[0].Shape)
	}
	switch s.Node.Op {
	case "Concat": // the others have no elements
		for i := range s.In {
			if same(i) {
				return i, true
			}
		}
		return 0, false
	case "Add":
		return s.neutral(0, same, 1, 0)
	case "Mul":
		return s.neutral(1, same, 1, 0)
	case "Sub":
		return s.neutral(0, same, 1)
	case "Div":
		return s.neutral(1, same, 1)
	}
	return 0, same(0) && s.keepsFirst()
}

// neutral says which input an operator of two keeps because the other one, if it is among consts, is e throughout.
func (s *Site) neutral(e float64, same func(int) bool, consts ...int) (input int, ok bool) {
	for _, c := range consts {
		if t := s.Arg(c).Const; t != nil && len(s.In) == 2 && same(1-c) && uniform(t, e) {
			return 1 - c, true
		}
	}
	return 0, false
}

// maxUniform bounds the elements that uniform looks at: what exporters write is a scalar, or a number for each channel.
const maxUniform = 1 << 16

// uniform reports whether every element is v.
func uniform(t *tensor.Tensor, v float64) bool {
	if t.Elems() > maxUniform {
		return false
	}
	switch t.DType {
	case tensor.Float32:
		return !slices.ContainsFunc(tensor.Of[float32](t), func(x float32) bool { return float64(x) != v })
	case tensor.Float64:
		return !slices.ContainsFunc(tensor.Of[float64](t), func(x float64) bool { return x != v })
	}
	n, ok := t.Ints()
	return ok && !slices.ContainsFunc(n, func(x int) bool { return float64(x) != v })
}

// keepsFirst is Keeps for input 0, whose type is that of the output.
func (s *Site) keepsFirst() bool {
	x := s.Shape(0)
	switch s.Node.Op {
	case "Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Split", "DepthToSpace", "SpaceToDepth":
		return true
	case "Sum", "Mean", "Min", "Max":
		return len(s.In) == 1
	case "Cast", "CastLike":
		to, err := s.castTo()
		return err == nil && (to == s.DType(0) || to == tensor.Float32 || to == tensor.Float64)
	case "Transpose": // axes of length 1 may go anywhere
		perm, err := s.perm()
		perm = slices.DeleteFunc(slices.Clone(perm), func(a int) bool { return x[a] == 1 })
		return err == nil && slices.IsSorted(perm)
	case "Slice": // as many as there are, so it remains to see that none is reversed
		cuts, err := s.cuts()
		for i, c := range cuts {
			if x[i] > 1 && c.step < 0 {
				return false
			}
		}
		return err == nil
	case "Pad":
		begin, end, err := s.pads()
		return err == nil && !slices.ContainsFunc(slices.Concat(begin, end), func(n int) bool { return n != 0 })
	case "Resize", "Upsample":
		r, err := resizeOf(s)
		if err != nil || x.Elems() == 0 {
			return false
		}
		for a := range x {
			if t, err := r.taps(a); err != nil || !t.identity(x[a]) {
				return false
			}
		}
		return true
	case "MaxPool", "AveragePool":
		w, err := poolWindow(s)
		return err == nil && !slices.ContainsFunc(w.kernel, func(n int) bool { return n != 1 }) &&
			!slices.ContainsFunc(slices.Concat(w.begin, w.end), func(n int) bool { return n != 0 })
	}
	return false
}
