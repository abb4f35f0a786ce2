package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// What nobody reads is no loss.
func TestDropDead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := draw(t,
			func(d drawing, x *graph.Value) { d.node("Exp", nil, d.node("Neg", nil, d.node("Abs", nil, x))) },
			func(d drawing, x *graph.Value) { d.nodes(2, "Dropout", nil, x) },
			func(d drawing, x *graph.Value) { d.randomConv(x) },
		)
		law(t, g, pass.DropDead, 0)
		pass.DropDead(g, nil)
		read := map[*graph.Value]bool{}
		for _, v := range g.Outputs {
			read[v] = true
		}
		for _, n := range g.Nodes {
			for _, v := range n.Inputs {
				read[v] = true
			}
		}
		for _, v := range g.Inits {
			if !read[v] {
				t.Fatalf("initializer %q is left, and nobody reads it", v.Name)
			}
		}
	})
	fires(t, pass.DropDead, 0, []firing{
		{"a chain", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Relu", nil, x)
			b.node("Exp", nil, b.node("Neg", nil, y))
			return values(y)
		}, []string{"Relu"}},
		{"the second output is read", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, b.nodes(2, "Dropout", nil, x)[1]))
		}, []string{"Dropout", "Cast"}},
		{"the input is the output", func(b *builder, x *graph.Value) []*graph.Value {
			b.node("Relu", nil, x)
			return values(x)
		}, nil},
	})
}
