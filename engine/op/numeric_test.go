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

// naiveReduce is the definition: gather what becomes one number, then apply f to it.
func naiveReduce(x *tensor.Tensor, gone map[int]bool, keep bool, f func([]float64) float64) *tensor.Tensor {
	v := tensor.Of[float64](x)
	var shape []int
	for i, d := range x.Shape {
		if !gone[i] {
			shape = append(shape, d)
		} else if keep {
			shape = append(shape, 1)
		}
	}
	y := tensor.New(tensor.Float64, shape...)
	sets := make([][]float64, y.Elems())
	for i := range v {
		at, rest := 0, i
		size := 1
		for a := len(x.Shape) - 1; a >= 0; a-- {
			p := rest % x.Shape[a]
			rest /= x.Shape[a]
			if !gone[a] {
				at += p * size
				size *= x.Shape[a]
			}
		}
		sets[at] = append(sets[at], v[i])
	}
	for i, s := range sets {
		tensor.Of[float64](y)[i] = f(s)
	}
	return y
}

func total(v []float64, f func(float64) float64) (s float64) {
	for _, x := range v {
		s += f(x)
	}
	return s
}

var reductions = map[string]func([]float64) float64{
	"ReduceSum":       func(v []float64) float64 { return total(v, func(x float64) float64 { return x }) },
	"ReduceMean":      func(v []float64) float64 { return total(v, func(x float64) float64 { return x }) / float64(len(v)) },
	"ReduceL1":        func(v []float64) float64 { return total(v, math.Abs) },
	"ReduceL2":        func(v []float64) float64 { return math.Sqrt(total(v, func(x float64) float64 { return x * x })) },
	"ReduceSumSquare": func(v []float64) float64 { return total(v, func(x float64) float64 { return x * x }) },
	"ReduceLogSum":    func(v []float64) float64 { return math.Log(total(v, func(x float64) float64 { return x })) },
	"ReduceLogSumExp": func(v []float64) float64 { return math.Log(total(v, math.Exp)) },
	"ReduceMax": func(v []float64) float64 {
		m := math.Inf(-1)
		for _, x := range v {
			m = max(m, x)
		}
		return m
	},
	"ReduceMin": func(v []float64) float64 {
		m := math.Inf(1)
		for _, x := range v {
			m = min(m, x)
		}
		return m
	},
	"ReduceProd": func(v []float64) float64 {
		p := 1.0
		for _, x := range v {
			p *= x
		}
		return p
	},
}

func TestReductionsAreTheirDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		shape := append(rapid.SliceOfN(rapid.IntRange(1, 4), 0, 3).Draw(t, "shape"), rapid.SampledFrom([]int{1, 5, 70}).Draw(t, "last"))
		x := normal(r, shape...)
		for i, v := range tensor.Of[float64](x) {
			tensor.Of[float64](x)[i] = math.Exp(v / 10) // so that sums have logarithms, and products stay finite
		}
		gone, axes := map[int]bool{}, []int64{}
		for a := range shape {
			if rapid.Bool().Draw(t, "gone") {
				gone[a], axes = true, append(axes, int64(a-len(shape)*rapid.IntRange(0, 1).Draw(t, "negative")))
			}
		}
		if len(axes) == 0 {
			for a := range shape {
				gone[a] = true
			}
		}
		keep := rapid.Bool().Draw(t, "keep")
		attrs := graph.Attrs{graph.IntAttr("keepdims", 0)}
		if keep {
			attrs = graph.Attrs{graph.IntAttr("keepdims", 1)}
		}
		for name, f := range reductions {
			got := call(t, 18, name, attrs, x, tensor.From(axes, len(axes)))
			near(t, name, got, naiveReduce(x, gone, keep, f), 1e-10)
		}
	})
}

func TestReductionsOfNothing(t *testing.T) {
	empty := tensor.New(tensor.Float64, 2, 0)
	for name, want := range map[string]float64{"ReduceSum": 0, "ReduceProd": 1, "ReduceMax": math.Inf(-1), "ReduceMin": math.Inf(1),
		"ReduceL2": 0, "ReduceLogSumExp": math.Inf(-1)} {
		y := call(t, 18, name, nil, empty, tensor.From([]int64{1}, 1))
		for _, v := range tensor.Of[float64](y) {
			if v != want {
				t.Errorf("%s of no elements is %g, want %g", name, v, want)
			}
		}
	}
	// Axes that are given and empty mean all, or none if the attribute says so.
	x := tensor.From([]float64{-3, 4}, 2)
	noop := graph.Attrs{graph.IntAttr("noop_with_empty_axes", 1)}
	near(t, "noop", call(t, 18, "ReduceL2", noop, x, tensor.From([]int64{}, 0)), tensor.From([]float64{3, 4}, 2), 0)
	near(t, "all", call(t, 18, "ReduceL2", nil, x, tensor.From([]int64{}, 0)), tensor.From([]float64{5}, 1), 0)
}

func TestIntegerReductions(t *testing.T) {
	x := tensor.From([]int64{1 << 62, 5, -7, 1 << 62, 6, 8}, 2, 3) // float64 has no 2^62+1
	for name, want := range map[string][]int64{"ReduceSum": {1<<62 - 2, 1<<62 + 14}, "ReduceMax": {1 << 62, 1 << 62}, "ReduceMin": {-7, 6}} {
		attrs := graph.Attrs{graph.IntAttr("keepdims", 0)}
		out, err := op.Apply(node(name, 2, attrs), 18, tensor.Float32, x, tensor.From([]int64{1}, 1))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := tensor.Of[int64](out[0]); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// TestArgMax: the element at the index is the maximum, and no equal one lies before it, or after it if so asked.
func TestArgMax(t *testing.T) {
	x := tensor.From([]float64{1, 3, 3, 2, 9, 9, 9, 0}, 2, 4)
	for _, c := range []struct {
		op   string
		last int
		want []int64
	}{{"ArgMax", 0, []int64{1, 0}}, {"ArgMax", 1, []int64{2, 2}}, {"ArgMin", 0, []int64{0, 3}}, {"ArgMin", 1, []int64{0, 3}}} {
		attrs := graph.Attrs{graph.IntAttr("axis", -1), graph.IntAttr("keepdims", 0), graph.IntAttr("select_last_index", c.last)}
		if got := tensor.Of[int64](call(t, 13, c.op, attrs, x)); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s, last %d: got %v, want %v", c.op, c.last, got, c.want)
		}
	}
}

// TestMaxPoolIndices: the input at the index is the output, in row-major and in column-major order.
func TestMaxPoolIndices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		w := drawWindow(t)
		w.pt, w.pl, w.pb, w.pr = min(w.pt, w.kh-1), min(w.pl, w.kw-1), min(w.pb, w.kh-1), min(w.pr, w.kw-1)
		column := rapid.IntRange(0, 1).Draw(t, "column")
		attrs := append(w.attrs(1)[:3], graph.IntsAttr("kernel_shape", w.kh, w.kw), graph.IntAttr("storage_order", column))
		x := normal(r, 2, 3, 9, 11)
		n := node("MaxPool", 1, attrs)
		n.Outputs = append(n.Outputs, &graph.Value{Name: "indices", Def: n})
		out, err := op.Apply(n, 22, tensor.Float64, x)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "without indices", call(t, 22, "MaxPool", attrs, x), out[0], 0)
		for i, at := range tensor.Of[int64](out[1]) {
			if column == 1 {
				plane, p := at/99*99, at%99
				at = plane + p%9*11 + p/9
			}
			if v := tensor.Of[float64](x)[at]; v != tensor.Of[float64](out[0])[i] {
				t.Fatalf("y[%d] = %g, x at its index %g", i, tensor.Of[float64](out[0])[i], v)
			}
		}
	})
}

// TestAveragePoolCounts: ones stay ones without padding in the count; with it, the mean is the share of the window that
// lies on the input, and what ceil_mode reaches beyond the padding does not count.
func TestAveragePoolCounts(t *testing.T) {
	ones := tensor.From([]float64{1, 1, 1, 1}, 1, 1, 4)
	attrs := graph.Attrs{graph.IntsAttr("kernel_shape", 3), graph.IntsAttr("strides", 2), graph.IntsAttr("pads", 1, 0), graph.IntAttr("ceil_mode", 1)}
	near(t, "exclude", call(t, 22, "AveragePool", attrs, ones), tensor.From([]float64{1, 1}, 1, 1, 2), 0)
	attrs = attrs.Set(graph.IntAttr("count_include_pad", 1))
	near(t, "include", call(t, 22, "AveragePool", attrs, ones), tensor.From([]float64{2. / 3, 1}, 1, 1, 2), 1e-15)
	attrs = attrs.Set(graph.IntsAttr("pads", 0, 0))
	attrs = attrs.Set(graph.IntsAttr("kernel_shape", 2)).Set(graph.IntsAttr("strides", 3))
	near(t, "beyond", call(t, 22, "AveragePool", attrs, ones), tensor.From([]float64{1, 1}, 1, 1, 2), 0)
}

// TestOutputShape: pads follow from output_shape; opset 11 changed which side gets the odd one.
func TestOutputShape(t *testing.T) {
	x, k := tensor.From([]float64{1, 2}, 1, 1, 2), tensor.From([]float64{1, 10, 100}, 1, 1, 3)
	// Without pads: 1 10 102 20 200.
	for _, c := range []struct {
		opset int
		auto  string
		size  int
		want  []float64
	}{
		// The text of opset 1 swaps the two; no implementation does.
		{1, "NOTSET", 4, []float64{10, 102, 20, 200}}, {11, "NOTSET", 4, []float64{10, 102, 20, 200}},
		{1, "SAME_UPPER", 4, []float64{1, 10, 102, 20}}, {11, "SAME_UPPER", 4, []float64{1, 10, 102, 20}},
		{11, "NOTSET", 6, []float64{1, 10, 102, 20, 200, 0}},
	} {
		attrs := graph.Attrs{graph.IntsAttr("strides", 2), graph.IntsAttr("output_shape", c.size), graph.StrAttr("auto_pad", c.auto)}
		near(t, fmt.Sprintf("opset %d %s", c.opset, c.auto), call(t, c.opset, "ConvTranspose", attrs, x, k), tensor.From(c.want, 1, 1, c.size), 0)
	}
}

// TestResizeNearest10: opset 10 rounds up when it makes smaller and down when it makes larger.
func TestResizeNearest10(t *testing.T) {
	x := tensor.From([]float64{1, 2, 3, 4}, 1, 4)
	near(t, "down", call(t, 10, "Resize", nil, x, tensor.From([]float32{1, 0.6}, 2)), tensor.From([]float64{1, 3}, 1, 2), 0)
	near(t, "up", call(t, 10, "Resize", nil, x, tensor.From([]float32{1, 1.5}, 2)), tensor.From([]float64{1, 1, 2, 3, 3, 4}, 1, 6), 0)
}

// TestHostileGeometry: a few bytes of attributes ask for no memory and end no process.
func TestHostileGeometry(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x, k := normal(r, 1, 1, 3, 3), normal(r, 1, 1, 2, 2)
	const far = 1 << 40
	for _, c := range []struct {
		op    string
		attrs graph.Attrs
		in    []*tensor.Tensor
	}{
		{"Conv", graph.Attrs{graph.IntsAttr("pads", 65536, 65536, 65536, 65536)}, []*tensor.Tensor{x, k}},
		{"Conv", graph.Attrs{graph.IntsAttr("pads", far, 0, 0, 0)}, []*tensor.Tensor{x, k}},
		{"Conv", graph.Attrs{graph.IntsAttr("pads", -1, 0, 0, 0)}, []*tensor.Tensor{x, k}},
		{"Conv", graph.Attrs{graph.IntsAttr("strides", 0, 1)}, []*tensor.Tensor{x, k}},
		{"Conv", graph.Attrs{graph.IntsAttr("dilations", far, 1)}, []*tensor.Tensor{x, k}},
		{"Conv", graph.Attrs{graph.IntsAttr("strides", 1)}, []*tensor.Tensor{x, k}},
		{"Conv", graph.Attrs{graph.IntAttr("group", -1)}, []*tensor.Tensor{x, k}},
		{"Conv", graph.Attrs{graph.StrAttr("auto_pad", "SOME")}, []*tensor.Tensor{x, k}},
		{"Conv", nil, []*tensor.Tensor{x, normal(r, 1, 2, 2, 2)}},
		{"Conv", nil, []*tensor.Tensor{x, k, normal(r, 2)}},
		{"Conv", nil, []*tensor.Tensor{x}},
		{"ConvTranspose", graph.Attrs{graph.IntsAttr("strides", 65536, 65536)}, []*tensor.Tensor{x, k}},
		{"ConvTranspose", graph.Attrs{graph.IntsAttr("dilations", 65536, 65536)}, []*tensor.Tensor{x, k}},
		{"ConvTranspose", graph.Attrs{graph.IntsAttr("output_shape", far, far)}, []*tensor.Tensor{x, k}},
		{"ConvTranspose", graph.Attrs{graph.IntsAttr("output_shape", -1, 3)}, []*tensor.Tensor{x, k}},
		{"ConvTranspose", graph.Attrs{graph.IntAttr("group", far)}, []*tensor.Tensor{x, k}},
		{"MaxPool", nil, []*tensor.Tensor{x}},
		{"MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 9, 9)}, []*tensor.Tensor{x}},
		{"AveragePool", graph.Attrs{graph.IntsAttr("kernel_shape", 1, 1), graph.IntsAttr("pads", 65536, 65536, 65536, 65536)}, []*tensor.Tensor{x}},
		{"Resize", nil, []*tensor.Tensor{x}},
		{"Resize", nil, []*tensor.Tensor{x, nil, tensor.From([]float32{1, 1, 1e6, 1e6}, 4)}},
		{"Resize", nil, []*tensor.Tensor{x, nil, tensor.From([]float32{1, 1, float32(math.NaN()), 1}, 4)}},
		{"Resize", nil, []*tensor.Tensor{x, nil, nil, tensor.From([]int64{1, 1, far, 1}, 4)}},
		{"Resize", nil, []*tensor.Tensor{x, nil, nil, tensor.From([]int64{1, 1, 1 << 27, 1}, 4)}},
		{"Resize", graph.Attrs{graph.IntsAttr("axes", 2, 2)}, []*tensor.Tensor{x, nil, nil, tensor.From([]int64{1, 1}, 2)}},
		{"Softmax", graph.Attrs{graph.IntAttr("axis", 9)}, []*tensor.Tensor{x}},
		{"ArgMax", graph.Attrs{graph.IntAttr("axis", -9)}, []*tensor.Tensor{x}},
		{"ReduceSum", nil, []*tensor.Tensor{x, tensor.From([]int64{far}, 1)}},
		{"MatMul", nil, []*tensor.Tensor{tensor.New(tensor.Float64, 1<<20, 1<<10, 0), tensor.New(tensor.Float64, 0, 1<<10)}},
		{"Gemm", nil, []*tensor.Tensor{x, x}},
		{"PRelu", nil, []*tensor.Tensor{x, normal(r, 2, 1, 1, 1)}},
		{"BatchNormalization", nil, []*tensor.Tensor{x, normal(r, 2), normal(r, 1), normal(r, 1), normal(r, 1)}},
	} {
		if _, err := op.Apply(node(c.op, len(c.in), c.attrs), 19, tensor.Float64, c.in...); err == nil {
			t.Errorf("%s %v: no error", c.op, c.attrs)
		}
	}
}

// TestTable: one row for each operator and version, and each can run.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range op.Table {
		key := fmt.Sprint(d.Domain, "/", d.Op, "/", d.Since)
		if seen[key] {
			t.Errorf("%s is listed twice", key)
		}
		seen[key] = true
		if d.Infer == nil || d.New == nil || d.Since < 1 {
			t.Errorf("%s is incomplete", key)
		}
	}
}

// TestMissingInputs: a node without inputs, which a file may hold, is an error.
func TestMissingInputs(t *testing.T) {
	for _, d := range op.Table {
		n := &graph.Node{Op: d.Op, Domain: d.Domain}
		s := &op.Site{Node: n, Opset: d.Since, Float: tensor.Float32}
		if _, err := d.Infer(s); err == nil && !strings.Contains(d.Op, "Constant") {
			t.Errorf("%s %d: no error", d.Op, d.Since)
		} else if u := (*op.Unsupported)(nil); errors.As(err, &u) && u.Node != n {
			t.Errorf("%s %d: %v names another node", d.Op, d.Since, err)
		}
	}
}
