package engine_test

import (
	"context"
	"slices"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// What runs is what is left after the passes: what a convolution reads or applies itself, and what is one function, is no
// node of its own; what somebody else reads stays.
func TestFusions(t *testing.T) {
	double := func(b *builder, x *graph.Value) *graph.Value {
		return b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest"), graph.StrAttr("coordinate_transformation_mode", "asymmetric"),
			graph.StrAttr("nearest_mode", "floor")}, x, nil, b.constant(tensor.From([]float32{1, 1, 2, 2}, 4)))
	}
	half := func(b *builder, x *graph.Value) *graph.Value {
		return b.node("MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)}, x)
	}
	join := func(b *builder, x ...*graph.Value) *graph.Value {
		return b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, x...)
	}
	for _, c := range []struct {
		name string
		make func(b *builder, x *graph.Value) []*graph.Value
		want []string
	}{
		{"decoder", func(b *builder, x *graph.Value) []*graph.Value {
			return []*graph.Value{b.node("Relu", nil, b.conv(join(b, double(b, half(b, x)), x), 8, 5, 3))}
		}, []string{"MaxPool", "Conv"}},
		{"pointwise of an upsampled tensor", func(b *builder, x *graph.Value) []*graph.Value {
			return []*graph.Value{b.conv(double(b, x), 4, 5, 1)}
		}, []string{"Resize", "Conv"}},
		{"concat read twice", func(b *builder, x *graph.Value) []*graph.Value {
			j := join(b, x, x)
			return []*graph.Value{b.conv(j, 8, 5, 3), b.node("Exp", nil, j)}
		}, []string{"Concat", "Conv", "Exp"}},
		{"swish", func(b *builder, x *graph.Value) []*graph.Value {
			return []*graph.Value{b.node("Mul", nil, b.node("Sigmoid", nil, x), x)}
		}, []string{"Swish"}},
		{"sigmoid read twice", func(b *builder, x *graph.Value) []*graph.Value {
			s := b.node("Sigmoid", nil, x)
			return []*graph.Value{b.node("Mul", nil, s, x), b.node("Exp", nil, s)}
		}, []string{"Sigmoid", "Mul", "Exp"}},
		{"hard swish", func(b *builder, x *graph.Value) []*graph.Value {
			return []*graph.Value{b.node("Mul", nil, x, b.node("HardSigmoid", graph.Attrs{graph.FloatAttr("alpha", 1.0/6)}, x))}
		}, []string{"HardSwish"}},
		{"sigmoid of another", func(b *builder, x *graph.Value) []*graph.Value {
			return []*graph.Value{b.node("Mul", nil, x, b.node("Sigmoid", nil, b.node("Exp", nil, x)))}
		}, []string{"Exp", "Sigmoid", "Mul"}},
	} {
		b, x := newBuilder(1, 1, 4, 12, 12)
		g := b.done(c.make(b, x)...)
		in := randomInput(2, 1, 4, 12, 12)
		m, err := engine.Compile(g, []tensor.Type{in.Type()}, engine.Options{})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		nodes, err := m.NewSession().Profile(context.Background(), []*tensor.Tensor{in}, 1)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var got []string
		for _, n := range nodes {
			got = append(got, n.Node.Op)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v run, want %v", c.name, got, c.want)
		}
		want := mustRun(t, g, in, engine.Options{Verbatim: true, Float64: true})
		for i, y := range mustRun(t, g, in, engine.Options{}) {
			if d := distance(y, want[i]); d > 1e-5 {
				t.Errorf("%s: output %d differs by %g", c.name, i, d)
			}
		}
	}
}
