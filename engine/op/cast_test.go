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

func to(dt tensor.DType) graph.Attrs { return graph.Attrs{graph.IntAttr("to", int(dt))} }

// TestCastWidens: a number that both types hold survives the way there and back.
func TestCastWidens(t *testing.T) {
	narrow := []tensor.DType{tensor.Uint2, tensor.Uint4, tensor.Int4, tensor.Uint8, tensor.Int8, tensor.Bool, tensor.Float4E2M1, tensor.Float8E4M3FN, tensor.Float8E5M2}
	wide := []tensor.DType{tensor.Float32, tensor.Float64, tensor.Float16, tensor.BFloat16, tensor.Int16, tensor.Int64, tensor.Uint16, tensor.Uint64, tensor.Float8E5M2FNUZ}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SampledFrom(narrow).Draw(t, "narrow"), rapid.SampledFrom(wide).Draw(t, "wide")
		n := rapid.IntRange(0, 600).Draw(t, "n")
		x := tensor.New(tensor.Uint8, n)
		for i := range x.Data {
			x.Data[i] = byte(i % 2)
		}
		small := single(t, 25, "Cast", to(a), x)
		there := single(t, 25, "Cast", to(b), small)
		same(t, "back", single(t, 25, "Cast", to(a), there), small)
		same(t, "whole way", single(t, 25, "Cast", to(tensor.Uint8), there), x)
	})
}

// TestCastWraps: integers that are out of range lose their high bits; floating point is clamped, and NaN is 0.
func TestCastWraps(t *testing.T) {
	for _, k := range []struct {
		in   *tensor.Tensor
		to   tensor.DType
		want []int
	}{
		{tensor.From([]int64{300, -1, 200, 1<<40 + 5}, 4), tensor.Uint8, []int{44, 255, 200, 5}},
		{tensor.From([]int16{200, -200}, 2), tensor.Int8, []int{-56, 56}},
		{tensor.From([]float32{300, -300, 1.9, -1.9, float32(math.NaN()), float32(math.Inf(1))}, 6), tensor.Int8, []int{127, -128, 1, -1, 0, 127}},
		{tensor.From([]float32{300, -1, 255.5}, 3), tensor.Uint8, []int{255, 0, 255}},
		{tensor.From([]float32{1e30, -1e30}, 2), tensor.Int64, []int{math.MaxInt64, math.MinInt64}},
	} {
		out, err := op.Apply(node("Cast", 1, to(k.to)), 13, tensor.Float32, k.in)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := out[0].Ints(); !slices.Equal(got, k.want) {
			t.Errorf("%v to %v: %v, want %v", k.in.DType, k.to, got, k.want)
		}
	}
}

// TestCastRounds: the floating-point formats hold what they can and round the rest to even. The result of float16 and
// bfloat16 is held in float32.
func TestCastRounds(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, k := range []struct {
		to       tensor.DType
		saturate int
		in, want []float64
	}{
		{tensor.Float16, 1, []float64{1.0 / 3, 65519, 65520, 1e-8, math.Copysign(0, -1)}, []float64{0.333251953125, 65504, inf, 0, 0}},
		{tensor.BFloat16, 1, []float64{1.0 / 3, 257, 259, 3.4e38}, []float64{0.333984375, 256, 260, inf}},
		{tensor.Float8E4M3FN, 1, []float64{17, 19, 464, 500, -inf, nan, 1.0 / 1024}, []float64{16, 20, 448, 448, -448, nan, 0}},
		{tensor.Float8E4M3FN, 0, []float64{464, 465, -inf}, []float64{448, nan, nan}},
		{tensor.Float8E5M2, 1, []float64{9, 11, 61440, 1e9}, []float64{8, 12, 57344, 57344}},
		{tensor.Float8E5M2, 0, []float64{61439, 61440, -1e9}, []float64{57344, inf, -inf}},
		{tensor.Float8E4M3FNUZ, 1, []float64{300, nan, -0.0001}, []float64{240, nan, 0}},
		{tensor.Float8E5M2FNUZ, 0, []float64{57344, 1e9}, []float64{57344, nan}},
		{tensor.Float4E2M1, 1, []float64{0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 100, -100}, []float64{0, 1, 1, 2, 2, 4, 4, 6, -6}},
		{tensor.Float8E8M0, 1, []float64{1, 1.1, 2, 0, 3e38, inf}, []float64{1, 2, 2, math.Ldexp(1, -127), math.Ldexp(1, 127), math.Ldexp(1, 127)}},
	} {
		x := filled(tensor.Float64, []int{len(k.in)}, func(i int) float64 { return k.in[i] })
		small, err := op.Apply(node("Cast", 1, append(to(k.to), graph.IntAttr("saturate", k.saturate))), 25, tensor.Float32, x)
		if err != nil {
			t.Fatal(err)
		}
		out, err := op.Apply(node("Cast", 1, to(tensor.Float32)), 25, tensor.Float32, small...)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := out[0].Float64s()
		for i, w := range k.want {
			if got[i] != w && !(math.IsNaN(got[i]) && math.IsNaN(w)) {
				t.Errorf("%v, saturate=%d: %g becomes %g, want %g", k.to, k.saturate, k.in[i], got[i], w)
			}
		}
	}
}

// TestCastSmallCodes: every code of a small format decodes to a number that encodes to the same code, NaN aside.
func TestCastSmallCodes(t *testing.T) {
	for _, dt := range []tensor.DType{tensor.Float8E4M3FN, tensor.Float8E4M3FNUZ, tensor.Float8E5M2, tensor.Float8E5M2FNUZ, tensor.Float8E8M0} {
		x := tensor.New(dt, 256)
		for i := range x.Data {
			x.Data[i] = byte(i)
		}
		wide, err := op.Apply(node("Cast", 1, to(tensor.Float32)), 25, tensor.Float32, x)
		if err != nil {
			t.Fatal(err)
		}
		back, err := op.Apply(node("Cast", 1, append(to(dt), graph.IntAttr("saturate", 0))), 25, tensor.Float32, wide...)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range tensor.Of[float32](wide[0]) {
			if v == v && back[0].Data[i] != byte(i) {
				t.Errorf("%v: code %#x is %g, which encodes to %#x", dt, i, v, back[0].Data[i])
			}
		}
	}
}

// TestCastNames the types that are not run.
func TestCastNames(t *testing.T) {
	var un *op.Unsupported
	for _, dt := range []tensor.DType{tensor.String, tensor.Complex64, tensor.Undefined, 99, -1} {
		if _, err := op.Apply(node("Cast", 1, to(dt)), 13, tensor.Float32, tensor.Scalar(float32(1))); !errors.As(err, &un) {
			t.Errorf("to %v: %v, want Unsupported", dt, err)
		}
	}
}

// TestCastLike takes its type from the second input.
func TestCastLike(t *testing.T) {
	out, err := op.Apply(node("CastLike", 2, nil), 15, tensor.Float32, tensor.From([]float32{1.5, -2.5}, 2), tensor.Scalar(int16(0)))
	if err != nil {
		t.Fatal(err)
	}
	if got := tensor.Of[int16](out[0]); !slices.Equal(got, []int16{1, -2}) {
		t.Errorf("got %v", got)
	}
}

// TestConstant reads each attribute that can hold the value, and floating point of any width runs as one type.
func TestConstant(t *testing.T) {
	half := tensor.New(tensor.Float16, 1)
	tensor.View[uint16](half)[0] = tensor.Float32ToFloat16(1.5)
	for _, k := range []struct {
		attr graph.Attr
		want *tensor.Tensor
	}{
		{graph.Attr{Name: "value", Kind: graph.AttrTensor, Tensor: half}, tensor.From([]float32{1.5}, 1)},
		{graph.Attr{Name: "value", Kind: graph.AttrTensor, Tensor: int64s(7)}, int64s(7)},
		{graph.FloatAttr("value_float", 2.5), tensor.Scalar(float32(2.5))},
		{graph.Attr{Name: "value_floats", Kind: graph.AttrFloats, Floats: []float32{1, 2}}, tensor.From([]float32{1, 2}, 2)},
		{graph.IntAttr("value_int", 3), tensor.Scalar(int64(3))},
		{graph.IntsAttr("value_ints", 3, 4), int64s(3, 4)},
		{graph.StrAttr("value_string", "a"), &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{}, Strings: [][]byte{[]byte("a")}}},
	} {
		out, err := op.Apply(node("Constant", 0, graph.Attrs{k.attr}), 13, tensor.Float32)
		if err != nil {
			t.Fatal(err)
		}
		if !tensor.Equal(out[0], k.want) {
			t.Errorf("%s: %v %x, want %v %x", k.attr.Name, out[0].Type(), out[0].Data, k.want.Type(), k.want.Data)
		}
	}
}
