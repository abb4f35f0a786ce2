package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
)

// padded is a 3x3 convolution of four channels.
func padded(b *builder, attrs graph.Attrs, x *graph.Value, more ...*graph.Value) *graph.Value {
	in := append([]*graph.Value{x, b.weight(-1, 1, 4, 4, 3, 3), b.weight(-1, 1, 4)}, more...)
	return b.node("Conv", append(graph.Attrs{graph.IntsAttr("pads", 1, 1, 1, 1)}, attrs...), in...)
}

// Attributes that ONNX does not know mean nothing, also where a fused node knows them.
func TestForeignAttributes(t *testing.T) {
	foreign := graph.Attrs{
		graph.StrAttr("then", "Sigmoid"), graph.FloatAttr("lo", 0), graph.FloatAttr("hi", .01), graph.IntsAttr("up", 1),
		graph.FloatAttr("alpha", 5), graph.FloatAttr("slope", 3), graph.IntsAttr("strides", 2, 2), graph.IntAttr("group", 2),
	}
	for _, act := range []string{"Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"} {
		for _, a := range foreign {
			if conv := graph.Attrs(nil).Set(a); a.Name != "strides" && a.Name != "group" {
				b, x := newBuilder(1, 1, 4, 12, 12)
				sameOptimized(t, act+" behind Conv with "+a.Name, b.done(b.node(act, nil, padded(b, conv, x))))
			}
			if a.Name != "alpha" {
				b, x := newBuilder(1, 1, 4, 12, 12)
				sameOptimized(t, act+" with "+a.Name, b.done(b.node(act, graph.Attrs{a}, padded(b, nil, x))))
			}
		}
	}
}

func sameOptimized(t *testing.T, what string, g *graph.Graph) {
	t.Helper()
	in := randomInput(3, g.Inputs[0].Type.Shape...)
	var out [2]*tensor.Tensor
	for i := range out {
		m, err := engine.Compile(g, []tensor.Type{in.Type()}, engine.Options{Verbatim: i == 0})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		ys, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{in})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		out[i] = ys[0]
	}
	if d := distance(out[1], out[0]); fmt.Sprint(out[0].Shape) != fmt.Sprint(out[1].Shape) || !(d < 1e-5) {
		t.Errorf("%s: %v differs from %v by %g", what, out[1].Shape, out[0].Shape, d)
	}
}

// Inputs that no kernel would look at are refused when the model is compiled.
func TestForeignInputs(t *testing.T) {
	for name, c := range map[string]struct {
		want  string
		build func(b *builder, x *graph.Value) *graph.Value
	}{
		"fourth input": {"inputs", func(b *builder, x *graph.Value) *graph.Value {
			return padded(b, nil, x, b.node("ArgMax", nil, x))
		}},
		"omitted fourth input": {"inputs", func(b *builder, x *graph.Value) *graph.Value { return padded(b, nil, x, nil) }},
		"fourth input of ConvTranspose": {"inputs", func(b *builder, x *graph.Value) *graph.Value {
			return b.node("ConvTranspose", nil, x, b.weight(-1, 1, 4, 4, 2, 2), b.weight(-1, 1, 4), b.node("ArgMax", nil, x))
		}},
	} {
		for _, verbatim := range []bool{false, true} {
			b, x := newBuilder(1, 1, 4, 12, 12)
			err := compile(b.done(c.build(b, x)), engine.Options{Verbatim: verbatim})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, verbatim %t: error %v, want one that says %q", name, verbatim, err, c.want)
			}
		}
	}
}

// A Concat of many, read by many convolutions, must not grow by their product.
func TestFuseSourcesIsBounded(t *testing.T) {
	const many = 400
	b, x := newBuilder(1, 1, 1, 2, 2)
	var xs []*graph.Value
	for range many {
		xs = append(xs, x)
	}
	all := b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, xs...)
	w := b.weight(-1, 1, 1, many, 1, 1)
	var ys []*graph.Value
	for range many {
		ys = append(ys, b.node("Conv", nil, all, w))
	}
	g := b.done(ys...)
	info, err := engine.Infer(g, []tensor.Type{x.Type}, tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	inputs := func() (n int) {
		for _, k := range g.Nodes {
			n += len(k.Inputs)
		}
		return n
	}
	before := inputs()
	pass.FuseSources(g, info)
	if after := inputs(); after <= before || after > 6*before+1024 {
		t.Errorf("%d inputs became %d", before, after)
	}
}
