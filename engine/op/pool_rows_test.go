package op_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Pools of float32, which go by rows, are those of float64, which go by the definition, up to rounding.
func TestPoolsByRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		w := drawWindow(t)
		w.pt, w.pl, w.pb, w.pr = min(w.pt, w.kh-1), min(w.pl, w.kw-1), min(w.pb, w.kh-1), min(w.pr, w.kw-1)
		attrs := append(w.attrs(1)[:3], graph.IntsAttr("kernel_shape", w.kh, w.kw), graph.IntAttr("ceil_mode", rapid.IntRange(0, 1).Draw(t, "ceil")))
		name := rapid.SampledFrom([]string{"MaxPool", "AveragePool"}).Draw(t, "op")
		if name == "AveragePool" {
			attrs = append(attrs, graph.IntAttr("count_include_pad", rapid.IntRange(0, 1).Draw(t, "include")))
		}
		x := tensor.New(tensor.Float32, 2, 3, rapid.IntRange(9, 20).Draw(t, "h"), rapid.IntRange(11, 60).Draw(t, "w"))
		for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
			v[i] = float32(r.NormFloat64())
		}
		tensor.Of[float32](x)[r.IntN(x.Shape.Elems())] = float32(math.NaN())
		exact, err := x.Float(tensor.Float64)
		if err != nil {
			t.Fatalf("%v", err)
		}
		got, err := op.Apply(node(name, 1, attrs), 22, tensor.Float32, x)
		if err != nil {
			t.Fatalf("%v", err)
		}
		want := tensor.Of[float64](call(t, 22, name, attrs, exact))
		for i, v := range tensor.Of[float32](got[0]) {
			if (v != v) != (want[i] != want[i]) || math.Abs(float64(v)-want[i]) > 1e-5 {
				t.Fatalf("y[%d] = %g, want %g", i, v, want[i])
			}
		}
	})
}

// bound is a node on one core, ready to run.
func bound(b *testing.B, n *graph.Node, opset int, in ...*tensor.Tensor) func() error {
	s := &op.Site{Node: n, Opset: opset, Float: tensor.Float32}
	for i, t := range in {
		a := op.Arg{}
		if t != nil {
			if a.Type = t.Type(); i > 0 {
				a.Const = t
			}
		}
		s.In = append(s.In, a)
	}
	def, err := op.Lookup(n, opset)
	if err != nil {
		b.Fatal(err)
	}
	if s.Out, err = def.Infer(s); err != nil {
		b.Fatal(err)
	}
	k, err := def.New(s)
	if err != nil {
		b.Fatal(err)
	}
	env := &op.Env{Pool: kernel.NewPool(1)}
	if sc, ok := k.(op.Scratcher); ok {
		env.Scratch = tensor.Bytes(sc.Scratch(1))
	}
	return k.Bind(env, []*tensor.Tensor{tensor.New(tensor.Float32, s.Out[0].Shape...)}, in)
}

// BenchmarkPools is the pools of residual and of multi-scale networks.
func BenchmarkPools(b *testing.B) {
	for _, c := range []struct {
		name                 string
		k, stride, pad, c, n int
	}{{"MaxPool", 3, 2, 1, 64, 128}, {"MaxPool", 5, 1, 2, 128, 32}, {"AveragePool", 3, 1, 1, 64, 64}, {"AveragePool", 2, 2, 0, 64, 128}} {
		b.Run(fmt.Sprintf("%s%ds%d", c.name, c.k, c.stride), func(b *testing.B) {
			n := node(c.name, 1, graph.Attrs{graph.IntsAttr("kernel_shape", c.k, c.k), graph.IntsAttr("strides", c.stride, c.stride), graph.IntsAttr("pads", c.pad, c.pad, c.pad, c.pad)})
			x := tensor.New(tensor.Float32, 1, c.c, c.n, c.n)
			run := bound(b, n, 22, x)
			b.SetBytes(int64(4 * x.Shape.Elems()))
			b.ReportAllocs()
			for b.Loop() {
				if err := run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
