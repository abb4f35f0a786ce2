package op_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// drawPair gives two shapes that broadcast, and the shape they broadcast to.
func drawPair(t *rapid.T) (a, b, out []int) {
	out = rapid.SliceOfN(rapid.IntRange(0, 4), 0, 5).Draw(t, "out")
	some := func(name string) []int {
		s := slices.Clone(out)
		for i := range s {
			if rapid.Bool().Draw(t, name) {
				s[i] = 1
			}
		}
		return s[rapid.IntRange(0, len(s)).Draw(t, name+" rank"):]
	}
	a, b = some("a"), some("b")
	for i := range out { // where both are 1 or absent, so is the result
		at := func(s []int) int {
			if k := i - (len(out) - len(s)); k >= 0 {
				return s[k]
			}
			return 1
		}
		if at(a) == 1 && at(b) == 1 {
			out[i] = 1
		} else if at(a) != 1 {
			out[i] = at(a)
		} else {
			out[i] = at(b)
		}
	}
	return a, b, out[len(out)-max(len(a), len(b)):]
}

func filled(dt tensor.DType, shape []int, f func(i int) float64) *tensor.Tensor {
	x := tensor.New(tensor.Float64, shape...)
	for i, v := 0, tensor.Of[float64](x); i < len(v); i++ {
		v[i] = f(i)
	}
	if dt == tensor.Float64 {
		return x
	}
	out, err := op.Apply(node("Cast", 1, graph.Attrs{graph.IntAttr("to", int(dt))}), 13, tensor.Float32, x)
	if err != nil {
		panic(err)
	}
	return out[0]
}

// TestBroadcastingIsExpand: an operator on broadcast operands is the operator on operands written out by Expand, and
// each element is Go's own.
func TestBroadcastingIsExpand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		as, bs, out := drawPair(t)
		dt := rapid.SampledFrom([]tensor.DType{tensor.Float32, tensor.Int64, tensor.Int8, tensor.Uint16}).Draw(t, "type")
		k := rapid.SampledFrom([]struct {
			name string
			f    func(a, b float64) float64
		}{
			{"Add", func(a, b float64) float64 { return a + b }}, {"Mul", func(a, b float64) float64 { return a * b }},
			{"Max", math.Max}, {"Min", math.Min}, {"Sub", func(a, b float64) float64 { return a - b }},
			{"Div", func(a, b float64) float64 {
				if dt == tensor.Float32 {
					return float64(float32(a) / float32(b))
				}
				return math.Trunc(a / b)
			}},
			{"Pow", math.Pow},
		}).Draw(t, "op")
		// Subtraction stays positive for the unsigned, powers stay exact.
		a, b := filled(dt, as, func(i int) float64 { return float64(5 + i%3) }), filled(dt, bs, func(i int) float64 { return float64(1 + i%2) })
		y := single(t, 13, k.name, nil, a, b)
		if !slices.Equal(y.Shape, out) {
			t.Fatalf("shape %v, want %v", y.Shape, out)
		}
		ea, eb := single(t, 13, "Expand", nil, a, int64s(out...)), single(t, 13, "Expand", nil, b, int64s(out...))
		same(t, "expanded", y, single(t, 13, k.name, nil, ea, eb))
		got, _ := y.Float64s()
		x, _ := ea.Float64s()
		z, _ := eb.Float64s()
		for i := range got {
			if want := k.f(x[i], z[i]); got[i] != want {
				t.Fatalf("%s(%g, %g) = %g, want %g", k.name, x[i], z[i], got[i], want)
			}
		}
		if k.name == "Max" || k.name == "Min" { // any number of operands
			three := single(t, 13, k.name, nil, b, a, b)
			same(t, "three operands", three, y)
		}
		w := single(t, 16, "Where", nil, single(t, 13, "Greater", nil, a, b), a, b)
		same(t, "Where", w, single(t, 13, "Max", nil, a, b))
		same(t, "LessOrEqual", single(t, 16, "Not", nil, single(t, 13, "Greater", nil, a, b)), single(t, 16, "LessOrEqual", nil, a, b))
	})
}

// TestLegacyBroadcast: before opset 7 the second operand stands at attribute axis.
func TestLegacyBroadcast(t *testing.T) {
	x, c := filled(tensor.Float32, []int{2, 3, 4}, func(i int) float64 { return float64(i) }), tensor.From([]float32{10, 20, 30}, 3)
	at := func(attrs ...graph.Attr) (*tensor.Tensor, error) {
		out, err := op.Apply(node("Add", 2, attrs), 6, tensor.Float32, x, c)
		if err != nil {
			return nil, err
		}
		return out[0], nil
	}
	got, err := at(graph.IntAttr("broadcast", 1), graph.IntAttr("axis", 1))
	if err != nil {
		t.Fatal(err)
	}
	want, err := op.Apply(node("Add", 2, nil), 7, tensor.Float32, x, tensor.From([]float32{10, 20, 30}, 3, 1))
	if err != nil {
		t.Fatal(err)
	}
	if !tensor.Equal(got, want[0]) {
		t.Errorf("got %v", tensor.Of[float32](got))
	}
	for _, attrs := range []graph.Attrs{nil, {graph.IntAttr("broadcast", 1)}, {graph.IntAttr("broadcast", 1), graph.IntAttr("axis", 9)}} {
		if _, err := at(attrs...); err == nil {
			t.Errorf("%v: no error", attrs)
		}
	}
}

// TestModSigns: the sign follows the divisor, or with fmod the dividend.
func TestModSigns(t *testing.T) {
	a, b := []int32{7, -7, 7, -7, 6}, []int32{3, 3, -3, -3, 3}
	for fmod, want := range [][]int32{{1, 2, -2, -1, 0}, {1, -1, 1, -1, 0}} {
		out, err := op.Apply(node("Mod", 2, graph.Attrs{graph.IntAttr("fmod", fmod)}), 13, tensor.Float32, tensor.From(a, 5), tensor.From(b, 5))
		if err != nil {
			t.Fatal(err)
		}
		if got := tensor.Of[int32](out[0]); !slices.Equal(got, want) {
			t.Errorf("fmod=%d: %v, want %v", fmod, got, want)
		}
	}
}

// TestDropout is the identity unless it trains, and says that it kept all.
func TestDropout(t *testing.T) {
	x := tensor.From([]float32{1, 2, 3}, 3)
	n := node("Dropout", 3, nil)
	n.Outputs = append(n.Outputs, &graph.Value{Name: "mask", Def: n})
	ratio, yes, no := tensor.Scalar(float32(0.5)), tensor.Scalar(true), tensor.Scalar(false)
	for _, opset := range []int{7, 10, 12, 13, 22} {
		in := []*tensor.Tensor{x, ratio, no}
		if opset < 12 {
			in = in[:1]
		}
		out, err := op.Apply(n, opset, tensor.Float32, in...)
		if err != nil {
			t.Fatal(err)
		}
		mask, _ := out[1].Float64s()
		if !tensor.Equal(out[0], x) || !slices.Equal(mask, []float64{1, 1, 1}) {
			t.Errorf("opset %d: %v, mask %v", opset, tensor.Of[float32](out[0]), mask)
		}
	}
	var un *op.Unsupported
	if _, err := op.Apply(n, 13, tensor.Float32, x, ratio, yes); !errors.As(err, &un) {
		t.Errorf("training: %v, want Unsupported", err)
	}
	if _, err := op.Apply(n, 6, tensor.Float32, x); !errors.As(err, &un) {
		t.Errorf("opset 6 without is_test: %v, want Unsupported", err)
	}
}
