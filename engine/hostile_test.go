package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// A few changes to each seed: the part of FuzzCompile that every run of the tests can afford.
func TestHostile(t *testing.T) {
	for i := range seedGraphs() {
		for m := range uint64(40) {
			g := seedGraphs()[i]
			mutateGraph(g, rand.New(rand.NewPCG(m, 7)))
			if g.Validate() == nil {
				compileAndRun(t, g)
			}
			if t.Failed() {
				t.Fatalf("seed %d, change %d", i, m)
			}
		}
	}
}

func compile(g *graph.Graph, opt engine.Options) error {
	var in []tensor.Type
	for _, v := range engine.Inputs(g) {
		in = append(in, v.Type)
	}
	_, err := engine.Compile(g, in, opt)
	return err
}

// Each of these is a few hundred bytes that ask for gigabytes, hours or both.
func TestTooLarge(t *testing.T) {
	fill := func(b *builder, shape ...int64) *graph.Value {
		return b.node("ConstantOfShape", nil, b.constant(tensor.From(shape, len(shape))))
	}
	for name, build := range map[string]func(b *builder, x *graph.Value) *graph.Value{
		"many large values": func(b *builder, x *graph.Value) *graph.Value {
			y := b.node("Expand", nil, x, b.constant(tensor.From([]int64{1 << 26, 4}, 2)))
			sum := y
			for range 12 {
				y = b.node("Sigmoid", nil, y)
				sum = b.node("Concat", graph.Attrs{graph.IntAttr("axis", 0)}, b.node("ReduceMax", nil, sum, nil), b.node("ReduceMax", nil, y, nil))
				b.g.Outputs = append(b.g.Outputs, y)
			}
			return y
		},
		"weights from nothing": func(b *builder, x *graph.Value) *graph.Value {
			y := fill(b, 1, 1, 4, 4)
			for range 8 {
				b.g.Outputs = append(b.g.Outputs, b.node("Conv", nil, y, fill(b, 1<<18, 1, 4, 4)), b.node("Conv", nil, fill(b, 1, 1<<18, 4, 4), fill(b, 64, 1<<18, 4, 4)))
			}
			return y
		},
		"a matrix product for a year": func(b *builder, x *graph.Value) *graph.Value {
			return b.node("MatMul", nil, fill(b, 1<<14, 1<<14), fill(b, 1<<14, 1<<14, 1))
		},
		"a window as large as its input": func(b *builder, x *graph.Value) *graph.Value {
			a := graph.Attrs{graph.IntsAttr("kernel_shape", 8191, 8191), graph.IntsAttr("pads", 4095, 4095, 4095, 4095)}
			return b.node("MaxPool", a, fill(b, 1, 1, 8192, 8192))
		},
		"too many nodes": func(b *builder, x *graph.Value) *graph.Value {
			for range 1<<16 + 1 {
				x = b.node("Relu", nil, x)
			}
			return x
		},
	} {
		b, x := newBuilder(1, 1, 4)
		b.g.Outputs = append(b.g.Outputs, build(b, x))
		err := compile(b.g, engine.Options{Threads: 1, MaxBytes: 1 << 30})
		var un *op.Unsupported
		if !errors.Is(err, engine.ErrTooLarge) && !errors.As(err, &un) {
			t.Errorf("%s: %v, want ErrTooLarge or Unsupported", name, err)
		}
	}
}

// Constants that grow out of nothing are computed at compile time only as far as the limits go, and then in the run.
func TestFoldIsBounded(t *testing.T) {
	b, x := newBuilder(1, 1, 4)
	y := b.node("ConstantOfShape", nil, b.constant(tensor.From([]int64{1 << 10, 1 << 12}, 2)))
	for range 200 { // 16 MiB each
		y = b.node("Cos", nil, y)
		y.Def.Op = "Sigmoid"
	}
	info, err := engine.Infer(b.done(b.node("Add", nil, b.node("ReduceMax", nil, y), x)), []tensor.Type{x.Type}, tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	var bytes int
	for _, a := range info {
		if a.Const != nil {
			bytes += len(a.Const.Data)
		}
	}
	if bytes > 1<<30+1<<20 || bytes < 1<<20 {
		t.Errorf("%d bytes of constants", bytes)
	}
}

// Large graphs compile in about linear time; this is seconds, and would be hours if a pass were quadratic.
func TestManyNodes(t *testing.T) {
	const n = 60000
	b, x := newBuilder(1, 1, 2, 2, 2)
	w, c := b.weight(-1, 1, 2, 2, 1, 1), b.weight(.5, 1, 2)
	y, keep := x, []*graph.Value{x}
	for i := range n {
		switch i % 5 {
		case 0:
			y = b.node("Conv", nil, y, w)
		case 1:
			y = b.node("BatchNormalization", nil, y, c, c, c, c)
		case 2:
			y = b.node("Relu", nil, y)
		case 3:
			y = b.node("Identity", nil, y)
		case 4:
			y = b.node("Add", nil, y, y)
			keep = append(keep, y)
		}
	}
	m, err := engine.Compile(b.done(keep...), []tensor.Type{x.Type}, engine.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{randomInput(1, 1, 2, 2, 2)}); err != nil {
		t.Fatal(err)
	}
}

// A subgraph or a function is refused in words, whatever is in it.
func TestControlFlowIsRefused(t *testing.T) {
	for _, name := range []string{"If", "Loop", "Scan", "com.example.Function"} {
		b, x := newBuilder(1, 1, 4)
		body := &graph.Graph{Name: "body"}
		y := b.node(name, graph.Attrs{{Name: "body", Kind: graph.AttrGraph, Graph: body}}, x)
		var un *op.Unsupported
		if err := compile(b.done(y), engine.Options{}); !errors.As(err, &un) || un.Node != nil && un.Node.Op != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a run before has left in the session's memory is in no output.
func TestLeftovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := randomGraph(t)
		x := randomInput(1, g.Inputs[0].Type.Shape...)
		m, err := engine.Compile(g, []tensor.Type{x.Type()}, engine.Options{Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		s := m.NewSession()
		var first []*tensor.Tensor
		for _, leftover := range []byte{0, 0x7f} {
			s.Poison(leftover)
			out, err := s.Run(context.Background(), []*tensor.Tensor{x})
			if err != nil {
				t.Fatal(err)
			}
			for i, y := range out {
				if leftover == 0 {
					first = append(first, y.Clone())
				} else if !tensor.Equal(first[i], y) {
					t.Fatalf("output %d depends on what the session's memory held before", i)
				}
			}
		}
	})
}
