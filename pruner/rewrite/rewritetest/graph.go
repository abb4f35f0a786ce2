// Package rewritetest makes random graphs, on which what analyses and rewrites graphs can state its laws.
package rewritetest

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// builder grows a random graph over values of known shape.
type builder struct {
	t    *rapid.T
	g    *graph.Graph
	live []*sized
	seed uint64
}

type sized struct {
	v    *graph.Value
	c, s int // channels, and height and width
}

// In is what the graphs take.
var In = []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}}

// Graph draws a graph of an input and one or two outputs, of opset 17 or 21.
func Graph(t *rapid.T) *graph.Graph {
	b := newBuilder(t)
	steps["conv"](b, b.pick())
	for range b.int(3, 14, "steps") {
		kind := one(b, kinds...)
		t.Log(kind)
		steps[kind](b, b.pick())
	}
	g := b.finish()
	if err := g.Validate(); err != nil {
		t.Fatalf("the generator made an invalid graph: %v", err)
	}
	return g
}

// kinds names steps, layers of weights more often than others: they make the channels.
var kinds = append(slices.Sorted(maps.Keys(steps)), "conv", "conv", "conv", "conv", "conv", "conv", "add", "concat")

func newBuilder(t *rapid.T) *builder {
	b := &builder{t: t, seed: uint64(rapid.IntRange(1, 1<<30).Draw(t, "seed"))}
	x := &graph.Value{Name: "x", Type: In[0]}
	opset := one(b, 17, 21)
	b.g = &graph.Graph{Name: "random", IR: map[int]int{17: 8, 21: 10}[opset], Opsets: map[string]int{"": opset}, Inputs: []*graph.Value{x}}
	b.live = []*sized{{x, 3, 8}}
	return b
}

// int is as likely each of lo to hi: rapid's own ranges yield small numbers far more often, which makes tiny graphs of the
// first kinds.
func (b *builder) int(lo, hi int, what string) int {
	n := 0
	for _, bit := range rapid.SliceOfN(rapid.Bool(), 12, 12).Draw(b.t, what) {
		n *= 2
		if bit {
			n++
		}
	}
	return lo + n%(hi-lo+1)
}

// one of the list.
func one[T any](b *builder, list ...T) T { return list[b.int(0, len(list)-1, "one")] }

// next is a pseudo-random number of 24 bits.
func (b *builder) next() int {
	b.seed = b.seed*6364136223846793005 + 1442695040888963407
	return int(b.seed >> 40)
}

// weights is a constant of pseudo-random numbers in [-a,a] around mid.
func (b *builder) weights(mid, a float64, shape ...int) *graph.Value {
	t := tensor.New(tensor.Float32, shape...)
	for i := range tensor.Of[float32](t) {
		tensor.Of[float32](t)[i] = float32(mid + a*(2*float64(b.next())/(1<<24)-1))
	}
	return b.constant(t)
}

func (b *builder) constant(t *tensor.Tensor) *graph.Value {
	v := &graph.Value{Name: b.g.Fresh("w"), Const: t}
	if b.g.Opset("") > 0 && b.seed%5 == 0 { // now and then from a Constant node
		n := &graph.Node{Op: "Constant", Attrs: graph.Attrs{{Name: "value", Kind: graph.AttrTensor, Tensor: t}}}
		v.Const, v.Def = nil, n
		n.Outputs = []*graph.Value{v}
		b.g.Nodes = append(b.g.Nodes, n)
		return v
	}
	b.g.Inits = append(b.g.Inits, v)
	return v
}

func (b *builder) node(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
	return b.nodes(1, op, attrs, in...)[0]
}

func (b *builder) nodes(outs int, op string, attrs graph.Attrs, in ...*graph.Value) []*graph.Value {
	n := &graph.Node{Op: op, Name: fmt.Sprintf("n%d", len(b.g.Nodes)), Inputs: in, Attrs: attrs}
	for range outs {
		n.Outputs = append(n.Outputs, &graph.Value{Name: fmt.Sprintf("v%d_%d", len(b.g.Nodes), len(n.Outputs)), Def: n})
	}
	b.g.Nodes = append(b.g.Nodes, n)
	return n.Outputs
}

func (b *builder) conv(x *sized, m, k, group int) *sized {
	w := b.weights(0, 2/math.Sqrt(float64(x.c/group*k*k)), m, x.c/group, k, k)
	in := []*graph.Value{x.v, w}
	if b.int(0, 1, "bias") == 1 {
		in = append(in, b.weights(0, 0.5, m))
	}
	p := k / 2
	y := b.node("Conv", graph.Attrs{graph.IntsAttr("pads", p, p, p, p), graph.IntAttr("group", group), graph.IntsAttr("kernel_shape", k, k)}, in...)
	return &sized{y, m, x.s}
}

// divisor is one of n, often another than 1 and n.
func (b *builder) divisor(n int) int {
	var ds []int
	for d := 1; d <= n; d++ {
		if n%d == 0 {
			ds = append(ds, d)
		}
	}
	return one(b, ds...)
}

// pick takes one of the last few values, as a network goes deeper, or any.
func (b *builder) pick() *sized {
	from := 0
	if b.int(0, 3, "any") > 0 {
		from = max(len(b.live)-3, 0)
	}
	return b.live[b.int(from, len(b.live)-1, "pick")]
}

// partner finds a value of x's size, of x's channels if same; it may be x.
func (b *builder) partner(x *sized, same bool) *sized {
	var fit []*sized
	for _, v := range b.live {
		if v.s == x.s && (!same || v.c == x.c) {
			fit = append(fit, v)
		}
	}
	return fit[b.int(0, len(fit)-1, "partner")]
}

// out lets v, of c channels and height and width s, be read by steps to come.
func (b *builder) out(v *graph.Value, c, s int) { b.live = append(b.live, &sized{v, c, s}) }

// size is dimension i of x as exporters compute it.
func (b *builder) size(x *sized, i int64) *graph.Value {
	return b.node("Gather", nil, b.node("Shape", nil, x.v), b.constant(i64(i)))
}

// reduce keeps the axes that it reduces.
func (b *builder) reduce(op string, x *graph.Value, axes ...int64) *graph.Value {
	if b.g.Opset("") >= 18 || op == "ReduceSum" {
		return b.node(op, nil, x, b.constant(i64(axes...)))
	}
	return b.node(op, graph.Attrs{{Name: "axes", Kind: graph.AttrInts, Ints: axes}}, x)
}

// bytes is a constant of pseudo-random numbers from lo to hi.
func (b *builder) bytes(lo, hi int, shape ...int) *graph.Value {
	t := tensor.New(tensor.Uint8, shape...)
	for i := range t.Data {
		t.Data[i] = byte(lo + b.next()%(hi-lo+1))
	}
	return b.constant(t)
}

func i64(v ...int64) *tensor.Tensor { return tensor.From(v, len(v)) }

// finish ends the graph in a head on the last value, and in one that reads whatever nothing has read so far but for its size; now and then the
// value of a layer inside is an output as well.
func (b *builder) finish() *graph.Graph {
	uses := b.g.Uses()
	b.g.Outputs = []*graph.Value{b.conv(b.live[len(b.live)-1], 1, 1, 1).v}
	var rest *graph.Value
	for _, x := range b.live[:len(b.live)-1] {
		if slices.ContainsFunc(uses[x.v], func(u graph.Use) bool { return u.Node.Op != "Shape" }) {
			continue
		}
		y := b.conv(&sized{b.node("GlobalAveragePool", nil, x.v), x.c, 1}, 2, 1, 1).v
		if rest != nil {
			y = b.node("Add", nil, rest, y)
		}
		rest = y
	}
	if rest != nil {
		b.g.Outputs = append(b.g.Outputs, rest)
	}
	if b.int(0, 7, "inside") == 0 {
		if o := b.pick(); o.v.Def != nil {
			b.g.Outputs = append(b.g.Outputs, o.v)
		}
	}
	return b.g
}
