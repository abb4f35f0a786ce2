package op_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// matrix reads a matrix, transposed if so asked.
func matrix(v []float64, rows, cols int, trans bool) func(i, j int) float64 {
	if trans {
		return func(i, j int) float64 { return v[j*rows+i] }
	}
	return func(i, j int) float64 { return v[i*cols+j] }
}

func TestGemmIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		d := rapid.IntRange(1, 20)
		m, k, n := d.Draw(t, "m"), d.Draw(t, "k"), d.Draw(t, "n")
		ta, tb := rapid.IntRange(0, 1).Draw(t, "ta"), rapid.IntRange(0, 1).Draw(t, "tb")
		alpha, beta := rapid.SampledFrom([]float32{1, 0.5}).Draw(t, "alpha"), rapid.SampledFrom([]float32{1, -2}).Draw(t, "beta")
		as, bs := []int{m, k}, []int{k, n}
		if ta == 1 {
			as = []int{k, m}
		}
		if tb == 1 {
			bs = []int{n, k}
		}
		a, b := normal(r, as...), normal(r, bs...)
		c := normal(r, rapid.SampledFrom([][]int{{}, {1}, {n}, {1, n}, {m, 1}, {m, n}}).Draw(t, "c")...)
		at, bt := matrix(tensor.Of[float64](a), m, k, ta == 1), matrix(tensor.Of[float64](b), k, n, tb == 1)
		want := call(t, 17, "Mul", nil, call(t, 17, "Expand", nil, c, tensor.From([]int64{int64(m), int64(n)}, 2)), tensor.Scalar(float64(beta)))
		for i := range m {
			for j := range n {
				for l := range k {
					tensor.Of[float64](want)[i*n+j] += float64(alpha) * at(i, l) * bt(l, j)
				}
			}
		}
		attrs := graph.Attrs{graph.IntAttr("transA", ta), graph.IntAttr("transB", tb), graph.FloatAttr("alpha", alpha), graph.FloatAttr("beta", beta)}
		near(t, "Gemm with constant B", call(t, 17, "Gemm", attrs, a, b, c), want, 1e-12)
		near(t, "Gemm with variable B", variable(t, "Gemm", attrs, a, b, c), want, 1e-12)
	})
}

// variable is call where no input is known before the run.
func variable(t interface{ Fatalf(string, ...any) }, name string, attrs graph.Attrs, in ...*tensor.Tensor) *tensor.Tensor {
	s := &op.Site{Node: node(name, len(in), attrs), Opset: 17, Float: tensor.Float64}
	for _, x := range in {
		s.In = append(s.In, op.Arg{Type: x.Type()})
	}
	out, err := op.Eval(s, in)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out[0]
}

// TestMatMulIsItsDefinition: batches broadcast by numpy's rule, and vectors count as matrices of one row or column.
func TestMatMulIsItsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct{ a, b, y []int }{
		{[]int{3, 4}, []int{4, 5}, []int{3, 5}}, {[]int{4}, []int{4, 5}, []int{5}}, {[]int{3, 4}, []int{4}, []int{3}}, {[]int{4}, []int{4}, []int{}},
		{[]int{2, 3, 4}, []int{4, 5}, []int{2, 3, 5}}, {[]int{3, 4}, []int{2, 4, 5}, []int{2, 3, 5}}, {[]int{2, 1, 3, 4}, []int{6, 4, 5}, []int{2, 6, 3, 5}},
		{[]int{2, 3, 4}, []int{2, 4}, nil}, {[]int{4}, []int{2, 4, 5}, []int{2, 5}}, {[]int{3, 0}, []int{0, 2}, []int{3, 2}}, {[]int{0, 4}, []int{4, 2}, []int{0, 2}},
	} {
		a, b := normal(r, c.a...), normal(r, c.b...)
		if c.y == nil {
			if _, err := op.Apply(node("MatMul", 2, nil), 17, tensor.Float64, a, b); err == nil {
				t.Errorf("%v times %v: no error", c.a, c.b)
			}
			continue
		}
		// The definition: the product of every pair is a sum of products that broadcast.
		am, bm := a, b
		if len(c.a) == 1 {
			am = reshaped(a, 1, c.a[0])
		}
		if len(c.b) == 1 {
			bm = reshaped(b, c.b[0], 1)
		}
		left := reshaped(am, append(append([]int{}, am.Shape...), 1)...)                                                           // [.., m, k, 1]
		right := reshaped(bm, append(append(append([]int{}, bm.Shape[:len(bm.Shape)-2]...), 1), bm.Shape[len(bm.Shape)-2:]...)...) // [.., 1, k, n]
		want := reshaped(call(t, 17, "ReduceSum", graph.Attrs{graph.IntAttr("keepdims", 0)}, call(t, 17, "Mul", nil, left, right), tensor.From([]int64{-2}, 1)), c.y...)
		what := fmt.Sprint(c.a, " times ", c.b)
		near(t, what, call(t, 17, "MatMul", nil, a, b), want, 1e-13)
		near(t, what+", variable", variable(t, "MatMul", nil, a, b), want, 1e-13)
	}
}

func reshaped(x *tensor.Tensor, shape ...int) *tensor.Tensor {
	return &tensor.Tensor{DType: x.DType, Shape: shape, Data: x.Data}
}

// TestVariableWeights: weights that the graph computes give what constant ones give.
func TestVariableWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x, k, b := normal(r, 2, 4, 7, 9), normal(r, 4, 4, 3, 2), normal(r, 4)
	for _, name := range []string{"Conv", "ConvTranspose"} {
		near(t, name, variable(t, name, nil, x, k, b), call(t, 17, name, nil, x, k, b), 0)
	}
}

// TestOneAxisIsAHeightOf1: convolutions and pools along one axis are those in two dimensions with a height of 1.
func TestOneAxisIsAHeightOf1(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x, k := normal(r, 2, 4, 11), normal(r, 4, 4, 3)
	tall := func(v *tensor.Tensor) *tensor.Tensor { return reshaped(v, v.Shape[0], v.Shape[1], 1, v.Shape[2]) }
	for _, name := range []string{"Conv", "ConvTranspose", "MaxPool", "AveragePool"} {
		flat := graph.Attrs{graph.IntsAttr("kernel_shape", 3), graph.IntsAttr("strides", 2), graph.IntsAttr("pads", 1, 0)}
		deep := graph.Attrs{graph.IntsAttr("kernel_shape", 1, 3), graph.IntsAttr("strides", 1, 2), graph.IntsAttr("pads", 0, 1, 0, 0)}
		in, deepIn := []*tensor.Tensor{x}, []*tensor.Tensor{tall(x)}
		if name[:4] == "Conv" {
			in, deepIn = append(in, k), append(deepIn, tall(k))
		}
		near(t, name, tall(call(t, 17, name, flat, in...)), call(t, 17, name, deep, deepIn...), 0)
	}
}

// TestNormalisation: InstanceNormalization gives every channel its own mean and variance, and BatchNormalization with
// those statistics gives the same.
func TestNormalisation(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x, gamma, beta := normal(r, 1, 3, 5, 7), normal(r, 3), normal(r, 3)
	y := call(t, 17, "InstanceNormalization", nil, x, gamma, beta)
	axes := graph.Attrs{graph.IntsAttr("axes", 0, 2, 3), graph.IntAttr("keepdims", 0)}
	mean := call(t, 17, "ReduceMean", axes, x)
	square := call(t, 17, "ReduceMean", axes, call(t, 17, "Mul", nil, x, x))
	variance := call(t, 17, "Sub", nil, square, call(t, 17, "Mul", nil, mean, mean))
	near(t, "BatchNormalization", call(t, 17, "BatchNormalization", nil, x, gamma, beta, mean, variance), y, 1e-12)
	near(t, "mean", call(t, 17, "ReduceMean", axes, y), beta, 1e-12)
}

// TestFunctions: values worked out from the formulas of the specification.
func TestFunctions(t *testing.T) {
	x := tensor.From([]float64{-3, -1, 0, 0.5, 4}, 5)
	e := math.Exp
	for _, c := range []struct {
		op    string
		opset int
		attrs graph.Attrs
		f     func(float64) float64
	}{
		{"LeakyRelu", 16, graph.Attrs{graph.FloatAttr("alpha", 0.25)}, func(x float64) float64 { return max(x, 0.25*x) }},
		{"Sigmoid", 13, nil, func(x float64) float64 { return 1 / (1 + e(-x)) }},
		{"HardSigmoid", 6, graph.Attrs{graph.FloatAttr("alpha", 0.25)}, func(x float64) float64 { return max(0, min(1, 0.25*x+0.5)) }},
		{"HardSwish", 14, nil, func(x float64) float64 { return x * max(0, min(1, x/6+0.5)) }},
		{"Elu", 6, graph.Attrs{graph.FloatAttr("alpha", 2)}, func(x float64) float64 { return max(x, 0) + min(0, 2*(e(x)-1)) }},
		{"Selu", 6, nil, func(x float64) float64 {
			return 1.05070102214813232421875 * (max(x, 0) + min(0, 1.67326319217681884765625*(e(x)-1)))
		}},
		{"Celu", 12, graph.Attrs{graph.FloatAttr("alpha", 2)}, func(x float64) float64 { return max(x, 0) + min(0, 2*(e(x/2)-1)) }},
		{"ThresholdedRelu", 10, graph.Attrs{graph.FloatAttr("alpha", 0.5)}, func(x float64) float64 {
			if x > 0.5 {
				return x
			}
			return 0
		}},
		{"Softplus", 1, nil, func(x float64) float64 { return math.Log(1 + e(x)) }},
		{"Softsign", 1, nil, func(x float64) float64 { return x / (1 + math.Abs(x)) }},
		{"Mish", 18, nil, func(x float64) float64 { return x * math.Tanh(math.Log(1+e(x))) }},
		{"Swish", 24, graph.Attrs{graph.FloatAttr("alpha", 2)}, func(x float64) float64 { return x / (1 + e(-2*x)) }},
		{"Gelu", 20, nil, func(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }},
		{"Gelu", 20, graph.Attrs{graph.StrAttr("approximate", "tanh")}, func(x float64) float64 {
			return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		}},
		{"Erf", 13, nil, math.Erf}, {"Round", 11, nil, math.RoundToEven}, {"Abs", 13, nil, math.Abs}, {"Tanh", 13, nil, math.Tanh},
	} {
		want := x.Clone()
		for i, v := range tensor.Of[float64](want) {
			tensor.Of[float64](want)[i] = c.f(v)
		}
		near(t, c.op, call(t, c.opset, c.op, c.attrs, x), want, 1e-14)
	}
}

// TestNaN: what is not a number does not become one on the way.
func TestNaN(t *testing.T) {
	nan := tensor.From([]float64{math.NaN()}, 1, 1, 1)
	for _, name := range []string{"Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Exp", "Softmax", "Clip", "GlobalAveragePool", "ReduceMax"} {
		for _, float := range []tensor.DType{tensor.Float32, tensor.Float64} {
			out, err := op.Apply(node(name, 1, nil), 17, float, nan)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if v, _ := out[0].Float64s(); !math.IsNaN(v[0]) {
				t.Errorf("%s as %v: NaN becomes %g", name, float, v[0])
			}
		}
	}
}

// TestClampedConvolution: the private form is Clip behind Conv.
func TestClampedConvolution(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x, k := normal(r, 1, 4, 7, 9), normal(r, 4, 4, 3, 3)
	bounds := graph.Attrs{graph.FloatAttr("lo", -0.5), graph.FloatAttr("hi", 6)}
	for _, name := range []string{"Conv", "ConvTranspose"} {
		n := node(name, 2, bounds)
		n.Domain = op.Private
		out, err := op.Apply(n, 1, tensor.Float64, x, k)
		if err != nil {
			t.Fatal(err)
		}
		near(t, name, out[0], call(t, 17, "Clip", nil, call(t, 17, name, nil, x, k), tensor.Scalar(-0.5), tensor.Scalar(6.0)), 0)
	}
}
