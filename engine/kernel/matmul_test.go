package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// MatMul and MatMulAB are the product, for every size at every instruction set.
func TestMatMulLaw(t *testing.T) {
	p := NewPool(3)
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		rapid.Check(t, func(rt *rapid.T) {
			m, k, n := rapid.IntRange(1, 40).Draw(rt, "m"), rapid.IntRange(0, 60).Draw(rt, "k"), rapid.IntRange(1, 300).Draw(rt, "n")
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
			a, b := kerneltest.New[float32](m*k, 1, 1e3).Random(rnd), kerneltest.New[float32](k*n, 2, 3e3).Random(rnd)
			bias := kerneltest.New[float32](n, 3, 5e3).Random(rnd)
			want, mag := make([]float64, m*n), make([]float64, m*n)
			for i := range m {
				for j := range n {
					for q := range k {
						v := float64(a.V[i*k+q]) * float64(b.V[q*n+j])
						want[i*n+j] += v
						mag[i*n+j] += math.Abs(v)
					}
				}
			}
			tb := shim{t, rt}
			y := kerneltest.New[float32](m*n, 1, 7e3)
			run := func(size int, bind func(scratch []float32) func()) {
				scratch := kerneltest.New[float32](size, 0, 9e3).Random(rnd)
				f := bind(scratch.V)
				for range 2 {
					f()
					y.Check(tb, "y")
					scratch.Check(tb, "scratch")
					kerneltest.Close(tb, y.V, want, mag, k)
				}
			}
			run(ScratchAB(p.Workers(), m, k, n), func(s []float32) func() { return matMulAB(l, p, m, k, n, s, y.V, a.V, b.V) })
			mm := newMatMul(l, m, k, n, b.V)
			run(mm.Scratch(p.Workers()), func(s []float32) func() { return mm.Bind(p, s, y.V, a.V, nil) })
			for i := range want {
				want[i] += float64(bias.V[i%n])
				mag[i] += math.Abs(float64(bias.V[i%n]))
			}
			run(mm.Scratch(p.Workers()), func(s []float32) func() { return mm.Bind(p, s, y.V, a.V, bias.V) })
		})
	})
}
