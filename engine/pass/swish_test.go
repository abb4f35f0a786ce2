package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// The gate is no longer rounded before it is multiplied: a few ulp of the result, which is no larger than x.
func TestFuseSwish(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) {
				y := d.node("Sigmoid", nil, x)
				if d.coin("hard") {
					y = d.node("HardSigmoid", graph.Attrs{graph.FloatAttr("alpha", 1.0/6)}, x)
				}
				switch d.draw("by", 0, 3) {
				case 0:
					d.node("Mul", nil, x, y)
				case 1:
					d.node("Mul", nil, y, x)
				case 2:
					d.node("Mul", nil, y, d.node("Neg", nil, x))
				case 3:
					d.node("Mul", nil, y, y)
				}
			},
		), pass.FuseSwish, 1e-6)
	})
	fires(t, pass.FuseSwish, 1e-6, []firing{
		{"swish", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, x, b.node("Sigmoid", nil, x)))
		}, []string{"Swish"}},
		{"hard swish", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, b.node("HardSigmoid", nil, x), x))
		}, []string{"HardSwish"}},
		{"the gate is read twice", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Sigmoid", nil, x)
			return values(b.node("Mul", nil, x, y), y)
		}, []string{"Sigmoid", "Mul"}},
		{"squared", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Sigmoid", nil, x)
			return values(b.node("Mul", nil, y, y))
		}, []string{"Sigmoid", "Mul"}},
		{"gate of another", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, x, b.node("Sigmoid", nil, b.node("Neg", nil, x))))
		}, []string{"Neg", "Sigmoid", "Mul"}},
	})
}
