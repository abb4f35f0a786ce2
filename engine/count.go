package engine

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Cost says how large a model is at one input shape.
type Cost struct {
	// Parameters counts the elements of all floating-point constants that nodes read, each once.
	Parameters int64
	// MACs counts the multiply-adds of Conv, ConvTranspose, Gemm and MatMul.
	MACs  int64
	Nodes map[*graph.Node]NodeCost
}

// NodeCost is one node's share. A constant that several nodes read counts with each of them.
type NodeCost struct {
	Parameters, MACs int64
	In, Out          tensor.Shape // of the first input and output
}

// Count gives the cost of g for the given input types.
func Count(g *graph.Graph, in []tensor.Type) (Cost, error) {
	info, err := Infer(g, in, tensor.Float32)
	if err != nil {
		return Cost{}, err
	}
	return CountInferred(g, info), nil
}

// CountInferred is Count where the shapes are known already, from Infer.
func CountInferred(g *graph.Graph, info map[*graph.Value]op.Arg) Cost {
	c := Cost{Nodes: make(map[*graph.Node]NodeCost, len(g.Nodes))}
	seen := map[*graph.Value]bool{}
	for _, n := range g.Nodes {
		var k NodeCost
		for _, v := range n.Inputs {
			if v == nil || v.Const == nil || !v.Const.DType.IsFloat() {
				continue
			}
			e := int64(v.Const.Elems())
			k.Parameters += e
			if !seen[v] {
				seen[v] = true
				c.Parameters += e
			}
		}
		if len(n.Inputs) > 0 && n.Inputs[0] != nil {
			k.In = info[n.Inputs[0]].Type.Shape
		}
		if len(n.Outputs) > 0 && n.Outputs[0] != nil {
			k.Out = info[n.Outputs[0]].Type.Shape
		}
		k.MACs = macs(n, args(n.Inputs, info), types(n.Outputs, info))
		c.MACs += k.MACs
		c.Nodes[n] = k
	}
	return c
}

// macs counts the multiply-adds of one node, padding included.
func macs(n *graph.Node, in []op.Arg, out []tensor.Type) int64 {
	if n.Domain != "" && n.Domain != "ai.onnx" && n.Domain != op.Private || len(in) < 2 || len(out) < 1 {
		return 0
	}
	x, w := in[0].Type.Shape, in[1].Type.Shape
	switch n.Op {
	case "Conv": // each output reads one filter: W[M, C/group, k...]
		if len(w) > 1 && w[0] > 0 {
			return int64(out[0].Shape.Elems()) * int64(w.Elems()/w[0])
		}
	case "ConvTranspose": // each input writes one filter: W[C, M/group, k...]
		if len(w) > 1 && w[0] > 0 {
			return int64(x.Elems()) * int64(w.Elems()/w[0])
		}
	case "Gemm":
		if len(x) == 2 {
			k := x[1]
			if n.Attrs.Int("transA", 0) != 0 {
				k = x[0]
			}
			return int64(out[0].Shape.Elems()) * int64(k)
		}
	case "MatMul":
		if len(x) > 0 {
			return int64(out[0].Shape.Elems()) * int64(x[len(x)-1])
		}
	}
	return 0
}

func args(vs []*graph.Value, info map[*graph.Value]op.Arg) []op.Arg {
	as := make([]op.Arg, len(vs))
	for i, v := range vs {
		if v != nil {
			as[i] = info[v]
		}
	}
	return as
}

func types(vs []*graph.Value, info map[*graph.Value]op.Arg) []tensor.Type {
	ts := make([]tensor.Type, len(vs))
	for i, a := range args(vs, info) {
		ts[i] = a.Type
	}
	return ts
}
