package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// gatherFamily is the operators whose indices are data. An index out of range is an error of the run.
var gatherFamily = slices.Concat(
	since(Def{Op: "Gather", Infer: inferGather, New: newGather}, 1, 11, 13),
	since(Def{Op: "GatherElements", Infer: inferGatherElements, New: newGatherElements}, 11, 13),
	since(Def{Op: "GatherND", Infer: inferGatherND, New: newGatherND}, 11, 12, 13),
	since(Def{Op: "ScatterND", Infer: inferScatterND, New: newScatterND}, 11, 13, 16, 18),
)

// reader gives element i of an Int32 or Int64 tensor.
type reader func(i int) int

func indexOf(t *tensor.Tensor) reader {
	if t.DType == tensor.Int32 {
		v := tensor.Of[int32](t)
		return func(i int) int { return int(v[i]) }
	}
	v := tensor.Of[int64](t)
	return func(i int) int { return int(v[i]) }
}

// within is the index k of an axis of length d, counted from the end if negative.
func within(k, d int) (int, error) {
	if k < -d || k >= d {
		return 0, fmt.Errorf("index %d in an axis of %d", k, d)
	}
	if k < 0 {
		k += d
	}
	return k, nil
}

// indexed checks inputs 0, data of whole bytes, and 1, indices.
func (s *Site) indexed() error {
	if err := s.require(2); err != nil {
		return err
	}
	if dt := s.DType(1); dt != tensor.Int32 && dt != tensor.Int64 {
		return fmt.Errorf("indices are %v, want int32 or int64", dt)
	}
	_, err := s.movable(0)
	return err
}

func inferGather(s *Site) ([]tensor.Type, error) {
	if err := s.indexed(); err != nil {
		return nil, err
	}
	x := s.Shape(0)
	axis, err := axisOf(s.Attrs().Int("axis", 0), len(x))
	if err != nil {
		return nil, err
	}
	return s.sized(s.DType(0), slices.Concat(x[:axis], s.Shape(1), x[axis+1:]))
}

func newGather(s *Site) (Kernel, error) {
	x := s.Shape(0)
	axis, err := axisOf(s.Attrs().Int("axis", 0), len(x))
	if err != nil {
		return nil, err
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	outer, d, count := x[:axis].Elems(), x[axis], s.Shape(1).Elems()
	block := size * x[axis+1:].Elems()
	if s.Out[0].Shape.Elems() == 0 {
		outer = 0
	}
	return BindFunc(func(_ *Env, out, in []*tensor.Tensor) func() error {
		at := indexOf(in[1])
		return func() error {
			y, x := out[0].Data, in[0].Data
			for o := range outer {
				for i := range count {
					k, err := within(at(i), d)
					if err != nil {
						return err
					}
					copy(y[(o*count+i)*block:], x[(o*d+k)*block:(o*d+k+1)*block])
				}
			}
			return nil
		}
	}), nil
}

func inferGatherElements(s *Site) ([]tensor.Type, error) {
	if err := s.indexed(); err != nil {
		return nil, err
	}
	x, idx := s.Shape(0), s.Shape(1)
	axis, err := axisOf(s.Attrs().Int("axis", 0), len(x))
	if err != nil {
		return nil, err
	}
	if len(idx) != len(x) {
		return nil, fmt.Errorf("indices %v for data %v, want the same rank", []int(idx), []int(x))
	}
	for a, d := range idx {
		if a != axis && d > x[a] {
			return nil, fmt.Errorf("indices %v reach beyond data %v", []int(idx), []int(x))
		}
	}
	return s.sized(s.DType(0), idx)
}

func newGatherElements(s *Site) (Kernel, error) {
	x := s.Shape(0)
	axis, err := axisOf(s.Attrs().Int("axis", 0), len(x))
	if err != nil {
		return nil, err
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	// The output is walked with the input's strides, but along axis, where the index says how far to go.
	stride, d := x.Strides(), x[axis]
	along := stride[axis]
	stride[axis] = 0
	idx := s.Shape(1)
	n, err := newNest(idx, offsets{}, idx.Strides(), stride)
	if err != nil {
		return nil, s.Unsupported("%v", err)
	}
	length, step := n.inner()
	rows := n.outer()
	if length == 0 {
		rows = 0
	}
	return BindFunc(func(_ *Env, out, in []*tensor.Tensor) func() error {
		at := indexOf(in[1])
		return func() error {
			var loops [maxLoops]int
			o := n.base
			for range rows {
				for i := range length {
					p, q := o[0]+i*step[0], o[1]+i*step[1]
					k, err := within(at(p), d)
					if err != nil {
						return err
					}
					q += k * along
					copy(out[0].Data[p*size:(p+1)*size], in[0].Data[q*size:])
				}
				n.next(&o, &loops)
			}
			return nil
		}
	}), nil
}

// tuples is the geometry of GatherND and ScatterND: the last axis of the indices holds an index into each of the axes
// of the data behind the batch axes, and picks a block.
type tuples struct {
	batches, perBatch int   // tuples are [batches, perBatch]
	dims, strides     []int // of the axes a tuple indexes; strides in blocks
	blocks            int   // in one batch
	block             int   // elements
}

func (s *Site) tuples() (tuples, error) {
	x, idx := s.Shape(0), s.Shape(1)
	b := s.Attrs().Int("batch_dims", 0)
	if len(x) < 1 || len(idx) < 1 || b < 0 || b >= min(len(x), len(idx)) || !slices.Equal(x[:b], idx[:b]) {
		return tuples{}, fmt.Errorf("indices %v for data %v with %d batch axes", []int(idx), []int(x), b)
	}
	k := idx[len(idx)-1]
	if k < 0 || b+k > len(x) {
		return tuples{}, fmt.Errorf("indices %v for data %v with %d batch axes", []int(idx), []int(x), b)
	}
	t := tuples{batches: idx[:b].Elems(), perBatch: idx[b : len(idx)-1].Elems(), dims: x[b : b+k], block: x[b+k:].Elems()}
	t.strides, t.blocks = x[b:b+k].Strides(), x[b:b+k].Elems()
	return t, nil
}

// at gives the block, counted over all batches, that a tuple picks.
func (t *tuples) at(idx reader, tuple int) (int, error) {
	p := tuple / t.perBatch * t.blocks
	for j, d := range t.dims {
		k, err := within(idx(tuple*len(t.dims)+j), d)
		if err != nil {
			return 0, err
		}
		p += k * t.strides[j]
	}
	return p, nil
}

func inferGatherND(s *Site) ([]tensor.Type, error) {
	if err := s.indexed(); err != nil {
		return nil, err
	}
	t, err := s.tuples()
	if err != nil {
		return nil, err
	}
	x, idx := s.Shape(0), s.Shape(1)
	b := s.Attrs().Int("batch_dims", 0)
	return s.sized(s.DType(0), slices.Concat(idx[:len(idx)-1], x[b+len(t.dims):]))
}

func newGatherND(s *Site) (Kernel, error) {
	t, err := s.tuples()
	if err != nil {
		return nil, err
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	count, block := t.batches*t.perBatch, t.block*size
	if s.Out[0].Shape.Elems() == 0 {
		count = 0
	}
	return Func(func(out, in []*tensor.Tensor) error {
		idx := indexOf(in[1])
		for i := range count {
			p, err := t.at(idx, i)
			if err != nil {
				return err
			}
			copy(out[0].Data[i*block:], in[0].Data[p*block:(p+1)*block])
		}
		return nil
	}), nil
}

func inferScatterND(s *Site) ([]tensor.Type, error) {
	if err := s.require(3); err != nil {
		return nil, err
	}
	if err := s.indexed(); err != nil {
		return nil, err
	}
	if r := s.Attrs().Str("reduction", "none"); r != "none" {
		return nil, s.Unsupported("reduction %s", r)
	}
	t, err := s.tuples()
	if err != nil {
		return nil, err
	}
	x, idx := s.Shape(0), s.Shape(1)
	if want := slices.Concat(idx[:len(idx)-1], x[len(t.dims):]); !slices.Equal(want, s.Shape(2)) || s.DType(2) != s.DType(0) {
		return nil, fmt.Errorf("updates are %v, want %v%v", s.Arg(2).Type, s.DType(0), []int(want))
	}
	return s.sized(s.DType(0), x)
}

func newScatterND(s *Site) (Kernel, error) {
	t, err := s.tuples()
	if err != nil {
		return nil, err
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	count, block := t.batches*t.perBatch, t.block*size
	if s.Shape(2).Elems() == 0 {
		count = 0
	}
	return Func(func(out, in []*tensor.Tensor) error {
		copy(out[0].Data, in[0].Data)
		idx := indexOf(in[1])
		for i := range count {
			p, err := t.at(idx, i)
			if err != nil {
				return err
			}
			copy(out[0].Data[p*block:(p+1)*block], in[2].Data[i*block:])
		}
		return nil
	}), nil
}
