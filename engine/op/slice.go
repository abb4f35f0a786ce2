package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// cut is what Slice takes of one axis: count elements, the first at start, step apart.
type cut struct{ start, step, count int }

// cuts gives the cut of every axis: from attributes before opset 10, from inputs since.
func (s *Site) cuts() ([]cut, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	var starts, ends, axes, steps []int
	if s.Opset < 10 {
		starts, ends, axes = s.Attrs().Ints("starts"), s.Attrs().Ints("ends"), s.Attrs().Ints("axes")
	} else {
		if err := s.require(3); err != nil {
			return nil, err
		}
		for i, v := range []*[]int{&starts, &ends, &axes, &steps} {
			var err error
			if *v, err = s.ConstInts(1 + i); err != nil {
				return nil, err
			}
		}
	}
	shape := s.Shape(0)
	if axes == nil {
		for i := range starts {
			axes = append(axes, i)
		}
	}
	if steps == nil {
		steps = slices.Repeat([]int{1}, len(starts))
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || len(steps) != len(starts) {
		return nil, fmt.Errorf("%d starts, %d ends, %d axes, %d steps", len(starts), len(ends), len(axes), len(steps))
	}
	axes, err := axesOf(axes, len(shape))
	if err != nil {
		return nil, err
	}
	out := make([]cut, len(shape))
	for i, d := range shape {
		out[i] = cut{0, 1, d}
	}
	for i, a := range axes {
		if steps[i] == 0 {
			return nil, fmt.Errorf("step of axis %d is 0", a)
		}
		out[a] = cutOf(shape[a], starts[i], ends[i], steps[i])
	}
	return out, nil
}

// cutOf clamps start and end as numpy does. Neither they nor step are bounded: exporters write the smallest and the
// largest int64 for "to the end".
func cutOf(d, start, end, step int) cut {
	lo, hi := 0, d
	if step < 0 {
		lo, hi = -1, d-1
	}
	clamp := func(i int) int {
		if i < 0 {
			i += d
		}
		return min(max(i, lo), hi)
	}
	start, end = clamp(start), clamp(end)
	// More than d is as good as d: one element. It keeps what follows within range.
	step = min(max(step, -d-1), d+1)
	count := 0
	if step > 0 && end > start {
		count = (end-start-1)/step + 1
	} else if step < 0 && start > end {
		count = (start-end-1)/-step + 1
	}
	return cut{start, step, count}
}

func inferSlice(s *Site) ([]tensor.Type, error) {
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	cuts, err := s.cuts()
	if err != nil {
		return nil, err
	}
	out := make(tensor.Shape, len(cuts))
	for i, c := range cuts {
		out[i] = c.count
	}
	return s.sized(s.DType(0), out)
}

// viewSlice: what is cut is contiguous if the axes before that of the cut have one element each and those behind are whole.
func viewSlice(s *Site) []int {
	cuts, err := s.cuts()
	if err != nil {
		return nil
	}
	shape, at, one := s.Shape(0), 0, true
	strides := shape.Strides()
	for i, c := range cuts {
		if c.count != 1 && c.step != 1 || !one && c.count != shape[i] {
			return nil
		}
		at += c.start * strides[i]
		one = one && c.count == 1
	}
	return []int{at}
}

func newSlice(s *Site) (Kernel, error) {
	cuts, err := s.cuts()
	if err != nil {
		return nil, err
	}
	src := s.Shape(0).Strides()
	var base offsets
	for i, c := range cuts {
		base[1] += c.start * src[i]
		src[i] *= c.step
	}
	out := s.Out[0].Shape
	return s.mover(out, base, out.Strides(), src)
}
