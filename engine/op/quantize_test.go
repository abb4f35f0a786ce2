package op_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// quanta is the types that numbers are quantised to, and what they hold.
var quanta = map[tensor.DType][2]int{
	tensor.Int8: {-128, 127}, tensor.Uint8: {0, 255}, tensor.Int16: {-32768, 32767}, tensor.Uint16: {0, 65535},
}

// granularity is a way to share scales: attributes, the shape of the scale, and where that of an element lies.
type granularity struct {
	attrs graph.Attrs
	shape []int
	at    func(i int) int
}

func drawGranularity(t *rapid.T, x tensor.Shape) granularity {
	kind := rapid.SampledFrom([]string{"tensor", "list of one", "axis", "blocks"}).Draw(t, "granularity")
	if kind == "tensor" || kind == "list of one" {
		g := granularity{at: func(int) int { return 0 }}
		if kind != "tensor" {
			g.shape = []int{1}
		}
		return g
	}
	axis := rapid.IntRange(0, len(x)-1).Draw(t, "axis")
	n, inner := x[axis], x[axis+1:].Elems()
	g := granularity{attrs: graph.Attrs{graph.IntAttr("axis", axis-len(x)*rapid.IntRange(0, 1).Draw(t, "negative"))}}
	if kind == "axis" {
		g.shape, g.at = []int{n}, func(i int) int { return i / inner % n }
		return g
	}
	block := rapid.IntRange(1, 5).Draw(t, "block")
	blocks := (n + block - 1) / block
	g.attrs = append(g.attrs, graph.IntAttr("block_size", block))
	g.shape = slices.Clone(x)
	g.shape[axis] = blocks
	g.at = func(i int) int { return (i/inner/n*blocks+i/inner%n/block)*inner + i%inner }
	return g
}

// run is one node of quantisation in float32 at opset 25.
func run(t interface{ Fatalf(string, ...any) }, name string, attrs graph.Attrs, in ...*tensor.Tensor) *tensor.Tensor {
	return runAs(t, tensor.Float32, name, attrs, in...)
}

// runAs is run in float32 or float64.
func runAs(t interface{ Fatalf(string, ...any) }, float tensor.DType, name string, attrs graph.Attrs, in ...*tensor.Tensor) *tensor.Tensor {
	out, err := op.Apply(node(name, len(in), attrs), 25, float, in...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out[0]
}

// TestQuantizeIsItsDefinition, to the bit, halves and infinities included; dequantising is a difference and a product, and
// quantising what it gives gives the same integers again.
func TestQuantizeIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		x := tensor.New(tensor.Float32, append(rapid.SliceOfN(rapid.IntRange(1, 6), 0, 3).Draw(t, "shape"), rapid.SampledFrom([]int{1, 7, 64, 150}).Draw(t, "last"))...)
		to := rapid.SampledFrom([]tensor.DType{tensor.Int8, tensor.Uint8, tensor.Int16, tensor.Uint16}).Draw(t, "type")
		lo, hi := quanta[to][0], quanta[to][1]
		g := drawGranularity(t, x.Shape)
		scale := tensor.New(tensor.Float32, g.shape...)
		for i, s := 0, tensor.Of[float32](scale); i < len(s); i++ {
			s[i] = rapid.SampledFrom([]float32{0.5, 0.25, 0.1, 3e-5, 7}).Draw(t, "scale")
		}
		zero := filled(to, g.shape, func(int) float64 { return float64(lo + r.IntN(hi-lo+1)) })
		scales := tensor.Of[float32](scale)
		zeros, _ := zero.Ints()
		for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
			switch r.IntN(8) {
			case 0:
				v[i] = float32(math.Inf(1 - 2*r.IntN(2)))
			case 1:
				v[i] = float32(math.NaN())
			case 2, 3: // halfway
				v[i] = (float32(r.IntN(2*hi)-hi) + 0.5) * scales[g.at(i)]
			default:
				v[i] = float32(r.NormFloat64()*float64(hi)) * scales[g.at(i)]
			}
		}
		in := []*tensor.Tensor{x, scale, zero}
		if rapid.Bool().Draw(t, "symmetric") {
			in, zeros = in[:2], make([]int, len(zeros))
			g.attrs = append(g.attrs, graph.IntAttr("output_dtype", int(to)))
		}
		// What a quotient and a product are: float64 divides and multiplies twice as exactly.
		float := tensor.Float32
		over, times := func(a, b float32) float64 { return float64(a / b) }, func(a, b float32) float64 { return float64(a * b) }
		if rapid.Bool().Draw(t, "float64") {
			float = tensor.Float64
			over, times = func(a, b float32) float64 { return float64(a) / float64(b) }, func(a, b float32) float64 { return float64(a) * float64(b) }
		}
		q := runAs(t, float, "QuantizeLinear", g.attrs, in...)
		got, _ := q.Ints()
		for i, v := range tensor.Of[float32](x) {
			want := zeros[g.at(i)]
			if v == v {
				want = int(min(max(math.RoundToEven(over(v, scales[g.at(i)]))+float64(want), float64(lo)), float64(hi)))
			}
			if got[i] != want {
				t.Fatalf("%v %v: y[%d] = %d, want %d, from %g by %g and %d", x.Shape, g.attrs, i, got[i], want, v, scales[g.at(i)], zeros[g.at(i)])
			}
		}
		attrs := slices.DeleteFunc(slices.Clone(g.attrs), func(a graph.Attr) bool { return a.Name == "output_dtype" })
		y := runAs(t, float, "DequantizeLinear", attrs, append([]*tensor.Tensor{q}, in[1:]...)...)
		back, _ := y.Float64s()
		for i, v := range back {
			if want := times(float32(got[i]-zeros[g.at(i)]), scales[g.at(i)]); v != want {
				t.Fatalf("%v %v: %d becomes %g, want %g", x.Shape, g.attrs, got[i], v, want)
			}
		}
		same(t, "again", runAs(t, float, "QuantizeLinear", g.attrs, append([]*tensor.Tensor{y}, in[1:]...)...), q)
	})
}

// TestQuantizeLongRows: rows of more elements than are done at a time, or shared among workers, whole and not.
func TestQuantizeLongRows(t *testing.T) {
	for _, n := range []int{1<<14 - 1, 1 << 14, 1<<14 + 1, 3<<14 + 5} {
		x := filled(tensor.Float32, []int{n}, func(i int) float64 { return float64(i % 256) })
		q := run(t, "QuantizeLinear", nil, x, tensor.Scalar[float32](1))
		for i, v := range q.Data {
			if int(v) != i%256 {
				t.Fatalf("%d elements: y[%d] = %d", n, i, v)
			}
		}
		if y := run(t, "DequantizeLinear", nil, q, tensor.Scalar[float32](1)); !tensor.Equal(x, y) {
			t.Fatalf("%d elements do not come back", n)
		}
	}
}

// TestQuantizeIntegers: int32 is quantised, as requantising does, and dequantised, as biases are.
func TestQuantizeIntegers(t *testing.T) {
	x := tensor.From([]int32{-7, -5, 5, 7, 1 << 30, -1 << 31}, 6)
	q := run(t, "QuantizeLinear", nil, x, tensor.Scalar[float32](2), tensor.Scalar(int8(1)))
	if got := tensor.Of[int8](q); !slices.Equal(got, []int8{-3, -1, 3, 5, 127, -128}) {
		t.Errorf("quantised: %v", got)
	}
	y := run(t, "DequantizeLinear", nil, x, tensor.Scalar[float32](0.5))
	if got := tensor.Of[float32](y); !slices.Equal(got, []float32{-3.5, -2.5, 2.5, 3.5, 1 << 29, -1 << 30}) {
		t.Errorf("dequantised: %v", got)
	}
}

// TestHostileQuantization: what does not fit is an error, and types that are not run are named.
func TestHostileQuantization(t *testing.T) {
	const q, dq = "QuantizeLinear", "DequantizeLinear"
	f := func(shape ...int) *tensor.Tensor { return tensor.New(tensor.Float32, shape...) }
	of := func(dt tensor.DType, shape ...int) *tensor.Tensor { return tensor.New(dt, shape...) }
	axis, block := func(n int) graph.Attr { return graph.IntAttr("axis", n) }, func(n int) graph.Attr { return graph.IntAttr("block_size", n) }
	x, u := f(2, 6, 4), of(tensor.Uint8, 2, 6, 4)
	for _, k := range []struct {
		op    string
		opset int
		attrs graph.Attrs
		in    []*tensor.Tensor
		want  string // in the reason of a refusal, or empty for an invalid node
	}{
		{q, 25, nil, []*tensor.Tensor{x}, ""},
		{q, 25, nil, []*tensor.Tensor{x, f(5)}, ""},
		{q, 25, nil, []*tensor.Tensor{x, f(1, 1)}, ""},
		{q, 10, nil, []*tensor.Tensor{x, f(6)}, ""},
		{q, 25, graph.Attrs{axis(3)}, []*tensor.Tensor{x, f(6)}, ""},
		{q, 25, graph.Attrs{axis(-4)}, []*tensor.Tensor{x, f(6)}, ""},
		{q, 25, nil, []*tensor.Tensor{f(6), f(6)}, ""},
		{q, 25, nil, []*tensor.Tensor{x, f(6), of(tensor.Int8)}, ""},
		{q, 25, nil, []*tensor.Tensor{x, f(6), of(tensor.Int8, 4)}, ""},
		{q, 25, graph.Attrs{block(-1)}, []*tensor.Tensor{x, f(2, 3, 4)}, ""},
		{q, 25, graph.Attrs{block(3)}, []*tensor.Tensor{x, f(2, 3, 4)}, ""},
		{q, 25, graph.Attrs{block(math.MaxInt)}, []*tensor.Tensor{x, f(2, 2, 4)}, ""},
		{q, 25, nil, []*tensor.Tensor{x, f(2, 3, 4)}, ""},
		{q, 25, graph.Attrs{graph.IntAttr("output_dtype", int(tensor.Int16))}, []*tensor.Tensor{x, f(), of(tensor.Int8)}, ""},
		{dq, 25, nil, []*tensor.Tensor{u, f(), of(tensor.Int8)}, ""},
		{dq, 25, nil, []*tensor.Tensor{u}, ""},
		{dq, 25, nil, []*tensor.Tensor{u, f(4)}, ""},
		{q, 25, nil, []*tensor.Tensor{x, f(), of(tensor.Int4)}, "int4"},
		{q, 25, nil, []*tensor.Tensor{x, f(), of(tensor.Float8E4M3FN)}, "float8e4m3fn"},
		{q, 25, graph.Attrs{graph.IntAttr("output_dtype", int(tensor.Uint2))}, []*tensor.Tensor{x, f()}, "uint2"},
		{q, 25, graph.Attrs{graph.IntAttr("precision", int(tensor.Float16))}, []*tensor.Tensor{x, f()}, "float16"},
		{q, 25, nil, []*tensor.Tensor{x, of(tensor.Float8E8M0)}, "float8e8m0"},
		{q, 25, nil, []*tensor.Tensor{of(tensor.Int64, 2), f()}, "int64"},
		{dq, 25, nil, []*tensor.Tensor{of(tensor.Int4, 2), f()}, "int4"},
		{dq, 25, nil, []*tensor.Tensor{of(tensor.Float4E2M1, 2), f()}, "float4e2m1"},
		{dq, 25, nil, []*tensor.Tensor{x, f()}, "float32"},
		{dq, 25, nil, []*tensor.Tensor{u, of(tensor.Int32)}, "int32"},
		{dq, 25, graph.Attrs{graph.IntAttr("output_dtype", int(tensor.Int32))}, []*tensor.Tensor{u, f()}, "int32"},
	} {
		_, err := op.Apply(node(k.op, len(k.in), k.attrs), k.opset, tensor.Float32, k.in...)
		var un *op.Unsupported
		if errors.As(err, &un) != (k.want != "") || err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s %v of %v: error is %v, want one with %q", k.op, k.attrs, fmt.Sprint(k.in[0].Type(), k.in[len(k.in)-1].Type()), err, k.want)
		}
	}
	for _, shape := range [][]int{{0}, {2, 0, 3}, {0, 6}} { // of nothing, nothing
		for _, attrs := range []graph.Attrs{nil, {axis(0), block(3)}} {
			s := f()
			if attrs != nil {
				s = f(append([]int{(shape[0] + 2) / 3}, shape[1:]...)...)
			}
			if y := run(t, q, attrs, f(shape...), s); !slices.Equal(y.Shape, shape) {
				t.Errorf("%v becomes %v", shape, y.Shape)
			}
		}
	}
}
