package op

import (
	"math"
	"testing"
)

// TestExp32: every 4001st float32 is within 2 ulp of the exact value, or 3.
func TestExp32(t *testing.T) {
	for _, c := range []struct {
		name  string
		fast  func(float32) float32
		exact func(float64) float64
		ulps  float64
	}{{"exp32", exp32, math.Exp, 2}, {"tanh32", tanh32, math.Tanh, 2}, {"erf32", erf32, math.Erf, 3}} {
		for b := uint64(0); b < 1<<32; b += 4001 {
			x := math.Float32frombits(uint32(b))
			got, want := float64(c.fast(x)), c.exact(float64(x))
			if math.IsNaN(float64(x)) {
				if !math.IsNaN(got) {
					t.Fatalf("%s(NaN) = %g", c.name, got)
				}
				continue
			}
			ulp := math.Ldexp(1, max(math.Ilogb(want), -126)-23)
			if want > math.MaxFloat32 {
				if !math.IsInf(got, 1) {
					t.Fatalf("%s(%g) = %g, want +Inf", c.name, x, got)
				}
			} else if want < 0x1p-126 && want > 0 && c.name == "exp32" {
				if got > 0x1p-125 || got < 0 { // denormals may be 0
					t.Fatalf("%s(%g) = %g, want %g", c.name, x, got, want)
				}
			} else if math.Abs(got-want) > c.ulps*ulp {
				t.Fatalf("%s(%g) = %g, want %g, %g ulp away", c.name, x, got, want, math.Abs(got-want)/ulp)
			}
		}
	}
}
