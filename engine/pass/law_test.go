package pass_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
)

// failer is a test, or a rapid one.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// builder writes graphs, a node a line, and knows the type of every value.
type builder struct {
	failer
	g    *graph.Graph
	r    *rand.Rand
	info pass.Info
	n    int
	// hidden values are read by none but those who know them: they hold infinities.
	hidden map[*graph.Value]bool
}

func newBuilder(t failer, seed uint64, shape ...int) (*builder, *graph.Value) {
	x := &graph.Value{Name: "x", Type: tensor.Type{DType: tensor.Float32, Shape: shape}}
	b := &builder{failer: t, g: &graph.Graph{Name: "test", IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{x}},
		r: rand.New(rand.NewPCG(seed, 1)), info: pass.Info{}, hidden: map[*graph.Value]bool{}}
	b.info[x] = op.Arg{Type: x.Type}
	return b, x
}

// node adds a node and gives its first output.
func (b *builder) node(name string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
	return b.nodes(1, name, attrs, in...)[0]
}

// nodes adds a node of several outputs.
func (b *builder) nodes(outputs int, name string, attrs graph.Attrs, in ...*graph.Value) []*graph.Value {
	b.Helper()
	b.n++
	n := &graph.Node{Op: name, Name: fmt.Sprintf("%s_%d", name, b.n), Inputs: in, Attrs: attrs}
	for i := range outputs {
		n.Outputs = append(n.Outputs, &graph.Value{Name: fmt.Sprintf("v%d_%d", b.n, i), Def: n})
	}
	s := &op.Site{Node: n, Opset: b.g.Opset(""), In: make([]op.Arg, len(in)), Float: tensor.Float32}
	for i, v := range in {
		if v != nil {
			s.In[i] = b.info[v]
		}
	}
	def, err := op.Lookup(n, s.Opset)
	if err != nil {
		b.Fatalf("%v", err)
	}
	out, err := def.Infer(s)
	if err != nil {
		b.Fatalf("node %v: %v", n, err)
	}
	s.Out = out
	for i, v := range n.Outputs {
		b.info[v] = op.Arg{Type: out[i], Const: b.fold(def, s, i)}
	}
	b.g.Nodes = append(b.g.Nodes, n)
	return n.Outputs
}

// fold is an output that follows from constants and shapes, or nil.
func (b *builder) fold(def op.Def, s *op.Site, i int) *tensor.Tensor {
	in := make([]*tensor.Tensor, len(s.In))
	for i, a := range s.In {
		if in[i] = a.Const; a.Given() && a.Const == nil && def.Fold == nil {
			return nil
		}
	}
	f := op.Eval
	if def.Fold != nil {
		f = func(s *op.Site, _ []*tensor.Tensor) ([]*tensor.Tensor, error) { return def.Fold(s) }
	}
	out, err := f(s, in)
	if err != nil {
		b.Fatalf("node %v: %v", s.Node, err)
	}
	return out[i]
}

func (b *builder) shape(v *graph.Value) tensor.Shape { return b.info[v].Type.Shape }

// channels is the second axis of v.
func (b *builder) channels(v *graph.Value) int { return b.shape(v)[1] }

func (b *builder) constant(t *tensor.Tensor) *graph.Value {
	b.n++
	v := &graph.Value{Name: fmt.Sprintf("w%d", b.n), Const: t}
	b.g.Inits = append(b.g.Inits, v)
	b.info[v] = op.Arg{Type: t.Type(), Const: t}
	return v
}

func (b *builder) weight(lo, hi float64, shape ...int) *graph.Value {
	t := tensor.New(tensor.Float32, shape...)
	for i, v := 0, tensor.Of[float32](t); i < len(v); i++ {
		v[i] = float32(lo + (hi-lo)*b.r.Float64())
	}
	return b.constant(t)
}

func (b *builder) number(x float32) *graph.Value { return b.constant(tensor.Scalar(x)) }

func (b *builder) ints(v ...int64) *graph.Value { return b.constant(tensor.From(v, len(v))) }

func (b *builder) floats(v ...float32) *graph.Value { return b.constant(tensor.From(v, len(v))) }

// conv is a convolution to m channels that keeps the size.
func (b *builder) conv(x *graph.Value, m, k int) *graph.Value {
	c := b.channels(x)
	s := 1 / math.Sqrt(float64(c*k*k))
	return b.node("Conv", graph.Attrs{graph.IntsAttr("pads", k/2, k/2, k/2, k/2)}, x, b.weight(-s, s, m, c, k, k), b.weight(-1, 1, m))
}

func (b *builder) batchNorm(x *graph.Value) *graph.Value {
	c := b.channels(x)
	return b.node("BatchNormalization", nil, x, b.weight(.5, 2, c), b.weight(-1, 1, c), b.weight(-1, 1, c), b.weight(.1, 2, c))
}

func (b *builder) done(outs ...*graph.Value) *graph.Graph {
	b.g.Outputs = outs
	return b.g
}

// drawing is a builder that draws what it writes.
type drawing struct {
	*builder
	t *rapid.T
}

func (d drawing) draw(label string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(d.t, label) }

func (d drawing) coin(label string) bool { return rapid.Bool().Draw(d.t, label) }

// often is true three times in four: what makes the pattern is more frequent than what spoils it.
func (d drawing) often(label string) bool { return d.draw(label, 0, 3) > 0 }

func pick[T any](d drawing, label string, of ...T) T { return rapid.SampledFrom(of).Draw(d.t, label) }

// image is any value of the graph that is [N,C,H,W] of floating point, not too large, and 3x3 at least.
func (d drawing) image(label string) *graph.Value {
	var all []*graph.Value
	for v := range d.g.Values() {
		a := d.info[v]
		if n := a.Type.Shape.Elems(); len(a.Type.Shape) == 4 && v.Const == nil && a.Type.DType == tensor.Float32 && !d.hidden[v] && n > 0 && n < 4000 && min(a.Type.Shape[2], a.Type.Shape[3]) > 2 {
			all = append(all, v)
		}
	}
	return pick(d, label, all...)
}

// randomConv is a convolution of any kind.
func (d drawing) randomConv(x *graph.Value) *graph.Value {
	c, k, m := d.channels(x), pick(d, "kernel", 1, 2, 3), d.draw("m", 1, 4)
	group := 1
	if d.coin("grouped") {
		group = c
		m *= c
	}
	s := 1 / math.Sqrt(float64(c*k*k))
	attrs := graph.Attrs{graph.IntAttr("group", group), graph.IntsAttr("pads", k-1, 0, d.draw("pad", 0, 1), k-1)}
	name, shape := "Conv", []int{m, c / group, k, k}
	if d.coin("transposed") {
		name, shape = "ConvTranspose", []int{c, m / group, k, k}
		attrs = attrs[:1]
	}
	in := []*graph.Value{x, d.weight(-s, s, shape...)}
	if d.coin("bias") {
		in = append(in, d.weight(-1, 1, m))
	}
	return d.node(name, attrs, in...)
}

// computed is a value [shape] that depends on x, in the place of a constant.
func (d drawing) computed(x *graph.Value, shape ...int) *graph.Value {
	one := d.node("ReduceMean", graph.Attrs{graph.IntAttr("keepdims", 0)}, d.node("Sigmoid", nil, x))
	dims := make([]int64, len(shape))
	for i, s := range shape {
		dims[i] = int64(s)
	}
	return d.node("Expand", nil, one, d.ints(dims...))
}

// piece adds some nodes that read x.
type piece func(d drawing, x *graph.Value)

// noise stands around the pieces, and reads what they yield within.
var noise = []piece{
	func(d drawing, x *graph.Value) { d.node("Relu", nil, x) },
	func(d drawing, x *graph.Value) { d.node("Add", nil, x, x) },
	func(d drawing, x *graph.Value) { d.node("Sigmoid", nil, x) },
}

// draw makes a graph of pieces and noise. Each reads any value there is, and any value may leave the graph.
func draw(t *rapid.T, pieces ...piece) *graph.Graph { return drawAt(t, 17, pieces...) }

// drawAt is draw at another opset.
func drawAt(t *rapid.T, opset int, pieces ...piece) *graph.Graph {
	n := rapid.IntRange(1, 3)
	b, _ := newBuilder(t, rapid.Uint64().Draw(t, "seed"), n.Draw(t, "n"), n.Draw(t, "c"), n.Draw(t, "h")+2, n.Draw(t, "w")+2)
	b.g.Opsets[""] = opset
	d := drawing{b, t}
	for range d.draw("pieces", 1, 4) {
		from := pieces
		if d.draw("noise", 0, 3) == 0 {
			from = noise
		}
		pick(d, "piece", from...)(d, d.image("from"))
	}
	var made []*graph.Value
	for _, n := range b.g.Nodes {
		made = append(made, n.Outputs...)
	}
	outs := []*graph.Value{made[len(made)-1]}
	for range d.draw("more outputs", 0, 2) {
		outs = append(outs, pick(d, "output", made...))
	}
	return b.done(outs...)
}

// law is Run(Optimize(g)) == Run(g), for one pass alone and for all of them: in float64, the yardstick, up to 1e-12 of the
// largest output, and in float32 up to tol of it. If tol is 0, the pass moves and drops, and no bit may differ in either.
func law(t failer, g *graph.Graph, run func(*graph.Graph, pass.Info), tol float64) {
	t.Helper()
	if err := g.Validate(); err != nil {
		t.Fatalf("the graph drawn: %v", err)
	}
	x := randomInput(g.Inputs[0].Type.Shape)
	yardstick := result(t, g, x, engine.Options{Verbatim: true, Float64: true})
	for _, float := range []tensor.DType{tensor.Float64, tensor.Float32} {
		opt := engine.Options{Verbatim: true, Float64: float == tensor.Float64, Threads: 1}
		c := g.Clone()
		info, err := engine.Infer(c, []tensor.Type{x.Type()}, float)
		if err != nil {
			t.Fatalf("%v", err)
		}
		run(c, info)
		if err := c.Validate(); err != nil {
			t.Fatalf("after the pass: %v", err)
		}
		want, bound := yardstick, tol
		if tol == 0 {
			want = result(t, g, x, opt)
		} else if opt.Float64 {
			bound = 1e-12
		}
		compare(t, "the pass alone", c, result(t, c, x, opt), want, bound)
		opt.Verbatim = false
		bound = 1e-4 // of a dozen layers, each of which rounds
		if opt.Float64 {
			bound = 1e-11
		}
		compare(t, "all passes", g, result(t, g, x, opt), yardstick, bound)
	}
}

func compare(t failer, what string, g *graph.Graph, got, want []*tensor.Tensor, tol float64) {
	t.Helper()
	for i := range want {
		if !slices.Equal(got[i].Shape, want[i].Shape) {
			t.Fatalf("%s: output %d is %v, want %v", what, i, got[i].Type(), want[i].Type())
		}
		if d := distance(got[i], want[i]); !(d <= tol) {
			t.Fatalf("%s, %v: output %d, %v, differs by %g of %g allowed\n%v", what, got[i].DType, i, g.Outputs[i].Name, d, tol, g.Nodes)
		}
	}
}

func randomInput(shape tensor.Shape) *tensor.Tensor {
	r := rand.New(rand.NewPCG(7, 2))
	x := tensor.New(tensor.Float32, shape...)
	for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
		v[i] = float32(2 * r.NormFloat64())
	}
	return x
}

func result(t failer, g *graph.Graph, x *tensor.Tensor, opt engine.Options) []*tensor.Tensor {
	t.Helper()
	m, err := engine.Compile(g, []tensor.Type{x.Type()}, opt)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s := m.NewSession()
	var out []*tensor.Tensor
	for range 2 { // the second run meets what the first left in memory
		if out, err = s.Run(context.Background(), []*tensor.Tensor{x}); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return out
}

// distance is max|a-b| over max(1, max|b|).
func distance(a, b *tensor.Tensor) float64 {
	x, _ := a.Float64s()
	y, _ := b.Float64s()
	d, top := 0.0, 1.0
	for i := range x {
		if math.IsNaN(x[i]) != math.IsNaN(y[i]) {
			return math.Inf(1)
		}
		if x[i] == y[i] || math.IsNaN(x[i]) {
			continue
		}
		d, top = max(d, math.Abs(x[i]-y[i])), max(top, math.Abs(y[i]))
	}
	return d / top
}

// firing is a graph and the operators that are left of it, apart from what is dead, in order.
type firing struct {
	name string
	make func(b *builder, x *graph.Value) []*graph.Value
	want []string
}

// fires runs a pass on graphs of the pattern and on graphs that only look like it, of an input [1,4,6,6].
func fires(t *testing.T, run func(*graph.Graph, pass.Info), tol float64, cases []firing) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b, x := newBuilder(t, 1, 1, 4, 6, 6)
			g := b.done(c.make(b, x)...)
			law(t, g, run, tol)
			info, err := engine.Infer(g, []tensor.Type{x.Type}, tensor.Float32)
			if err != nil {
				t.Fatal(err)
			}
			run(g, info)
			pass.DropDead(g, info)
			var got []string
			for _, n := range g.Nodes {
				got = append(got, n.Op)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v are left, want %v", got, c.want)
			}
		})
	}
}

// values is a list of outputs.
func values(v ...*graph.Value) []*graph.Value { return v }

// Passes take about linear time; this is a second, and would be an hour if one were quadratic.
func TestManyNodes(t *testing.T) {
	b, x := newBuilder(t, 1, 1, 2, 3, 3)
	w, c, k, zero := b.weight(-1, 1, 2, 2, 1, 1), b.weight(.5, 1, 2), b.number(.5), b.number(0)
	none := b.ints(0, 0, 0, 0, 0, 0, 0, 0)
	for _, next := range []func(y *graph.Value) *graph.Value{
		func(y *graph.Value) *graph.Value { return b.node("Transpose", nil, y) },
		func(y *graph.Value) *graph.Value { return b.node("Flatten", nil, y) },
		func(y *graph.Value) *graph.Value { return b.node("Relu", nil, y) },
		func(y *graph.Value) *graph.Value { return b.node("Clip", nil, y, zero, k) },
		func(y *graph.Value) *graph.Value { return b.node("Pad", nil, y, none) },
		func(y *graph.Value) *graph.Value { return b.node("Mul", nil, y, k) },
		func(y *graph.Value) *graph.Value { return b.node("Add", nil, y, k) },
		func(y *graph.Value) *graph.Value { return b.node("Mul", nil, b.node("Conv", nil, y, w, c), k) },
		func(y *graph.Value) *graph.Value { b.node("Conv", nil, y, w, c); return y },
		func(y *graph.Value) *graph.Value { return b.node("Identity", nil, y) },
		func(y *graph.Value) *graph.Value { b.node("Exp", nil, y); return y },
	} {
		y := x
		for range 5000 {
			y = next(y)
		}
		b.g.Outputs = append(b.g.Outputs, y)
	}
	info, err := engine.Infer(b.g, []tensor.Type{x.Type}, tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	pass.Optimize(b.g, info)
}
