package gorgonia_test

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/gorgonia"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

func embedded(t *testing.T, name string) *graph.Graph {
	t.Helper()
	for _, m := range models.All() {
		if m.Name == name {
			g, err := onnx.Decode(m.ONNX, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
	}
	t.Fatalf("no embedded model %q", name)
	return nil
}

func noise(shape ...int) *tensor.Tensor {
	r := rand.New(rand.NewPCG(1, 2))
	x := tensor.New(tensor.Float32, shape...)
	for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
		v[i] = float32(r.NormFloat64())
	}
	return x
}

// TestForwardAgrees: two implementations that share no arithmetic give the same logits and the same mask.
func TestForwardAgrees(t *testing.T) {
	g := embedded(t, "polyp-unet")
	x := noise(1, 3, 64, 96)
	in := []tensor.Type{x.Type()}
	m, err := gorgonia.Compile(g, in, tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	n, err := engine.Compile(g, in, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := n.NewSession()
	for run := range 2 { // a machine is used again
		got, err := m.Run(context.Background(), []*tensor.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		want, err := s.Run(context.Background(), []*tensor.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		a, b := tensor.Of[float32](got[0]), tensor.Of[float32](want[0])
		if len(a) != len(b) {
			t.Fatalf("%v, native gives %v", got[0].Type(), want[0].Type())
		}
		var diff, top float64
		for i := range a {
			diff, top = max(diff, math.Abs(float64(a[i]-b[i]))), max(top, math.Abs(float64(b[i])))
		}
		if !(diff <= 1e-4*top) {
			t.Errorf("run %d: max|Δ| = %g, max|y| = %g", run, diff, top)
		}
		for i := range a {
			if (a[i] > 0) != (b[i] > 0) && math.Abs(float64(b[i])) > 1e-3 {
				t.Fatalf("run %d: mask pixel %d differs", run, i)
			}
		}
	}
}

func TestWhatIsNotLoweredIsNamed(t *testing.T) {
	g := embedded(t, "polyp-lite0")
	_, err := gorgonia.Compile(g, []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 64, 64}}}, tensor.Float32)
	if err == nil || !strings.Contains(err.Error(), "gorgonia: node ") {
		t.Errorf("got %v, want an error that names a node", err)
	}
}
