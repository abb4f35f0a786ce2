package op

import (
	"fmt"

	"github.com/secateur/secateur/engine/tensor"
)

// maxElems bounds what an operator may grow a tensor to: 2^28 elements, 1 GiB of float32. A model is a few bytes that can
// ask for any size (Expand, Tile, Pad, ConstantOfShape, Range), so the bound is checked before anything is allocated.
const maxElems = 1 << 28

// since gives def a row for each version at which the ONNX changelog lists the operator. Versions that share a def differ
// in element types or in wording only.
func since(def Def, versions ...int) []Def {
	rows := make([]Def, len(versions))
	for i, v := range versions {
		rows[i] = def
		rows[i].Since = v
	}
	return rows
}

// sized is the types of an operator with one output, refused if it is larger than maxElems.
func (s *Site) sized(dt tensor.DType, shape tensor.Shape) ([]tensor.Type, error) {
	if n := shape.Elems(); n < 0 || n > maxElems {
		return nil, s.tooLarge("its output would be %v, more than %d elements", []int(shape), maxElems)
	}
	if shape == nil {
		shape = tensor.Shape{} // a scalar's; nil would say that not even the rank is known
	}
	return []tensor.Type{{DType: dt, Shape: shape}}, nil
}

// require reports an input that is missing among the first n.
func (s *Site) require(n int) error {
	for i := range n {
		if !s.Arg(i).Given() {
			return fmt.Errorf("input %d of %s is missing", i, s.Node.Op)
		}
	}
	return nil
}

// movable reports the elements' size in bytes if they are whole bytes, which data movement needs.
func (s *Site) movable(i int) (int, error) {
	switch b := s.DType(i).Bits(); b {
	case 8, 16, 32, 64:
		return b / 8, nil
	}
	return 0, s.Unsupported("elements of type %v", s.DType(i))
}

// axisOf gives axis in [0,rank), counting negative ones from the end.
func axisOf(axis, rank int) (int, error) {
	if axis < -rank || axis >= rank {
		return 0, fmt.Errorf("axis %d of a tensor of rank %d", axis, rank)
	}
	if axis < 0 {
		axis += rank
	}
	return axis, nil
}

// axesOf is axisOf for a list, in which no axis may occur twice.
func axesOf(axes []int, rank int) ([]int, error) {
	seen := map[int]bool{}
	out := make([]int, len(axes))
	for i, a := range axes {
		k, err := axisOf(a, rank)
		if err != nil {
			return nil, err
		}
		if seen[k] {
			return nil, fmt.Errorf("axis %d is listed twice in %v", a, axes)
		}
		seen[k], out[i] = true, k
	}
	return out, nil
}

// broadcast is the shape that numpy's rule gives: aligned at the last axis, each dimension equal or 1.
func broadcast(shapes ...tensor.Shape) (tensor.Shape, error) {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := make(tensor.Shape, rank)
	for i := range out {
		out[i] = 1
	}
	for _, s := range shapes {
		for i, d := range s {
			o := &out[rank-len(s)+i]
			switch {
			case d == *o || d == 1:
			case *o == 1:
				*o = d
			default:
				return nil, fmt.Errorf("shapes %v do not broadcast", shapes)
			}
		}
	}
	return out, nil
}

// broadcastStrides gives the strides with which s is read as out: 0 along the axes it repeats.
func broadcastStrides(s, out tensor.Shape) []int {
	st := make([]int, len(out))
	own := s.Strides()
	for i, d := range s {
		if d != 1 {
			st[len(out)-len(s)+i] = own[i]
		}
	}
	return st
}
