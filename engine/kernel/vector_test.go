package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// ulps is how far got is from want, in units of the last place of want.
func ulps(got float32, want float64) float64 {
	w := float32(want)
	if got == w || got != got && w != w {
		return 0
	}
	ulp := float64(math.Nextafter32(float32(math.Abs(want)), float32(math.Inf(1)))) - math.Abs(float64(float32(math.Abs(want))))
	return math.Abs(float64(got)-want) / ulp
}

// Every loop is its definition at every length, misaligned, and writes nothing else; what is not a number stays so.
func TestVectors(t *testing.T) {
	const s, u = float32(0.25), float32(-0.5)
	clip := func(x, lo, hi float64) float64 { return Clamp{lo, hi}.of(x) }
	loops := []struct {
		name string
		f    func(v *vectors) vectorFunc
		def  func(a, b float64) float64
		ulps float64
	}{
		{"add", func(v *vectors) vectorFunc { return v.add }, func(a, b float64) float64 { return a + b }, 0.51},
		{"sub", func(v *vectors) vectorFunc { return v.sub }, func(a, b float64) float64 { return a - b }, 0.51},
		{"mul", func(v *vectors) vectorFunc { return v.mul }, func(a, b float64) float64 { return a * b }, 0.51},
		{"div", func(v *vectors) vectorFunc { return v.div }, func(a, b float64) float64 { return a / b }, 0.51},
		{"max", func(v *vectors) vectorFunc { return v.max }, math.Max, 0},
		{"min", func(v *vectors) vectorFunc { return v.min }, math.Min, 0},
		{"tanh", func(v *vectors) vectorFunc { return v.tanh }, func(a, _ float64) float64 { return math.Tanh(a) }, 2},
		{"addNumber", func(v *vectors) vectorFunc { return v.addNumber }, func(a, _ float64) float64 { return a + float64(s) }, 0.51},
		{"mulNumber", func(v *vectors) vectorFunc { return v.mulNumber }, func(a, _ float64) float64 { return a * float64(s) }, 0.51},
		{"scale", func(v *vectors) vectorFunc { return v.scale }, func(a, _ float64) float64 { return a*float64(s) + float64(u) }, 0.51},
		{"clip", func(v *vectors) vectorFunc { return v.clip }, func(a, _ float64) float64 { return clip(a, float64(s)-1, 0.125) }, 0},
		{"leaky", func(v *vectors) vectorFunc { return v.leaky }, func(a, _ float64) float64 {
			if a < 0 {
				return a * float64(s)
			}
			return a
		}, 0.51},
		{"hardSwish", func(v *vectors) vectorFunc { return v.hardSwish }, func(a, _ float64) float64 { return a * clip(a*float64(s)+float64(u), 0, 1) }, 1.6},
		{"gate", func(v *vectors) vectorFunc { return v.gate }, func(a, b float64) float64 {
			if b > float64(u) && b < float64(s) {
				return a
			}
			return 0
		}, 0},
		{"exp", func(v *vectors) vectorFunc { return v.exp }, func(a, _ float64) float64 {
			if x := a - float64(s); x < -87.33654 {
				return 0
			}
			return math.Exp(float64(float32(a) - s))
		}, 2},
		{"sigmoid", func(v *vectors) vectorFunc { return v.sigmoid }, func(a, _ float64) float64 {
			if a < -88.72283 {
				return 0
			}
			return 1 / (1 + math.Exp(-a))
		}, 4},
		{"silu", func(v *vectors) vectorFunc { return v.silu }, func(a, _ float64) float64 {
			if a < -88.72283 {
				return 0
			}
			return a / (1 + math.Exp(-a))
		}, 5},
		{"erf", func(v *vectors) vectorFunc { return v.erf }, func(a, _ float64) float64 { return math.Erf(a) }, 3},
		{"gelu", func(v *vectors) vectorFunc { return v.gelu }, func(a, _ float64) float64 { return a / 2 * math.Erfc(-a/math.Sqrt2) }, 2},
	}
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		v := vectorsFor(l)
		if v == nil {
			t.Skip("Go code does")
		}
		rnd := rand.New(rand.NewPCG(9, uint64(l)))
		for _, c := range loops {
			worst := 0.0
			for n := range 68 {
				a, b := kerneltest.New[float32](n+1, rnd.IntN(16), 1e3).Random(rnd), kerneltest.New[float32](n+1, rnd.IntN(16), 2e3).Random(rnd)
				for i := range a.V {
					if n%3 == 0 {
						a.V[i] *= 120 // over the ends of exp
					}
				}
				if n > 5 {
					a.V[2], a.V[3], a.V[4], b.V[1] = float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())
				}
				y := kerneltest.New[float32](n, rnd.IntN(16), 7e3)
				lo, hi := s, u
				switch c.name {
				case "clip":
					lo, hi = s-1, 0.125
				case "gate":
					lo, hi = u, s
				}
				if n > 0 {
					c.f(v)(&y.V[0], &a.V[0], &b.V[0], int64(n), lo, hi)
				}
				y.Check(t, c.name)
				for i, got := range y.V {
					want := c.def(float64(a.V[i]), float64(b.V[i]))
					if (got != got) != (want != want) && !(c.name == "silu" && a.V[i] < -88) {
						t.Fatalf("%s(%g, %g) = %g, want %g", c.name, a.V[i], b.V[i], got, want)
					}
					off := ulps(got, want)
					if c.name == "gelu" { // as a sum of a and what is less of it
						off = math.Abs(float64(got)-want) / (math.Abs(float64(a.V[i])) * 0x1p-23)
					}
					if want == want && !math.IsInf(want, 0) && math.Abs(want) > 1.2e-38 {
						worst = max(worst, off)
					}
				}
			}
			if worst > c.ulps {
				t.Errorf("%s is off by %.2f ulp, want at most %g", c.name, worst, c.ulps)
			}
			t.Logf("%s: %.2f ulp", c.name, worst)
		}
	})
}

// Every instruction set adds in the order of the definition, and reads nothing beyond its operands.
func TestDot(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		rnd := rand.New(rand.NewPCG(4, uint64(l)))
		for n := range 100 {
			a, b := kerneltest.New[float32](n, rnd.IntN(16), 1e3).Random(rnd), kerneltest.New[float32](n, rnd.IntN(16), 2e3).Random(rnd)
			var s [8]float64
			for i := range a.V {
				s[i%8] += float64(a.V[i]) * float64(b.V[i])
			}
			want := ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
			if got := dot(vectorsFor(l), a.V, b.V); got != want {
				t.Fatalf("n=%d: %g, want %g", n, got, want)
			}
		}
	})
}

// BenchmarkSigmoid is the loop of each instruction set.
func BenchmarkSigmoid(b *testing.B) {
	x := make([]float32, 4096)
	for i := range x {
		x[i] = float32(i%200)/10 - 10
	}
	y := make([]float32, len(x))
	for _, l := range kerneltest.Levels() {
		if v := vectorsFor(l); v != nil {
			b.Run(l.String(), func(b *testing.B) {
				for b.Loop() {
					apply1(v.sigmoid, y, x, 0, 0)
				}
				b.SetBytes(4 * int64(len(x)))
			})
		}
	}
}
