package pass

import "github.com/secateur/secateur/engine/graph"

// DropIdentities removes nodes whose output is their input: Identity, and Dropout at inference. A node that yields a
// graph output stays, so that outputs keep values of their own.
func DropIdentities(g *graph.Graph, _ Info) {
	uses, outs := g.Uses(), outputs(g)
	stands := map[*graph.Value]*graph.Value{} // what is read in the place of a dropped output
	var nodes []*graph.Node
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			if w := stands[v]; w != nil {
				n.Inputs[i] = w
			}
		}
		if !isIdentity(n, outs, uses) || outs[n.Outputs[0]] {
			nodes = append(nodes, n)
			continue
		}
		stands[n.Outputs[0]] = n.Inputs[0]
	}
	g.Nodes = nodes
}

func isIdentity(n *graph.Node, outs map[*graph.Value]bool, uses map[*graph.Value][]graph.Use) bool {
	if len(n.Inputs) == 0 || n.Inputs[0] == nil || len(n.Outputs) == 0 || n.Outputs[0] == nil {
		return false
	}
	switch {
	case isONNX(n, "Identity"):
		return true
	case isONNX(n, "Dropout"): // the mask, if anyone reads it, needs the node
		return len(n.Outputs) < 2 || n.Outputs[1] == nil || len(uses[n.Outputs[1]]) == 0 && !outs[n.Outputs[1]]
	}
	return false
}
