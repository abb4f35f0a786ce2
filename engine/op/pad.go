package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// padFamily is Pad: pads as attribute (opset 1, where it is named paddings, and 2) or as input, negative ones crop.
var padFamily = since(Def{Op: "Pad", Infer: inferPad, New: newPad}, 1, 2, 11, 13, 18, 19, 21, 23, 24, 25)

// pads gives what is added before and behind each axis.
func (s *Site) pads() (begin, end []int, err error) {
	if err := s.require(1); err != nil {
		return nil, nil, err
	}
	rank := len(s.Shape(0))
	axes := make([]int, rank)
	for i := range axes {
		axes[i] = i
	}
	var p []int
	switch {
	case s.Opset < 2:
		p = s.Attrs().Ints("paddings")
	case s.Opset < 11:
		p = s.Attrs().Ints("pads")
	default:
		if err := s.require(2); err != nil {
			return nil, nil, err
		}
		if p, err = s.ConstInts(1); err != nil {
			return nil, nil, err
		}
		if s.Opset >= 18 && s.Arg(3).Given() {
			if axes, err = s.ConstInts(3); err == nil {
				axes, err = axesOf(axes, rank)
			}
			if err != nil {
				return nil, nil, err
			}
		}
	}
	if len(p) != 2*len(axes) {
		return nil, nil, fmt.Errorf("pads %v do not fit %d axes", p, len(axes))
	}
	begin, end = make([]int, rank), make([]int, rank)
	for i, a := range axes {
		begin[a], end[a] = p[i], p[len(axes)+i]
		if max(p[i], p[len(axes)+i]) > maxElems || min(p[i], p[len(axes)+i]) < -maxElems {
			return nil, nil, s.Unsupported("pads %v are larger than %d", p, maxElems)
		}
	}
	return begin, end, nil
}

// Border gives what a Pad of mode constant adds before and behind each axis, and of which value; ok is false for other
// nodes, and where the value is not known.
func Border(s *Site) (begin, end []int, value float64, ok bool) {
	if s.Node.Op != "Pad" || s.Node.Domain != "" && s.Node.Domain != "ai.onnx" || s.Attrs().Str("mode", "constant") != "constant" {
		return nil, nil, 0, false
	}
	begin, end, err := s.pads()
	if err != nil {
		return nil, nil, 0, false
	}
	t, err := padValue(s)
	if t == nil {
		t = s.Arg(2).Const
	}
	if err != nil || t == nil || t.Elems() != 1 {
		return nil, nil, 0, false
	}
	v, ok := t.Float64s()
	if !ok {
		return nil, nil, 0, false
	}
	return begin, end, v[0], true
}

func inferPad(s *Site) ([]tensor.Type, error) {
	begin, end, err := s.pads()
	if err != nil {
		return nil, err
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	mode := s.Attrs().Str("mode", "constant")
	modes := []string{"constant", "reflect", "edge"}
	if s.Opset >= 19 {
		modes = append(modes, "wrap")
	}
	if !slices.Contains(modes, mode) {
		return nil, fmt.Errorf("mode %q is not defined", mode)
	}
	if a := s.Arg(2); s.Opset >= 11 && a.Given() && (a.Type.DType != s.DType(0) || a.Type.Shape.Elems() != 1) {
		return nil, fmt.Errorf("constant_value is %v, want one %v", a.Type, s.DType(0))
	}
	out := s.Shape(0).Clone()
	for i, d := range out {
		if out[i] = d + begin[i] + end[i]; out[i] < 0 {
			return nil, fmt.Errorf("pads %d and %d crop more than the %d of axis %d", begin[i], end[i], d, i)
		}
		if d == 0 && out[i] > 0 && mode != "constant" {
			return nil, fmt.Errorf("mode %s has nothing to repeat on axis %d, which is empty", mode, i)
		}
	}
	return s.sized(s.DType(0), out)
}

func newPad(s *Site) (Kernel, error) {
	begin, _, err := s.pads()
	if err != nil {
		return nil, err
	}
	size, err := s.movable(0)
	if err != nil {
		return nil, err
	}
	if mode := s.Attrs().Str("mode", "constant"); mode != "constant" {
		return newPadFrom(s, mode, begin, size)
	}
	inside, err := padInside(s, begin)
	if err != nil {
		return nil, err
	}
	value, err := padValue(s)
	if err != nil {
		return nil, err
	}
	all, err := newNest([]int{s.Out[0].Shape.Elems()}, offsets{}, []int{1}, []int{0})
	if err != nil {
		return nil, err
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		v := value
		if v == nil {
			v = in[2]
		}
		// All is filled first: a border is many thin pieces, and the middle is written once more at the speed of copying.
		paint, put := all.move(env, size, out[0], v), inside.move(env, size, out[0], in[0])
		return func() error { paint(); put(); return nil }
	}), nil
}

// padInside walks the part of the output that lies in the input.
func padInside(s *Site, begin []int) (*nest, error) {
	in, out := s.Shape(0), s.Out[0].Shape
	src, dst := in.Strides(), out.Strides()
	dims := make([]int, len(in))
	var base offsets
	for i, b := range begin {
		first, last := max(b, 0), min(b+in[i], out[i])
		dims[i] = max(last-first, 0)
		base[0] += first * dst[i]
		base[1] += (first - b) * src[i]
	}
	n, err := newNest(dims, base, dst, src)
	if err != nil {
		return nil, s.Unsupported("%v", err)
	}
	return n, nil
}

// padValue is what mode constant pads with; nil if it is input 2.
func padValue(s *Site) (*tensor.Tensor, error) {
	dt := s.DType(0)
	if s.Opset >= 11 {
		if s.Arg(2).Given() {
			return nil, nil
		}
		return tensor.New(dt), nil // zero bytes are 0 in every type, and false
	}
	v := s.Attrs().Float("value", 0)
	if v == 0 {
		return tensor.New(dt), nil
	}
	if dt != s.Float {
		return nil, fmt.Errorf("input is %v, want floating point", dt)
	}
	return tensor.Scalar(v).Float(dt)
}

// newPadFrom is the modes that repeat what is there: for each axis a table says which element of the input each of the
// output's is.
func newPadFrom(s *Site, mode string, begin []int, size int) (Kernel, error) {
	in, out := s.Shape(0), s.Out[0].Shape
	if len(in) == 0 {
		return s.mover(nil, offsets{}, nil, nil)
	}
	src := in.Strides()
	from := make([][]int, len(in)) // offsets in the input
	for a, d := range in {
		from[a] = make([]int, out[a])
		for i := range from[a] {
			from[a][i] = padIndex(mode, i-begin[a], d) * src[a]
		}
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		var run func()
		switch size {
		case 1:
			run = padRows[uint8](env, from, out[0], in[0])
		case 2:
			run = padRows[uint16](env, from, out[0], in[0])
		case 4:
			run = padRows[uint32](env, from, out[0], in[0])
		default:
			run = padRows[uint64](env, from, out[0], in[0])
		}
		return func() error { run(); return nil }
	}), nil
}

// padIndex is which element of an axis of length d stands at i, which may lie outside.
func padIndex(mode string, i, d int) int {
	switch {
	case i >= 0 && i < d:
		return i
	case mode == "edge":
		return min(max(i, 0), d-1)
	case mode == "wrap":
		return mod(i, d)
	case d == 1:
		return 0
	}
	// reflect: to and fro without repeating the ends
	i = mod(i, 2*(d-1))
	return min(i, 2*(d-1)-i)
}

// mod is the remainder in [0,n).
func mod(i, n int) int {
	if i %= n; i < 0 {
		i += n
	}
	return i
}

func padRows[T word](env *Env, from [][]int, out, in *tensor.Tensor) func() {
	y, x := tensor.View[T](out), tensor.View[T](in)
	last := len(from) - 1
	cols := from[last]
	if len(y) == 0 {
		return func() {}
	}
	return share(env, len(y)/len(cols), len(cols), func(lo, hi int) {
		for r := lo; r < hi; r++ {
			base := 0
			for a, rest := last-1, r; a >= 0; a-- {
				base += from[a][rest%len(from[a])]
				rest /= len(from[a])
			}
			row := y[r*len(cols) : (r+1)*len(cols)]
			for i, c := range cols {
				row[i] = x[base+c]
			}
		}
	})
}
