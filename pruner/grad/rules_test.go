package grad

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// site is one operator in one setting.
type testSite struct {
	name   string // operator, then what is special
	opset  int
	linear bool // affine, really
	lo, hi float64
	build  func(b *net) []*graph.Value
}

type as = graph.Attrs

var (
	i1  = graph.IntAttr
	is  = graph.IntsAttr
	fl  = graph.FloatAttr
	str = graph.StrAttr
)

func convSite(name string, w []int, in []int, at ...graph.Attr) testSite {
	return testSite{name: "Conv " + name, opset: 17, linear: true, build: func(b *net) []*graph.Value {
		return []*graph.Value{b.node("Conv", at, b.input(in...), b.weights(w...), b.weights(w[0]))}
	}}
}

func convTransposeSite(name string, w []int, in []int, at ...graph.Attr) testSite {
	return testSite{name: "ConvTranspose " + name, opset: 17, linear: true, build: func(b *net) []*graph.Value {
		return []*graph.Value{b.node("ConvTranspose", at, b.input(in...), b.weights(w...))}
	}}
}

// clampedSite is a convolution with bounds of its own, as a pass writes it.
func clampedSite(name string, w []int, at ...graph.Attr) testSite {
	return testSite{name: op.Private + "." + name, opset: 17, lo: -1, hi: 1, build: func(b *net) []*graph.Value {
		y := b.node(strings.Fields(name)[0], at, b.input(2, 3, 5, 4), b.weights(w...))
		y.Def.Domain = op.Private
		return []*graph.Value{y}
	}}
}

func unarySite(op, name string, opset int, lo, hi float64, at ...graph.Attr) testSite {
	return testSite{name: op + " " + name, opset: opset, lo: lo, hi: hi, build: func(b *net) []*graph.Value {
		return []*graph.Value{b.node(op, at, b.input(2, 3, 4, 5))}
	}}
}

func linearSite(name string, opset int, in []int, at as, more ...any) testSite {
	return testSite{name: name, opset: opset, linear: true, build: func(b *net) []*graph.Value {
		vs := []*graph.Value{b.input(in...)}
		for _, m := range more {
			switch m := m.(type) {
			case nil:
				vs = append(vs, nil)
			case *tensor.Tensor:
				vs = append(vs, b.constant(m))
			case []int64:
				vs = append(vs, b.ints(m...))
			case []float64:
				vs = append(vs, b.constant(tensor.From(m, len(m))))
			case float64:
				vs = append(vs, b.constant(tensor.Scalar(m)))
			}
		}
		op, _, _ := strings.Cut(name, " ")
		return []*graph.Value{b.node(op, at, vs...)}
	}}
}

func binarySites() (sites []testSite) {
	shapes := [][2][]int{
		{{2, 3, 4, 5}, {2, 3, 4, 5}}, {{2, 3, 4, 5}, {1, 3, 1, 1}}, {{2, 3, 1, 1}, {2, 3, 4, 5}}, {{3, 4, 1}, {2, 1, 4, 5}},
		{{2, 3, 4}, {}}, {{4, 5}, {5}}, {{1}, {2, 2}},
	}
	for _, o := range []string{"Add", "Sub", "Mul", "Div"} {
		for _, s := range shapes {
			sites = append(sites, testSite{
				name: fmt.Sprintf("%s %v %v", o, s[0], s[1]), opset: 14, lo: 0.5, hi: 2,
				build: func(b *net) []*graph.Value {
					return []*graph.Value{b.node(o, nil, b.input(s[0]...), b.input(s[1]...))}
				},
			})
		}
		sites = append(sites, testSite{name: o + " with itself", opset: 14, lo: 0.5, hi: 2, build: func(b *net) []*graph.Value {
			x := b.input(2, 3)
			return []*graph.Value{b.node(o, nil, x, x)}
		}})
	}
	return sites
}

func resizeSites() (sites []testSite) {
	crop := []float64{0, 0, 0.2, -0.1, 1, 1, 0.8, 1.3}
	for _, mode := range []string{"nearest", "linear"} {
		for _, ct := range []string{"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_crop_and_resize"} {
			for _, size := range [][]int64{{1, 2, 8, 10}, {1, 2, 3, 2}, {1, 2, 5, 7}, {1, 2, 1, 9}, {1, 2, 4, 5}} {
				at := as{str("mode", mode), str("coordinate_transformation_mode", ct), fl("extrapolation_value", 3)}
				var roi any
				if ct == "tf_crop_and_resize" {
					roi = crop
				}
				sites = append(sites, linearSite(fmt.Sprintf("Resize %s %s %v", mode, ct, size), 13, []int{1, 2, 4, 5}, at, roi, nil, size))
			}
		}
		for _, near := range []string{"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"} {
			at := as{str("mode", mode), str("nearest_mode", near)}
			sites = append(sites, linearSite(fmt.Sprintf("Resize %s %s scales", mode, near), 13, []int{1, 2, 4, 5}, at, nil, []float64{1, 1, 2, 1.5}))
		}
		sites = append(sites, linearSite("Upsample "+mode, 9, []int{1, 2, 3, 4}, as{str("mode", mode)}, []float64{1, 1, 2, 3}))
		sites = append(sites, linearSite("Resize at opset 10 "+mode, 10, []int{1, 2, 3, 4}, as{str("mode", mode)}, []float64{1, 1, 2, 0.5}))
	}
	return sites
}

func sites() []testSite {
	norm := func(b *net) []*graph.Value {
		return []*graph.Value{b.node("BatchNormalization", as{fl("epsilon", 0.01)}, b.input(2, 3, 4, 5),
			b.weights(3), b.weights(3), b.weights(3), b.constant(b.random(0.5, 2, 3)))}
	}
	prelu := func(slope ...int) testSite {
		return testSite{name: fmt.Sprintf("PRelu %v", slope), opset: 16, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("PRelu", nil, b.input(2, 3, 4, 5), b.weights(slope...))}
		}}
	}
	groupNorm := func(opset, k int) testSite {
		return testSite{name: fmt.Sprintf("GroupNormalization at opset %d", opset), opset: opset, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("GroupNormalization", as{fl("epsilon", 0.01), i1("num_groups", 3)}, b.input(2, 6, 4, 5), b.weights(k), b.weights(k))}
		}}
	}
	layerNorm := func(outputs, axis int) testSite {
		return testSite{name: fmt.Sprintf("LayerNormalization %d outputs, axis %d", outputs, axis), opset: 17, build: func(b *net) []*graph.Value {
			shape := []int{2, 3, 4, 5}
			of := shape[(axis+4)%4:]
			return b.nodes("LayerNormalization", outputs, as{fl("epsilon", 0.01), i1("axis", axis)}, b.input(shape...), b.weights(of...), b.weights(of...))
		}}
	}
	// The straight-through estimator is the mean of the derivative over whole steps of the scale: where these are as wide as
	// a central difference, or wide at all, the law is that of every rule.
	quantized := func(name string, opset int, scale, zero *tensor.Tensor, at ...graph.Attr) testSite {
		return testSite{name: name, opset: opset, build: func(b *net) []*graph.Value {
			s, z := b.constant(scale), (*graph.Value)(nil)
			if zero != nil {
				z = b.constant(zero)
			}
			q := b.node("QuantizeLinear", at, b.input(2, 3, 4, 5), s, z)
			return []*graph.Value{b.node("DequantizeLinear", at, q, s, z)}
		}}
	}
	gemm := func(ta, tb int, c ...int) testSite {
		return testSite{name: fmt.Sprintf("Gemm %d %d %v", ta, tb, c), opset: 13, build: func(b *net) []*graph.Value {
			sa, sb := []int{3, 4}, []int{4, 5}
			if ta == 1 {
				slices.Reverse(sa)
			}
			if tb == 1 {
				slices.Reverse(sb)
			}
			vs := []*graph.Value{b.input(sa...), b.input(sb...)}
			if c != nil {
				vs = append(vs, b.input(c...))
			}
			return []*graph.Value{b.node("Gemm", as{i1("transA", ta), i1("transB", tb), fl("alpha", 0.5), fl("beta", 2)}, vs...)}
		}}
	}
	matmul := func(x, y []int) testSite {
		return testSite{name: fmt.Sprintf("MatMul %v %v", x, y), opset: 13, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("MatMul", nil, b.input(x...), b.input(y...))}
		}}
	}
	several := func(op string) testSite {
		return testSite{name: op, opset: 13, build: func(b *net) []*graph.Value {
			x := b.input(2, 3, 4)
			return []*graph.Value{b.node(op, nil, x, b.input(3, 1), b.weights(2, 1, 4), x)}
		}}
	}
	all := []testSite{
		convSite("1x1", []int{4, 3, 1, 1}, []int{2, 3, 4, 5}),
		convSite("3x3 same", []int{4, 3, 3, 3}, []int{1, 3, 5, 6}, is("pads", 1, 1, 1, 1)),
		convSite("3x3 asymmetric pads", []int{2, 3, 3, 2}, []int{1, 3, 5, 6}, is("pads", 0, 1, 2, 0)),
		convSite("3x3 wide pads", []int{2, 3, 3, 3}, []int{1, 3, 5, 6}, is("pads", 3, 4, 3, 4)),
		convSite("stride 2", []int{4, 3, 3, 3}, []int{1, 3, 8, 7}, is("pads", 1, 1, 1, 1), is("strides", 2, 2)),
		convSite("stride 3 leaves a rest", []int{2, 2, 2, 2}, []int{1, 2, 8, 7}, is("strides", 3, 2)),
		convSite("dilated", []int{2, 3, 3, 3}, []int{1, 3, 7, 7}, is("dilations", 2, 1), is("pads", 2, 1, 2, 1)),
		convSite("groups", []int{6, 2, 3, 3}, []int{1, 4, 5, 5}, i1("group", 2), is("pads", 1, 1, 1, 1)),
		convSite("groups, stride 2", []int{6, 2, 3, 3}, []int{1, 4, 5, 5}, i1("group", 2), is("strides", 2, 2)),
		convSite("depthwise", []int{4, 1, 3, 3}, []int{1, 4, 5, 5}, i1("group", 4), is("pads", 1, 1, 1, 1)),
		convSite("depthwise, multiplier 2, stride 2", []int{6, 1, 3, 3}, []int{1, 3, 6, 5}, i1("group", 3), is("pads", 1, 1, 1, 1), is("strides", 2, 2)),
		convSite("SAME_UPPER", []int{2, 3, 2, 2}, []int{1, 3, 5, 6}, str("auto_pad", "SAME_UPPER")),
		convSite("SAME_LOWER stride 2", []int{2, 3, 3, 2}, []int{1, 3, 6, 6}, str("auto_pad", "SAME_LOWER"), is("strides", 2, 2)),
		convSite("one axis", []int{4, 3, 3}, []int{2, 3, 7}, is("pads", 1, 1)),
		convTransposeSite("2x2 stride 2", []int{3, 4, 2, 2}, []int{2, 3, 3, 4}, is("strides", 2, 2)),
		convTransposeSite("3x3 stride 2, output padding", []int{3, 2, 3, 3}, []int{1, 3, 3, 4}, is("strides", 2, 2), is("pads", 1, 1, 1, 1), is("output_padding", 1, 1)),
		convTransposeSite("stride 1", []int{3, 2, 3, 3}, []int{1, 3, 4, 4}, is("pads", 1, 1, 1, 1)),
		convTransposeSite("groups", []int{4, 3, 2, 2}, []int{1, 4, 3, 3}, i1("group", 2), is("strides", 2, 2)),
		convTransposeSite("depthwise", []int{4, 1, 4, 4}, []int{1, 4, 3, 3}, i1("group", 4), is("strides", 2, 2), is("pads", 1, 1, 1, 1)),
		convTransposeSite("dilated", []int{2, 2, 2, 2}, []int{1, 2, 3, 3}, is("dilations", 2, 2)),
		convTransposeSite("output_shape", []int{2, 2, 3, 3}, []int{1, 2, 3, 3}, is("strides", 2, 2), is("output_shape", 6, 6)),
		convTransposeSite("SAME_UPPER", []int{2, 2, 3, 3}, []int{1, 2, 3, 3}, is("strides", 2, 2), str("auto_pad", "SAME_UPPER")),
		{name: "BatchNormalization", opset: 15, linear: true, build: norm},
		unarySite("Softmax", "of channels", 13, -2, 2, i1("axis", 1)),
		unarySite("Softmax", "of the last axis", 13, -2, 2),
		unarySite("Softmax", "before 13", 11, -2, 2, i1("axis", 2)),
		unarySite("Relu", "", 14, -2, 2),
		unarySite("LeakyRelu", "", 16, -2, 2, fl("alpha", 0.2)),
		prelu(3, 1, 1), prelu(1), prelu(2, 3, 4, 5),
		unarySite("Clip", "by attributes", 6, -2, 2, fl("min", -0.5), fl("max", 1)),
		linearSite("Clip without bounds", 13, []int{2, 3}, nil),
		{name: "Clip by inputs", opset: 13, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("Clip", nil, b.input(3, 4), b.constant(tensor.Scalar(-0.5)), b.constant(tensor.Scalar(0.25)))}
		}},
		unarySite("Sigmoid", "", 13, -4, 4),
		unarySite("HardSigmoid", "", 6, -4, 4),
		unarySite("HardSigmoid", "as in MobileNetV3", 6, -4, 4, fl("alpha", 1./6)),
		unarySite("HardSwish", "", 14, -4, 4),
		unarySite("Tanh", "", 13, -2, 2),
		unarySite("Exp", "", 13, -2, 2), unarySite("Log", "", 13, 0.5, 2), unarySite("Sqrt", "", 13, 0.5, 2),
		unarySite("Reciprocal", "", 13, 0.5, 2), unarySite("Neg", "", 13, -2, 2), unarySite("Abs", "", 13, -2, 2),
		unarySite("Erf", "", 13, -2, 2), unarySite("Softplus", "", 1, -4, 4), unarySite("Softsign", "", 1, -4, 4),
		unarySite("Mish", "", 18, -4, 4), unarySite("Elu", "", 6, -2, 2, fl("alpha", 0.5)), unarySite("Selu", "", 6, -2, 2),
		unarySite("Celu", "", 12, -2, 2, fl("alpha", 0.5)), unarySite("Swish", "", 24, -2, 2, fl("alpha", 1.5)),
		unarySite("ThresholdedRelu", "", 10, -2, 2, fl("alpha", 0.5)),
		unarySite("Gelu", "", 20, -3, 3), unarySite("Gelu", "by tanh", 20, -3, 3, str("approximate", "tanh")),
		unarySite("LogSoftmax", "of channels", 13, -2, 2, i1("axis", 1)), unarySite("LogSoftmax", "before 13", 11, -2, 2),
		{name: "InstanceNormalization", opset: 6, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("InstanceNormalization", as{fl("epsilon", 0.01)}, b.input(2, 3, 4, 5), b.weights(3), b.weights(3))}
		}},
		{name: "MaxPool by quarters", opset: 12, lo: -1, hi: 1, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("MaxPool", as{is("kernel_shape", 2, 2), is("strides", 2, 2)}, b.input(2, 3, 6, 4))}
		}},
		linearSite("Resize nearest doubles", 13, []int{2, 3, 4, 5}, as{str("mode", "nearest"), str("coordinate_transformation_mode", "asymmetric"), str("nearest_mode", "floor")}, nil, []float64{1, 1, 2, 2}),
		clampedSite("Conv relu", []int{4, 3, 3, 3}, is("pads", 1, 1, 1, 1), fl("lo", 0)),
		clampedSite("Conv clip, stride 2", []int{4, 3, 3, 3}, is("strides", 2, 2), fl("lo", -1), fl("hi", 0.5)),
		clampedSite("ConvTranspose clip", []int{3, 4, 2, 2}, is("strides", 2, 2), fl("lo", 0), fl("hi", 0.5)),
		groupNorm(21, 6), groupNorm(18, 3), layerNorm(1, -1), layerNorm(1, 1), layerNorm(3, 2),
		{name: "LayerNormalization of which Y is not used", opset: 17, build: func(b *net) []*graph.Value {
			return b.nodes("LayerNormalization", 3, nil, b.input(3, 4), b.weights(4))[1:]
		}},
		quantized("QuantizeLinear by tensor", 13, tensor.Scalar(1e-5), tensor.Scalar(int16(200))),
		quantized("QuantizeLinear by axis", 21, tensor.From([]float64{1e-5, 5e-6, 2e-5}, 3), tensor.From([]int16{0, -7000, 9}, 3), i1("axis", 1)),
		quantized("QuantizeLinear to eight bits, most of it clipped", 10, tensor.Scalar(5e-6), nil),
		quantized("DequantizeLinear by the last axis", 21, tensor.From([]float64{1e-5, 5e-6, 2e-5, 1e-5, 4e-6}, 5), tensor.From([]uint16{0, 1, 40000, 3, 65535}, 5), i1("axis", -1)),
		unarySite("MaxPool", "2x2", 12, -1, 1, is("kernel_shape", 2, 2), is("strides", 2, 2)),
		unarySite("MaxPool", "3x3 overlapping, padded", 12, -1, 1, is("kernel_shape", 3, 3), is("pads", 1, 1, 1, 1)),
		unarySite("MaxPool", "ceil, dilated", 12, -1, 1, is("kernel_shape", 2, 2), is("strides", 2, 2), is("dilations", 2, 1), i1("ceil_mode", 1)),
		unarySite("MaxPool", "SAME_UPPER", 12, -1, 1, is("kernel_shape", 3, 2), is("strides", 2, 2), str("auto_pad", "SAME_UPPER")),
		linearSite("AveragePool 2x2", 11, []int{2, 3, 4, 6}, as{is("kernel_shape", 2, 2), is("strides", 2, 2)}),
		linearSite("AveragePool padded", 11, []int{1, 2, 5, 5}, as{is("kernel_shape", 3, 3), is("pads", 1, 1, 1, 1)}),
		linearSite("AveragePool counting pads", 11, []int{1, 2, 5, 5}, as{is("kernel_shape", 3, 3), is("pads", 1, 1, 0, 1), i1("count_include_pad", 1)}),
		linearSite("AveragePool ceil", 11, []int{1, 2, 6, 5}, as{is("kernel_shape", 3, 3), is("strides", 2, 2), i1("ceil_mode", 1)}),
		linearSite("AveragePool ceil counting pads", 11, []int{1, 2, 6, 5}, as{is("kernel_shape", 3, 3), is("strides", 2, 2), is("pads", 1, 1, 1, 1), i1("ceil_mode", 1), i1("count_include_pad", 1)}),
		linearSite("AveragePool SAME_LOWER", 11, []int{1, 2, 6, 5}, as{is("kernel_shape", 3, 2), is("strides", 2, 2), str("auto_pad", "SAME_LOWER")}),
		linearSite("GlobalAveragePool", 1, []int{2, 3, 4, 5}, nil),
		linearSite("ReduceMean of space", 13, []int{2, 3, 4, 5}, as{is("axes", 2, -1)}),
		linearSite("ReduceMean without keepdims", 13, []int{2, 3, 4, 5}, as{is("axes", 1), i1("keepdims", 0)}),
		linearSite("ReduceMean of all", 13, []int{2, 3, 4}, nil),
		linearSite("ReduceMean by input", 18, []int{2, 3, 4, 5}, nil, []int64{1, 3}),
		linearSite("ReduceMean of nothing", 18, []int{2, 3}, as{i1("noop_with_empty_axes", 1)}),
		unarySite("GlobalMaxPool", "", 1, -1, 1), unarySite("ReduceMax", "", 13, -1, 1, is("axes", 1)),
		unarySite("ReduceMin", "", 13, -1, 1, is("axes", 3), i1("keepdims", 0)), unarySite("ReduceL2", "", 13, -1, 1, is("axes", 1, 2)),
		unarySite("ReduceL1", "", 13, -1, 1, is("axes", 2)), unarySite("ReduceLogSum", "", 13, 0.5, 1, is("axes", 1)),
		unarySite("ReduceLogSumExp", "", 13, -1, 1, is("axes", 1)),
		unarySite("ReduceSumSquare", "", 13, -1, 1), linearSite("ReduceSum", 13, []int{2, 3, 4}, nil, []int64{-1}),
		gemm(0, 0), gemm(0, 1, 5), gemm(1, 0, 3, 1), gemm(1, 1, 3, 5),
		matmul([]int{3, 4}, []int{4, 5}), matmul([]int{2, 3, 4}, []int{4, 5}), matmul([]int{2, 1, 3, 4}, []int{3, 4, 2}),
		matmul([]int{4}, []int{4, 5}), matmul([]int{2, 3, 4}, []int{4}), matmul([]int{4}, []int{4}),
		{name: "Concat", opset: 13, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("Concat", as{i1("axis", 1)}, b.input(2, 3, 2), b.weights(2, 1, 2), b.input(2, 2, 2))}
		}},
		{name: "Concat of one value twice", opset: 13, build: func(b *net) []*graph.Value {
			x := b.input(2, 3, 2)
			return []*graph.Value{b.node("Concat", as{i1("axis", -2)}, x, x)}
		}},
		{name: "Split", opset: 13, build: func(b *net) []*graph.Value {
			return b.nodes("Split", 2, as{i1("axis", 1)}, b.input(2, 5, 3), b.ints(2, 3))
		}},
		{name: "Split of which one part is used", opset: 11, build: func(b *net) []*graph.Value {
			return b.nodes("Split", 3, as{i1("axis", 1), is("split", 1, 2, 2)}, b.input(2, 5, 3))[1:2]
		}},
		{name: "Add before opset 7", opset: 6, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("Add", as{i1("broadcast", 1), i1("axis", 1)}, b.input(2, 3, 3, 3), b.input(3))}
		}},
		several("Sum"), several("Mean"), several("Min"), several("Max"),
		{name: "Pow", opset: 13, lo: 0.5, hi: 2, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("Pow", nil, b.input(2, 3), b.constant(tensor.From([]float64{2, -0.5, 1}, 3)))}
		}},
		{name: "Where", opset: 16, build: func(b *net) []*graph.Value {
			c := b.constant(tensor.From([]bool{true, false, true}, 3, 1))
			return []*graph.Value{b.node("Where", nil, c, b.input(3, 4), b.input(2, 1, 4))}
		}},
		linearSite("Slice", 13, []int{3, 6, 5}, nil, []int64{1, -1}, []int64{6, -6}, []int64{1, 2}, []int64{2, -2}),
		linearSite("Slice before 10", 9, []int{3, 6, 5}, as{is("starts", 1), is("ends", 4), is("axes", 1)}),
		linearSite("Pad", 13, []int{2, 3, 4}, nil, []int64{0, 1, 2, 0, 0, 1}, 5.0),
		linearSite("Pad before 11", 10, []int{2, 3, 4}, as{is("pads", 0, 1, 2, 0, 0, 1), fl("value", 2)}),
		linearSite("Transpose", 13, []int{2, 3, 4}, as{is("perm", 2, 0, 1)}),
		linearSite("Transpose without perm", 13, []int{2, 3, 4}, nil),
		linearSite("Gather", 13, []int{2, 5, 3}, as{i1("axis", 1)}, []int64{4, 0, 0, -2}),
		linearSite("GatherND", 13, []int{2, 5, 3}, nil, tensor.From([]int64{1, 4, 0, 0, 1, 4}, 3, 2)),
		linearSite("GatherElements", 13, []int{2, 3}, as{i1("axis", 1)}, tensor.From([]int64{2, 0, -1, 1}, 2, 2)),
		{name: "ScatterND", opset: 16, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("ScatterND", nil, b.input(4, 3), b.constant(tensor.From([]int64{2, 0}, 2, 1)), b.input(2, 3))}
		}},
		linearSite("Expand", 13, []int{3, 1}, nil, []int64{2, 1, 4}),
		linearSite("Tile", 13, []int{2, 3}, nil, []int64{2, 2}),
		linearSite("DepthToSpace DCR", 13, []int{1, 8, 2, 3}, as{i1("blocksize", 2)}),
		linearSite("DepthToSpace CRD", 13, []int{1, 8, 2, 3}, as{i1("blocksize", 2), str("mode", "CRD")}),
		linearSite("SpaceToDepth", 13, []int{1, 2, 4, 6}, as{i1("blocksize", 2)}),
		linearSite("Reshape", 13, []int{2, 3, 4}, nil, []int64{0, -1}),
		linearSite("Flatten", 13, []int{2, 3, 4}, nil),
		linearSite("Squeeze", 13, []int{2, 1, 4}, nil, []int64{1}),
		linearSite("Squeeze before 13", 11, []int{2, 1, 4}, as{is("axes", 1)}),
		linearSite("Unsqueeze", 13, []int{2, 4}, nil, []int64{0, 2}),
		linearSite("Identity", 13, []int{2, 4}, nil),
		linearSite("Dropout", 13, []int{2, 4}, nil),
		{name: "CastLike", opset: 15, linear: true, build: func(b *net) []*graph.Value {
			return []*graph.Value{b.node("CastLike", nil, b.input(2, 3), b.constant(tensor.Scalar[float32](0)))}
		}},
		linearSite("Cast", 13, []int{2, 4}, as{i1("to", 1)}),
	}
	return slices.Concat(all, binarySites(), resizeSites())
}

// Every rule is the derivative of its operator.
func TestRulesAreCentralDifferences(t *testing.T) {
	for i, s := range sites() {
		t.Run(s.name, func(t *testing.T) {
			b := newNet(s.opset, uint64(i))
			run := b.done(t, s.build(b)...)
			lo, hi := s.lo, s.hi
			if lo == hi {
				lo, hi = -1, 1
			}
			b.check(t, run, b.inputs(lo, hi), 200)
		})
	}
}

// <A x, y> = <x, Aᵀ y> for every linear operator, to rounding.
func TestLinearRulesAreAdjoints(t *testing.T) {
	for i, s := range sites() {
		if !s.linear {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			b := newNet(s.opset, uint64(i))
			run := b.done(t, s.build(b)...)
			out := b.g.Outputs[0]
			zero := run([]*tensor.Tensor{tensor.New(tensor.Float64, b.in[0].Shape...)})[out].Clone()
			in := b.inputs(-1, 1)
			tr := run(in)
			seed := b.seeds(tr)
			sweep, err := New(b.g, b.in, tensor.Float64, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := sweep.Backward(t.Context(), tr, seed, nil)
			if err != nil {
				t.Fatal(err)
			}
			left, right := dot(tr[out], seed[out])-dot(zero, seed[out]), dot(in[0], got[b.g.Inputs[0]])
			if d := left - right; d > 1e-10 || d < -1e-10 {
				t.Fatalf("<Ax,y> = %.12g, <x,Aᵀy> = %.12g", left, right)
			}
		})
	}
}

// Of equal elements the first of a window has the gradient, by windows that do not overlap as by any others.
func TestMaxPoolTies(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		x, d, g := make([]float64, 4*6), make([]float64, 2*3), make([]float64, 4*6)
		want := make([]float64, len(x))
		for i := range x {
			x[i] = float64(r.IntN(3))
		}
		for o := range d {
			d[o] = r.Float64()
			first := o/3*12 + o%3*2
			best := first
			for _, at := range []int{first + 1, first + 6, first + 7} {
				if x[at] > x[best] {
					best = at
				}
			}
			want[best] = d[o]
		}
		if largestOfFour(g, x, d, 6); !slices.Equal(g, want) {
			t.Fatalf("of %v: %v, want %v", x, g, want)
		}
	}
}

// withoutRule are operators of the engine that no gradient passes, and why.
var withoutRule = func() map[string]string {
	m := map[string]string{"Mod": "no derivative worth having", "ReduceProd": "no model multiplies activations up"}
	for reason, ops := range map[string]string{
		"gives no floating-point numbers": "ArgMax ArgMin And Or Xor Not Equal Greater GreaterOrEqual Less LessOrEqual Shape Size",
		"derivative zero":                 "Floor Ceil Round",
		"has no floating-point input":     "Constant ConstantOfShape Range",
	} {
		for _, o := range strings.Fields(ops) {
			m[o] = reason
		}
	}
	return m
}()

// Every operator of the engine is in the rule table or is listed as having no gradient; every rule has a test site.
func TestTableIsComplete(t *testing.T) {
	table := rules[float64]()
	seen := map[string]bool{}
	for _, d := range op.Table {
		if seen[d.Op] {
			continue
		}
		seen[d.Op] = true
		if _, ok := withoutRule[d.Op]; !ok && d.Domain == "" && table[d.Op] == nil {
			t.Errorf("operator %s has no rule, and is not listed as having none", d.Op)
		}
	}
	for name := range table {
		if !slices.ContainsFunc(sites(), func(s testSite) bool { return s.name == name || strings.HasPrefix(s.name, name+" ") }) {
			t.Errorf("rule %s has no test site", name)
		}
	}
}
