package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// moveFamily is the operators that put elements elsewhere by strides alone. They run on every element type of whole bytes.
var moveFamily = slices.Concat(
	since(Def{Op: "Transpose", Infer: inferTranspose, New: newTranspose}, 1, 13, 21, 23, 24, 25),
	since(Def{Op: "Concat", Infer: inferConcat, New: newConcat}, 1, 4, 11, 13),
	since(Def{Op: "Split", Infer: inferSplit, New: newSplit, View: viewSplit}, 1, 2, 11, 13, 18),
	since(Def{Op: "Slice", Infer: inferSlice, New: newSlice, View: viewSlice}, 1, 10, 11, 13),
	since(Def{Op: "Tile", Infer: inferTile, New: newTile}, 1, 6, 13),
	since(Def{Op: "DepthToSpace", Infer: inferDepthToSpace, New: newDepthToSpace}, 1, 11, 13),
	since(Def{Op: "SpaceToDepth", Infer: inferSpaceToDepth, New: newSpaceToDepth}, 1, 13),
)

// mover is the kernel that copies input 0 to output 0 through a nest.
func (s *Site) mover(dims []int, base offsets, dst, src []int) (Kernel, error) {
	n, err := newNest(dims, base, dst, src)
	if err != nil {
		return nil, s.Unsupported("%v", err)
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		run := n.move(env, size, out[0], in[0])
		return func() error { run(); return nil }
	}), nil
}

// perm reads attribute perm; by default the axes are reversed.
func (s *Site) perm() ([]int, error) {
	rank := len(s.Shape(0))
	p := s.Attrs().Ints("perm")
	if p == nil {
		for i := range rank {
			p = append(p, rank-1-i)
		}
		return p, nil
	}
	if len(p) != rank {
		return nil, fmt.Errorf("perm %v does not fit shape %v", p, []int(s.Shape(0)))
	}
	return axesOf(p, rank)
}

func inferTranspose(s *Site) ([]tensor.Type, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	p, err := s.perm()
	if err != nil {
		return nil, err
	}
	out := make(tensor.Shape, len(p))
	for i, a := range p {
		out[i] = s.Shape(0)[a]
	}
	return []tensor.Type{{DType: s.DType(0), Shape: out}}, nil
}

func newTranspose(s *Site) (Kernel, error) {
	p, err := s.perm()
	if err != nil {
		return nil, err
	}
	in := s.Shape(0).Strides()
	src := make([]int, len(p))
	for i, a := range p {
		src[i] = in[a]
	}
	out := s.Out[0].Shape
	return s.mover(out, offsets{}, out.Strides(), src)
}

func (s *Site) concatAxis() (int, error) {
	if s.Opset >= 4 && !s.Attrs().Has("axis") {
		return 0, fmt.Errorf("attribute axis is missing")
	}
	return axisOf(s.Attrs().Int("axis", 1), len(s.Shape(0)))
}

func inferConcat(s *Site) ([]tensor.Type, error) {
	if err := s.require(max(1, len(s.In))); err != nil {
		return nil, err
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	axis, err := s.concatAxis()
	if err != nil {
		return nil, err
	}
	out := s.Shape(0).Clone()
	for i := 1; i < len(s.In); i++ {
		x := s.Shape(i)
		if s.DType(i) != s.DType(0) {
			return nil, fmt.Errorf("inputs are %v and %v, want the same type", s.DType(0), s.DType(i))
		}
		if len(x) != len(out) {
			return nil, fmt.Errorf("inputs are %v and %v, want the same rank", s.Arg(0).Type, s.Arg(i).Type)
		}
		for k, d := range x {
			if k == axis {
				out[k] += d
			} else if d != out[k] {
				return nil, fmt.Errorf("inputs are %v and %v, which differ outside of axis %d", s.Arg(0).Type, s.Arg(i).Type, axis)
			}
		}
	}
	return s.sized(s.DType(0), out)
}

func newConcat(s *Site) (Kernel, error) {
	axis, err := s.concatAxis()
	if err != nil {
		return nil, err
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	dst := s.Out[0].Shape.Strides()
	nests := make([]*nest, len(s.In))
	at := 0
	for i := range s.In {
		x := s.Shape(i)
		if nests[i], err = newNest(x, offsets{at * dst[axis]}, dst, x.Strides()); err != nil {
			return nil, s.Unsupported("%v", err)
		}
		at += x[axis]
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		runs := make([]func(), len(in))
		for i := range in {
			runs[i] = nests[i].move(env, size, out[0], in[i])
		}
		return func() error { inTurn(runs); return nil }
	}), nil
}

func inTurn(runs []func()) {
	for _, run := range runs {
		if run != nil {
			run()
		}
	}
}

// parts gives the axis of Split and the length of each part along it.
func (s *Site) parts() (axis int, parts []int, err error) {
	if axis, err = axisOf(s.Attrs().Int("axis", 0), len(s.Shape(0))); err != nil {
		return 0, nil, err
	}
	d, outputs := s.Shape(0)[axis], len(s.Node.Outputs)
	if s.Opset >= 13 || s.Opset < 2 && s.Arg(1).Given() {
		if parts, err = s.ConstInts(1); err != nil {
			return 0, nil, err
		}
	} else {
		parts = s.Attrs().Ints("split")
	}
	if parts == nil {
		n := outputs
		if s.Opset >= 18 && s.Attrs().Has("num_outputs") {
			if n = s.Attrs().Int("num_outputs", 0); n != outputs {
				return 0, nil, fmt.Errorf("num_outputs is %d, the node has %d", n, outputs)
			}
		} else if n == 0 || d%n != 0 {
			return 0, nil, fmt.Errorf("axis %d of shape %v does not split into %d equal parts", axis, []int(s.Shape(0)), n)
		}
		// From opset 18 parts may be uneven: all are rounded up but the last.
		parts = make([]int, n)
		for i, rest := 0, d; i < n; i++ {
			parts[i] = min((d+n-1)/n, rest)
			rest -= parts[i]
		}
		return axis, parts, nil
	}
	sum := 0
	for _, p := range parts {
		if p < 0 || p > d {
			return 0, nil, fmt.Errorf("split %v does not fit axis %d of shape %v", parts, axis, []int(s.Shape(0)))
		}
		sum += p
	}
	if sum != d || len(parts) < outputs {
		return 0, nil, fmt.Errorf("split %v does not fit axis %d of shape %v and %d outputs", parts, axis, []int(s.Shape(0)), outputs)
	}
	return axis, parts, nil
}

func inferSplit(s *Site) ([]tensor.Type, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	axis, parts, err := s.parts()
	if err != nil {
		return nil, err
	}
	out := make([]tensor.Type, len(parts))
	for i, p := range parts {
		shape := s.Shape(0).Clone()
		shape[axis] = p
		out[i] = tensor.Type{DType: s.DType(0), Shape: shape}
	}
	return out, nil
}

// viewSplit: a part is contiguous if there is one of whatever the axes before have.
func viewSplit(s *Site) []int {
	axis, parts, err := s.parts()
	if err != nil || s.Shape(0)[:axis].Elems() != 1 {
		return nil
	}
	at, each := make([]int, len(parts)), s.Shape(0)[axis+1:].Elems()
	for i := 1; i < len(parts); i++ {
		at[i] = at[i-1] + parts[i-1]*each
	}
	return at
}

func newSplit(s *Site) (Kernel, error) {
	axis, parts, err := s.parts()
	if err != nil {
		return nil, err
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	src := s.Shape(0).Strides()
	nests := make([]*nest, len(parts))
	at := 0
	for i, p := range parts {
		y := s.Out[i].Shape
		if nests[i], err = newNest(y, offsets{1: at * src[axis]}, y.Strides(), src); err != nil {
			return nil, s.Unsupported("%v", err)
		}
		at += p
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		runs := make([]func(), len(out))
		for i, y := range out {
			if y != nil {
				runs[i] = nests[i].move(env, size, y, in[0])
			}
		}
		return func() error { inTurn(runs); return nil }
	}), nil
}

// repeats gives how often Tile repeats each axis. Before opset 6 it is one axis, named by input 2.
func (s *Site) repeats() ([]int, error) {
	n := 2
	if s.Opset < 6 {
		n = 3
	}
	if err := s.require(n); err != nil {
		return nil, err
	}
	shape := s.Shape(0)
	if s.Opset >= 6 {
		r, err := s.ConstInts(1)
		if err == nil && len(r) != len(shape) {
			err = fmt.Errorf("repeats %v do not fit shape %v", r, []int(shape))
		}
		return r, err
	}
	var v [2]int
	for i := range v {
		// They are of the data's type, most often floating point.
		c := s.Arg(1 + i).Const
		if c == nil {
			return nil, s.Unsupported("input %d depends on the data; it must be constant once shapes are known", 1+i)
		}
		f, ok := c.Float64s()
		if !ok || len(f) != 1 || f[0] != float64(int32(f[0])) {
			return nil, fmt.Errorf("input %d is %v, want one whole number", 1+i, c.Type())
		}
		v[i] = int(f[0])
	}
	axis, err := axisOf(v[1], len(shape))
	if err != nil {
		return nil, err
	}
	r := slices.Repeat([]int{1}, len(shape))
	r[axis] = v[0]
	return r, nil
}

func inferTile(s *Site) ([]tensor.Type, error) {
	r, err := s.repeats()
	if err != nil {
		return nil, err
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	out := s.Shape(0).Clone()
	for i, k := range r {
		if k < 0 {
			return nil, fmt.Errorf("repeats %v are negative", r)
		}
		if out[i] != 0 && k > maxElems {
			return nil, s.Unsupported("an axis would repeat %d times", k)
		}
		out[i] *= k
	}
	return s.sized(s.DType(0), out)
}

func newTile(s *Site) (Kernel, error) {
	r, err := s.repeats()
	if err != nil {
		return nil, err
	}
	var dims, src []int
	in := s.Shape(0).Strides()
	for i, d := range s.Shape(0) {
		dims = append(dims, r[i], d)
		src = append(src, 0, in[i])
	}
	return s.mover(dims, offsets{}, tensor.Shape(dims).Strides(), src)
}

// blocks gives blocksize and checks that input 0 is [N,C,H,W].
func (s *Site) blocks() (int, error) {
	if err := s.require(1); err != nil {
		return 0, err
	}
	if _, err := s.movable(0); err != nil {
		return 0, err
	}
	b := s.Attrs().Int("blocksize", 0)
	if b < 1 || b > 1<<15 || len(s.Shape(0)) != 4 {
		return 0, fmt.Errorf("blocksize %d for input %v, want a positive one and 4 axes", b, s.Arg(0).Type)
	}
	return b, nil
}

func inferDepthToSpace(s *Site) ([]tensor.Type, error) {
	b, err := s.blocks()
	if err != nil {
		return nil, err
	}
	if m := s.Attrs().Str("mode", "DCR"); m != "DCR" && m != "CRD" {
		return nil, fmt.Errorf("mode %q is not defined", m)
	}
	x := s.Shape(0)
	if x[1]%(b*b) != 0 {
		return nil, fmt.Errorf("%d channels do not make blocks of %d", x[1], b)
	}
	return s.sized(s.DType(0), tensor.Shape{x[0], x[1] / (b * b), x[2] * b, x[3] * b})
}

// newDepthToSpace reads the channels as [b,b,C] (DCR) or [C,b,b] (CRD) and puts each b behind its axis.
func newDepthToSpace(s *Site) (Kernel, error) {
	b, err := s.blocks()
	if err != nil {
		return nil, err
	}
	x := s.Shape(0)
	c, st := x[1]/(b*b), x.Strides()
	channel, row, col := st[1], b*c*st[1], c*st[1]
	if s.Attrs().Str("mode", "DCR") == "CRD" {
		channel, row, col = b*b*st[1], b*st[1], st[1]
	}
	dims := []int{x[0], c, x[2], b, x[3], b}
	return s.mover(dims, offsets{}, tensor.Shape(dims).Strides(), []int{st[0], channel, st[2], row, st[3], col})
}

func inferSpaceToDepth(s *Site) ([]tensor.Type, error) {
	b, err := s.blocks()
	if err != nil {
		return nil, err
	}
	x := s.Shape(0)
	if x[2]%b != 0 || x[3]%b != 0 {
		return nil, fmt.Errorf("shape %v does not divide into blocks of %d", []int(x), b)
	}
	return s.sized(s.DType(0), tensor.Shape{x[0], x[1] * b * b, x[2] / b, x[3] / b})
}

func newSpaceToDepth(s *Site) (Kernel, error) {
	b, err := s.blocks()
	if err != nil {
		return nil, err
	}
	x := s.Shape(0)
	st := x.Strides()
	dims := []int{x[0], b, b, x[1], x[2] / b, x[3] / b}
	return s.mover(dims, offsets{}, tensor.Shape(dims).Strides(), []int{st[0], st[2], st[3], st[1], b * st[2], b * st[3]})
}
