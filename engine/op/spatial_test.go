package op_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// call runs one node in float64, where laws hold to the last few bits.
func call(t interface{ Fatalf(string, ...any) }, opset int, name string, attrs graph.Attrs, in ...*tensor.Tensor) *tensor.Tensor {
	out, err := op.Apply(node(name, len(in), attrs), opset, tensor.Float64, in...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out[0]
}

func node(name string, inputs int, attrs graph.Attrs) *graph.Node {
	n := &graph.Node{Op: name, Inputs: make([]*graph.Value, inputs), Attrs: attrs}
	n.Outputs = []*graph.Value{{Name: "y", Def: n}}
	return n
}

func normal(r *rand.Rand, shape ...int) *tensor.Tensor {
	x := tensor.New(tensor.Float64, shape...)
	for i, v := 0, tensor.Of[float64](x); i < len(v); i++ {
		v[i] = r.NormFloat64()
	}
	return x
}

func dot(a, b *tensor.Tensor) (sum, size float64) {
	x, y := tensor.Of[float64](a), tensor.Of[float64](b)
	for i := range x {
		sum += x[i] * y[i]
		size += math.Abs(x[i] * y[i])
	}
	return sum, size
}

func channels(x *tensor.Tensor, axis, lo, hi int) *tensor.Tensor {
	t := &testing.T{}
	return call(t, 17, "Slice", nil, x, tensor.From([]int64{int64(lo)}, 1), tensor.From([]int64{int64(hi)}, 1), tensor.From([]int64{int64(axis)}, 1))
}

// window draws the attributes of a convolution or pool that fits into h x w.
type window struct{ kh, kw, sh, sw, dh, dw, pt, pl, pb, pr int }

func drawWindow(t *rapid.T) window {
	d := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
	return window{d("kh", 1, 4), d("kw", 1, 4), d("sh", 1, 3), d("sw", 1, 3), d("dh", 1, 2), d("dw", 1, 2),
		d("pt", 0, 2), d("pl", 0, 2), d("pb", 0, 2), d("pr", 0, 2)}
}

func (w window) attrs(group int) graph.Attrs {
	return graph.Attrs{graph.IntsAttr("strides", w.sh, w.sw), graph.IntsAttr("dilations", w.dh, w.dw),
		graph.IntsAttr("pads", w.pt, w.pl, w.pb, w.pr), graph.IntAttr("group", group)}
}

// TestGroupsAreConvolutionsSideBySide: a grouped convolution is one convolution for each group.
func TestGroupsAreConvolutionsSideBySide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		g, cg, mg := rapid.IntRange(1, 4).Draw(t, "groups"), rapid.IntRange(1, 3).Draw(t, "in"), rapid.IntRange(1, 3).Draw(t, "out")
		w := drawWindow(t)
		x, k, b := normal(r, 2, g*cg, 9, 11), normal(r, g*mg, cg, w.kh, w.kw), normal(r, g*mg)
		got := call(t, 17, "Conv", w.attrs(g), x, k, b)
		for i := range g {
			want := call(t, 17, "Conv", w.attrs(1), channels(x, 1, i*cg, (i+1)*cg), channels(k, 0, i*mg, (i+1)*mg), channels(b, 0, i*mg, (i+1)*mg))
			near(t, fmt.Sprintf("group %d of %d", i, g), channels(got, 1, i*mg, (i+1)*mg), want, 1e-12)
		}
	})
}

// TestConvTransposeIsTheAdjoint: <Conv(x), y> == <x, ConvTranspose(y)>, with the same weights.
func TestConvTransposeIsTheAdjoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		g, cg, mg := rapid.IntRange(1, 3).Draw(t, "groups"), rapid.IntRange(1, 3).Draw(t, "in"), rapid.IntRange(1, 3).Draw(t, "out")
		w := drawWindow(t)
		h, wd := rapid.IntRange(7, 12).Draw(t, "h"), rapid.IntRange(7, 12).Draw(t, "w")
		x, k := normal(r, 2, g*cg, h, wd), normal(r, g*mg, cg, w.kh, w.kw)
		ax := call(t, 17, "Conv", w.attrs(g), x, k)
		y := normal(r, ax.Shape...)
		// What the stride leaves over at the end is output_padding.
		rest := func(n, pads, k, d, s int) int { return (n + pads - (k-1)*d - 1) % s }
		attrs := w.attrs(g).Set(graph.IntsAttr("output_padding", rest(h, w.pt+w.pb, w.kh, w.dh, w.sh), rest(wd, w.pl+w.pr, w.kw, w.dw, w.sw)))
		aty := call(t, 17, "ConvTranspose", attrs, y, k)
		if fmt.Sprint(aty.Shape) != fmt.Sprint(x.Shape) {
			t.Fatalf("adjoint has shape %v, want %v", aty.Shape, x.Shape)
		}
		a, size := dot(ax, y)
		b, _ := dot(x, aty)
		if math.Abs(a-b) > 1e-11*size {
			t.Fatalf("<Ax,y> = %g, <x,A'y> = %g", a, b)
		}
	})
}

// TestPoolsBoundEachOther: the average under a window is never above its maximum; both keep a constant.
func TestPoolsBoundEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		w := drawWindow(t)
		w.pt, w.pl, w.pb, w.pr = min(w.pt, w.kh-1), min(w.pl, w.kw-1), min(w.pb, w.kh-1), min(w.pr, w.kw-1)
		attrs := append(w.attrs(1)[:3], graph.IntsAttr("kernel_shape", w.kh, w.kw), graph.IntAttr("ceil_mode", rapid.IntRange(0, 1).Draw(t, "ceil")))
		x := normal(r, 1, 3, 9, 11)
		top, mean := call(t, 22, "MaxPool", attrs, x), call(t, 22, "AveragePool", attrs, x)
		a, b := tensor.Of[float64](top), tensor.Of[float64](mean)
		if len(a) != len(b) {
			t.Fatalf("MaxPool gives %v, AveragePool %v", top.Shape, mean.Shape)
		}
		for i := range a {
			if b[i] > a[i]+1e-12 || math.IsNaN(b[i]) {
				t.Fatalf("average %g above maximum %g", b[i], a[i])
			}
		}
	})
}

var (
	resizeModes = []string{"nearest", "linear", "cubic"}
	transforms  = []string{"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"}
)

func resizeAttrs(mode, transform string) graph.Attrs {
	return graph.Attrs{graph.StrAttr("mode", mode), graph.StrAttr("coordinate_transformation_mode", transform)}
}

// TestResizeKeepsConstants: weights add up to 1 in every mode, and a scale of 1 changes nothing.
func TestResizeKeepsConstants(t *testing.T) {
	for _, mode := range resizeModes {
		for _, transform := range transforms {
			for _, antialias := range []int{0, 1} {
				attrs := append(resizeAttrs(mode, transform), graph.IntAttr("antialias", antialias))
				one := tensor.New(tensor.Float64, 1, 2, 5, 6)
				for i, v := 0, tensor.Of[float64](one); i < len(v); i++ {
					v[i] = 1
				}
				for _, size := range [][]int64{{1, 2, 10, 12}, {1, 2, 3, 4}, {1, 2, 7, 1}} {
					y := call(t, 19, "Resize", attrs, one, nil, nil, tensor.From(size, 4))
					for _, v := range tensor.Of[float64](y) {
						if math.Abs(v-1) > 1e-12 {
							t.Fatalf("%s %s antialias %d to %v: a constant 1 becomes %g", mode, transform, antialias, size, v)
						}
					}
				}
				if transform == "tf_half_pixel_for_nn" { // lies half a pixel further, whatever the scale
					continue
				}
				x := normal(rand.New(rand.NewPCG(1, 1)), 1, 2, 5, 6)
				near(t, mode+" "+transform, call(t, 19, "Resize", attrs, x, nil, tensor.From([]float32{1, 1, 1, 1}, 4)), x, 1e-12)
			}
		}
	}
}

// TestUpsampleIsResize: the operator's older names and versions mean what the newer ones say.
func TestUpsampleIsResize(t *testing.T) {
	x, scales := normal(rand.New(rand.NewPCG(1, 1)), 1, 2, 3, 4), tensor.From([]float32{1, 1, 2, 2}, 4)
	for _, mode := range []string{"nearest", "linear"} {
		attrs := append(resizeAttrs(mode, "asymmetric"), graph.StrAttr("nearest_mode", "floor"))
		want := call(t, 13, "Resize", attrs, x, nil, scales)
		m := graph.Attrs{graph.StrAttr("mode", mode)}
		near(t, "Resize 10", call(t, 10, "Resize", m, x, scales), want, 1e-12)
		near(t, "Upsample 9", call(t, 9, "Upsample", m, x, scales), want, 1e-12)
		old := append(m, graph.Attr{Name: "scales", Kind: graph.AttrFloats, Floats: []float32{1, 1, 2, 2}})
		near(t, "Upsample 7", call(t, 7, "Upsample", old, x), want, 1e-12)
	}
}

func TestSoftmaxAddsUpToOne(t *testing.T) {
	x := normal(rand.New(rand.NewPCG(1, 1)), 2, 3, 4, 70)
	for axis := range 4 {
		y := call(t, 13, "Softmax", graph.Attrs{graph.IntAttr("axis", axis)}, x)
		sum := call(t, 13, "ReduceSum", nil, y, tensor.From([]int64{int64(axis)}, 1))
		for _, v := range tensor.Of[float64](sum) {
			if math.Abs(v-1) > 1e-12 {
				t.Fatalf("axis %d: sums to %g", axis, v)
			}
		}
		log := call(t, 13, "LogSoftmax", graph.Attrs{graph.IntAttr("axis", axis)}, x)
		near(t, "log", call(t, 13, "Exp", nil, log), y, 1e-12)
	}
	// Before opset 13 all axes from the given one on are one.
	y := call(t, 12, "Softmax", graph.Attrs{graph.IntAttr("axis", 2)}, x)
	sum := call(t, 12, "ReduceSum", graph.Attrs{graph.IntsAttr("axes", 2, 3)}, y)
	for _, v := range tensor.Of[float64](sum) {
		if math.Abs(v-1) > 1e-12 {
			t.Fatalf("opset 12: sums to %g", v)
		}
	}
}

// TestAttributeAndInputForms: what moved from attributes to inputs still means the same.
func TestAttributeAndInputForms(t *testing.T) {
	x := normal(rand.New(rand.NewPCG(1, 1)), 2, 3, 4, 5)
	clip := call(t, 6, "Clip", graph.Attrs{graph.FloatAttr("min", -0.5), graph.FloatAttr("max", 0.5)}, x)
	near(t, "Clip", call(t, 13, "Clip", nil, x, tensor.Scalar(-0.5), tensor.Scalar(0.5)), clip, 0)
	mean := call(t, 13, "ReduceMean", graph.Attrs{graph.IntsAttr("axes", 2, 3)}, x)
	near(t, "ReduceMean", call(t, 18, "ReduceMean", nil, x, tensor.From([]int64{2, 3}, 2)), mean, 0)
	near(t, "GlobalAveragePool", call(t, 17, "GlobalAveragePool", nil, x), mean, 1e-12)
	unsqueezed := call(t, 11, "Unsqueeze", graph.Attrs{graph.IntsAttr("axes", 0)}, x)
	near(t, "Unsqueeze", call(t, 13, "Unsqueeze", nil, x, tensor.From([]int64{0}, 1)), unsqueezed, 0)
}

// TestFloat32IsFloat64Rounded: the two instances of each generic kernel differ by rounding alone.
func TestFloat32IsFloat64Rounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x, k, slope := normal(r, 1, 4, 8, 9), normal(r, 4, 4, 3, 3), normal(r, 4, 1, 1)
	for _, c := range []struct {
		name  string
		attrs graph.Attrs
		in    []*tensor.Tensor
	}{
		{"Conv", nil, []*tensor.Tensor{x, k}}, {"ConvTranspose", nil, []*tensor.Tensor{x, k}}, {"PRelu", nil, []*tensor.Tensor{x, slope}},
		{"Relu", nil, []*tensor.Tensor{x}}, {"LeakyRelu", nil, []*tensor.Tensor{x}}, {"Sigmoid", nil, []*tensor.Tensor{x}},
		{"HardSigmoid", nil, []*tensor.Tensor{x}}, {"HardSwish", nil, []*tensor.Tensor{x}}, {"Tanh", nil, []*tensor.Tensor{x}},
		{"Softmax", nil, []*tensor.Tensor{x}}, {"GlobalAveragePool", nil, []*tensor.Tensor{x}}, {"Softplus", nil, []*tensor.Tensor{x}},
		{"Elu", nil, []*tensor.Tensor{x}}, {"Mish", nil, []*tensor.Tensor{x}}, {"Gelu", nil, []*tensor.Tensor{x}},
		{"MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2)}, []*tensor.Tensor{x}},
		{"MatMul", nil, []*tensor.Tensor{normal(r, 2, 3, 5, 4), normal(r, 3, 4, 6)}},
		{"Gemm", graph.Attrs{graph.IntAttr("transA", 1), graph.IntAttr("transB", 1), graph.FloatAttr("alpha", .5)}, []*tensor.Tensor{normal(r, 5, 4), normal(r, 6, 5), normal(r, 6)}},
		{"InstanceNormalization", nil, []*tensor.Tensor{x, normal(r, 4), normal(r, 4)}},
		{"GroupNormalization", graph.Attrs{graph.IntAttr("num_groups", 2)}, []*tensor.Tensor{x, normal(r, 4), normal(r, 4)}},
		{"LayerNormalization", graph.Attrs{graph.IntAttr("axis", 2)}, []*tensor.Tensor{x, normal(r, 8, 9), normal(r, 8, 9)}},
	} {
		want := call(t, 22, c.name, c.attrs, c.in...)
		out, err := op.Apply(node(c.name, len(c.in), c.attrs), 22, tensor.Float32, c.in...)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, err := out[0].Float(tensor.Float64)
		if err != nil {
			t.Fatal(err)
		}
		near(t, c.name, got, want, 2e-5) // at most 36 products, each with half an ulp of 2^-24, of values up to 10
	}
}

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		op            string
		opset, since  int
		domain, error string
	}{
		{"Conv", 1, 1, "", ""}, {"Conv", 10, 1, "", ""}, {"Conv", 11, 11, "ai.onnx", ""}, {"Conv", 25, 22, "", ""},
		{"Clip", 12, 12, "", ""}, {"Softmax", 12, 11, "", ""}, {"Softmax", 13, 13, "", ""},
		{"Gelu", 19, 0, "", "begins at opset 20"}, {"NoSuch", 17, 0, "", "not in the table"}, {"Conv", 17, 0, "com.acme", "com.acme.Conv is not in the table"},
	} {
		d, err := op.Lookup(&graph.Node{Op: c.op, Domain: c.domain}, c.opset)
		if u := (*op.Unsupported)(nil); c.error != "" {
			if !errors.As(err, &u) || !strings.Contains(err.Error(), c.error) {
				t.Errorf("%s at opset %d: got %v, want %q", c.op, c.opset, err, c.error)
			}
			continue
		}
		if err != nil || d.Since != c.since {
			t.Errorf("%s at opset %d: row since %d (%v), want %d", c.op, c.opset, d.Since, err, c.since)
		}
	}
}

func TestUnsupportedIsSaid(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name  string
		attrs graph.Attrs
		in    []*tensor.Tensor
		want  string
	}{
		{"Conv", nil, []*tensor.Tensor{normal(r, 1, 1, 3, 3, 3), normal(r, 1, 1, 1, 1, 1)}, "3 spatial axes"},
		{"Relu", nil, []*tensor.Tensor{tensor.New(tensor.Bool, 2)}, "bool"},
		{"Sigmoid", nil, []*tensor.Tensor{tensor.New(tensor.Int32, 2)}, "int32"},
		{"BatchNormalization", graph.Attrs{graph.IntAttr("training_mode", 1)}, []*tensor.Tensor{normal(r, 1, 2, 3), normal(r, 2), normal(r, 2), normal(r, 2), normal(r, 2)}, "training"},
	} {
		_, err := op.Apply(node(c.name, len(c.in), c.attrs), 17, tensor.Float32, c.in...)
		if u := (*op.Unsupported)(nil); !errors.As(err, &u) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an Unsupported with %q", c.name, err, c.want)
		}
	}
}

// near compares up to tol, absolute for values below 1 and relative above.
func near(t interface{ Fatalf(string, ...any) }, what string, got, want *tensor.Tensor, tol float64) {
	if fmt.Sprint(got.Shape) != fmt.Sprint(want.Shape) {
		t.Fatalf("%s: shape %v, want %v", what, got.Shape, want.Shape)
	}
	a, b := tensor.Of[float64](got), tensor.Of[float64](want)
	for i := range a {
		if !(math.Abs(a[i]-b[i]) <= tol*max(1, math.Abs(b[i]))) {
			t.Fatalf("%s: y[%d] = %g, want %g", what, i, a[i], b[i])
		}
	}
}

// TestTooLargeIsSaid: a few bytes of model that ask for gigabytes are told from operators that are not run.
func TestTooLargeIsSaid(t *testing.T) {
	x := normal(rand.New(rand.NewPCG(1, 1)), 1, 1, 64, 64)
	for _, c := range []struct {
		name string
		in   []*tensor.Tensor
	}{
		{"Resize", []*tensor.Tensor{x, nil, tensor.From([]float32{1, 1, 4096, 4096}, 4)}},
		{"ConstantOfShape", []*tensor.Tensor{tensor.From([]int64{1 << 30}, 1)}},
		{"Expand", []*tensor.Tensor{x, tensor.From([]int64{1 << 20, 1, 64, 64}, 4)}},
	} {
		if _, err := op.Apply(node(c.name, len(c.in), nil), 17, tensor.Float32, c.in...); !errors.Is(err, op.ErrTooLarge) {
			t.Errorf("%s: got %v, want ErrTooLarge", c.name, err)
		}
	}
}
