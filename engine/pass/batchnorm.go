package pass

import (
	"math"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// FoldBatchNorm multiplies the scale of a BatchNormalization into the convolution before it:
// γ(Wx+b−μ)/√(σ²+ε)+β = (γ/√(σ²+ε))W·x + (b−μ)γ/√(σ²+ε)+β. The arithmetic is in float64, rounded once.
func FoldBatchNorm(g *graph.Graph, info Info) {
	uses, outs, fresh := g.Uses(), outputs(g), g.Namer()
	gone := map[*graph.Node]bool{}
	for _, n := range g.Nodes {
		if !isConv(n, info) || n.Domain == op.Private || info[n.Inputs[1]].Const.Elems() == 0 {
			continue
		}
		bn := soleReader(outs, uses, n.Outputs[0])
		if bn == nil || !isONNX(bn, "BatchNormalization") || !plainBatchNorm(bn, info) {
			continue
		}
		w, b := foldedWeights(n, bn, info)
		n.Inputs = []*graph.Value{
			n.Inputs[0],
			constant(g, info, fresh(bn.Outputs[0].Name+".weight"), w),
			constant(g, info, fresh(bn.Outputs[0].Name+".bias"), b),
		}
		n.Outputs[0] = bn.Outputs[0]
		n.Outputs[0].Def = n
		gone[bn] = true
	}
	drop(g, gone)
}

func plainBatchNorm(bn *graph.Node, info Info) bool {
	if len(bn.Inputs) != 5 || bn.Attrs.Int("training_mode", 0) != 0 || bn.Attrs.Int("spatial", 1) == 0 {
		return false
	}
	for _, v := range bn.Outputs[1:] {
		if v != nil {
			return false
		}
	}
	for _, v := range bn.Inputs[1:] {
		if v == nil || info[v].Const == nil {
			return false
		}
	}
	return true
}

// foldedWeights gives the convolution's weights and bias with the normalization in them.
func foldedWeights(conv, bn *graph.Node, info Info) (w, b *tensor.Tensor) {
	param := func(i int) []float64 {
		v, _ := info[bn.Inputs[i]].Const.Float64s()
		return v
	}
	gamma, beta, mean, variance := param(1), param(2), param(3), param(4)
	eps := float64(bn.Attrs.Float("epsilon", 1e-5))
	w0 := info[conv.Inputs[1]].Const
	m := len(gamma)
	weights, _ := w0.Float64s()
	bias := make([]float64, m)
	if v := conv.Input(2); v != nil {
		bias, _ = info[v].Const.Float64s()
	}
	scale := make([]float64, m)
	for c := range m {
		scale[c] = gamma[c] / math.Sqrt(variance[c]+eps)
		bias[c] = (bias[c]-mean[c])*scale[c] + beta[c]
	}
	// Conv: W[M, C/g, k...]. ConvTranspose: W[C, M/g, k...], where input channel i belongs to group i/(C/g).
	per := len(weights) / w0.Shape[0]
	if conv.Op == "Conv" {
		for i := range weights {
			weights[i] *= scale[i/per]
		}
	} else {
		group := max(conv.Attrs.Int("group", 1), 1)
		mg := w0.Shape[1]
		k := per / mg
		for i := range weights {
			in, out := i/per, i%per/k
			weights[i] *= scale[in/(w0.Shape[0]/group)*mg+out]
		}
	}
	return floats(w0.DType, weights, w0.Shape...), floats(w0.DType, bias, m)
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

// drop removes nodes.
func drop(g *graph.Graph, gone map[*graph.Node]bool) {
	var nodes []*graph.Node
	for _, n := range g.Nodes {
		if !gone[n] {
			nodes = append(nodes, n)
		}
	}
	g.Nodes = nodes
}
