package pass

import "github.com/secateur/secateur/engine/graph"

// MergeTransposes lets a Transpose of a Transpose read what the first one reads, its axes composed.
func MergeTransposes(g *graph.Graph, info Info) {
	for _, n := range g.Nodes {
		if !isONNX(n, "Transpose") {
			continue
		}
		first := n.Inputs[0].Def
		if first == nil || !isONNX(first, "Transpose") {
			continue
		}
		p, q := permOf(first, info), permOf(n, info)
		if len(p) != len(q) {
			continue
		}
		perm := make([]int, len(q))
		for i, a := range q {
			perm[i] = p[a]
		}
		n.Inputs = first.Inputs
		n.Attrs = n.Attrs.Set(graph.IntsAttr("perm", perm...))
	}
}

// permOf is which axis of its input each axis of a Transpose's output is.
func permOf(n *graph.Node, info Info) []int {
	p := n.Attrs.Ints("perm")
	rank := len(info[n.Inputs[0]].Type.Shape)
	if p == nil { // reversed
		for i := range rank {
			p = append(p, rank-1-i)
		}
	}
	for i, a := range p {
		if a < 0 {
			p[i] = a + rank
		}
	}
	return p
}
