package engine_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// split is a Split of x into n parts along axis.
func (b *builder) split(x *graph.Value, axis, n int) []*graph.Value {
	b.g.Opsets[""] = 18
	first := b.node("Split", graph.Attrs{graph.IntAttr("axis", axis), graph.IntAttr("num_outputs", n)}, x)
	out := []*graph.Value{first}
	for len(out) < n {
		v := &graph.Value{Name: first.Name + string(rune('a'+len(out))), Def: first.Def}
		out = append(out, v)
	}
	first.Def.Outputs = slices.Clone(out)
	return out
}

func (b *builder) ints(v ...int64) *graph.Value { return b.constant(tensor.From(v, len(v))) }

// drawGraph is nodes that can share memory, as views or in place, and others, of an input [n,4,6,4]; with two outputs.
func drawGraph(t *rapid.T) (*builder, *graph.Value) {
	n := rapid.IntRange(1, 2).Draw(t, "n")
	b, x := newBuilder(3, n, 4, 6, 4)
	b.g.Opsets[""] = 18
	all := []*graph.Value{x} // all of them [n,4,6,4]
	for range rapid.IntRange(1, 12).Draw(t, "nodes") {
		v := rapid.SampledFrom(all).Draw(t, "of")
		var y *graph.Value
		switch axis := rapid.IntRange(1, 3).Draw(t, "axis"); rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			y = b.node("Relu", nil, v)
		case 1:
			y = b.node("Add", nil, v, rapid.SampledFrom(all).Draw(t, "and"))
		case 2: // halves, one of them changed, in the other order
			p := b.split(v, axis, 2)
			if rapid.Bool().Draw(t, "change") {
				p[0] = b.node("Neg", nil, p[0])
			}
			y = b.node("Concat", graph.Attrs{graph.IntAttr("axis", axis)}, p[1], p[0])
		case 3: // twice a half
			at := rapid.Int64Range(0, 2).Draw(t, "at")
			p := b.node("Slice", nil, v, b.ints(at), b.ints(at+2), b.ints(int64(axis)))
			q := p
			if axis == 2 {
				p = b.node("Concat", graph.Attrs{graph.IntAttr("axis", axis)}, p, p)
			}
			y = b.node("Concat", graph.Attrs{graph.IntAttr("axis", axis)}, p, b.node("Relu", nil, q))
		case 4:
			y = b.node("Reshape", nil, b.node("Abs", nil, b.node("Reshape", nil, v, b.ints(int64(n), -1))), b.ints(int64(n), 4, 6, 4))
		default:
			y = b.conv(v, 4, 4, 3)
		}
		all = append(all, y)
	}
	b.g.Outputs = []*graph.Value{all[len(all)-1], rapid.SampledFrom(all[1:]).Draw(t, "output")}
	return b, x
}

// Values that share memory, as views of others or in their places, hold what they hold in memory of their own.
func TestPlanKeepsValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, x := drawGraph(t)
		in := randomInput(1, x.Type.Shape...)
		kept := mustRun(t, b.g, in, engine.Options{Verbatim: true, Threads: 1})
		got := mustRun(t, b.g, in, engine.Options{Threads: 1})
		for i := range kept {
			y, want := tensor.Of[float32](got[i]), tensor.Of[float32](kept[i])
			for j := range want {
				if math.Abs(float64(y[j]-want[j])) > 1e-4*max(1, math.Abs(float64(want[j]))) {
					t.Fatalf("output %d: [%d] is %g, want %g\n%v", i, j, y[j], want[j], b.g.Nodes)
				}
			}
		}
	})
}

// Parts of channels of one image, and rows of one channel, need no copy; parts that lie apart do.
func TestPlanViews(t *testing.T) {
	for _, c := range []struct {
		name  string
		shape []int
		axis  int
		ran   int
	}{
		{"channels of an image", []int{1, 4, 6, 4}, 1, 2}, {"channels of two images", []int{2, 4, 6, 4}, 1, 3},
		{"rows of a channel", []int{1, 1, 6, 4}, 2, 2}, {"rows of channels", []int{1, 4, 6, 4}, 2, 3},
	} {
		b, x := newBuilder(3, c.shape...)
		p := b.split(x, c.axis, 2)
		b.g.Outputs = []*graph.Value{b.node("Sigmoid", nil, p[0]), b.node("Exp", nil, p[1])}
		m, err := engine.Compile(b.g, []tensor.Type{x.Type}, engine.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := m.NewSession().Profile(context.Background(), []*tensor.Tensor{randomInput(1, c.shape...)}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(nodes) != c.ran {
			t.Errorf("%s: %d nodes run, want %d", c.name, len(nodes), c.ran)
		}
	}
}
