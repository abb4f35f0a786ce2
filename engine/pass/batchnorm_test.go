package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// Folded weights are rounded once more than those of the file, and the sum of k products by k ulp of its largest.
func TestFoldBatchNorm(t *testing.T) {
	norm := func(d drawing, x *graph.Value) *graph.Value {
		if d.often("constant") {
			return d.batchNorm(x)
		}
		c := d.channels(x)
		return d.node("BatchNormalization", nil, x, d.weight(.5, 2, c), d.computed(x, c), d.weight(-1, 1, c), d.weight(.1, 2, c))
	}
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { norm(d, d.randomConv(x)) },
			func(d drawing, x *graph.Value) { norm(d, x) },
			func(d drawing, x *graph.Value) { // weights that two convolutions have
				y := d.randomConv(x)
				d.batchNorm(y)
				d.batchNorm(d.node(y.Def.Op, y.Def.Attrs, append([]*graph.Value{d.node("Neg", nil, x)}, y.Def.Inputs[1:]...)...))
			},
		), pass.FoldAffine, 1e-5)
	})
	fires(t, pass.FoldAffine, 1e-5, []firing{
		{"convolution", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.batchNorm(b.conv(x, 5, 3)))
		}, []string{"Conv"}},
		{"the convolution is read twice", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.conv(x, 5, 3)
			return values(b.batchNorm(y), b.node("Neg", nil, y))
		}, []string{"Conv", "BatchNormalization", "Neg"}},
		{"the convolution is an output", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.conv(x, 5, 3)
			return values(b.batchNorm(y), y)
		}, []string{"Conv", "BatchNormalization"}},
		{"no convolution", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.batchNorm(b.node("Neg", nil, x)))
		}, []string{"Neg", "BatchNormalization"}},
	})
}
