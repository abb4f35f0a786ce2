package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// builder writes graphs for tests, a node a line.
type builder struct {
	g *graph.Graph
	r *rand.Rand
	n int
}

func newBuilder(seed uint64, shape ...int) (*builder, *graph.Value) {
	x := &graph.Value{Name: "x", Type: tensor.Type{DType: tensor.Float32, Shape: shape}}
	return &builder{g: &graph.Graph{Name: "test", IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{x}},
		r: rand.New(rand.NewPCG(seed, 1))}, x
}

func (b *builder) node(name string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
	b.n++
	n := &graph.Node{Op: name, Name: fmt.Sprintf("%s_%d", name, b.n), Inputs: in, Attrs: attrs}
	v := &graph.Value{Name: fmt.Sprintf("v%d", b.n), Def: n}
	n.Outputs = []*graph.Value{v}
	b.g.Nodes = append(b.g.Nodes, n)
	return v
}

func (b *builder) weight(lo, hi float64, shape ...int) *graph.Value {
	t := tensor.New(tensor.Float32, shape...)
	for i, v := 0, tensor.Of[float32](t); i < len(v); i++ {
		v[i] = float32(lo + (hi-lo)*b.r.Float64())
	}
	return b.constant(t)
}

func (b *builder) constant(t *tensor.Tensor) *graph.Value {
	b.n++
	v := &graph.Value{Name: fmt.Sprintf("w%d", b.n), Const: t}
	b.g.Inits = append(b.g.Inits, v)
	return v
}

func (b *builder) conv(x *graph.Value, c, m, k int) *graph.Value {
	s := 1 / math.Sqrt(float64(c*k*k))
	return b.node("Conv", graph.Attrs{graph.IntsAttr("pads", k/2, k/2, k/2, k/2)}, x, b.weight(-s, s, m, c, k, k), b.weight(-1, 1, m))
}

func (b *builder) batchNorm(x *graph.Value, c int) *graph.Value {
	return b.node("BatchNormalization", nil, x, b.weight(.5, 2, c), b.weight(-1, 1, c), b.weight(-1, 1, c), b.weight(.1, 2, c))
}

func (b *builder) done(outs ...*graph.Value) *graph.Graph {
	b.g.Outputs = outs
	return b.g
}

// randomGraph draws a network of layers that passes rewrite and the planner lays out.
func randomGraph(t *rapid.T) *graph.Graph {
	c, h := rapid.IntRange(1, 4).Draw(t, "c"), 2*rapid.IntRange(2, 5).Draw(t, "h")
	b, x := newBuilder(rapid.Uint64().Draw(t, "seed"), 1, c, h, h)
	live := []*graph.Value{x}
	chans := []int{c}
	for range rapid.IntRange(1, 12).Draw(t, "layers") {
		i := rapid.IntRange(0, len(live)-1).Draw(t, "from")
		v, c := live[i], chans[i]
		switch rapid.SampledFrom([]string{"conv", "bn", "relu", "clip", "add", "concat", "identity", "dropout", "reshape", "up", "upconv", "sigmoid", "silu", "hardswish"}).Draw(t, "kind") {
		case "conv":
			m := rapid.IntRange(1, 5).Draw(t, "m")
			v, c = b.conv(v, c, m, rapid.SampledFrom([]int{1, 3}).Draw(t, "k")), m
		case "bn":
			v = b.batchNorm(v, c)
		case "relu":
			v = b.node("Relu", nil, v)
		case "clip":
			v = b.node("Clip", nil, v, b.constant(tensor.Scalar[float32](0)), b.constant(tensor.Scalar[float32](6)))
		case "sigmoid":
			v = b.node("Sigmoid", nil, v)
		case "silu":
			v = b.node("Mul", nil, v, b.node("Sigmoid", nil, v))
		case "hardswish":
			v = b.node("Mul", nil, b.node("HardSigmoid", graph.Attrs{graph.FloatAttr("alpha", 1.0/6)}, v), v)
		case "upconv": // as decoders have it: upsampled and joined with what went down, then half of it again
			small := b.node("MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)}, v)
			up := b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest")}, small, nil, b.constant(tensor.From([]float32{1, 1, 2, 2}, 4)))
			m := rapid.IntRange(1, 14).Draw(t, "m")
			v = b.conv(b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, up, live[i]), 2*c, m, rapid.SampledFrom([]int{1, 3}).Draw(t, "k"))
			c = m
		case "add":
			v = b.node("Add", nil, v, v)
		case "concat":
			j := rapid.IntRange(0, len(live)-1).Draw(t, "with")
			v, c = b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, v, live[j]), c+chans[j]
		case "identity":
			v = b.node("Identity", nil, v)
		case "dropout":
			v = b.node("Dropout", nil, v)
		case "reshape": // there and back, by shape arithmetic
			s := b.node("Shape", nil, v)
			flat := b.node("Flatten", nil, v)
			v = b.node("Reshape", nil, flat, s)
		case "up": // and down again
			v = b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest")}, v, nil, b.constant(tensor.From([]float32{1, 1, 2, 2}, 4)))
			v = b.node("MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)}, v)
		}
		live, chans = append(live, v), append(chans, c)
	}
	return b.done(live[len(live)-1], live[rapid.IntRange(0, len(live)-1).Draw(t, "second output")])
}

func randomInput(seed uint64, shape ...int) *tensor.Tensor {
	r := rand.New(rand.NewPCG(seed, 2))
	x := tensor.New(tensor.Float32, shape...)
	for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
		v[i] = float32(r.NormFloat64())
	}
	return x
}

func mustRun(t interface{ Fatal(...any) }, g *graph.Graph, x *tensor.Tensor, opt engine.Options) []*tensor.Tensor {
	m, err := engine.Compile(g, []tensor.Type{x.Type()}, opt)
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession()
	var out []*tensor.Tensor
	for range 2 { // the second run meets what the first left in memory
		if out, err = s.Run(context.Background(), []*tensor.Tensor{x}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// distance is max|a-b| over max(1, max|b|).
func distance(a, b *tensor.Tensor) float64 {
	x, _ := a.Float64s()
	y, _ := b.Float64s()
	if len(x) != len(y) {
		return math.Inf(1)
	}
	d, top := 0.0, 1.0
	for i := range x {
		if math.IsNaN(x[i]) != math.IsNaN(y[i]) {
			return math.Inf(1)
		}
		d, top = max(d, math.Abs(x[i]-y[i])), max(top, math.Abs(y[i]))
	}
	return d / top
}

// TestOptimizeChangesNothing is the law of all passes and of the memory plan: Run(Optimize(g)) == Run(g).
func TestOptimizeChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := randomGraph(t)
		if err := g.Validate(); err != nil {
			t.Fatal(err)
		}
		x := randomInput(7, g.Inputs[0].Type.Shape...)
		want := mustRun(t, g, x, engine.Options{Verbatim: true, Float64: true})
		// In float64 the passes may only round; in float32 a dozen layers of at most 4·9 products each add to it.
		for _, c := range []struct {
			opt engine.Options
			tol float64
		}{{engine.Options{Float64: true}, 1e-12}, {engine.Options{}, 1e-4}, {engine.Options{Threads: 1}, 1e-4}, {engine.Options{Verbatim: true}, 1e-4}} {
			got := mustRun(t, g, x, c.opt)
			for i := range want {
				if d := distance(got[i], want[i]); d > c.tol {
					t.Fatalf("%+v: output %d differs by %g", c.opt, i, d)
				}
			}
		}
	})
}

func smallNet() *graph.Graph {
	b, x := newBuilder(3, tensor.Unknown, 3, tensor.Unknown, tensor.Unknown)
	b.g.Inputs[0].Type.Symbols = []string{"batch", "", "side", "side"}
	v := b.node("Relu", nil, b.batchNorm(b.conv(x, 3, 8, 3), 8))
	v = b.node("MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)}, v)
	return b.done(b.conv(v, 8, 1, 1))
}

func TestRunAllocatesNothing(t *testing.T) {
	g := smallNet()
	x := randomInput(1, 1, 3, 32, 32)
	m, err := engine.Compile(g, []tensor.Type{x.Type()}, engine.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	s, in := m.NewSession(), []*tensor.Tensor{x}
	if n := testing.AllocsPerRun(20, func() {
		if _, err := s.Run(context.Background(), in); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a run allocates %v times", n)
	}
}

func TestSessionsRunConcurrently(t *testing.T) {
	g := smallNet()
	typ := tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 16, 16}}
	m, err := engine.Compile(g, []tensor.Type{typ}, engine.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			x := randomInput(uint64(i), 1, 3, 16, 16)
			want := mustRun(t, g, x, engine.Options{Threads: 1})
			s := m.NewSession()
			for range 20 {
				got, err := s.Run(context.Background(), []*tensor.Tensor{x})
				if err != nil {
					t.Error(err)
					return
				}
				if d := distance(got[0], want[0]); d > 1e-5 {
					t.Errorf("goroutine %d: differs by %g", i, d)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestRunStopsWhenTheContextEnds(t *testing.T) {
	x := randomInput(1, 1, 3, 8, 8)
	m, err := engine.Compile(smallNet(), []tensor.Type{x.Type()}, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.NewSession().Run(ctx, []*tensor.Tensor{x}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
}

func TestCompileSaysWhatIsWrong(t *testing.T) {
	f32 := func(s ...int) []tensor.Type { return []tensor.Type{{DType: tensor.Float32, Shape: s}} }
	unknown := func() *graph.Graph {
		b, x := newBuilder(1, 1, 3, 8, 8)
		return b.done(b.node("Wobble", nil, x))
	}
	for _, c := range []struct {
		name string
		g    *graph.Graph
		in   []tensor.Type
		want string
	}{
		{"no input", smallNet(), nil, "takes 1 inputs, 0 given"},
		{"rank", smallNet(), f32(3, 8, 8), "the model takes"},
		{"channels", smallNet(), f32(1, 4, 8, 8), "the model takes"},
		{"symbol", smallNet(), f32(1, 3, 8, 16), `dimension "side" is 16 here and 8 before`},
		{"unbound", smallNet(), f32(1, 3, -1, 8), "not bound"},
		{"huge", smallNet(), f32(1, 3, 1<<20, 1<<20), "too large"},
		{"operator", unknown(), f32(1, 3, 8, 8), `Wobble "Wobble_1" is not supported: operator Wobble is not in the table`},
	} {
		_, err := engine.Compile(c.g, c.in, engine.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	_, err := engine.Compile(unknown(), f32(1, 3, 8, 8), engine.Options{})
	if u := (*op.Unsupported)(nil); !errors.As(err, &u) || u.Node.Op != "Wobble" {
		t.Errorf("got %v, want *op.Unsupported naming the node", err)
	}
}

func TestTraceKeepsEveryValue(t *testing.T) {
	g := smallNet()
	x := randomInput(1, 1, 3, 8, 8)
	m, err := engine.Compile(g, []tensor.Type{x.Type()}, engine.Options{Verbatim: true})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := m.NewSession().Trace(context.Background(), []*tensor.Tensor{x})
	if err != nil {
		t.Fatal(err)
	}
	for v := range g.Values() {
		if tr[v] == nil {
			t.Errorf("value %q is missing", v.Name)
		}
	}
}

// TestCount: a 3x3 convolution of 3 to 8 channels on 8x8 pixels, and a 1x1 of 8 to 1 on 4x4.
func TestCount(t *testing.T) {
	c, err := engine.Count(smallNet(), []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(3*8*9*64 + 8*16); c.MACs != want {
		t.Errorf("MACs %d, want %d", c.MACs, want)
	}
	if want := int64(3*8*9 + 8 + 4*8 + 8 + 1); c.Parameters != want {
		t.Errorf("parameters %d, want %d", c.Parameters, want)
	}
}
