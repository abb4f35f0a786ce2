package pass

import (
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// affine is scale·x + shift, a number of each for every channel.
type affine struct{ scale, shift []float64 }

func unit(channels int) affine {
	return affine{slices.Repeat([]float64{1}, channels), make([]float64, channels)}
}

// of is a(b(x)).
func (a affine) of(b affine) affine {
	c := affine{make([]float64, len(a.scale)), make([]float64, len(a.scale))}
	for i := range a.scale {
		c.scale[i], c.shift[i] = a.scale[i]*b.scale[i], a.scale[i]*b.shift[i]+a.shift[i]
	}
	return c
}

// keeps reports whether all is scaled by 1.
func (a affine) keeps() bool {
	return !slices.ContainsFunc(a.scale, func(x float64) bool { return x != 1 })
}

// moves reports whether something is added.
func (a affine) moves() bool {
	return slices.ContainsFunc(a.shift, func(x float64) bool { return x != 0 })
}

// What FoldAffine may spend: the nodes that one convolution takes in on either side, and the bytes of new constants beside
// those that they replace, for many convolutions can share weights.
const (
	maxChain = 16
	maxAdded = 1 << 28
)

// FoldAffine takes what scales and shifts each channel into the weights and the bias of the convolution or Gemm before it or
// behind it: BatchNormalization, and Add, Sub, Mul and Div with a constant, one number or one for each channel.
//
//	s(Wx+b)+t = (sW)x + (sb+t)        W(sx+t)+b = (Ws)x + (Wt+b), the t where nothing is padded
//
// The arithmetic is in float64, rounded once.
func FoldAffine(g *graph.Graph, info Info) {
	f := affineFold{g: g, info: info, uses: g.Uses(), outs: outputs(g), fresh: g.Namer(), left: maxAdded, gone: map[*graph.Node]bool{}}
	for _, n := range g.Nodes {
		if l, ok := linearOf(n, info); ok && !f.gone[n] {
			f.fold(l)
		}
	}
	drop(g, f.gone)
}

type affineFold struct {
	g     *graph.Graph
	info  Info
	uses  map[*graph.Value][]graph.Use
	outs  map[*graph.Value]bool
	fresh func(string) string
	left  int // bytes
	gone  map[*graph.Node]bool
}

func (f *affineFold) fold(l linear) {
	n := l.node
	x, before, front := f.chainBefore(l)
	y, behind, back := f.chainBehind(l)
	taken := append(front, back...)
	if len(taken) == 0 {
		return
	}
	if f.left -= f.added(l); f.left < 0 {
		return
	}
	w, b, ok := l.with(before, behind)
	if !ok {
		return
	}
	weights := n.Inputs[1]
	if w != l.w {
		weights = constant(f.g, f.info, f.fresh(y.Name+".weight"), w)
	}
	n.Inputs = []*graph.Value{x, weights, constant(f.g, f.info, f.fresh(y.Name+".bias"), b)}
	if n.Op == "Gemm" {
		n.Attrs = n.Attrs.Set(graph.FloatAttr("beta", 1))
	}
	n.Outputs[0], y.Def = y, n
	for _, t := range taken {
		f.gone[t] = true
	}
}

// chainBehind is what follows l, as far as it is affine and nobody else reads what lies between; y is what it yields.
func (f *affineFold) chainBehind(l linear) (y *graph.Value, a affine, taken []*graph.Node) {
	y = l.node.Outputs[0]
	for len(taken) < maxChain && f.readOnce(y) {
		next := f.uses[y][0]
		b, ok := f.affineOf(next.Node, next.Input, l.outs)
		if !ok {
			break
		}
		if taken == nil {
			a = unit(l.outs)
		}
		y, a, taken = next.Node.Outputs[0], b.of(a), append(taken, next.Node)
	}
	return y, a, taken
}

// chainBefore is what leads to l, as far as it is affine, commutes with l and nobody else reads what lies between; x is
// what it reads.
func (f *affineFold) chainBefore(l linear) (x *graph.Value, a affine, taken []*graph.Node) {
	x = l.node.Inputs[0]
	for l.before && len(taken) < maxChain && f.readOnce(x) && x.Def != nil {
		i, b, ok := f.input(x.Def, l.ins)
		if !ok || b.moves() && !l.shifts {
			break
		}
		if taken == nil {
			a = unit(l.ins)
		}
		taken = append(taken, x.Def)
		x, a = x.Def.Inputs[i], a.of(b)
	}
	return x, a, taken
}

// added is how many bytes of constants there are more, or may be, once l has weights and bias of its own.
func (f *affineFold) added(l linear) int {
	bytes := l.w.DType.Size(l.outs)
	if b := l.node.Input(2); b != nil && f.readOnce(b) {
		bytes = 0
	}
	if !f.readOnce(l.node.Inputs[1]) {
		bytes += len(l.w.Data)
	}
	return bytes
}

// readOnce reports whether one input of one node is all that reads v.
func (f *affineFold) readOnce(v *graph.Value) bool { return len(f.uses[v]) == 1 && !f.outs[v] }

// input finds the input that n scales and shifts.
func (f *affineFold) input(n *graph.Node, channels int) (i int, a affine, ok bool) {
	for i := range min(len(n.Inputs), 2) {
		if a, ok := f.affineOf(n, i, channels); ok {
			return i, a, true
		}
	}
	return 0, a, false
}

// affineOf is what n does to its input x, of so many channels, if that is all that it does.
func (f *affineFold) affineOf(n *graph.Node, x, channels int) (affine, bool) {
	if x < 0 || x > 1 || n.Inputs[x] == nil || !sameType(f.info[n.Inputs[x]].Type, f.info[n.Outputs[0]].Type) {
		return affine{}, false
	}
	if isONNX(n, "BatchNormalization") && x == 0 {
		return batchNormOf(n, f.info)
	}
	known := isONNX(n, "Add") || isONNX(n, "Sub") || isONNX(n, "Mul") || isONNX(n, "Div") && x == 0
	if !known || len(n.Inputs) != 2 || n.Inputs[1-x] == nil || f.g.Opset("") < 7 { // before, shapes were aligned otherwise
		return affine{}, false
	}
	other := f.info[n.Inputs[1-x]].Const
	if !isPerChannel(other, len(f.info[n.Inputs[x]].Type.Shape), channels) {
		return affine{}, false
	}
	c := perChannel(other, channels)
	a := unit(channels)
	switch n.Op {
	case "Add":
		a.shift = c
	case "Mul":
		a.scale = c
	case "Div":
		for i := range c {
			a.scale[i] = 1 / c[i]
		}
	case "Sub":
		for i := range c {
			if x == 0 {
				a.shift[i] = -c[i]
			} else {
				a.scale[i], a.shift[i] = -1, c[i]
			}
		}
	}
	return a, true
}

// isPerChannel reports whether t is a constant that broadcasts along all axes but the second of a tensor of that rank.
func isPerChannel(t *tensor.Tensor, rank, channels int) bool {
	if t == nil || !t.DType.IsFloat() || len(t.Shape) > rank || rank < 2 {
		return false
	}
	for i, d := range t.Shape {
		if axis := rank - len(t.Shape) + i; d != 1 && (axis != 1 || d != channels) {
			return false
		}
	}
	return true
}

// perChannel is such a constant as a number for each channel.
func perChannel(t *tensor.Tensor, channels int) []float64 {
	v, _ := t.Float64s()
	if len(v) == 1 {
		v = slices.Repeat(v, channels)
	}
	return v
}
