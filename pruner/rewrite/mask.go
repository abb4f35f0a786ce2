package rewrite

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
)

// Mask returns g with the classes in remove multiplied by zero where weights read them, and nowhere else: a zeroed filter
// would leave the shift of a BatchNormalization and Sigmoid(0) = 0.5 behind it.
func Mask(g *graph.Graph, a *group.Analysis, remove map[int]bool) (*graph.Graph, error) {
	if err := check(a, remove); err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	h, values := g.CloneMap()
	at := map[*graph.Node]int{}
	for i, n := range g.Nodes {
		at[n] = i
	}
	before := map[*graph.Node]*graph.Node{} // a consumer of h and the Mul to put before it
	for _, e := range a.Edges() {
		class, axis := a.EdgeClasses(e), a.EdgeAxis(e)
		mask, zeros := make([]float64, len(class)), false
		for i, id := range class {
			mask[i] = 1
			if id >= 0 && remove[id] {
				mask[i], zeros = 0, true
			}
		}
		if !zeros {
			continue
		}
		n := h.Nodes[at[e.Node]]
		shape := make([]int, max(axis+1, len(group.Stored(e.Node.Input(1)).Shape)))
		for i := range shape {
			shape[i] = 1
		}
		shape[axis] = len(mask)
		t, err := tensor.FromFloat64s(mask, group.WeightType(e.Node.Input(1)), shape...)
		if err != nil {
			return nil, fmt.Errorf("mask: node %v: %w", n, err)
		}
		x := values[e.Node.Inputs[e.Input]]
		mul := &graph.Node{Op: "Mul", Name: fmt.Sprintf("mask_%d_%d", at[e.Node], e.Input)}
		y := &graph.Value{Name: h.Fresh(x.Name + "_masked_" + fmt.Sprint(at[e.Node])), Def: mul}
		mul.Inputs, mul.Outputs = []*graph.Value{x, AddConst(h, "mask_"+x.Name, t)}, []*graph.Value{y}
		n.Inputs[e.Input] = y
		before[n] = mul
	}
	var nodes []*graph.Node
	for _, n := range h.Nodes {
		if m := before[n]; m != nil {
			nodes = append(nodes, m)
		}
		nodes = append(nodes, n)
	}
	h.Nodes = nodes
	if err := h.Validate(); err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	return h, nil
}
