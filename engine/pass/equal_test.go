package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// What is the same need not be computed twice: no bit differs.
func TestMergeEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) {
				d.node("Sub", nil, d.node("Tanh", nil, x), d.node("Tanh", nil, d.node("Neg", nil, x)))
			},
			func(d drawing, x *graph.Value) { // twice, perhaps of another attribute, constant or input
				for range 2 {
					alpha := pick[float32](d, "alpha", .25, .5)
					y := d.node("LeakyRelu", graph.Attrs{graph.FloatAttr("alpha", alpha)}, pick(d, "of", x, x, d.node("Abs", nil, x)))
					d.node("Add", nil, y, d.number(alpha))
				}
			},
			func(d drawing, x *graph.Value) { // several outputs, of which some may leave the graph or be omitted
				axis := d.draw("axis", 2, 3)
				for range 2 {
					h := int64(d.shape(x)[axis])
					parts := d.nodes(2, "Split", graph.Attrs{graph.IntAttr("axis", axis)}, x, d.ints(1, h-1))
					if d.draw("omitted", 0, 2) == 0 && h > 1 {
						parts[1].Def.Outputs = parts[:1]
					} else if h > 1 {
						d.node("Neg", nil, parts[1])
					}
				}
			},
			func(d drawing, x *graph.Value) {
				for range d.draw("times", 1, 3) {
					y := d.node("Sigmoid", nil, d.node("Abs", nil, x))
					d.node("Mul", nil, y, x)
				}
			},
		), pass.MergeEqual, 0)
	})
	leaky := func(b *builder, x *graph.Value, alpha float32) *graph.Value {
		return b.node("LeakyRelu", graph.Attrs{graph.FloatAttr("alpha", alpha)}, x)
	}
	fires(t, pass.MergeEqual, 0, []firing{
		{"chains", func(b *builder, x *graph.Value) []*graph.Value {
			y, z := b.node("Exp", nil, leaky(b, x, .5)), b.node("Exp", nil, leaky(b, x, .5))
			return values(b.node("Add", nil, y, b.node("Neg", nil, z)))
		}, []string{"LeakyRelu", "Exp", "Neg", "Add"}},
		{"equal constants", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Add", nil, b.node("Pow", nil, x, b.number(2)), b.node("Pow", nil, x, b.number(2))))
		}, []string{"Pow", "Add"}},
		{"one is an output", func(b *builder, x *graph.Value) []*graph.Value {
			y, z := b.node("Exp", nil, x), b.node("Exp", nil, x)
			return values(z, b.node("Neg", nil, y))
		}, []string{"Exp", "Neg"}},
		{"both are outputs", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Exp", nil, x), b.node("Exp", nil, x))
		}, []string{"Exp", "Exp"}},
		{"another attribute", func(b *builder, x *graph.Value) []*graph.Value {
			return values(leaky(b, x, .5), leaky(b, x, .25))
		}, []string{"LeakyRelu", "LeakyRelu"}},
		{"another constant, of the same bits", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Reshape", nil, x, b.ints(0, 4, -1)), b.node("Reshape", nil, x, b.ints(4, 0, -1)),
				b.node("Add", nil, x, b.weight(1, 1, 4, 1, 1)), b.node("Add", nil, x, b.weight(1, 1, 1, 4, 1, 1)), b.node("Add", nil, x, b.weight(1, 1, 1, 1)))
		}, []string{"Reshape", "Reshape", "Add", "Add", "Add"}},
	})
}
