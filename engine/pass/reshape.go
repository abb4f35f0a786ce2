package pass

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// maxRank bounds the shapes that MergeReshapes writes: a chain of them takes no more than the chain did.
const maxRank = 16

// MergeReshapes makes one Reshape of several in a row, and of Flatten, Squeeze and Unsqueeze, which are the same here: all
// give the elements as they lie another shape.
func MergeReshapes(g *graph.Graph, info Info) {
	fresh := g.Namer()
	for _, n := range g.Nodes {
		if !isReshape(n) {
			continue
		}
		first := n.Inputs[0].Def
		y := info[n.Outputs[0]].Type
		if first == nil || !isReshape(first) || len(y.Shape) > maxRank || y.Shape.Elems() <= 0 { // a 0 would say "as it was"
			continue
		}
		n.Op, n.Inputs, n.Attrs = "Reshape", first.Inputs[:1:1], nil
		if g.Opset("") < 5 {
			n.Attrs = graph.Attrs{graph.IntsAttr("shape", y.Shape...)}
			continue
		}
		dims := make([]int64, len(y.Shape))
		for i, d := range y.Shape {
			dims[i] = int64(d)
		}
		n.Inputs = append(n.Inputs, constant(g, info, fresh(n.Outputs[0].Name+".shape"), tensor.From(dims, len(dims))))
	}
}

func isReshape(n *graph.Node) bool {
	for _, name := range []string{"Reshape", "Flatten", "Squeeze", "Unsqueeze"} {
		if isONNX(n, name) {
			return true
		}
	}
	return false
}
