package conform

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// What a floating-point element may differ by: rtol*|want| + atol, as in ONNX's own runner of node tests, where atol is
// for operators whose exact result is 0.
const (
	rtol = 1e-3
	atol = 1e-5
)

// compare checks got against the expected tensor. The model declares the output's type; tests of old exporters leave it
// out. Floating point is compared by value, everything else bit by bit. steps is how
// many numbers of float16 or bfloat16 an output of that type may lie away; see adjacent.
func compare(got, want *tensor.Tensor, declared tensor.DType, steps int) error {
	if declared == tensor.Undefined {
		declared = want.DType
	}
	if declared != want.DType {
		return fmt.Errorf("the model declares %v, the test expects %v", declared, want.DType)
	}
	// The engine holds every floating point as one type, whatever the width declared.
	if got.DType != declared && !(got.DType.IsFloat() && declared.IsFloat()) {
		return fmt.Errorf("got %v, want %v", got.Type(), want.Type())
	}
	if !slices.Equal(got.Shape, want.Shape) {
		return fmt.Errorf("got %v, want %v", got.Type(), want.Type())
	}
	if declared.IsFloat() {
		return compareFloats(got, want, steps)
	}
	if small(declared) {
		return compareSmall(got, want)
	}
	if !bytes.Equal(got.Data, want.Data) || !slices.EqualFunc(got.Strings, want.Strings, bytes.Equal) {
		return fmt.Errorf("elements differ: %v", firstDifference(got, want))
	}
	return nil
}

// small reports whether dt is a floating-point type of 8 bits or less.
func small(dt tensor.DType) bool {
	switch dt {
	case tensor.Float8E4M3FN, tensor.Float8E4M3FNUZ, tensor.Float8E5M2, tensor.Float8E5M2FNUZ, tensor.Float8E8M0, tensor.Float4E2M1:
		return true
	}
	return false
}

// compareSmall compares the numbers: NaN has several codes.
func compareSmall(got, want *tensor.Tensor) error {
	wide := func(t *tensor.Tensor) (*tensor.Tensor, error) {
		v := &graph.Value{Name: "y"}
		n := &graph.Node{Op: "Cast", Inputs: []*graph.Value{{Name: "x"}}, Outputs: []*graph.Value{v},
			Attrs: graph.Attrs{graph.IntAttr("to", int(tensor.Float32))}}
		out, err := op.Apply(n, 25, tensor.Float32, t)
		if err != nil {
			return nil, err
		}
		return out[0], nil
	}
	g, err := wide(got)
	if err != nil {
		return err
	}
	w, err := wide(want)
	if err != nil {
		return err
	}
	return compareFloats(g, w, 0)
}

func compareFloats(got, want *tensor.Tensor, steps int) error {
	g, ok := got.Float64s()
	w, ok2 := want.Float64s()
	if !ok || !ok2 {
		return fmt.Errorf("%v is not compared", want.DType)
	}
	for i := range w {
		if !near(g[i], w[i]) && !adjacent(g[i], w[i], want.DType, steps) {
			return fmt.Errorf("element %d of %v is %g, want %g", i, want.Type(), g[i], w[i])
		}
	}
	return nil
}

// near reports whether two numbers agree. NaN agrees with NaN, an infinity with itself.
func near(g, w float64) bool {
	switch {
	case math.IsNaN(w) || math.IsNaN(g):
		return math.IsNaN(w) && math.IsNaN(g)
	case math.IsInf(w, 0) || math.IsInf(g, 0):
		return g == w
	}
	return math.Abs(g-w) <= rtol*math.Abs(w)+atol
}

// adjacent reports whether g, rounded to the type that the test expects, is at most steps numbers away from w in it. Who
// made the test rounded to float16 or bfloat16 after each operator, the engine does not; a step of bfloat16 is up to 8e-3.
func adjacent(g, w float64, dt tensor.DType, steps int) bool {
	var a, b uint16
	switch dt {
	case tensor.Float16:
		a, b = tensor.Float32ToFloat16(float32(g)), tensor.Float32ToFloat16(float32(w))
	case tensor.BFloat16:
		a, b = tensor.Float32ToBFloat16(float32(g)), tensor.Float32ToBFloat16(float32(w))
	default:
		return false
	}
	if math.IsNaN(g) || math.IsNaN(w) || math.IsInf(g, 0) || math.IsInf(w, 0) || a>>15 != b>>15 {
		return false
	}
	return int(max(a, b)-min(a, b)) <= steps // numbers of one sign are ordered as their codes
}

func firstDifference(got, want *tensor.Tensor) string {
	g, ok := got.Float64s()
	w, ok2 := want.Float64s()
	if ok && ok2 {
		for i := range w {
			if g[i] != w[i] {
				return fmt.Sprintf("element %d of %v is %v, want %v", i, want.Type(), g[i], w[i])
			}
		}
	}
	return fmt.Sprintf("bytes %x, want %x", got.Data[:min(32, len(got.Data))], want.Data[:min(32, len(want.Data))])
}
