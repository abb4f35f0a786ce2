package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// activations are what a convolution can apply, with the attributes that change them.
var activations = []struct {
	name  string
	attrs graph.Attrs
}{
	{"Relu", nil}, {"LeakyRelu", nil}, {"LeakyRelu", graph.Attrs{graph.FloatAttr("alpha", .3)}}, {"Sigmoid", nil}, {"Tanh", nil},
	{"HardSigmoid", nil}, {"HardSigmoid", graph.Attrs{graph.FloatAttr("alpha", .3), graph.FloatAttr("beta", .2)}}, {"HardSwish", nil},
}

// Whoever adds a residual or applies an activation, no bit differs.
func TestFuseEpilogues(t *testing.T) {
	activate := func(d drawing, x *graph.Value) *graph.Value {
		if d.draw("prelu", 0, 4) == 0 {
			c := d.channels(x)
			return d.node("PRelu", nil, x, d.weight(-1, 1, pick(d, "slope", []int{1}, []int{c, 1, 1}, []int{1, c, 1, 1}, d.shape(x)[1:])...))
		}
		a := pick(d, "activation", activations...)
		return d.node(a.name, a.attrs, x)
	}
	add := func(d drawing, x, y *graph.Value) *graph.Value {
		if d.coin("first") {
			x, y = y, x
		}
		return d.node("Add", nil, x, y)
	}
	residual := func(d drawing, x, y *graph.Value) *graph.Value { // of y's shape
		if d.often("image") {
			if sh := d.shape(y); sh[2] == d.shape(x)[2] && sh[3] == d.shape(x)[3] {
				return d.conv(x, sh[1], pick(d, "k", 1, 3))
			}
		}
		return d.node("Neg", nil, y)
	}
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { activate(d, d.randomConv(x)) },
			func(d drawing, x *graph.Value) {
				y := d.conv(x, d.draw("m", 1, 4), pick(d, "k", 1, 3))
				activate(d, add(d, y, residual(d, x, y)))
			},
			func(d drawing, x *graph.Value) {
				y := activate(d, d.node("Relu", nil, d.conv(x, d.channels(x), 3)))
				y = add(d, y, pick(d, "with", x, residual(d, x, y)))
				if d.coin("again") {
					y = add(d, y, residual(d, x, y))
				}
				activate(d, y)
			},
			func(d drawing, x *graph.Value) { d.node("Add", nil, d.conv(x, 3, 3), d.weight(-1, 1, 3, 1, 1)) },
		), pass.FuseEpilogues, 0)
	})
	fires(t, pass.FuseEpilogues, 0, []firing{
		{"residual block", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Relu", nil, b.node("Add", nil, b.conv(x, 4, 3), x)))
		}, []string{"Conv"}},
		{"two convolutions", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.conv(x, 5, 3)
			return values(b.node("Relu", nil, b.node("Add", nil, y, b.conv(x, 5, 1))))
		}, []string{"Conv", "Conv"}},
		{"activation, then sum", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Add", nil, x, b.node("LeakyRelu", nil, b.conv(x, 4, 3))))
		}, []string{"Conv"}},
		{"slopes of channels", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("PRelu", nil, b.conv(x, 5, 3), b.weight(0, 1, 5, 1, 1)))
		}, []string{"Conv"}},
		{"slopes of pixels", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("PRelu", nil, b.conv(x, 5, 3), b.weight(0, 1, 5, 6, 6)))
		}, []string{"Conv", "PRelu"}},
		{"two activations", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Tanh", nil, b.node("Sigmoid", nil, b.conv(x, 5, 3))))
		}, []string{"Conv", "Tanh"}},
		{"broadcast", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Add", nil, b.conv(x, 5, 3), b.node("GlobalAveragePool", nil, b.conv(x, 5, 1))))
		}, []string{"Conv", "Conv", "GlobalAveragePool", "Add"}},
		{"the sum is larger", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Add", nil, b.conv(x, 1, 3), x))
		}, []string{"Conv", "Add"}},
		{"twice itself", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.conv(x, 5, 3)
			return values(b.node("Add", nil, y, y))
		}, []string{"Conv", "Add"}},
	})
	fires(t, func(g *graph.Graph, info pass.Info) {
		pass.FuseSources(g, info)
		pass.FuseEpilogues(g, info)
	}, 0, []firing{
		{"sources and residual", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.conv(b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, x, x), 4, 3)
			return values(b.node("Sigmoid", nil, b.node("Add", nil, x, y)))
		}, []string{"Conv"}},
	})
}
