package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// Elements stay as they lie: no bit differs.
func TestMergeReshapes(t *testing.T) {
	view := func(d drawing, x *graph.Value) *graph.Value {
		switch d.draw("view", 0, 4) {
		case 0:
			return d.node("Flatten", graph.Attrs{graph.IntAttr("axis", d.draw("axis", 0, len(d.shape(x))))}, x)
		case 1:
			return d.node("Squeeze", nil, x)
		case 2:
			return d.node("Unsqueeze", nil, x, d.ints(int64(d.draw("axis", 0, len(d.shape(x))))))
		case 3:
			return d.node("Reshape", nil, x, d.ints(-1))
		}
		return d.node("Reshape", nil, x, d.ints(1, 1, 1, -1))
	}
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { view(d, x) },
			func(d drawing, x *graph.Value) { view(d, view(d, x)) },
			func(d drawing, x *graph.Value) { view(d, view(d, view(d, x))) },
			func(d drawing, x *graph.Value) { view(d, d.node("Neg", nil, view(d, x))) },
			func(d drawing, x *graph.Value) { // of no elements
				y := d.node("Slice", nil, x, d.ints(0), d.ints(0), d.ints(1))
				d.join(1, d.node("Flatten", nil, d.node("Unsqueeze", nil, y, d.ints(0))), d.node("Reshape", nil, x, d.ints(1, -1)))
			},
		), pass.MergeReshapes, 0)
	})
	both := func(g *graph.Graph, info pass.Info) {
		pass.MergeReshapes(g, info)
		pass.DropIdentities(g, info)
	}
	fires(t, both, 0, []firing{
		{"there and back", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Unsqueeze", nil, b.node("Squeeze", nil, b.node("Exp", nil, x)), b.ints(0))
			return values(b.node("Neg", nil, y))
		}, []string{"Exp", "Neg"}},
		{"three in a row", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Squeeze", nil, b.node("Reshape", nil, b.node("Flatten", nil, x), b.ints(1, 2, -1))))
		}, []string{"Reshape"}},
		{"with something between", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Squeeze", nil, b.node("Neg", nil, b.node("Flatten", nil, x))))
		}, []string{"Flatten", "Neg", "Squeeze"}},
	})
}
