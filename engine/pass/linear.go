package pass

import (
	"math"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// linear is a convolution or a Gemm whose weights and bias are constant: gain·Wx + b.
type linear struct {
	node      *graph.Node
	w         *tensor.Tensor
	ins, outs int
	bias      func() []float64 // a copy
	gain      float64
	// before: a scale of each input channel commutes with the weights. shifts: so does a number added to each, as there is
	// no border where other numbers would be added.
	before, shifts bool
	// each calls f for the weights between one channel and another, which lie from index at on.
	each func(f func(in, out, at, n int))
}

// linearOf is n as a linear operator.
func linearOf(n *graph.Node, info Info) (linear, bool) {
	if isConv(n, info) && n.Domain != op.Private {
		return convOf(n, info)
	}
	if isONNX(n, "Gemm") && n.Inputs[1] != nil && info[n.Inputs[1]].Const != nil {
		return gemmOf(n, info)
	}
	return linear{}, false
}

// convOf: Conv has W[M, C/g, k...], ConvTranspose W[C, M/g, k...], where input channel i belongs to group i/(C/g).
func convOf(n *graph.Node, info Info) (linear, bool) {
	w := info[n.Inputs[1]].Const
	x, y := info[n.Inputs[0]].Type.Shape, info[n.Outputs[0]].Type.Shape
	l := linear{node: n, w: w, ins: x[1], outs: y[1], gain: 1, before: true}
	l.bias = func() []float64 {
		if v := n.Input(2); v != nil {
			b, _ := info[v].Const.Float64s()
			return b
		}
		return make([]float64, l.outs)
	}
	group := max(n.Attrs.Int("group", 1), 1)
	per, size := w.Shape[1], w.Shape[2:].Elems()
	own, ok := ownPads(n, len(x)-2)
	l.shifts = n.Op == "Conv" && ok && !slices.ContainsFunc(own, notZero)
	l.each = func(f func(in, out, at, n int)) {
		for a := range w.Shape[0] {
			of := a / (w.Shape[0] / group) * per
			for b := range per {
				in, out := of+b, a
				if n.Op == "ConvTranspose" {
					in, out = a, of+b
				}
				f(in, out, (a*per+b)*size, size)
			}
		}
	}
	return l, w.Elems() > 0
}

// gemmOf: Y = α·A'·B' + β·C, where C must be a row.
func gemmOf(n *graph.Node, info Info) (linear, bool) {
	w := info[n.Inputs[1]].Const
	ins, outs := w.Shape[0], w.Shape[1]
	transposed := n.Attrs.Int("transB", 0) != 0
	if transposed {
		ins, outs = outs, ins
	}
	plain := n.Attrs.Int("transA", 0) == 0
	l := linear{node: n, w: w, ins: ins, outs: outs, gain: float64(n.Attrs.Float("alpha", 1)), before: plain, shifts: plain}
	c := n.Input(2)
	if c != nil && !isPerChannel(info[c].Const, 2, outs) {
		return l, false
	}
	l.bias = func() []float64 {
		bias := make([]float64, outs)
		if c != nil {
			beta := float64(n.Attrs.Float("beta", 1))
			for i, x := range perChannel(info[c].Const, outs) {
				bias[i] = beta * x
			}
		}
		return bias
	}
	l.each = func(f func(in, out, at, n int)) {
		for a := range w.Shape[0] {
			for b := range w.Shape[1] {
				in, out := a, b
				if transposed {
					in, out = b, a
				}
				f(in, out, a*w.Shape[1]+b, 1)
			}
		}
	}
	return l, w.Elems() > 0
}

// with is weights and bias of behind(l(before(x))), either of which may be the zero affine, which changes nothing. ok is false
// if the type cannot hold them.
func (l *linear) with(before, behind affine) (w, b *tensor.Tensor, ok bool) {
	weights, _ := l.w.Float64s()
	bias := l.bias()
	l.each(func(in, out, at, n int) {
		if before.scale != nil {
			var sum float64
			for i := at; i < at+n; i++ {
				sum += weights[i]
				weights[i] *= before.scale[in]
			}
			bias[out] += l.gain * sum * before.shift[in]
		}
		if behind.scale != nil {
			for i := at; i < at+n; i++ {
				weights[i] *= behind.scale[out]
			}
		}
	})
	if behind.scale != nil {
		for i := range bias {
			bias[i] = bias[i]*behind.scale[i] + behind.shift[i]
		}
	}
	most := math.MaxFloat64
	if l.w.DType == tensor.Float32 {
		most = math.MaxFloat32
	}
	tooLarge := func(x float64) bool { return !(math.Abs(x) <= most) } // or not a number
	if slices.ContainsFunc(weights, tooLarge) || slices.ContainsFunc(bias, tooLarge) {
		return nil, nil, false
	}
	w = l.w
	if !before.keeps() || !behind.keeps() {
		w = floats(l.w.DType, weights, l.w.Shape...)
	}
	return w, floats(l.w.DType, bias, len(bias)), true
}

// floats makes a tensor of the given floating type.
func floats(dt tensor.DType, v []float64, shape ...int) *tensor.Tensor {
	t := tensor.From(v, shape...)
	r, err := t.Float(dt)
	if err != nil {
		panic(err) // dt is what inference runs floats as
	}
	return r
}
