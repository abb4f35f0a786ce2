package grad

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// randomNet is an encoder and decoder with skips, of operators drawn from the seed.
func randomNet(seed uint64) *net {
	b := newNet(17, seed)
	type feature struct {
		v    *graph.Value
		c, s int // channels, size
	}
	same := is("pads", 1, 1, 1, 1)
	conv := func(f feature, c int) feature {
		return feature{b.node("Conv", as{same}, f.v, b.weights(c, f.c, 3, 3), b.weights(c)), c, f.s}
	}
	act := func(f feature) feature {
		switch b.rng.IntN(5) {
		case 0:
			f.v = b.node("Relu", nil, f.v)
		case 1:
			f.v = b.node("Clip", nil, f.v, b.constant(tensor.Scalar(-1.)), b.constant(tensor.Scalar(1.5)))
		case 2:
			f.v = b.node("HardSwish", nil, f.v)
		case 3:
			f.v = b.node("Mul", nil, f.v, b.node("Sigmoid", nil, f.v))
		case 4:
			f.v = b.node("PRelu", nil, f.v, b.weights(f.c, 1, 1))
		}
		return f
	}
	block := func(f feature, c int) feature {
		switch b.rng.IntN(4) {
		case 0: // residual
			f = act(conv(f, c))
			g := conv(act(conv(f, c)), c)
			f.v = b.node("Add", nil, f.v, g.v)
		case 1: // normalised
			f = conv(f, c)
			f.v = b.node("BatchNormalization", nil, f.v, b.weights(c), b.weights(c), b.weights(c), b.constant(b.random(0.5, 2, c)))
		case 2: // depthwise separable with squeeze and excite
			f.v = b.node("Conv", as{same, i1("group", f.c)}, f.v, b.weights(f.c, 1, 3, 3))
			f = act(f)
			e := b.node("GlobalAveragePool", nil, f.v)
			e = b.node("Sigmoid", nil, b.node("Conv", nil, e, b.weights(f.c, f.c, 1, 1)))
			f.v = b.node("Mul", nil, f.v, e)
			f.v = b.node("Conv", nil, f.v, b.weights(c, f.c, 1, 1))
			f.c = c
		case 3: // dense
			g := act(conv(f, c-f.c%c/2))
			f = conv(feature{b.node("Concat", as{i1("axis", 1)}, f.v, g.v), f.c + g.c, f.s}, c)
		}
		return act(f)
	}
	f := block(feature{b.input(1, 3, 8, 8), 3, 8}, 4)
	skip := f
	switch b.rng.IntN(3) {
	case 0:
		f.v = b.node("MaxPool", as{is("kernel_shape", 2, 2), is("strides", 2, 2)}, f.v)
	case 1:
		f.v = b.node("AveragePool", as{is("kernel_shape", 2, 2), is("strides", 2, 2)}, f.v)
	case 2:
		f.v = b.node("Conv", as{same, is("strides", 2, 2)}, f.v, b.weights(f.c, f.c, 3, 3))
	}
	f.s = 4
	f = block(f, 5)
	switch b.rng.IntN(3) {
	case 0:
		f.v = b.node("ConvTranspose", as{is("strides", 2, 2)}, f.v, b.weights(f.c, 3, 2, 2))
		f.c = 3
	case 1:
		f.v = b.node("Resize", as{str("mode", "nearest"), str("coordinate_transformation_mode", "asymmetric"), str("nearest_mode", "floor")},
			f.v, nil, b.constant(tensor.From([]float32{1, 1, 2, 2}, 4)))
	case 2:
		f.v = b.node("Resize", as{str("mode", "linear")}, f.v, nil, nil, b.ints(1, int64(f.c), 8, 8))
	}
	f = feature{b.node("Concat", as{i1("axis", 1)}, skip.v, f.v), skip.c + f.c, 8}
	f = block(f, 3)
	b.g.Outputs = []*graph.Value{b.node("Conv", nil, f.v, b.weights(1, f.c, 1, 1))}
	return b
}

// The gradient of a whole network is its central difference.
func TestNetworksAreCentralDifferences(t *testing.T) {
	for seed := range uint64(24) {
		b := randomNet(seed)
		b.check(t, b.done(t, b.g.Outputs...), b.inputs(-1, 1), 24)
	}
}

// edges are every reading of a computed value by a convolution.
func edges(g *graph.Graph) map[Edge]bool {
	m := map[Edge]bool{}
	for _, n := range g.Nodes {
		if strings.HasPrefix(n.Op, "Conv") && n.Inputs[0].Def != nil {
			m[Edge{n, 0}] = true
		}
	}
	return m
}

// A value's gradient is the sum of its edges'; asking for a few edges gives them bit for bit as asking for all, at any
// number of threads, and again on the next sweep, which works in used buffers.
func TestEdges(t *testing.T) {
	for seed := range uint64(12) {
		b := randomNet(seed)
		run := b.done(t, b.g.Outputs...)
		tr := run(b.inputs(-1, 1))
		seeds := b.seeds(tr)
		all := map[Edge]bool{}
		for _, n := range b.g.Nodes {
			for i, v := range n.Inputs {
				if v != nil && v.Def != nil {
					all[Edge{n, i}] = true
				}
			}
		}
		pool := kernel.NewPool(3)
		one, err := New(b.g, b.in, tensor.Float64, nil)
		if err != nil {
			t.Fatal(err)
		}
		three, err := New(b.g, b.in, tensor.Float64, pool)
		if err != nil {
			t.Fatal(err)
		}
		values, each, err := one.Backward(context.Background(), tr, seeds, all)
		if err != nil {
			t.Fatal(err)
		}
		for v, uses := range b.g.Uses() {
			if values[v] == nil { // no wanted edge lies before it
				continue
			}
			sum := make([]float64, tr[v].Elems())
			for _, u := range uses {
				for i, d := range tensor.Of[float64](each[Edge(u)]) {
					sum[i] += d
				}
			}
			for i, want := range tensor.Of[float64](values[v]) {
				if math.Abs(sum[i]-want) > 1e-12*(1+math.Abs(want)) {
					t.Fatalf("seed %d: gradient of %q at %d is %g, its edges' sum %g", seed, v.Name, i, want, sum[i])
				}
			}
		}
		few := edges(b.g)
		for _, s := range []*Sweep{one, three, three} {
			seen := 0
			err := s.Walk(context.Background(), tr, seeds, few, func(e Edge, d *tensor.Tensor) error {
				seen++
				if !few[e] || !tensor.Equal(d, each[e]) {
					t.Errorf("seed %d: %v differs when it is one of few", seed, e)
				}
				return nil
			})
			if err != nil || seen != len(few) {
				t.Fatalf("seed %d: %d edges visited (%v), want %d", seed, seen, err, len(few))
			}
		}
	}
}

// float32 is float64 to rounding.
func TestFloat32(t *testing.T) {
	for seed := range uint64(12) {
		b := randomNet(seed)
		in := b.inputs(-1, 1)
		tr := b.done(t, b.g.Outputs...)(in)
		m, err := engine.Compile(b.g, b.in, engine.Options{Verbatim: true, Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		tr32, err := m.NewSession().Trace(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		seeds, seeds32 := b.seeds(tr), Gradients{}
		for v, d := range seeds {
			if seeds32[v], err = d.Float(tensor.Float32); err != nil {
				t.Fatal(err)
			}
		}
		get := func(dt tensor.DType, tr engine.Trace, seeds Gradients) []float64 {
			s, err := New(b.g, b.in, dt, nil)
			if err != nil {
				t.Fatal(err)
			}
			g, _, err := s.Backward(context.Background(), tr, seeds, nil)
			if err != nil {
				t.Fatal(err)
			}
			v, _ := g[b.g.Inputs[0]].Float64s()
			return v
		}
		want, got := get(tensor.Float64, tr, seeds), get(tensor.Float32, tr32, seeds32)
		var size, diff float64
		for i := range want {
			size += want[i] * want[i]
			diff += (got[i] - want[i]) * (got[i] - want[i])
		}
		// Some 20 layers of a few hundred products each: 1e3 roundings of 6e-8.
		if math.Sqrt(diff) > 1e-4*math.Sqrt(size) {
			t.Errorf("seed %d: relative difference %g", seed, math.Sqrt(diff/size))
		}
	}
}

// An operator without a rule is an error that names the node, but only on a path that was asked for.
func TestUnknownOperator(t *testing.T) {
	build := func() (*net, *graph.Value) {
		b := newNet(13, 1)
		x := b.input(1, 2, 3, 3)
		y := b.node("Conv", nil, x, b.weights(2, 2, 1, 1))
		z := b.node("Relu", nil, y)
		b.g.Outputs = []*graph.Value{b.node("Conv", nil, z, b.weights(1, 2, 1, 1))}
		return b, z
	}
	b, z := build()
	tr := b.done(t, b.g.Outputs...)(b.inputs(-1, 1))
	s, err := New(b.g, b.in, tensor.Float64, nil)
	if err != nil {
		t.Fatal(err)
	}
	delete(s.rules, "Relu")
	first := map[Edge]bool{{b.g.Nodes[0], 0}: true}
	if _, _, err = s.Backward(context.Background(), tr, b.seeds(tr), first); err == nil || !strings.Contains(err.Error(), `Relu "n1"`) {
		t.Fatalf("error is %v, want one that names Relu n1", err)
	}
	last := map[Edge]bool{{b.g.Nodes[2], 0}: true}
	if _, e, err := s.Backward(context.Background(), tr, b.seeds(tr), last); err != nil || e[Edge{b.g.Nodes[2], 0}] == nil {
		t.Fatalf("gradient at %q: %v", z.Name, err)
	}
}

func TestContextEnds(t *testing.T) {
	b := randomNet(1)
	tr := b.done(t, b.g.Outputs...)(b.inputs(-1, 1))
	s, err := New(b.g, b.in, tensor.Float64, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	visited := 0
	err = s.Walk(ctx, tr, b.seeds(tr), edges(b.g), func(Edge, *tensor.Tensor) error { visited++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || visited != 1 {
		t.Fatalf("%d edges visited, error %v; want to stop after the first", visited, err)
	}
}
