package pass

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
)

// DropIdentities removes nodes that yield what they read: Identity, Dropout at inference, a Cast to the type it is, a
// Transpose that moves nothing, a Resize by 1, a Mul by 1.
func DropIdentities(g *graph.Graph, info Info) {
	uses, r := g.Uses(), rewire(g)
	for _, n := range g.Nodes {
		if len(n.Outputs) == 0 || n.Outputs[0] == nil || readBeside(n, r.outs, uses) {
			continue
		}
		i, ok := op.Keeps(site(g, n, info))
		if ok && r.can(n.Outputs[0], n.Inputs[i]) {
			r.replace(n.Outputs[0], n.Inputs[i])
			r.gone[n] = true
		}
	}
	r.apply()
}

// readBeside reports whether anyone reads an output of n other than the first, such as Dropout's mask.
func readBeside(n *graph.Node, outs map[*graph.Value]bool, uses map[*graph.Value][]graph.Use) bool {
	for _, v := range n.Outputs[1:] {
		if v != nil && (outs[v] || len(uses[v]) > 0) {
			return true
		}
	}
	return false
}
