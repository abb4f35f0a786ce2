package loss

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/tensor"
)

// The soft loss is zero at the target and nowhere less, its gradient equals central differences, and neither breaks where
// logits saturate.
func TestSoft(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, kind := range []Kind{Sigmoid, Softmax} {
		for _, classes := range []int{1, 3} {
			random := func(scale float64) *tensor.Tensor {
				x := tensor.New(tensor.Float64, 1, classes, 3, 4)
				for i := range tensor.Of[float64](x) {
					tensor.Of[float64](x)[i] = scale * rnd.NormFloat64()
				}
				return x
			}
			loss := func(x, y *tensor.Tensor) (float64, *tensor.Tensor) {
				v, g, err := Soft(x, y, kind)
				if err != nil {
					t.Fatal(err)
				}
				return v, g
			}
			for range 20 {
				x, y := random(2), random(2)
				v, g := loss(x, y)
				if !(v > 0) {
					t.Fatalf("loss %g of unlike logits", v)
				}
				if v, g := loss(y, y); math.Abs(v) > 1e-12 || norm(g) > 1e-12 {
					t.Fatalf("loss %g with gradient %g at the target", v, norm(g))
				}
				for i := range tensor.Of[float64](x) {
					const h = 1e-6
					e := &tensor.Of[float64](x)[i]
					was := *e
					*e = was + h
					up, _ := loss(x, y)
					*e = was - h
					down, _ := loss(x, y)
					*e = was
					if want := (up - down) / (2 * h); math.Abs(tensor.Of[float64](g)[i]-want) > 1e-8 {
						t.Fatalf("gradient[%d] = %g, central difference %g", i, tensor.Of[float64](g)[i], want)
					}
				}
			}
			if v, g := loss(random(1e3), random(1e3)); !(v > 0) || math.IsNaN(norm(g)) {
				t.Fatalf("loss %g with gradient %g of saturated logits", v, norm(g))
			}
		}
	}
	if _, _, err := Soft(tensor.New(tensor.Float32, 1, 1, 2, 2), tensor.New(tensor.Float32, 1, 1, 2, 3), Sigmoid); err == nil {
		t.Error("shapes that differ are no error")
	}
}

func norm(x *tensor.Tensor) float64 {
	var s float64
	for _, v := range tensor.Of[float64](x) {
		s += v * v
	}
	return math.Sqrt(s)
}
