package rewrite_test

import (
	"fmt"
	"math"

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

func newBuilder(t *rapid.T) *builder {
	b := &builder{t: t, seed: uint64(rapid.IntRange(1, 1<<30).Draw(t, "seed"))}
	x := &graph.Value{Name: "x", Type: tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}}
	b.g = &graph.Graph{Name: "random", IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{x}}
	b.live = []*sized{{x, 3, 8}}
	return b
}

func (b *builder) int(lo, hi int, what string) int { return rapid.IntRange(lo, hi).Draw(b.t, what) }

// weights is a constant of pseudo-random numbers in [-a,a] around mid.
func (b *builder) weights(mid, a float64, shape ...int) *graph.Value {
	t := tensor.New(tensor.Float32, shape...)
	for i := range tensor.Of[float32](t) {
		b.seed = b.seed*6364136223846793005 + 1442695040888963407
		tensor.Of[float32](t)[i] = float32(mid + a*(2*float64(b.seed>>40)/(1<<24)-1))
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
	return rapid.SampledFrom(ds).Draw(b.t, "divisor")
}

func (b *builder) pick() *sized { return b.live[b.int(0, len(b.live)-1, "pick")] }

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

func i64(v ...int64) *tensor.Tensor { return tensor.From(v, len(v)) }

// grow adds one step, of the kinds that segmentation networks are made of.
func (b *builder) grow() {
	x := b.pick()
	out := func(v *graph.Value, c, s int) { b.live = append(b.live, &sized{v, c, s}) }
	switch kind := rapid.SampledFrom([]string{
		"conv", "conv", "conv", "depthwise", "multiplier", "up", "bn", "act", "act", "prelu", "clip", "pool", "avg", "resize", "sizes", "literal",
		"add", "add", "mul", "concat", "concat", "se", "split", "slice", "pad", "scale", "dense", "shuffle", "softmax", "mean", "shared", "sebcast", "reshape", "transpose",
		"grouped", "groupedup", "shuffle", "computed", "gather", "d2s", "s2d", "tile", "expand", "groupnorm", "instancenorm", "argmax",
	}).Draw(b.t, "kind"); kind {
	case "conv":
		b.live = append(b.live, b.conv(x, b.int(1, 6, "m"), rapid.SampledFrom([]int{1, 3}).Draw(b.t, "k"), 1))
	case "depthwise":
		b.live = append(b.live, b.conv(x, x.c, 3, x.c))
	case "multiplier":
		b.live = append(b.live, b.conv(x, 2*x.c, 3, x.c))
	case "up":
		m := b.int(1, 5, "m")
		if x.s <= 8 {
			y := b.node("ConvTranspose", graph.Attrs{graph.IntsAttr("strides", 2, 2), graph.IntsAttr("kernel_shape", 2, 2)}, x.v, b.weights(0, 1, x.c, m, 2, 2), b.weights(0, 1, m))
			out(y, m, 2*x.s)
		}
	case "bn":
		out(b.node("BatchNormalization", nil, x.v, b.weights(1, 0.5, x.c), b.weights(0, 0.5, x.c), b.weights(0, 0.5, x.c), b.weights(1, 0.5, x.c)), x.c, x.s)
	case "act":
		op := rapid.SampledFrom([]string{"Relu", "Sigmoid", "LeakyRelu", "HardSwish", "Tanh", "HardSigmoid", "Identity", "Dropout"}).Draw(b.t, "act")
		out(b.node(op, nil, x.v), x.c, x.s)
	case "prelu":
		out(b.node("PRelu", nil, x.v, b.weights(0.2, 0.1, x.c, 1, 1)), x.c, x.s)
	case "clip":
		out(b.node("Clip", nil, x.v, b.constant(tensor.Scalar[float32](-0.5)), b.constant(tensor.Scalar[float32](2))), x.c, x.s)
	case "pool", "avg":
		if x.s >= 4 {
			op := map[string]string{"pool": "MaxPool", "avg": "AveragePool"}[kind]
			out(b.node(op, graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)}, x.v), x.c, x.s/2)
		}
	case "resize":
		if x.s <= 8 {
			out(b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest")}, x.v, nil, b.constant(tensor.From([]float32{1, 1, 2, 2}, 4))), x.c, 2*x.s)
		}
	case "literal":
		out(b.node("Resize", graph.Attrs{graph.StrAttr("mode", "linear")}, x.v, nil, nil, b.constant(i64(1, int64(x.c), 8, 8))), x.c, 8)
	case "sizes": // as exporters write it: the first two sizes from Shape, the others from another tensor's
		ref := b.pick()
		of := func(v *sized, from, to int64) *graph.Value {
			return b.node("Slice", nil, b.node("Shape", nil, v.v), b.constant(i64(from)), b.constant(i64(to)), b.constant(i64(0)))
		}
		sizes := b.node("Concat", graph.Attrs{graph.IntAttr("axis", 0)}, of(x, 0, 2), of(ref, 2, 4))
		out(b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest")}, x.v, nil, nil, sizes), x.c, ref.s)
	case "add":
		out(b.node("Add", nil, x.v, b.partner(x, true).v), x.c, x.s)
	case "mul":
		op := rapid.SampledFrom([]string{"Mul", "Sub", "Max", "Min"}).Draw(b.t, "op")
		out(b.node("Tanh", nil, b.node(op, nil, x.v, b.partner(x, true).v)), x.c, x.s)
	case "concat":
		y := b.partner(x, false)
		if x.c+y.c <= 16 {
			out(b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, x.v, y.v), x.c+y.c, x.s)
		}
	case "se":
		p := &sized{b.node("GlobalAveragePool", nil, x.v), x.c, 1}
		p = b.conv(p, b.int(1, 3, "squeeze"), 1, 1)
		p = b.conv(&sized{b.node("Relu", nil, p.v), p.c, 1}, x.c, 1, 1)
		out(b.node("Mul", nil, x.v, b.node("Sigmoid", nil, p.v)), x.c, x.s)
	case "sebcast": // one channel broadcast over many
		p := b.conv(x, 1, 1, 1)
		out(b.node("Mul", nil, x.v, b.node("Sigmoid", nil, p.v)), x.c, x.s)
	case "split":
		if x.c >= 2 {
			k := b.int(1, x.c-1, "at")
			in := []*graph.Value{x.v, b.constant(i64(int64(k), int64(x.c-k)))}
			if x.c%2 == 0 && b.int(0, 1, "equal") == 1 {
				k, in = x.c/2, in[:1]
			}
			ys := b.nodes(2, "Split", graph.Attrs{graph.IntAttr("axis", 1)}, in...)
			out(ys[0], k, x.s)
			out(ys[1], x.c-k, x.s)
		}
	case "slice":
		if x.c >= 2 {
			from := b.int(0, x.c-1, "from")
			end := rapid.SampledFrom([]int64{int64(x.c), math.MaxInt64}).Draw(b.t, "end")
			out(b.node("Slice", nil, x.v, b.constant(i64(int64(from))), b.constant(i64(end)), b.constant(i64(1))), x.c-from, x.s)
		}
	case "pad":
		p := b.node("Pad", nil, x.v, b.constant(i64(0, 0, 1, 1, 0, 0, 1, 1)), b.constant(tensor.Scalar[float32](0.3)))
		out(b.node("MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 3, 3)}, p), x.c, x.s)
	case "scale":
		op := rapid.SampledFrom([]string{"Mul", "Add", "Div"}).Draw(b.t, "op")
		out(b.node(op, nil, x.v, b.weights(1, 0.5, x.c, 1, 1)), x.c, x.s)
	case "dense": // squeeze-excitation by matrices
		f := b.node("Flatten", nil, b.node("GlobalAveragePool", nil, x.v))
		h := b.node("Gemm", graph.Attrs{graph.IntAttr("transB", 1)}, f, b.weights(0, 1, 3, x.c), b.weights(0, 1, 3))
		h = b.node("MatMul", nil, b.node("Relu", nil, h), b.weights(0, 1, 3, x.c))
		h = b.node("Unsqueeze", nil, b.node("Sigmoid", nil, h), b.constant(i64(2, 3)))
		out(b.node("Mul", nil, x.v, h), x.c, x.s)
	case "shuffle":
		if k := b.divisor(x.c); k > 1 {
			r := b.node("Reshape", nil, x.v, b.constant(i64(1, int64(k), int64(x.c/k), int64(x.s), int64(x.s))))
			r = b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 1, 3, 4)}, r)
			out(b.node("Reshape", nil, r, b.constant(i64(1, int64(x.c), int64(x.s), int64(x.s)))), x.c, x.s)
		}
	case "computed": // a shuffle whose sizes are computed, as exporters write what had dynamic axes
		if k := b.divisor(x.c); k > 1 {
			size := func(i int64) *graph.Value {
				return b.node("Gather", nil, b.node("Shape", nil, x.v), b.constant(i64(i)))
			}
			join := func(v ...*graph.Value) *graph.Value {
				return b.node("Concat", graph.Attrs{graph.IntAttr("axis", 0)}, v...)
			}
			per := b.node("Div", nil, size(1), b.constant(i64(int64(k))))
			r := b.node("Reshape", nil, x.v, join(size(0), b.constant(i64(int64(k))), per, size(2), size(3)))
			r = b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 1, 3, 4)}, r)
			out(b.node("Reshape", nil, r, join(size(0), b.node("Mul", nil, per, b.constant(i64(int64(k)))), size(2), size(3))), x.c, x.s)
		}
	case "grouped":
		if k := b.divisor(x.c); k > 1 {
			b.live = append(b.live, b.conv(x, k*b.int(1, 3, "m"), 3, k))
		}
	case "groupedup":
		if k := b.divisor(x.c); k > 1 && x.s <= 8 {
			m := b.int(1, 3, "m")
			attrs := graph.Attrs{graph.IntsAttr("strides", 2, 2), graph.IntsAttr("kernel_shape", 2, 2), graph.IntAttr("group", k)}
			out(b.node("ConvTranspose", attrs, x.v, b.weights(0, 1, x.c, m, 2, 2), b.weights(0, 1, k*m)), k*m, 2*x.s)
		}
	case "gather":
		idx := make([]int64, b.int(1, x.c, "picked"))
		for i := range idx {
			idx[i] = int64(b.int(-x.c, x.c-1, "channel"))
		}
		out(b.node("Gather", graph.Attrs{graph.IntAttr("axis", 1)}, x.v, b.constant(i64(idx...))), len(idx), x.s)
	case "d2s":
		if x.c%4 == 0 && x.s <= 8 {
			mode := rapid.SampledFrom([]string{"DCR", "CRD"}).Draw(b.t, "mode")
			out(b.node("DepthToSpace", graph.Attrs{graph.IntAttr("blocksize", 2), graph.StrAttr("mode", mode)}, x.v), x.c/4, 2*x.s)
		}
	case "s2d":
		if x.s >= 4 && x.c <= 4 {
			out(b.node("SpaceToDepth", graph.Attrs{graph.IntAttr("blocksize", 2)}, x.v), 4*x.c, x.s/2)
		}
	case "tile":
		if x.c <= 8 {
			out(b.node("Tile", nil, x.v, b.constant(i64(1, 2, 1, 1))), 2*x.c, x.s)
		}
	case "expand":
		p := b.node("GlobalAveragePool", nil, x.v)
		to := rapid.SampledFrom([]int64{1, int64(x.c)}).Draw(b.t, "to")
		out(b.node("Expand", nil, p, b.constant(i64(1, to, int64(x.s), int64(x.s)))), x.c, x.s)
	case "groupnorm": // taken apart, as exporters write it
		k := b.divisor(x.c)
		r := b.node("Reshape", nil, x.v, b.constant(i64(0, int64(k), -1)))
		r = b.node("InstanceNormalization", nil, r, b.weights(1, 0, k), b.weights(0, 0, k))
		r = b.node("Reshape", nil, r, b.node("Shape", nil, x.v))
		r = b.node("Mul", nil, r, b.weights(1, 0.5, x.c, 1, 1))
		out(b.node("Add", nil, r, b.weights(0, 0.5, x.c, 1, 1)), x.c, x.s)
	case "instancenorm":
		out(b.node("InstanceNormalization", nil, x.v, b.weights(1, 0.5, x.c), b.weights(0, 0.5, x.c)), x.c, x.s)
	case "argmax":
		m := b.node("ArgMax", graph.Attrs{graph.IntAttr("axis", b.int(1, 3, "axis"))}, x.v)
		m = b.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, m)
		out(b.node("Mul", nil, x.v, m), x.c, x.s)
	case "softmax":
		out(b.node("Softmax", graph.Attrs{graph.IntAttr("axis", b.int(1, 3, "axis"))}, x.v), x.c, x.s)
	case "mean":
		m := b.node("ReduceMean", graph.Attrs{graph.IntsAttr("axes", 2, 3), graph.IntAttr("keepdims", 1)}, x.v)
		out(b.node("Sub", nil, x.v, m), x.c, x.s)
	case "shared": // one set of weights read by two layers
		y := b.partner(x, true)
		w := b.weights(0, 2/math.Sqrt(float64(x.c*9)), 3, x.c, 3, 3)
		for _, in := range []*sized{x, y} {
			out(b.node("Conv", graph.Attrs{graph.IntsAttr("pads", 1, 1, 1, 1)}, in.v, w), 3, x.s)
		}
	case "reshape":
		r := b.node("Reshape", nil, x.v, b.constant(i64(0, int64(x.c), -1)))
		out(b.node("Reshape", nil, r, b.constant(i64(1, int64(x.c), int64(x.s), int64(x.s)))), x.c, x.s)
	case "transpose": // channels last and back, with a matrix in between
		p := b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 3, 1)}, x.v)
		p = b.node("Add", nil, b.node("MatMul", nil, p, b.weights(0, 1, x.c, 4)), b.weights(0, 1, 4))
		out(b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 3, 1, 2)}, p), 4, x.s)
	}
}

// finish ends the graph in one or two heads.
func (b *builder) finish() *graph.Graph {
	last := b.live[len(b.live)-1]
	h := b.conv(last, 1, 1, 1)
	h.v.Name = "logits"
	b.g.Outputs = []*graph.Value{h.v}
	if b.int(0, 3, "outputs") == 0 {
		if o := b.pick(); o.v.Def != nil && o.v != h.v {
			b.g.Outputs = append(b.g.Outputs, o.v)
		}
	}
	return b.g
}
