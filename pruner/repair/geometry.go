package repair

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
)

// geometry says how a layer reads its input: as im2col of a convolution, pixel by pixel for a ConvTranspose whose
// kernel is its stride (each input pixel makes a patch of its own), or row by row for a Gemm and a MatMul. A grouped layer is
// as many layers beside each other.
type geometry struct {
	op       string
	groups   int // in the cut graph
	channels int // of a group's input in the cut graph
	h, w     int // input
	oh, ow   int // output
	kh, kw   int
	sh, sw   int
	dh, dw   int
	top      int
	left     int
	transB   bool
}

// newGeometry gives a reason instead if the layer cannot be refitted.
func newGeometry(n *graph.Node, in, out tensor.Shape, w *tensor.Tensor) (geometry, string) {
	g := geometry{op: n.Op, groups: 1, h: 1, w: 1, oh: 1, ow: 1, kh: 1, kw: 1, sh: 1, sw: 1, dh: 1, dw: 1}
	if n.Op == "Gemm" {
		if n.Attrs.Int("transA", 0) != 0 || n.Attrs.Float("alpha", 1) != 1 || n.Attrs.Float("beta", 1) != 1 || in[0] != 1 {
			return g, "a Gemm in a form that is not refitted"
		}
		g.transB = n.Attrs.Int("transB", 0) != 0
		return g, ""
	}
	if n.Op == "MatMul" { // channels last, whatever lies before them
		g.h, g.oh = in.Elems()/max(in[len(in)-1], 1), in.Elems()/max(in[len(in)-1], 1)
		return g, ""
	}
	if n.Op != "Conv" && n.Op != "ConvTranspose" {
		return g, "only Conv, ConvTranspose, Gemm and MatMul are refitted"
	}
	if len(in) != 4 || in[0] != 1 {
		return g, "only two spatial axes and a batch of one are refitted"
	}
	g.h, g.w, g.oh, g.ow, g.kh, g.kw = in[2], in[3], out[2], out[3], w.Shape[2], w.Shape[3]
	pair := func(name string, a, b *int) {
		if v := n.Attrs.Ints(name); len(v) >= 2 {
			*a, *b = v[0], v[1]
		}
	}
	pair("strides", &g.sh, &g.sw)
	pair("dilations", &g.dh, &g.dw)
	pair("pads", &g.top, &g.left)
	switch auto := n.Attrs.Str("auto_pad", "NOTSET"); auto {
	case "SAME_UPPER", "SAME_LOWER":
		same := func(in, out, k, s, d int) int {
			p := max((out-1)*s+(k-1)*d+1-in, 0)
			if auto == "SAME_LOWER" {
				p++
			}
			return p / 2
		}
		g.top, g.left = same(g.h, g.oh, g.kh, g.sh, g.dh), same(g.w, g.ow, g.kw, g.sw, g.dw)
	case "VALID":
		g.top, g.left = 0, 0
	}
	if n.Op == "ConvTranspose" && (g.kh != g.sh || g.kw != g.sw || g.dh != 1 || g.dw != 1 || g.oh != g.h*g.kh || g.ow != g.w*g.kw || g.top != 0 || g.left != 0) {
		return g, "a ConvTranspose whose patches overlap is not refitted"
	}
	return g, ""
}

// channelsOf is how many channels the weights of a group read.
func (g geometry) channelsOf(w *tensor.Tensor) int {
	if g.op == "ConvTranspose" || g.op == "MatMul" || g.op == "Gemm" && !g.transB {
		return w.Shape[0] / g.groups
	}
	return w.Shape[1]
}

// inputs is how many inputs an output has.
func (g geometry) inputs() int {
	if g.op == "ConvTranspose" {
		return g.channels
	}
	return g.channels * g.kh * g.kw
}

// columns is D: the inputs, and a one where there can be a bias.
func (g geometry) columns() int {
	if g.op == "MatMul" {
		return g.inputs()
	}
	return g.inputs() + 1
}

// phases is how many outputs of one channel share a row.
func (g geometry) phases() int {
	if g.op == "ConvTranspose" {
		return g.kh * g.kw
	}
	return 1
}

// places is how many rows an image has.
func (g geometry) places() int {
	if g.op == "ConvTranspose" {
		return g.h * g.w
	}
	return g.oh * g.ow
}

// row writes what group q reads at a place, and 1 for the bias.
func (g geometry) row(dst, x []float32, q, place int) {
	dst[len(dst)-1] = 1
	switch g.op {
	case "MatMul":
		copy(dst, x[place*g.channels:(place+1)*g.channels])
		return
	case "ConvTranspose", "Gemm":
		for c := range g.channels {
			dst[c] = x[(q*g.channels+c)*g.h*g.w+place]
		}
		return
	}
	x = x[q*g.channels*g.h*g.w:]
	y0, x0 := place/g.ow*g.sh-g.top, place%g.ow*g.sw-g.left
	i := 0
	for c := range g.channels {
		plane := x[c*g.h*g.w : (c+1)*g.h*g.w]
		for ky := range g.kh {
			y := y0 + ky*g.dh
			for kx := range g.kw {
				dst[i] = 0
				if xx := x0 + kx*g.dw; y >= 0 && y < g.h && xx >= 0 && xx < g.w {
					dst[i] = plane[y*g.w+xx]
				}
				i++
			}
		}
	}
}

// targets picks the original's outputs, of so many channels, at the places: for each, kept channels, each with its phases.
func (g geometry) targets(z []float32, channels int, places, kept []int) []float32 {
	out := make([]float32, 0, len(places)*len(kept)*g.phases())
	for _, p := range places {
		for _, m := range kept {
			if g.op == "MatMul" {
				out = append(out, z[p*channels+m])
				continue
			}
			plane := z[m*g.oh*g.ow : (m+1)*g.oh*g.ow]
			if g.op != "ConvTranspose" {
				out = append(out, plane[p])
				continue
			}
			y, x := p/g.w*g.kh, p%g.w*g.kw
			for ky := range g.kh {
				out = append(out, plane[(y+ky)*g.ow+x:][:g.kw]...)
			}
		}
	}
	return out
}

// index is where weight (column d of channel m and phase) of group q lies in the weight tensor, of outs output channels a
// group.
func (g geometry) index(q, d, m, phase, outs int) int {
	switch {
	case g.op == "ConvTranspose":
		return ((q*g.channels+d)*outs+m)*g.kh*g.kw + phase
	case g.op == "MatMul" || g.op == "Gemm" && !g.transB:
		return d*outs + m
	}
	return (q*outs+m)*g.inputs() + d
}

// matrix is the present weights of group q of c as [D][outputs·phases], the bias last.
func (g geometry) matrix(c *consumer, q int) []float32 {
	w, _ := c.cut.Inputs[1].Const.Float64s()
	outs, ph, d := c.outs(), g.phases(), g.columns()
	old := tensor.Of[float32](tensor.New(tensor.Float32, d*outs*ph))
	for i := range g.inputs() {
		for m := range outs {
			for p := range ph {
				old[(i*outs+m)*ph+p] = float32(w[g.index(q, i, m, p, outs)])
			}
		}
	}
	if b := c.cut.Input(2); b != nil && d > g.inputs() {
		if t := group.WeightTensor(b); t != nil {
			v, _ := t.Float64s()
			for m := range outs {
				for p := range ph {
					old[((d-1)*outs+m)*ph+p] = float32(v[min(q*outs+m, len(v)-1)])
				}
			}
		}
	}
	return old
}

// write puts weights and bias into the graph. A bias that the node has not goes into the mean of the BatchNormalization
// behind it, or becomes a new initializer.
// w is that of each group, as matrix gives it.
func (g geometry) write(h *graph.Graph, c *consumer, w [][]float64) error {
	outs, ph, d := c.outs(), g.phases(), g.columns()
	old := c.cut.Inputs[1].Const
	v, _ := old.Float64s()
	for q := range w {
		for i := range g.inputs() {
			for m := range outs {
				for p := range ph {
					v[g.index(q, i, m, p, outs)] = w[q][(i*outs+m)*ph+p]
				}
			}
		}
	}
	t, err := tensor.FromFloat64s(v, old.DType, old.Shape...)
	if err != nil {
		return err
	}
	if err := setConst(h, c.cut, 1, t); err != nil {
		return err
	}
	if d == g.inputs() {
		return nil
	}
	bias := make([]float64, len(c.kept))
	for m := range bias {
		for p := range ph { // one bias serves all phases
			bias[m] += w[m/outs][((d-1)*outs+m%outs)*ph+p] / float64(ph)
		}
	}
	return writeBias(h, c.cut, bias, old.DType)
}

func writeBias(h *graph.Graph, n *graph.Node, bias []float64, dt tensor.DType) error {
	t, err := tensor.FromFloat64s(bias, dt, len(bias))
	if err != nil {
		return err
	}
	if b := n.Input(2); b != nil {
		if b.Const == nil || b.Const.Elems() != len(bias) || len(h.Uses()[b]) > 1 {
			n.Inputs[2] = rewrite.AddConst(h, b.Name+"_refit", t)
			return nil
		}
		t.Shape = b.Const.Shape.Clone()
		return setConst(h, n, 2, t)
	}
	uses := h.Uses()[n.Outputs[0]]
	if len(uses) == 1 && uses[0].Node.Op == "BatchNormalization" && uses[0].Input == 0 {
		// BN(x + b) with mean μ is BN(x) with mean μ - b.
		bn := uses[0].Node
		if mean := bn.Input(3); mean != nil && mean.Const != nil && len(h.Uses()[mean]) == 1 {
			mu, _ := mean.Const.Float64s()
			for i := range mu {
				mu[i] -= bias[i]
			}
			shifted, err := tensor.FromFloat64s(mu, mean.Const.DType, mean.Const.Shape...)
			if err != nil {
				return err
			}
			return setConst(h, bn, 3, shifted)
		}
	}
	for len(n.Inputs) < 3 {
		n.Inputs = append(n.Inputs, nil)
	}
	n.Inputs[2] = rewrite.AddConst(h, n.Inputs[1].Name+"_bias", t)
	return nil
}
