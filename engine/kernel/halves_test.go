package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// Every instruction set equals generic, bit for bit, at every width, and writes nothing else.
func TestMaxHalves(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		rnd := rand.New(rand.NewPCG(8, uint64(l)))
		for ow := 1; ow < 70; ow++ {
			w, rows := 2*ow+rnd.IntN(3), 1+rnd.IntN(3)
			x := kerneltest.New[float32](2*rows*w, rnd.IntN(16), 1e3).Random(rnd)
			x.V[rnd.IntN(len(x.V))] = float32(math.NaN())
			x.V[rnd.IntN(len(x.V))] = float32(math.Inf(1 - 2*rnd.IntN(2)))
			got, want := kerneltest.New[float32](rows*ow, rnd.IntN(16), 7e3), kerneltest.New[float32](rows*ow, 0, 7e3)
			k.halves(new(halvesCall[float32]), got.V, x.V, ow, w)
			maxHalvesGeneric(want.V, x.V, ow, w)
			got.Check(t, "y")
			for i := range got.V {
				if a, b := got.V[i], want.V[i]; a != b && (a == a || b == b) {
					t.Fatalf("ow=%d w=%d: y[%d] = %g, want %g", ow, w, i, a, b)
				}
			}
		}
	})
}

// BenchmarkMaxHalves is assembly beside the definition.
func BenchmarkMaxHalves(b *testing.B) {
	x, y := make([]float32, 64*64+256), make([]float32, 32*32)
	for _, l := range kerneltest.Levels() {
		b.Run(fmt.Sprint(l), func(b *testing.B) {
			k, c := microFor[float32](l), new(halvesCall[float32])
			for b.Loop() {
				k.halves(c, y, x, 32, 64)
			}
			b.SetBytes(64 * 64 * 4)
		})
	}
}
