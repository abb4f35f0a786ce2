package pass

import (
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

// rewiring collects values that others take the place of, and nodes that go with them.
type rewiring struct {
	g    *graph.Graph
	outs map[*graph.Value]bool
	to   map[*graph.Value]*graph.Value // what is read in the place of a value
	gone map[*graph.Node]bool
}

func rewire(g *graph.Graph) *rewiring {
	return &rewiring{g, outputs(g), map[*graph.Value]*graph.Value{}, map[*graph.Node]bool{}}
}

// of is what is read in the place of v.
func (r *rewiring) of(v *graph.Value) *graph.Value {
	root := v
	for r.to[root] != nil {
		root = r.to[root]
	}
	for v != root { // so that the next look is short
		v, r.to[v] = r.to[v], root
	}
	return root
}

// can reports whether by, which is the same, can take the place of v. Outputs keep values of their own: if v is one, then
// the node that yields by is to yield v in its place.
func (r *rewiring) can(v, by *graph.Value) bool {
	by = r.of(by)
	return !r.outs[v] || !r.outs[by] && by.Def != nil && slices.Contains(by.Def.Outputs, by)
}

// replace lets by take the place of v, which it can.
func (r *rewiring) replace(v, by *graph.Value) {
	by = r.of(by)
	if r.outs[v] {
		n := by.Def
		n.Outputs[slices.Index(n.Outputs, by)], v.Def = v, n
		v, by = by, v
	}
	r.to[v] = by
}

// apply changes what nodes read, and drops those that are gone.
func (r *rewiring) apply() {
	drop(r.g, r.gone)
	for _, n := range r.g.Nodes {
		for i, v := range n.Inputs {
			if v != nil {
				n.Inputs[i] = r.of(v)
			}
		}
	}
}
