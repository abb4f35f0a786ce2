package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// A node that yields what it reads makes no bit's difference.
func TestDropIdentities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { d.node("Identity", nil, x) },
			func(d drawing, x *graph.Value) { d.node("Dropout", nil, x) },
			func(d drawing, x *graph.Value) {
				y := d.nodes(2, "Dropout", nil, x)
				if d.coin("mask") {
					d.node("Mul", nil, y[0], d.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, y[1]))
				}
			},
		), pass.DropIdentities, 0)
	})
	fires(t, pass.DropIdentities, 0, []firing{
		{"between", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Relu", nil, b.node("Dropout", nil, b.node("Identity", nil, x))))
		}, []string{"Relu"}},
		{"mask is read", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.nodes(2, "Dropout", nil, x)
			return values(b.node("Relu", nil, y[0]), b.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, y[1]))
		}, []string{"Dropout", "Relu", "Cast"}},
		{"from input to output", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Identity", nil, x))
		}, []string{"Identity"}},
	})
}
