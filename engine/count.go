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
		k.MACs = macs(n, info)
		c.MACs += k.MACs
		c.Nodes[n] = k
	}
	return c
}

// macs counts the multiply-adds of one node, padding included.
func macs(n *graph.Node, info map[*graph.Value]op.Arg) int64 {
	elems := func(v *graph.Value) int64 { return int64(info[v].Type.Shape.Elems()) }
	if n.Domain != "" && n.Domain != "ai.onnx" && n.Domain != op.Private || len(n.Inputs) < 2 || n.Inputs[0] == nil || n.Inputs[1] == nil {
		return 0
	}
	x, w := info[n.Inputs[0]].Type.Shape, info[n.Inputs[1]].Type.Shape
	switch n.Op {
	case "Conv": // each output reads one filter: W[M, C/group, k...]
		if len(w) > 1 && w[0] > 0 {
			return elems(n.Outputs[0]) * int64(w.Elems()/w[0])
		}
	case "ConvTranspose": // each input writes one filter: W[C, M/group, k...]
		if len(w) > 1 && w[0] > 0 {
			return elems(n.Inputs[0]) * int64(w.Elems()/w[0])
		}
	case "Gemm":
		if len(x) == 2 {
			k := x[1]
			if n.Attrs.Int("transA", 0) != 0 {
				k = x[0]
			}
			return elems(n.Outputs[0]) * int64(k)
		}
	case "MatMul":
		if len(x) > 0 {
			return elems(n.Outputs[0]) * int64(x[len(x)-1])
		}
	}
	return 0
}
