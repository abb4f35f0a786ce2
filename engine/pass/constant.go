package pass

import "github.com/secateur/secateur/engine/graph"

// FoldConstants turns values that inference computed into initializers: the shape arithmetic of exporters goes.
func FoldConstants(g *graph.Graph, info Info) {
	var nodes []*graph.Node
	for _, n := range g.Nodes {
		folded := len(n.Outputs) > 0
		for _, v := range n.Outputs {
			folded = folded && (v == nil || info[v].Const != nil)
		}
		if !folded {
			nodes = append(nodes, n)
			continue
		}
		for _, v := range n.Outputs {
			if v != nil {
				v.Const, v.Def = info[v].Const, nil
				g.Inits = append(g.Inits, v)
			}
		}
	}
	g.Nodes = nodes
}
