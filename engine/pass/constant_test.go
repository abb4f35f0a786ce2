package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// What follows from constants and shapes is computed as the run would compute it: no bit differs.
func TestFoldConstants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { // there and back by shape arithmetic
				d.node("Expand", nil, d.node("ReduceMax", nil, x), d.node("Shape", nil, x))
			},
			func(d drawing, x *graph.Value) {
				w := d.node("Mul", nil, d.weight(-1, 1, d.channels(x), 1, 1), d.number(2))
				if d.coin("not constant") {
					w = d.node("Mul", nil, w, x)
				}
				d.node("Add", nil, x, w)
			},
			func(d drawing, x *graph.Value) { // of two outputs, one more than is read
				parts := d.nodes(2, "Split", graph.Attrs{graph.IntAttr("axis", 0)}, d.weight(-1, 1, 4, 1, 1))
				d.node("Mul", nil, d.node("Exp", nil, d.node("ReduceMax", nil, parts[0])), x)
			},
		), pass.FoldConstants, 0)
	})
	fires(t, pass.FoldConstants, 0, []firing{
		{"shape arithmetic", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Expand", nil, b.node("ReduceMax", nil, x), b.node("Shape", nil, x)))
		}, []string{"ReduceMax", "Expand"}},
		{"half of it", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Add", nil, x, b.node("Exp", nil, b.number(1))))
		}, []string{"Add"}},
		{"an output", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Exp", nil, b.number(1)))
		}, nil},
	})
}
