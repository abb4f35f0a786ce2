package pass

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// FuseEpilogues lets a convolution add a residual and apply an activation while its results are in a core's cache: one of
// each, in the order that they have. It runs where the last of them stood, as a residual may be computed after what the
// convolution reads.
func FuseEpilogues(g *graph.Graph, info Info) {
	uses, outs := g.Uses(), outputs(g)
	gone, instead := map[*graph.Node]bool{}, map[*graph.Node]*graph.Node{}
	for _, n := range g.Nodes {
		if !isConv(n, info) {
			continue
		}
		for at := n; ; {
			y := n.Outputs[0]
			u := uses[y]
			if len(u) != 1 || outs[y] || instead[u[0].Node] != nil || !fuseStep(g, n, u[0], info) {
				break
			}
			gone[at] = true
			at = u[0].Node
			instead[at] = n
			n.Outputs[0] = at.Outputs[0]
			n.Outputs[0].Def = n
		}
	}
	replace(g, gone, instead)
}

// replace drops nodes that are gone and puts others in the places of those that instead has, gone or not.
func replace(g *graph.Graph, gone map[*graph.Node]bool, instead map[*graph.Node]*graph.Node) {
	var nodes []*graph.Node
	for _, n := range g.Nodes {
		if gone[n] {
			continue
		}
		if by := instead[n]; by != nil {
			n = by
		}
		nodes = append(nodes, n)
	}
	g.Nodes = nodes
}

// fuseStep makes what reads the convolution's output, once, a step of it, if it can be one.
func fuseStep(g *graph.Graph, conv *graph.Node, u graph.Use, info Info) bool {
	n := u.Node
	sum, activation := op.Steps(conv)
	if isONNX(n, "Add") && len(n.Inputs) == 2 {
		other := n.Inputs[1-u.Input]
		t := info[n.Outputs[0]].Type
		if sum || info[other].Const != nil || !sameType(info[conv.Outputs[0]].Type, t) || !sameType(info[other].Type, t) {
			return false
		}
		op.WithSum(conv, other)
		return true
	}
	if activation || u.Input != 0 {
		return false
	}
	name, attrs, ok := activationStep(g, n, info)
	if ok {
		op.WithActivation(conv, name, attrs...)
	}
	return ok
}

// activationStep gives the step that an activation's node is, with its attributes.
func activationStep(g *graph.Graph, n *graph.Node, info Info) (name string, attrs []graph.Attr, ok bool) {
	switch n.Op {
	case "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Gelu":
		if n.Domain == op.Private {
			return op.Private + "." + n.Op, n.Attrs, n.Op == "HardSwish" || n.Op == "Swish" || n.Op == "Gelu"
		}
		return n.Op, n.Attrs, isONNX(n, n.Op)
	case "PRelu":
		slope, ok := slopesOf(g, n, info)
		return n.Op, []graph.Attr{graph.FloatsAttr("slope", slope...)}, ok && isONNX(n, n.Op)
	}
	return "", nil, false
}

// slopesOf is the slopes of a PRelu, one or as many as channels, if they are constant and float32 holds them.
func slopesOf(g *graph.Graph, n *graph.Node, info Info) ([]float32, bool) {
	c, x := info[n.Inputs[1]].Const, info[n.Inputs[0]].Type.Shape
	if c == nil || len(x) < 2 || g.Opset("") < 7 {
		return nil, false
	}
	per := tensor.Shape{}
	for range len(x) - 2 {
		per = append(per, 1)
	}
	if c.Shape.Elems() != 1 && !sameType(c.Type(), tensor.Type{DType: c.DType, Shape: append(tensor.Shape{x[1]}, per...)}) &&
		!sameType(c.Type(), tensor.Type{DType: c.DType, Shape: append(tensor.Shape{1, x[1]}, per...)}) {
		return nil, false
	}
	f, isNum := c.Float64s()
	out := make([]float32, len(f))
	for i, v := range f {
		if out[i] = float32(v); float64(out[i]) != v {
			return nil, false
		}
	}
	return out, isNum
}
