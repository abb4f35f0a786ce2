package rewritetest

import (
	"math"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// steps is what a graph grows by: things that segmentation networks are made of, and every operator of the table in
// package group in a form that channels pass where it has one. A step does nothing where x is not fit for it.
var steps = map[string]func(*builder, *sized){
	"conv": func(b *builder, x *sized) {
		b.live = append(b.live, b.conv(x, b.int(1, 6, "m"), one(b, 1, 3), 1))
	},
	"depthwise": func(b *builder, x *sized) {
		b.live = append(b.live, b.conv(x, x.c, 3, x.c))
	},
	"multiplier": func(b *builder, x *sized) {
		b.live = append(b.live, b.conv(x, 2*x.c, 3, x.c))
	},
	"up": func(b *builder, x *sized) {
		m := b.int(1, 5, "m")
		if x.s <= 8 {
			y := b.node("ConvTranspose", graph.Attrs{graph.IntsAttr("strides", 2, 2), graph.IntsAttr("kernel_shape", 2, 2)}, x.v, b.weights(0, 1, x.c, m, 2, 2), b.weights(0, 1, m))
			b.out(y, m, 2*x.s)
		}
	},
	"bn": func(b *builder, x *sized) {
		b.out(b.node("BatchNormalization", nil, x.v, b.weights(1, 0.5, x.c), b.weights(0, 0.5, x.c), b.weights(0, 0.5, x.c), b.weights(1, 0.5, x.c)), x.c, x.s)
	},
	"act": func(b *builder, x *sized) {
		op := one(b, "Relu", "Sigmoid", "LeakyRelu", "HardSwish", "Tanh", "HardSigmoid", "Identity", "Dropout")
		b.out(b.node(op, nil, x.v), x.c, x.s)
	},
	"prelu": func(b *builder, x *sized) {
		b.out(b.node("PRelu", nil, x.v, b.weights(0.2, 0.1, x.c, 1, 1)), x.c, x.s)
	},
	"clip": func(b *builder, x *sized) {
		b.out(b.node("Clip", nil, x.v, b.constant(tensor.Scalar[float32](-0.5)), b.constant(tensor.Scalar[float32](2))), x.c, x.s)
	},
	"pool": func(b *builder, x *sized) {
		if x.s >= 4 {
			op := one(b, "MaxPool", "AveragePool")
			b.out(b.node(op, graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)}, x.v), x.c, x.s/2)
		}
	},
	"resize": func(b *builder, x *sized) {
		if x.s <= 8 {
			b.out(b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest")}, x.v, nil, b.constant(tensor.From([]float32{1, 1, 2, 2}, 4))), x.c, 2*x.s)
		}
	},
	"literal": func(b *builder, x *sized) {
		b.out(b.node("Resize", graph.Attrs{graph.StrAttr("mode", "linear")}, x.v, nil, nil, b.constant(i64(1, int64(x.c), 8, 8))), x.c, 8)
	},
	"sizes": func(b *builder, x *sized) { // as exporters write it: the first two sizes from Shape, the others from another tensor's
		ref := b.pick()
		of := func(v *sized, from, to int64) *graph.Value {
			return b.node("Slice", nil, b.node("Shape", nil, v.v), b.constant(i64(from)), b.constant(i64(to)), b.constant(i64(0)))
		}
		sizes := b.node("Concat", graph.Attrs{graph.IntAttr("axis", 0)}, of(x, 0, 2), of(ref, 2, 4))
		b.out(b.node("Resize", graph.Attrs{graph.StrAttr("mode", "nearest")}, x.v, nil, nil, sizes), x.c, ref.s)
	},
	"add": func(b *builder, x *sized) {
		b.out(b.node("Add", nil, x.v, b.partner(x, true).v), x.c, x.s)
	},
	"mul": func(b *builder, x *sized) {
		op := one(b, "Mul", "Sub", "Max", "Min")
		b.out(b.node("Tanh", nil, b.node(op, nil, x.v, b.partner(x, true).v)), x.c, x.s)
	},
	"concat": func(b *builder, x *sized) {
		y := b.partner(x, false)
		if x.c+y.c <= 16 {
			b.out(b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, x.v, y.v), x.c+y.c, x.s)
		}
	},
	"se": func(b *builder, x *sized) {
		p := &sized{b.node("GlobalAveragePool", nil, x.v), x.c, 1}
		p = b.conv(p, b.int(1, 3, "squeeze"), 1, 1)
		p = b.conv(&sized{b.node("Relu", nil, p.v), p.c, 1}, x.c, 1, 1)
		b.out(b.node("Mul", nil, x.v, b.node("Sigmoid", nil, p.v)), x.c, x.s)
	},
	"sebcast": func(b *builder, x *sized) { // one channel broadcast over many
		p := b.conv(x, 1, 1, 1)
		b.out(b.node("Mul", nil, x.v, b.node("Sigmoid", nil, p.v)), x.c, x.s)
	},
	"split": func(b *builder, x *sized) {
		if x.c >= 2 {
			k := b.int(1, x.c-1, "at")
			in := []*graph.Value{x.v, b.constant(i64(int64(k), int64(x.c-k)))}
			attrs := graph.Attrs{graph.IntAttr("axis", 1)}
			if x.c%2 == 0 && b.int(0, 1, "equal") == 1 {
				k, in = x.c/2, in[:1]
				if b.g.Opset("") >= 18 {
					attrs = attrs.Set(graph.IntAttr("num_outputs", 2))
				}
			}
			ys := b.nodes(2, "Split", attrs, in...)
			b.out(ys[0], k, x.s)
			b.out(ys[1], x.c-k, x.s)
		}
	},
	"slice": func(b *builder, x *sized) {
		if x.c >= 2 {
			from := b.int(0, x.c-1, "from")
			end := one[int64](b, int64(x.c), math.MaxInt64)
			b.out(b.node("Slice", nil, x.v, b.constant(i64(int64(from))), b.constant(i64(end)), b.constant(i64(1))), x.c-from, x.s)
		}
	},
	"pad": func(b *builder, x *sized) {
		p := b.node("Pad", nil, x.v, b.constant(i64(0, 0, 1, 1, 0, 0, 1, 1)), b.constant(tensor.Scalar[float32](0.3)))
		b.out(b.node("MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 3, 3)}, p), x.c, x.s)
	},
	"scale": func(b *builder, x *sized) {
		op := one(b, "Mul", "Add", "Div")
		b.out(b.node(op, nil, x.v, b.weights(1, 0.5, x.c, 1, 1)), x.c, x.s)
	},
	"dense": func(b *builder, x *sized) { // squeeze-excitation by matrices
		p, each := b.node("GlobalAveragePool", nil, x.v), 1
		if x.s%2 == 0 && one(b, false, true) { // every channel comes as four
			half := graph.Attrs{graph.IntsAttr("kernel_shape", x.s/2, x.s/2), graph.IntsAttr("strides", x.s/2, x.s/2)}
			p, each = b.node("AveragePool", half, x.v), 4
		}
		f := b.node("Flatten", nil, p)
		h := b.node("Gemm", graph.Attrs{graph.IntAttr("transB", 1)}, f, b.weights(0, 1, 3, each*x.c), b.weights(0, 1, 3))
		h = b.node("MatMul", nil, b.node("Relu", nil, h), b.weights(0, 1, 3, x.c))
		h = b.node("Unsqueeze", nil, b.node("Sigmoid", nil, h), b.constant(i64(2, 3)))
		b.out(b.node("Mul", nil, x.v, h), x.c, x.s)
	},
	"shuffle": func(b *builder, x *sized) {
		if k := b.divisor(x.c); k > 1 {
			r := b.node("Reshape", nil, x.v, b.constant(i64(1, int64(k), int64(x.c/k), int64(x.s), int64(x.s))))
			r = b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 1, 3, 4)}, r)
			b.out(b.node("Reshape", nil, r, b.constant(i64(1, int64(x.c), int64(x.s), int64(x.s)))), x.c, x.s)
		}
	},
	"computed": func(b *builder, x *sized) { // a shuffle whose sizes are computed, as exporters write what had dynamic axes
		if k := b.divisor(x.c); k > 1 {
			size := func(i int64) *graph.Value { return b.size(x, i) }
			join := func(v ...*graph.Value) *graph.Value {
				return b.node("Concat", graph.Attrs{graph.IntAttr("axis", 0)}, v...)
			}
			per := b.node("Div", nil, size(1), b.constant(i64(int64(k))))
			r := b.node("Reshape", nil, x.v, join(size(0), b.constant(i64(int64(k))), per, size(2), size(3)))
			r = b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 1, 3, 4)}, r)
			b.out(b.node("Reshape", nil, r, join(size(0), b.node("Mul", nil, per, b.constant(i64(int64(k)))), size(2), size(3))), x.c, x.s)
		}
	},
	"grouped": func(b *builder, x *sized) {
		if k := b.divisor(x.c); k > 1 {
			b.live = append(b.live, b.conv(x, k*b.int(1, 3, "m"), 3, k))
		}
	},
	"groupedup": func(b *builder, x *sized) {
		if k := b.divisor(x.c); k > 1 && x.s <= 8 {
			m := b.int(1, 3, "m")
			attrs := graph.Attrs{graph.IntsAttr("strides", 2, 2), graph.IntsAttr("kernel_shape", 2, 2), graph.IntAttr("group", k)}
			b.out(b.node("ConvTranspose", attrs, x.v, b.weights(0, 1, x.c, m, 2, 2), b.weights(0, 1, k*m)), k*m, 2*x.s)
		}
	},
	"depthwiseup": func(b *builder, x *sized) {
		if x.s <= 8 {
			attrs := graph.Attrs{graph.IntsAttr("strides", 2, 2), graph.IntsAttr("kernel_shape", 2, 2), graph.IntAttr("group", x.c)}
			b.out(b.node("ConvTranspose", attrs, x.v, b.weights(0, 1, x.c, 1, 2, 2), b.weights(0, 1, x.c)), x.c, 2*x.s)
		}
	},
	"chunk": func(b *builder, x *sized) { // as torch exports x.chunk(2, 1): the bounds are computed from the channel count
		if x.c < 2 {
			return
		}
		one, two := b.constant(i64(1)), b.constant(i64(2))
		mid := b.node("Div", nil, b.node("Add", nil, b.size(x, 1), one), two)
		end := b.node("Mul", nil, mid, one)
		b.out(b.node("Slice", nil, x.v, b.constant(i64(0)), end, one), (x.c+1)/2, x.s)
		b.out(b.node("Slice", nil, x.v, end, b.node("Mul", nil, mid, two), one), x.c/2, x.s)
	},
	"crop": func(b *builder, x *sized) { // as many channels as another has
		if y := b.partner(x, false); y.c >= x.c {
			b.out(b.node("Slice", nil, y.v, b.constant(i64(0)), b.size(x, 1), b.constant(i64(1))), x.c, x.s)
		}
	},
	"squeeze": func(b *builder, x *sized) {
		p := b.node("Squeeze", nil, b.node("GlobalAveragePool", nil, x.v), b.constant(i64(2, 3)))
		b.out(b.node("Mul", nil, x.v, b.node("Unsqueeze", nil, p, b.constant(i64(2, 3)))), x.c, x.s)
	},
	"stack": func(b *builder, x *sized) { // one above the other, and neighbours in a column averaged
		y := b.node("Concat", graph.Attrs{graph.IntAttr("axis", 2)}, x.v, b.partner(x, true).v)
		b.out(b.node("AveragePool", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 1), graph.IntsAttr("strides", 2, 1)}, y), x.c, x.s)
	},
	"where": func(b *builder, x *sized) { // the larger of the two
		y := b.partner(x, true)
		b.out(b.node("Where", nil, b.node("Greater", nil, x.v, y.v), x.v, y.v), x.c, x.s)
	},
	"sum": func(b *builder, x *sized) {
		b.out(b.node("Tanh", nil, b.node("Sum", nil, x.v, b.partner(x, true).v, b.partner(x, true).v)), x.c, x.s)
	},
	"gather": func(b *builder, x *sized) {
		idx := make([]int64, b.int(1, x.c, "picked"))
		for i := range idx {
			idx[i] = int64(b.int(-x.c, x.c-1, "channel"))
		}
		b.out(b.node("Gather", graph.Attrs{graph.IntAttr("axis", 1)}, x.v, b.constant(i64(idx...))), len(idx), x.s)
	},
	"d2s": func(b *builder, x *sized) {
		if x.c%4 == 0 && x.s <= 8 {
			mode := one(b, "DCR", "CRD")
			b.out(b.node("DepthToSpace", graph.Attrs{graph.IntAttr("blocksize", 2), graph.StrAttr("mode", mode)}, x.v), x.c/4, 2*x.s)
		}
	},
	"s2d": func(b *builder, x *sized) {
		if x.s >= 4 && x.c <= 4 {
			b.out(b.node("SpaceToDepth", graph.Attrs{graph.IntAttr("blocksize", 2)}, x.v), 4*x.c, x.s/2)
		}
	},
	"tile": func(b *builder, x *sized) {
		if x.c <= 8 {
			b.out(b.node("Tile", nil, x.v, b.constant(i64(1, 2, 1, 1))), 2*x.c, x.s)
		}
	},
	"expand": func(b *builder, x *sized) {
		p := b.node("GlobalAveragePool", nil, x.v)
		to := one[int64](b, 1, int64(x.c))
		b.out(b.node("Expand", nil, p, b.constant(i64(1, to, int64(x.s), int64(x.s)))), x.c, x.s)
	},
	"groupnorm": func(b *builder, x *sized) { // taken apart, as exporters write it
		k := b.divisor(x.c)
		r := b.node("Reshape", nil, x.v, b.constant(i64(0, int64(k), -1)))
		r = b.node("InstanceNormalization", nil, r, b.weights(1, 0, k), b.weights(0, 0, k))
		r = b.node("Reshape", nil, r, b.node("Shape", nil, x.v))
		r = b.node("Mul", nil, r, b.weights(1, 0.5, x.c, 1, 1))
		b.out(b.node("Add", nil, r, b.weights(0, 0.5, x.c, 1, 1)), x.c, x.s)
	},
	"groupnorm21": func(b *builder, x *sized) {
		if b.g.Opset("") >= 21 {
			attrs := graph.Attrs{graph.IntAttr("num_groups", b.divisor(x.c))}
			b.out(b.node("GroupNormalization", attrs, x.v, b.weights(1, 0.5, x.c), b.weights(0, 0.5, x.c)), x.c, x.s)
		}
	},
	"layernorm": func(b *builder, x *sized) { // over channels that come last, or over space
		if b.int(0, 1, "space") == 1 {
			attrs := graph.Attrs{graph.IntAttr("axis", -2)}
			b.out(b.node("LayerNormalization", attrs, x.v, b.weights(1, 0.5, x.s, x.s), b.weights(0, 0.5, x.s, x.s)), x.c, x.s)
			return
		}
		y := b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 3, 1)}, x.v)
		y = b.node("LayerNormalization", nil, y, b.weights(1, 0.5, x.c), b.weights(0, 0.5, x.c))
		b.out(b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 3, 1, 2)}, y), x.c, x.s)
	},
	"quantize": func(b *builder, x *sized) { // activations: by one scale for all, or by one for each channel
		by := []*graph.Value{b.constant(tensor.Scalar[float32](0.05)), b.constant(tensor.Scalar[uint8](120))}
		if b.int(0, 1, "each") == 1 {
			by = []*graph.Value{b.weights(0.05, 0.03, x.c), b.bytes(100, 140, x.c)}
		}
		y := b.node("QuantizeLinear", nil, append([]*graph.Value{x.v}, by...)...)
		b.out(b.node("DequantizeLinear", nil, append([]*graph.Value{y}, by...)...), x.c, x.s)
	},
	"qweights": func(b *builder, x *sized) { // weights, by a scale for each channel that they yield
		m := b.int(1, 6, "m")
		by := graph.Attrs{graph.IntAttr("axis", 0)}
		w := b.node("DequantizeLinear", by, b.bytes(0, 255, m, x.c, 3, 3), b.weights(0.01, 0.005, m), b.bytes(120, 136, m))
		b.out(b.node("Conv", graph.Attrs{graph.IntsAttr("pads", 1, 1, 1, 1)}, x.v, w, b.weights(0, 0.5, m)), m, x.s)
	},
	"instancenorm": func(b *builder, x *sized) {
		b.out(b.node("InstanceNormalization", nil, x.v, b.weights(1, 0.5, x.c), b.weights(0, 0.5, x.c)), x.c, x.s)
	},
	"argmax": func(b *builder, x *sized) {
		m := b.node("ArgMax", graph.Attrs{graph.IntAttr("axis", b.int(1, 3, "axis"))}, x.v)
		m = b.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, m)
		b.out(b.node("Mul", nil, x.v, m), x.c, x.s)
	},
	"softmax": func(b *builder, x *sized) {
		b.out(b.node("Softmax", graph.Attrs{graph.IntAttr("axis", b.int(1, 3, "axis"))}, x.v), x.c, x.s)
	},
	"mean": func(b *builder, x *sized) {
		b.out(b.node("Sub", nil, x.v, b.reduce("ReduceMean", x.v, 2, 3)), x.c, x.s)
	},
	"reduce": func(b *builder, x *sized) {
		op := one(b, "ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")
		m := b.reduce(op, x.v, int64(b.int(1, 3, "axis")))
		b.out(b.node("Mul", nil, x.v, b.node("Tanh", nil, m)), x.c, x.s)
	},
	"shared": func(b *builder, x *sized) { // one set of weights read by two layers
		y := b.partner(x, true)
		w := b.weights(0, 2/math.Sqrt(float64(x.c*9)), 3, x.c, 3, 3)
		for _, in := range []*sized{x, y} {
			b.out(b.node("Conv", graph.Attrs{graph.IntsAttr("pads", 1, 1, 1, 1)}, in.v, w), 3, x.s)
		}
	},
	"reshape": func(b *builder, x *sized) {
		r := b.node("Reshape", nil, x.v, b.constant(i64(0, int64(x.c), -1)))
		b.out(b.node("Reshape", nil, r, b.constant(i64(1, int64(x.c), int64(x.s), int64(x.s)))), x.c, x.s)
	},
	"transpose": func(b *builder, x *sized) { // channels last and back, with a matrix in between
		p := b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 3, 1)}, x.v)
		p = b.node("Add", nil, b.node("MatMul", nil, p, b.weights(0, 1, x.c, 4)), b.weights(0, 1, 4))
		b.out(b.node("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 3, 1, 2)}, p), 4, x.s)

	},
}
