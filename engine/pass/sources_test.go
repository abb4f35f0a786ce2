package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
)

func (b *builder) double(x *graph.Value, scale float32) *graph.Value {
	return b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest"), graph.StrAttr("coordinate_transformation_mode", "asymmetric"),
		graph.StrAttr("nearest_mode", "floor")}, x, nil, b.constant(tensor.From([]float32{1, 1, scale, 2}, 4)))
}

func (b *builder) join(axis int, x ...*graph.Value) *graph.Value {
	return b.node("Concat", graph.Attrs{graph.IntAttr("axis", axis)}, x...)
}

// Where a small tensor is read in place of a large one, products are added up in another order: of 9·18, as many ulp.
func TestFuseSources(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) {
				y := d.double(x, pick[float32](d, "scale", 2, 2, 1, 3))
				d.conv(y, d.draw("m", 1, 4), pick(d, "kernel", 1, 3))
			},
			func(d drawing, x *graph.Value) {
				axis := pick(d, "axis", 1, 1, 2, -3)
				d.conv(d.join(axis, x, d.node("Neg", nil, x), x), d.draw("m", 1, 4), pick(d, "kernel", 1, 3))
			},
			func(d drawing, x *graph.Value) {
				d.conv(d.join(1, d.double(x, 2), d.double(d.node("Neg", nil, x), 2)), d.draw("m", 1, 4), 3)
			},
			func(d drawing, x *graph.Value) { d.randomConv(d.join(1, x, x)) },
		), pass.FuseSources, 1e-5)
	})
	fires(t, pass.FuseSources, 1e-5, []firing{
		{"concat", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.conv(b.join(1, x, b.node("Neg", nil, x)), 3, 1))
		}, []string{"Neg", "Conv"}},
		{"doubled", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.conv(b.double(x, 2), 3, 3))
		}, []string{"Conv"}},
		{"tripled", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.conv(b.double(x, 3), 3, 3))
		}, []string{"Resize", "Conv"}},
		{"joined along rows", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.conv(b.join(2, x, x), 3, 3))
		}, []string{"Concat", "Conv"}},
		{"somebody else reads it", func(b *builder, x *graph.Value) []*graph.Value {
			j := b.join(1, x, x)
			return values(b.conv(j, 3, 3), b.node("Neg", nil, j))
		}, []string{"Concat", "Conv", "Neg"}},
	})
}
