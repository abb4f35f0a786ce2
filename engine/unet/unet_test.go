package unet

import (
	"context"
	"math"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

// The network is valid ONNX, comes back from a file as it was, and its activations keep their scale.
func TestClassic(t *testing.T) {
	g := Classic(4, 1)
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := onnx.Encode(g)
	if err != nil {
		t.Fatal(err)
	}
	back, err := onnx.Decode(b, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := tensor.New(tensor.Float32, 1, 3, 48, 32)
	for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
		v[i] = float32(math.Sin(float64(i)))
	}
	m, err := engine.Compile(back, []tensor.Type{x.Type()}, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{x})
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	y := tensor.Of[float32](out[0])
	for _, v := range y {
		sum += float64(v) * float64(v)
	}
	if rms := math.Sqrt(sum / float64(len(y))); !(rms > 0.1 && rms < 30) || len(y) != 48*32 {
		t.Fatalf("%d logits of size %g", len(y), rms)
	}
}
