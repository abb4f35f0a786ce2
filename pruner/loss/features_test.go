package loss

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/tensor"
)

func features(rng *rand.Rand, c int) *tensor.Tensor {
	t := tensor.New(tensor.Float32, 1, c, 3, 5)
	for i := range tensor.Of[float32](t) {
		tensor.Of[float32](t)[i] = float32(rng.NormFloat64())
	}
	return t
}

// The gradient is the central difference, and the loss is zero where channels are those that were kept, and the weight where
// they say nothing.
func TestFeatures(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	want, x, kept, weight := features(rng, 4), features(rng, 2), []int{3, 1}, 0.3
	_, g, err := Features(x, want, kept, weight)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tensor.Of[float32](x) {
		at := func(d float32) float64 {
			y := x.Clone()
			tensor.Of[float32](y)[i] += d
			v, _, err := Features(y, want, kept, weight)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		const h = 1.0 / 64
		if got, d := float64(tensor.Of[float32](g)[i]), (at(h)-at(-h))/(2*h); math.Abs(got-d) > 1e-6 {
			t.Errorf("element %d: gradient %g, difference %g", i, got, d)
		}
	}
	same, nothing := tensor.New(tensor.Float32, 1, 2, 3, 5), tensor.New(tensor.Float32, 1, 2, 3, 5)
	for i, k := range kept {
		copy(tensor.Of[float32](same)[i*15:][:15], tensor.Of[float32](want)[k*15:])
	}
	if v, _, err := Features(same, want, kept, weight); v != 0 || err != nil {
		t.Errorf("the same channels cost %g (%v)", v, err)
	}
	if v, _, err := Features(nothing, want, kept, weight); math.Abs(v-weight) > 1e-12 || err != nil {
		t.Errorf("zeros cost %g (%v), want %g", v, err, weight)
	}
	if v, g, err := Features(x, tensor.New(tensor.Float32, 1, 4, 3, 5), kept, weight); v != 0 || g != nil || err != nil {
		t.Errorf("nothing to be like: %g, %v, %v", v, g, err)
	}
	for _, kept := range [][]int{{0}, {0, 4}, {-1, 0}} {
		if _, _, err := Features(x, want, kept, weight); err == nil {
			t.Errorf("channels %v of 4 for 2: no error", kept)
		}
	}
	if _, _, err := Features(x, tensor.New(tensor.Float64, 1, 4, 3, 5), kept, weight); err == nil {
		t.Error("float64: no error")
	}
}
