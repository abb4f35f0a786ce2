package score

import (
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/grad"
)

// lean is a graph that computes the same logits and the same values at the edges as g by fewer passes over memory: a
// BatchNormalization is multiplied into the convolution before it, which also clamps. It says which edge and which value of it
// stand for g's. What edges read, and hence x and ∂/∂x there, is not touched: passes keep the outputs of a graph, so here
// those values are outputs.
func lean(g *graph.Graph, in []tensor.Type, float tensor.DType, edges []grad.Edge, logits *graph.Value) (c *graph.Graph, to map[grad.Edge]grad.Edge, seed *graph.Value, err error) {
	c, values := g.CloneMap()
	nodes := map[*graph.Node]*graph.Node{}
	for i, n := range g.Nodes {
		nodes[n] = c.Nodes[i]
	}
	to, kept := map[grad.Edge]grad.Edge{}, map[*graph.Value]bool{}
	keep := func(v *graph.Value) {
		if v = values[v]; !kept[v] {
			kept[v] = true
			c.Outputs = append(c.Outputs, v)
		}
	}
	c.Outputs = nil
	keep(logits)
	for _, e := range edges {
		to[e] = grad.Edge{Node: nodes[e.Node], Input: e.Input}
		keep(e.Value())
	}
	info, err := engine.Infer(c, in, float)
	if err != nil {
		return nil, nil, nil, err
	}
	// These change a convolution where it stands: it stays the node that an edge leads to.
	pass.FoldAffine(c, info)
	pass.FuseClamps(c, info)
	pass.DropDead(c, info)
	c.Outputs = []*graph.Value{values[logits]} // the others need not be there at the end
	return c, to, values[logits], nil
}
