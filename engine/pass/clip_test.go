package pass_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// clip is a Clip, or half of one, with bounds of any kind.
func (d drawing) clip(x *graph.Value) *graph.Value {
	bound := func() *graph.Value {
		switch d.draw("bound", 0, 5) {
		case 0:
			return nil
		case 1:
			return d.computed(x)
		case 2:
			return d.number(float32(math.Inf(1 - 2*d.draw("infinite", 0, 1))))
		}
		return d.number(float32(d.draw("bound", -2, 4)) / 2)
	}
	switch name := pick(d, "clip", "Relu", "Clip", "Clip", "Max", "Min"); name {
	case "Relu":
		return d.node(name, nil, x)
	case "Clip":
		if d.g.Opset("") < 11 {
			return d.node(name, graph.Attrs{graph.FloatAttr(pick(d, "which", "min", "max"), float32(d.draw("bound", -2, 2)))}, x)
		}
		// Attributes that were bounds once are none in this version.
		return d.node(name, graph.Attrs{graph.FloatAttr("min", .25)}, x, bound(), bound())
	default:
		b := bound()
		switch {
		case b == nil:
			return d.node(name, nil, x, d.node("Neg", nil, x))
		case d.coin("first"):
			return d.node(name, nil, b, x)
		}
		return d.node(name, nil, x, b)
	}
}

// A bound is a bound wherever it stands: no bit differs.
func TestMergeClips(t *testing.T) {
	pieces := []piece{
		func(d drawing, x *graph.Value) { d.clip(x) },
		func(d drawing, x *graph.Value) { d.clip(d.clip(x)) },
		func(d drawing, x *graph.Value) { d.clip(d.clip(d.clip(x))) },
		func(d drawing, x *graph.Value) { d.node("Max", nil, x, d.weight(-1, 1, 1, 1, 1, 1, 1)) },
		func(d drawing, x *graph.Value) { d.node("Max", nil, x, d.weight(-1, 1, d.channels(x), 1, 1)) },
	}
	rapid.Check(t, func(t *rapid.T) { law(t, draw(t, pieces...), pass.MergeClips, 0) })
	rapid.Check(t, func(t *rapid.T) {
		g := drawAt(t, 8, func(d drawing, x *graph.Value) { d.clip(d.clip(x)) })
		law(t, g, pass.MergeClips, 0)
	})
	fires(t, pass.MergeClips, 0, []firing{
		{"relu of relu", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Relu", nil, b.node("Relu", nil, x)))
		}, []string{"Relu"}},
		{"relu6 of halves", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Min", nil, b.number(6), b.node("Max", nil, x, b.number(0))))
		}, []string{"Clip"}},
		{"relu, clip and clip", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Clip", nil, b.node("Relu", nil, x), b.number(-1), b.number(6))
			return values(b.node("Clip", nil, y, nil, b.number(5)))
		}, []string{"Clip"}},
		{"one is read in between", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Clip", nil, x, b.number(-1), b.number(6))
			return values(b.node("Relu", nil, y), b.node("Neg", nil, y))
		}, []string{"Clip", "Relu", "Neg"}},
		{"a bound for each channel", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Relu", nil, b.node("Max", nil, x, b.weight(0, 1, 4, 1, 1))))
		}, []string{"Max", "Relu"}},
	})
}
