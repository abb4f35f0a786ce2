package engine_test

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// seedGraphs is a tiny graph for each operator family, and some of awkward form.
func seedGraphs() []*graph.Graph {
	var gs []*graph.Graph
	add := func(f func(b *builder, x *graph.Value) []*graph.Value) {
		b, x := newBuilder(uint64(len(gs)), 1, 4, 6, 6)
		gs = append(gs, b.done(f(b, x)...))
	}
	i64 := func(b *builder, v ...int64) *graph.Value { return b.constant(tensor.From(v, len(v))) }
	f32 := func(b *builder, v ...float32) *graph.Value { return b.constant(tensor.From(v, len(v))) }
	ints, num, str, flt := graph.IntsAttr, graph.IntAttr, graph.StrAttr, graph.FloatAttr
	one := func(v *graph.Value) []*graph.Value { return []*graph.Value{v} }
	// two outputs of one node
	two := func(b *builder, v *graph.Value) []*graph.Value {
		b.n++
		w := &graph.Value{Name: v.Name + "_2", Def: v.Def}
		v.Def.Outputs = append(v.Def.Outputs, w)
		return []*graph.Value{v, w}
	}
	window := graph.Attrs{ints("kernel_shape", 3, 2), ints("strides", 2, 1), ints("dilations", 1, 2), ints("pads", 1, 0, 1, 1), num("ceil_mode", 1), num("count_include_pad", 1)}

	add(func(b *builder, x *graph.Value) []*graph.Value {
		y := b.node("Conv", graph.Attrs{num("group", 2), ints("strides", 2, 1), ints("dilations", 1, 2), ints("pads", 1, 2, 3, 1)}, x, b.weight(-1, 1, 6, 2, 3, 2), b.weight(-1, 1, 6))
		return one(b.node("Relu", nil, b.batchNorm(y, 6)))
	})
	add(func(b *builder, x *graph.Value) []*graph.Value {
		y := b.node("Conv", graph.Attrs{num("group", 4), str("auto_pad", "SAME_LOWER")}, x, b.weight(-1, 1, 4, 1, 3, 3))
		return one(b.node("Clip", nil, y, b.constant(tensor.Scalar[float32](0)), b.constant(tensor.Scalar[float32](6))))
	})
	add(func(b *builder, x *graph.Value) []*graph.Value {
		y := b.node("ConvTranspose", graph.Attrs{num("group", 2), ints("strides", 2, 3), ints("output_padding", 1, 0), ints("pads", 0, 1, 1, 0)}, x, b.weight(-1, 1, 4, 3, 2, 2))
		return one(b.batchNorm(y, 6))
	})
	add(func(b *builder, x *graph.Value) []*graph.Value { // weights that the graph computes
		w := b.node("Slice", nil, x, i64(b, 0, 0), i64(b, 3, 3), i64(b, 2, 3))
		return one(b.node("Conv", nil, x, w))
	})
	for _, pool := range []string{"MaxPool", "AveragePool"} {
		add(func(b *builder, x *graph.Value) []*graph.Value { return one(b.node(pool, window, x)) })
	}
	add(func(b *builder, x *graph.Value) []*graph.Value {
		return two(b, b.node("MaxPool", graph.Attrs{ints("kernel_shape", 2, 2), ints("strides", 2, 2), num("storage_order", 1)}, x))
	})
	for _, name := range []string{"GlobalAveragePool", "GlobalMaxPool", "Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "LeakyRelu", "Softmax",
		"LogSoftmax", "Exp", "Sqrt", "Abs", "Neg", "Erf", "Elu", "Shape", "Flatten", "Identity", "Transpose", "Squeeze", "ReduceMean", "ReduceMax",
		"ReduceSum", "ArgMax", "Not", "Dropout", "Floor", "Size"} {
		add(func(b *builder, x *graph.Value) []*graph.Value {
			return one(b.node(name, nil, b.node("Add", nil, x, x)))
		})
	}
	for _, name := range []string{"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu", "Equal", "Less", "MatMul", "Where"} {
		add(func(b *builder, x *graph.Value) []*graph.Value {
			return []*graph.Value{b.node(name, nil, x, x), b.node(name, nil, x, b.weight(0, 1, 4, 1, 6))}
		})
	}
	for _, mode := range []string{"nearest", "linear", "cubic"} {
		for _, coords := range []string{"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "tf_crop_and_resize"} {
			add(func(b *builder, x *graph.Value) []*graph.Value {
				roi := f32(b, 0, 0, .1, .2, 1, 1, .9, 1.2)
				a := graph.Attrs{str("mode", mode), str("coordinate_transformation_mode", coords), flt("cubic_coeff_a", -.5), num("exclude_outside", 1), num("antialias", 0)}
				return []*graph.Value{b.node("Resize", a, x, roi, f32(b, 1, 1, 1.5, .7)), b.node("Resize", a, x, roi, nil, i64(b, 1, 4, 3, 9))}
			})
		}
	}
	add(func(b *builder, x *graph.Value) []*graph.Value {
		y := b.node("Concat", graph.Attrs{num("axis", 1)}, x, x, b.node("Relu", nil, x))
		return two(b, b.node("Split", graph.Attrs{num("axis", 1)}, y, i64(b, 5, 7)))
	})
	for _, mode := range []string{"constant", "reflect", "edge", "wrap"} {
		add(func(b *builder, x *graph.Value) []*graph.Value {
			return one(b.node("Pad", graph.Attrs{str("mode", mode)}, x, i64(b, 0, 1, 2, -1, 0, 0, -2, 3), b.constant(tensor.Scalar[float32](2))))
		})
	}
	add(func(b *builder, x *graph.Value) []*graph.Value { // exporters' shape arithmetic
		s := b.node("Shape", nil, x)
		h := b.node("Gather", graph.Attrs{num("axis", 0)}, s, i64(b, 2))
		c := b.node("Concat", graph.Attrs{num("axis", 0)}, i64(b, 1, -1), h, h)
		return []*graph.Value{b.node("Reshape", nil, x, c), b.node("Expand", nil, b.node("ConstantOfShape", nil, s), s), b.node("Cast", graph.Attrs{num("to", 7)}, x)}
	})
	add(func(b *builder, x *graph.Value) []*graph.Value {
		y := b.node("Slice", nil, x, i64(b, -1, 5), i64(b, -9, 0), i64(b, 1, 3), i64(b, -1, -2))
		return []*graph.Value{y, b.node("Unsqueeze", nil, y, i64(b, 0, -1)), b.node("Tile", nil, x, i64(b, 1, 2, 1, 3)), b.node("Range", nil, b.constant(tensor.Scalar[int64](1)), b.constant(tensor.Scalar[int64](9)), b.constant(tensor.Scalar[int64](3)))}
	})
	add(func(b *builder, x *graph.Value) []*graph.Value {
		flat := b.node("Flatten", graph.Attrs{num("axis", 2)}, x)
		y := b.node("Gemm", graph.Attrs{num("transB", 1), num("transA", 1), flt("alpha", 2), flt("beta", .5)}, flat, b.weight(-1, 1, 5, 4), b.weight(-1, 1, 5))
		return []*graph.Value{y, b.node("MatMul", nil, y, b.weight(-1, 1, 5, 3))}
	})
	add(func(b *builder, x *graph.Value) []*graph.Value {
		return []*graph.Value{b.node("DepthToSpace", graph.Attrs{num("blocksize", 2), str("mode", "CRD")}, x), b.node("SpaceToDepth", graph.Attrs{num("blocksize", 3)}, x),
			b.node("InstanceNormalization", nil, x, b.weight(0, 1, 4), b.weight(0, 1, 4)),
			b.node("GatherElements", graph.Attrs{num("axis", 3)}, x, b.constant(tensor.From([]int64{0, 5, -1, 2}, 1, 4, 1, 1))),
			b.node("GatherND", nil, x, b.constant(tensor.From([]int64{0, 3, 0, -4}, 2, 2))),
			b.node("ScatterND", nil, x, b.constant(tensor.From([]int64{0, 3}, 1, 2)), b.weight(0, 1, 1, 6, 6))}
	})
	add(func(b *builder, x *graph.Value) []*graph.Value { // normalised by groups and by layers, all outputs
		b.g.Opsets[""] = 21
		y := b.node("GroupNormalization", graph.Attrs{num("num_groups", 2)}, x, b.weight(0, 1, 4), b.weight(0, 1, 4))
		return two(b, b.node("LayerNormalization", graph.Attrs{num("axis", 2)}, y, b.weight(0, 1, 6, 6)))
	})
	add(func(b *builder, x *graph.Value) []*graph.Value { // quantised: activations, weights and a bias
		b.g.Opsets[""] = 21
		scale, zero := f32(b, .1), b.constant(tensor.From([]uint8{100}, 1))
		y := b.node("DequantizeLinear", nil, b.node("QuantizeLinear", nil, x, scale, zero), scale, zero)
		w := b.node("DequantizeLinear", graph.Attrs{num("axis", 0)}, b.constant(tensor.From([]int8{9, -9, 3, 0, 127, -128, 1, 2}, 2, 4, 1, 1)), f32(b, .5, .2))
		bias := b.node("DequantizeLinear", nil, b.constant(tensor.From([]int32{500, -70}, 2)), b.constant(tensor.Scalar[float32](.01)))
		blocks := b.node("QuantizeLinear", graph.Attrs{num("axis", 2), num("block_size", 4), num("output_dtype", int(tensor.Int16))}, x, b.weight(.1, 1, 1, 4, 2, 6))
		return []*graph.Value{b.node("Conv", nil, y, w, bias), blocks}
	})
	// what passes look for
	add(func(b *builder, x *graph.Value) []*graph.Value {
		y := b.node("Pad", nil, b.node("Div", nil, b.node("Sub", nil, x, b.weight(0, 1, 4, 1, 1)), b.constant(tensor.Scalar[float32](2))), i64(b, 0, 0, 1, 0, 0, 0, 1, 2))
		y = b.batchNorm(b.node("Mul", nil, b.weight(1, 2, 1, 3, 1, 1), b.conv(y, 4, 3, 3)), 3)
		y = b.node("Min", nil, b.node("Relu", nil, b.node("Add", nil, y, f32(b, 1))), f32(b, 6))
		return one(b.node("MaxPool", graph.Attrs{ints("kernel_shape", 3, 3), ints("strides", 2, 2)}, b.node("Pad", nil, y, i64(b, 0, 0, 1, 1, 0, 0, 1, 1))))
	})
	add(func(b *builder, x *graph.Value) []*graph.Value {
		y := b.node("Transpose", graph.Attrs{ints("perm", 0, 2, 3, 1)}, b.node("Transpose", nil, x))
		y = b.node("Reshape", nil, b.node("Flatten", nil, b.node("Unsqueeze", nil, y, i64(b, 0))), i64(b, 4, -1))
		y = b.node("Gemm", graph.Attrs{flt("alpha", 2), num("transB", 1)}, b.node("Mul", nil, y, f32(b, 3)), b.weight(-1, 1, 5, 36), b.weight(-1, 1, 5))
		y = b.node("Add", nil, y, b.weight(-1, 1, 1, 5))
		return one(b.node("Slice", nil, b.node("Cast", graph.Attrs{num("to", 1)}, y), i64(b, 0), i64(b, 100), i64(b, 1)))
	})
	add(func(b *builder, x *graph.Value) []*graph.Value {
		hard := b.node("Clip", nil, b.node("Add", nil, x, f32(b, 3)), b.constant(tensor.Scalar[float32](0)), b.constant(tensor.Scalar[float32](6)))
		erf := b.node("Add", nil, b.node("Erf", nil, b.node("Div", nil, x, f32(b, 1.4142135))), f32(b, 1))
		return []*graph.Value{b.node("Div", nil, b.node("Mul", nil, x, hard), f32(b, 6)), b.node("Mul", nil, b.node("Mul", nil, x, erf), f32(b, .5)),
			b.node("Exp", nil, b.node("Neg", nil, x)), b.node("Exp", nil, b.node("Neg", nil, x))}
	})
	// outputs that are inputs, initializers, or twice the same
	add(func(b *builder, x *graph.Value) []*graph.Value {
		w := b.weight(0, 1, 3)
		y := b.node("Identity", nil, x)
		return []*graph.Value{x, w, y, y, b.node("Identity", nil, w), x}
	})
	return gs
}
