package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
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
		{"quantised weights", func(b *builder, x *graph.Value) []*graph.Value {
			c := b.channels(x)
			w := b.constant(tensor.New(tensor.Int8, 2, c, 1, 1))
			for i := range w.Const.Data {
				w.Const.Data[i] = byte(37 * i)
			}
			scales := b.floats(.1, .2)
			bias := b.node("DequantizeLinear", nil, b.constant(tensor.From([]int32{500, -70}, 2)), b.number(.01))
			return values(b.node("Conv", nil, x, b.node("DequantizeLinear", graph.Attrs{graph.IntAttr("axis", 0)}, w, scales), bias))
		}, []string{"Conv"}},
		{"an output", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Exp", nil, b.number(1)))
		}, nil},
	})
}
