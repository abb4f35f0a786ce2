package gorgonia

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

type as = graph.Attrs

var (
	i1  = graph.IntAttr
	is  = graph.IntsAttr
	fl  = graph.FloatAttr
	str = graph.StrAttr
)

// sample is one operator in one setting: inputs of the given shapes, then constants.
type sample struct {
	op     string // and what is special
	opset  int
	shapes [][]int
	at     as
	more   []any   // *tensor.Tensor, []int64, or nil for an input that is omitted
	lo, hi float64 // of the inputs; by default -1 and 1
	outs   int     // by default 1
}

// numbersOf makes a constant, the same for the same shape.
func numbersOf(lo, hi float64, shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.Float32, shape...)
	r := rand.New(rand.NewPCG(uint64(t.Elems()), 9))
	for i := range tensor.Of[float32](t) {
		tensor.Of[float32](t)[i] = float32(lo + (hi-lo)*r.Float64())
	}
	return t
}

func w(shape ...int) *tensor.Tensor { return numbersOf(-1, 1, shape...) }

func scalar(v float32) *tensor.Tensor { return tensor.Scalar(v) }

var image = [][]int{{2, 3, 5, 4}}

func samples() []sample {
	all := []sample{
		{op: "Conv", opset: 17, shapes: image, at: as{is("pads", 1, 1, 1, 1)}, more: []any{w(4, 3, 3, 3), w(4)}},
		{op: "Conv stride", opset: 17, shapes: [][]int{{1, 2, 7, 6}}, at: as{is("pads", 1, 0, 1, 0), is("strides", 2, 3)}, more: []any{w(3, 2, 3, 2)}},
		{op: "Conv dilation", opset: 17, shapes: [][]int{{1, 2, 7, 6}}, at: as{is("dilations", 2, 1)}, more: []any{w(3, 2, 3, 2)}},
		{op: "Conv asymmetric", opset: 17, shapes: image, at: as{is("pads", 0, 1, 2, 0)}, more: []any{w(4, 3, 3, 3), w(4)}},
		{op: "Conv same", opset: 17, shapes: [][]int{{1, 2, 7, 6}}, at: as{str("auto_pad", "SAME_UPPER"), is("strides", 2, 2)}, more: []any{w(3, 2, 2, 3)}},
		{op: "Conv same lower", opset: 17, shapes: [][]int{{1, 2, 7, 6}}, at: as{str("auto_pad", "SAME_LOWER"), is("strides", 2, 2)}, more: []any{w(3, 2, 2, 3)}},
		{op: "Conv groups", opset: 17, shapes: [][]int{{2, 4, 5, 4}}, at: as{i1("group", 2), is("pads", 1, 1, 1, 1)}, more: []any{w(6, 2, 3, 3), w(6)}},
		{op: "Conv depthwise", opset: 17, shapes: image, at: as{i1("group", 3), is("pads", 1, 1, 1, 1), is("strides", 2, 1)}, more: []any{w(3, 1, 3, 3)}},
		{op: "Conv of computed weights", opset: 17, shapes: [][]int{{1, 4, 5, 4}, {6, 2, 3, 3}}, at: as{i1("group", 2)}},
		{op: "ConvTranspose", opset: 17, shapes: image, at: as{is("strides", 2, 2)}, more: []any{w(3, 4, 2, 2), w(4)}},
		{op: "ConvTranspose overlap", opset: 17, shapes: image, at: as{is("strides", 2, 3), is("pads", 1, 0, 0, 1), is("output_padding", 1, 0)}, more: []any{w(3, 2, 3, 3)}},
		{op: "ConvTranspose groups", opset: 17, shapes: [][]int{{1, 4, 3, 3}}, at: as{i1("group", 2), is("strides", 2, 2), is("dilations", 2, 1)}, more: []any{w(4, 3, 2, 2)}},
		{op: "MatMul", opset: 17, shapes: [][]int{{2, 3, 4}}, more: []any{w(4, 5)}},
		{op: "MatMul batches", opset: 17, shapes: [][]int{{2, 1, 3, 4}, {3, 4, 2}}},
		{op: "Gemm", opset: 17, shapes: [][]int{{4, 3}}, at: as{i1("transA", 1), i1("transB", 1), fl("alpha", 0.5), fl("beta", 2)}, more: []any{w(5, 4), w(5)}},

		{op: "BatchNormalization", opset: 17, shapes: image, at: as{fl("epsilon", 1e-3)}, more: []any{w(3), w(3), w(3), numbersOf(0.5, 2, 3)}},
		{op: "InstanceNormalization", opset: 17, shapes: image, more: []any{w(3), w(3)}},
		{op: "GroupNormalization 18", opset: 18, shapes: [][]int{{2, 4, 3, 2}}, at: as{i1("num_groups", 2)}, more: []any{w(2), w(2)}},
		{op: "GroupNormalization", opset: 21, shapes: [][]int{{2, 4, 3, 2}}, at: as{i1("num_groups", 2)}, more: []any{w(4), w(4)}},
		{op: "LayerNormalization", opset: 17, shapes: [][]int{{2, 3, 4}}, more: []any{w(4), w(4)}},
		{op: "LayerNormalization of two axes", opset: 17, shapes: [][]int{{2, 3, 4}}, at: as{i1("axis", 1)}, more: []any{w(3, 4)}},
		{op: "Softmax", opset: 13, shapes: image, at: as{i1("axis", 1)}, lo: -4, hi: 4},
		{op: "Softmax 11", opset: 11, shapes: image, at: as{i1("axis", 2)}, lo: -4, hi: 4},
		{op: "LogSoftmax", opset: 13, shapes: image, lo: -4, hi: 4},

		{op: "MaxPool", opset: 17, shapes: image, at: as{is("kernel_shape", 2, 2), is("strides", 2, 2)}},
		{op: "MaxPool pads", opset: 17, shapes: image, at: as{is("kernel_shape", 3, 3), is("strides", 2, 2), is("pads", 1, 1, 1, 1)}, lo: -2, hi: -1},
		{op: "MaxPool ceil", opset: 17, shapes: image, at: as{is("kernel_shape", 2, 2), is("strides", 2, 2), i1("ceil_mode", 1)}},
		{op: "MaxPool dilation", opset: 17, shapes: image, at: as{is("kernel_shape", 2, 2), is("dilations", 2, 1)}},
		{op: "AveragePool", opset: 17, shapes: image, at: as{is("kernel_shape", 3, 2), is("strides", 2, 1), is("pads", 1, 0, 1, 1)}},
		{op: "AveragePool count", opset: 17, shapes: image, at: as{is("kernel_shape", 3, 2), is("strides", 2, 1), is("pads", 1, 0, 1, 1), i1("count_include_pad", 1)}},
		{op: "AveragePool ceil", opset: 17, shapes: image, at: as{is("kernel_shape", 2, 3), is("strides", 2, 2), i1("ceil_mode", 1)}},
		{op: "GlobalAveragePool", opset: 17, shapes: image},
		{op: "GlobalMaxPool", opset: 17, shapes: image},

		{op: "Relu", opset: 17, shapes: image}, {op: "Sigmoid", opset: 17, shapes: image, lo: -30, hi: 30}, {op: "Tanh", opset: 17, shapes: image},
		{op: "LeakyRelu", opset: 17, shapes: image, at: as{fl("alpha", 0.2)}},
		{op: "PRelu", opset: 17, shapes: image, more: []any{w(3, 1, 1)}},
		{op: "Clip", opset: 17, shapes: image, more: []any{scalar(-0.5), scalar(0.25)}},
		{op: "Clip above", opset: 17, shapes: image, more: []any{nil, scalar(0.25)}},
		{op: "Clip 6", opset: 6, shapes: image, at: as{fl("min", 0)}},
		{op: "HardSigmoid", opset: 17, shapes: image, at: as{fl("alpha", 0.25)}, lo: -4, hi: 4}, {op: "HardSwish", opset: 17, shapes: image, lo: -4, hi: 4},
		{op: "Elu", opset: 17, shapes: image, at: as{fl("alpha", 2)}}, {op: "Selu", opset: 17, shapes: image},
		{op: "Celu", opset: 17, shapes: image, at: as{fl("alpha", 2)}}, {op: "Softplus", opset: 17, shapes: image},
		{op: "Softsign", opset: 17, shapes: image}, {op: "ThresholdedRelu", opset: 17, shapes: image, at: as{fl("alpha", 0.3)}},
		{op: "Gelu", opset: 20, shapes: image, lo: -3, hi: 3}, {op: "Gelu tanh", opset: 20, shapes: image, at: as{str("approximate", "tanh")}, lo: -3, hi: 3},
		{op: "Mish", opset: 18, shapes: image, lo: -3, hi: 3}, {op: "Erf", opset: 17, shapes: image, lo: -3, hi: 3},
		{op: "Exp", opset: 17, shapes: image}, {op: "Log", opset: 17, shapes: image, lo: 0.5, hi: 2}, {op: "Sqrt", opset: 17, shapes: image, lo: 0.5, hi: 2},
		{op: "Reciprocal", opset: 17, shapes: image, lo: 0.5, hi: 2}, {op: "Abs", opset: 17, shapes: image}, {op: "Neg", opset: 17, shapes: image},
		{op: "Floor", opset: 17, shapes: image, lo: -3, hi: 3}, {op: "Ceil", opset: 17, shapes: image, lo: -3, hi: 3},
		{op: "Pow", opset: 17, shapes: image, more: []any{scalar(3)}},

		{op: "Max", opset: 17, shapes: [][]int{{2, 3, 4}, {3, 1}, {4}}}, {op: "Min", opset: 17, shapes: [][]int{{2, 3, 4}, {3, 1}, {4}}},
		{op: "Sum", opset: 17, shapes: [][]int{{2, 3, 4}, {3, 1}, {4}}}, {op: "Mean", opset: 17, shapes: [][]int{{2, 3, 4}, {3, 1}, {4}}},

		{op: "Identity", opset: 17, shapes: image}, {op: "Dropout", opset: 17, shapes: image}, {op: "Cast", opset: 17, shapes: image, at: as{i1("to", 1)}},
		{op: "Reshape", opset: 17, shapes: image, more: []any{[]int64{0, -1, 2}}},
		{op: "Flatten", opset: 17, shapes: image, at: as{i1("axis", 2)}},
		{op: "Squeeze", opset: 17, shapes: [][]int{{2, 1, 3, 1}}, more: []any{[]int64{-1}}},
		{op: "Squeeze all 11", opset: 11, shapes: [][]int{{2, 1, 3, 1}}},
		{op: "Unsqueeze", opset: 17, shapes: [][]int{{2, 3}}, more: []any{[]int64{-1, 0}}},
		{op: "Transpose", opset: 17, shapes: image, at: as{is("perm", 0, 2, 3, 1)}},
		{op: "Transpose all", opset: 17, shapes: image},
		{op: "Slice", opset: 17, shapes: image, more: []any{[]int64{1, -1}, []int64{math.MaxInt64, math.MinInt64}, []int64{-1, 2}, []int64{2, -2}}},
		{op: "Slice 9", opset: 9, shapes: image, at: as{is("starts", 0, 1), is("ends", 1, -1)}},
		{op: "Split", opset: 17, shapes: [][]int{{2, 5}}, at: as{i1("axis", 1)}, more: []any{[]int64{2, 3}}, outs: 2},
		{op: "Split 18", opset: 18, shapes: [][]int{{2, 5}}, at: as{i1("axis", 1), i1("num_outputs", 2)}, outs: 2},
		{op: "Concat", opset: 17, shapes: [][]int{{2, 3, 4}, {2, 1, 4}}, at: as{i1("axis", -2)}, more: []any{w(2, 2, 4)}},
		{op: "Gather", opset: 17, shapes: image, at: as{i1("axis", 2)}, more: []any{[]int64{3, -1, 0, 3}}},
		{op: "Expand", opset: 17, shapes: [][]int{{3, 1}}, more: []any{[]int64{2, 1, 4}}},
		{op: "Tile", opset: 17, shapes: [][]int{{2, 3}}, more: []any{[]int64{2, 2}}},
		{op: "Pad", opset: 17, shapes: image, more: []any{[]int64{0, 0, 1, -1, 0, 0, 2, 1}, scalar(1.5)}},
		{op: "Pad reflect", opset: 17, shapes: image, at: as{str("mode", "reflect")}, more: []any{[]int64{0, 0, 2, 1, 0, 0, 1, 3}}},
		{op: "Pad edge", opset: 17, shapes: image, at: as{str("mode", "edge")}, more: []any{[]int64{0, 0, 2, 1, 0, 0, 1, 3}}},
		{op: "DepthToSpace", opset: 17, shapes: [][]int{{1, 8, 3, 2}}, at: as{i1("blocksize", 2)}},
		{op: "DepthToSpace CRD", opset: 17, shapes: [][]int{{1, 8, 3, 2}}, at: as{i1("blocksize", 2), str("mode", "CRD")}},
		{op: "SpaceToDepth", opset: 17, shapes: [][]int{{1, 2, 4, 6}}, at: as{i1("blocksize", 2)}},

		{op: "Upsample", opset: 9, shapes: image, at: as{str("mode", "linear")}, more: []any{tensor.From([]float32{1, 1, 2, 1.5}, 4)}},
		{op: "Resize 10", opset: 10, shapes: image, at: as{str("mode", "linear")}, more: []any{tensor.From([]float32{1, 1, 2, 0.5}, 4)}},
		{op: "Resize axes", opset: 18, shapes: image, at: as{str("mode", "linear"), is("axes", 3, 2)}, more: []any{nil, nil, []int64{7, 10}}},
		{op: "Resize cubic", opset: 17, shapes: image, at: as{str("mode", "cubic"), fl("cubic_coeff_a", -0.5), i1("exclude_outside", 1)}, more: []any{nil, nil, []int64{2, 3, 9, 7}}},
	}
	for _, o := range []string{"Add", "Sub", "Mul", "Div"} {
		for _, sh := range [][2][]int{{{2, 3, 4}, {2, 3, 4}}, {{2, 3, 4, 1}, {3, 1, 5}}, {{1}, {2, 2}}, {{2, 3}, {}}, {{1, 1}, {1, 1}}} {
			all = append(all, sample{op: fmt.Sprintf("%s %v", o, sh), opset: 17, shapes: sh[:], lo: 0.5, hi: 2})
		}
		all = append(all, sample{op: o + " constant", opset: 17, shapes: image, more: []any{numbersOf(1, 2, 3, 1, 1)}})
	}
	for _, o := range []string{"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"} {
		all = append(all,
			sample{op: o, opset: 18, shapes: image, more: []any{[]int64{-1, 2}}},
			sample{op: o + " all", opset: 18, shapes: image, at: as{i1("keepdims", 0)}},
			sample{op: o + " 11", opset: 11, shapes: image, at: as{i1("keepdims", 0), is("axes", 1)}})
	}
	for _, mode := range []string{"nearest", "linear", "cubic"} {
		for _, c := range []string{"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"} {
			at := as{str("mode", mode), str("coordinate_transformation_mode", c)}
			all = append(all,
				sample{op: fmt.Sprintf("Resize %s %s sizes", mode, c), opset: 17, shapes: image, at: at, more: []any{nil, nil, []int64{2, 3, 7, 3}}},
				sample{op: fmt.Sprintf("Resize %s %s scales", mode, c), opset: 13, shapes: image, at: at, more: []any{nil, tensor.From([]float32{1, 1, 2, 1.7}, 4)}})
		}
	}
	for _, n := range []string{"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"} {
		all = append(all, sample{op: "Resize " + n, opset: 17, shapes: image, at: as{str("nearest_mode", n)}, more: []any{nil, nil, []int64{2, 3, 10, 6}}})
	}
	return all
}

// graph makes a model of a sample: its inputs pass through Identity, so that each is an activation.
func (s sample) graph() (g *graph.Graph, in []*tensor.Tensor) {
	g = &graph.Graph{IR: 8, Opsets: map[string]int{"": s.opset}}
	op, _, _ := strings.Cut(s.op, " ")
	n := &graph.Node{Op: op, Name: "the node", Attrs: s.at}
	if s.lo == s.hi {
		s.lo, s.hi = -1, 1
	}
	for i, shape := range s.shapes {
		x := numbersOf(s.lo, s.hi, shape...)
		for k := range tensor.Of[float32](x) { // not the same numbers twice
			tensor.Of[float32](x)[k] += float32(i) * 1e-3
		}
		v := &graph.Value{Name: fmt.Sprintf("in%d", i), Type: x.Type()}
		pass := &graph.Node{Op: "Identity", Inputs: []*graph.Value{v}}
		pass.Outputs = []*graph.Value{{Name: fmt.Sprintf("x%d", i), Def: pass}}
		g.Inputs, g.Nodes = append(g.Inputs, v), append(g.Nodes, pass)
		n.Inputs, in = append(n.Inputs, pass.Outputs[0]), append(in, x)
	}
	for i, m := range s.more {
		var c *tensor.Tensor
		switch m := m.(type) {
		case nil:
			n.Inputs = append(n.Inputs, nil)
			continue
		case *tensor.Tensor:
			c = m
		case []int64:
			c = tensor.From(m, len(m))
		}
		v := &graph.Value{Name: fmt.Sprintf("c%d", i), Type: c.Type(), Const: c}
		g.Inits, n.Inputs = append(g.Inits, v), append(n.Inputs, v)
	}
	for i := range max(1, s.outs) {
		n.Outputs = append(n.Outputs, &graph.Value{Name: fmt.Sprintf("y%d", i), Def: n})
	}
	g.Nodes, g.Outputs = append(g.Nodes, n), n.Outputs
	return g, in
}

func types(ts []*tensor.Tensor) (in []tensor.Type) {
	for _, t := range ts {
		in = append(in, t.Type())
	}
	return in
}

// apart is max|a-b| / max|b|.
func apart(a, b *tensor.Tensor) float64 {
	x, _ := a.Float64s()
	y, _ := b.Float64s()
	var d, top float64
	for i := range y {
		d, top = max(d, math.Abs(x[i]-y[i])), max(top, math.Abs(y[i]))
	}
	return d / max(top, 1e-30)
}

// TestOperators: each operator gives what the engine does, and its gradient is the engine's central difference.
func TestOperators(t *testing.T) {
	tested := map[string]bool{}
	for _, s := range samples() {
		t.Run(s.op, func(t *testing.T) {
			g, in := s.graph()
			tested[g.Nodes[len(g.Nodes)-1].Op] = true
			ctx := context.Background()
			exact, err := engine.Compile(g, types(in), engine.Options{Verbatim: true, Float64: true, Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			session := exact.NewSession()
			out, err := session.Run(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			var want []*tensor.Tensor
			for _, v := range out { // the session's own
				want = append(want, v.Clone())
			}
			var probes []string
			for i := range s.shapes {
				probes = append(probes, fmt.Sprintf("x%d", i))
			}
			for dt, bound := range map[tensor.DType]float64{tensor.Float32: 1e-6, tensor.Float64: 1e-13} {
				m, err := Compile(g, types(in), dt, probes...)
				if err != nil {
					t.Fatal(err)
				}
				got, err := m.Run(ctx, in)
				if err != nil {
					t.Fatal(err)
				}
				for i := range want {
					if got[i].DType != dt || !slices.Equal(got[i].Shape, want[i].Shape) {
						t.Fatalf("output %d is %v, the engine's %v", i, got[i].Type(), want[i].Type())
					}
					if d := apart(got[i], want[i]); !(d <= bound) {
						t.Errorf("output %d in %v: max|Δ|/max|y| = %g", i, dt, d)
					}
				}
				if dt == tensor.Float32 {
					continue
				}
				seed, err := numbersOf(-1, 1, want[0].Shape...).Float(tensor.Float64)
				if err != nil {
					t.Fatal(err)
				}
				grads, err := m.Gradients(ctx, in, seed)
				if err != nil {
					t.Fatal(err)
				}
				for i, x := range in {
					d, err := x.Float(tensor.Float64)
					if err != nil {
						t.Fatal(err)
					}
					shifted := slices.Clone(in)
					shifted[i] = d
					central(t, probes[i], tensor.Of[float64](d), tensor.Of[float64](grads[probes[i]]), func() float64 {
						out, err := session.Run(ctx, shifted)
						if err != nil {
							t.Fatal(err)
						}
						var sum float64
						for k, v := range tensor.Of[float64](out[0]) {
							sum += v * tensor.Of[float64](seed)[k]
						}
						return sum
					})
				}
			}
		})
	}
	for op := range rules {
		if !tested[op] && !slices.Contains([]string{"Constant", "ConstantOfShape", "Shape", "Size"}, op) {
			t.Errorf("no sample of %s", op)
		}
	}
}

// central compares gradients with central differences of value, at up to a dozen of the numbers.
func central(t *testing.T, what string, x, g []float64, value func() float64) {
	t.Helper()
	const h = 1e-5
	for i := 0; i < len(x); i += 1 + len(x)/12 {
		was := x[i]
		x[i] = was + h
		up := value()
		x[i] = was - h
		down := value()
		x[i] = was
		if want := (up - down) / (2 * h); math.Abs(g[i]-want) > 1e-7*(1+math.Abs(want)) {
			t.Fatalf("%s: gradient[%d] = %.9g, central difference %.9g", what, i, g[i], want)
		}
	}
}
