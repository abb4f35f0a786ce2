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

// replace lets by, which is the same, take the place of v. Outputs keep values of their own: if v is one, then the node that
// yields by yields v in its place. replace reports false if that cannot be.
func (r *rewiring) replace(v, by *graph.Value) bool {
	by = r.of(by)
	if r.outs[v] {
		if r.outs[by] || by.Def == nil {
			return false
		}
		i := slices.Index(by.Def.Outputs, by)
		if i < 0 {
			return false
		}
		by.Def.Outputs[i], v.Def = v, by.Def
		v, by = by, v
	}
	r.to[v] = by
	return true
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
