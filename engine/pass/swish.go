package pass

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
)

// FuseSwish makes one node of x·Sigmoid(x), which is Swish or SiLU, and of x·HardSigmoid(x), which is HardSwish with a slope
// and an offset, as exporters write them.
func FuseSwish(g *graph.Graph, _ Info) {
	uses, outs := g.Uses(), outputs(g)
	gone := map[*graph.Node]bool{}
	for _, gate := range g.Nodes {
		var name string
		var attrs graph.Attrs
		switch {
		case isONNX(gate, "Sigmoid"):
			name = "Swish"
		case isONNX(gate, "HardSigmoid"):
			name, attrs = "HardSwish", gate.Attrs
		default:
			continue
		}
		x, y := gate.Inputs[0], gate.Outputs[0]
		u := uses[y]
		if len(u) != 1 || outs[y] || !isONNX(u[0].Node, "Mul") || len(u[0].Node.Inputs) != 2 || u[0].Node.Inputs[1-u[0].Input] != x {
			continue
		}
		mul := u[0].Node
		mul.Op, mul.Domain, mul.Attrs, mul.Inputs = name, op.Private, attrs, []*graph.Value{x}
		gone[gate] = true
	}
	drop(g, gone)
}
