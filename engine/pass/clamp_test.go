package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// A bound is a bound wherever it is applied: no bit differs.
func TestFuseClamps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { d.node("Relu", nil, d.randomConv(x)) },
			func(d drawing, x *graph.Value) { d.clip(d.randomConv(x)) },
			func(d drawing, x *graph.Value) { d.node("Relu", nil, d.clip(d.node("Relu", nil, d.randomConv(x)))) },
			func(d drawing, x *graph.Value) { d.clip(x) },
		), pass.FuseClamps, 0)
	})
	fires(t, pass.FuseClamps, 0, []firing{
		{"relu", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Relu", nil, b.conv(x, 5, 3)))
		}, []string{"Conv"}},
		{"relu6", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Clip", nil, b.conv(x, 5, 3), b.number(0), b.number(6)))
		}, []string{"Conv"}},
		{"bounds that cross", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Clip", nil, b.conv(x, 5, 3), b.number(6), b.number(0)))
		}, []string{"Conv", "Clip"}},
		{"the convolution is read twice", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.conv(x, 5, 3)
			return values(b.node("Relu", nil, y), b.node("Neg", nil, y))
		}, []string{"Conv", "Relu", "Neg"}},
	})
}
