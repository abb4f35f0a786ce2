package pass

import "github.com/secateur/secateur/engine/graph"

// DropDead removes nodes and initializers that no output depends on.
func DropDead(g *graph.Graph, _ Info) {
	live := map[*graph.Value]bool{}
	for _, v := range g.Outputs {
		live[v] = true
	}
	gone := map[*graph.Node]bool{}
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		n := g.Nodes[i]
		needed := false
		for _, v := range n.Outputs {
			needed = needed || v != nil && live[v]
		}
		if !needed {
			gone[n] = true
			continue
		}
		for _, v := range n.Inputs {
			if v != nil {
				live[v] = true
			}
		}
	}
	drop(g, gone)
	var inits []*graph.Value
	for _, v := range g.Inits {
		if live[v] {
			inits = append(inits, v)
		}
	}
	g.Inits = inits
}
