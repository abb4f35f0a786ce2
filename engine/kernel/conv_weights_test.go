package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// The gradient of weights is what its definition says, for every geometry at every instruction set, and the same bits for
// any number of workers.
func TestConvWeightsLaw(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		rapid.Check(t, func(rt *rapid.T) {
			draw := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(rt, name) }
			g := draw("groups", 1, 3)
			s := ConvShape{
				N: draw("n", 1, 2), C: g * draw("c", 1, 20), H: draw("h", 1, 12), W: draw("w", 1, 12), M: g * draw("m", 1, 20), Group: g,
				KH: draw("kh", 1, 3), KW: draw("kw", 1, 4), StrideH: draw("sh", 1, 2), StrideW: draw("sw", 1, 3),
				DilH: draw("dh", 1, 2), DilW: draw("dw", 1, 2), PadTop: draw("top", 0, 2), PadLeft: draw("left", 0, 2),
			}
			bottom, right := draw("bottom", 0, 2), draw("right", 0, 2)
			s.OH = (s.H+s.PadTop+bottom-(s.KH-1)*s.DilH-1)/s.StrideH + 1
			s.OW = (s.W+s.PadLeft+right-(s.KW-1)*s.DilW-1)/s.StrideW + 1
			if s.H+s.PadTop+bottom <= (s.KH-1)*s.DilH || s.W+s.PadLeft+right <= (s.KW-1)*s.DilW {
				rt.Skip("no result")
			}
			s.PadBottom, s.PadRight = bottom, right
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
			x := kerneltest.New[float32](s.N*s.C*s.H*s.W, 1, 1e3).Random(rnd)
			dy := kerneltest.New[float32](s.N*s.M*s.OH*s.OW, 2, 3e3).Random(rnd)
			want, mag, terms := weightsByDefinition(s, x.V, dy.V)
			tb := shim{t, rt}
			var first []float32
			for _, workers := range []int{1, 3} {
				k := newConvWeights[float32](l, s)
				dw, scratch := kerneltest.New[float32](len(want), 3, 5e3), kerneltest.New[float32](k.Scratch(), 0, 9e3).Random(rnd)
				f := k.Bind(NewPool(workers), scratch.V, dw.V, x.V, dy.V)
				for range 2 {
					f()
					dw.Check(tb, "dw")
					scratch.Check(tb, "scratch")
					kerneltest.Close(tb, dw.V, want, mag, terms)
				}
				if first == nil {
					first = dw.V
				} else if fmt.Sprint(first) != fmt.Sprint(dw.V) {
					rt.Fatal("the number of workers changes the result")
				}
			}
		})
	})
}

// weightsByDefinition is dw, the sum of its terms' magnitudes, and how many each has.
func weightsByDefinition(s ConvShape, x, dy []float32) (dw, mag []float64, terms int) {
	cg, mg := s.C/s.Group, s.M/s.Group
	dw, mag = make([]float64, s.M*cg*s.KH*s.KW), make([]float64, s.M*cg*s.KH*s.KW)
	for i := range dw {
		kx, ky, c, m := i%s.KW, i/s.KW%s.KH, i/s.KW/s.KH%cg, i/s.KW/s.KH/cg
		for n := range s.N {
			for oy := range s.OH {
				for ox := range s.OW {
					y, xx := oy*s.StrideH+ky*s.DilH-s.PadTop, ox*s.StrideW+kx*s.DilW-s.PadLeft
					if y < 0 || y >= s.H || xx < 0 || xx >= s.W {
						continue
					}
					v := float64(dy[((n*s.M+m)*s.OH+oy)*s.OW+ox]) * float64(x[((n*s.C+m/mg*cg+c)*s.H+y)*s.W+xx])
					dw[i] += v
					mag[i] += math.Abs(v)
				}
			}
		}
	}
	return dw, mag, s.N * s.OH * s.OW
}

// BenchmarkConvWeights gives the share of the multiply-add peak that gradients of weights reach.
func BenchmarkConvWeights(b *testing.B) {
	for _, c := range []struct{ c, m, size int }{{16, 16, 256}, {64, 64, 128}, {128, 128, 64}, {256, 256, 32}, {3, 16, 256}} {
		s := ConvShape{N: 1, C: c.c, H: c.size, W: c.size, M: c.m, OH: c.size, OW: c.size, KH: 3, KW: 3, StrideH: 1, StrideW: 1,
			DilH: 1, DilW: 1, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Group: 1}
		b.Run(fmt.Sprintf("%dto%d@%d", c.c, c.m, c.size), func(b *testing.B) {
			k := NewConvWeights[float32](s)
			x, dy := make([]float32, s.C*s.H*s.W), make([]float32, s.M*s.H*s.W)
			for i := range x {
				x[i] = float32(i%7) - 3
			}
			for i := range dy {
				dy[i] = float32(i%5) - 2
			}
			f := k.Bind(NewPool(1), make([]float32, k.Scratch()), make([]float32, s.M*s.C*9), x, dy)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
			macs := float64(s.M*s.C*9) * float64(s.H*s.W)
			b.ReportMetric(100*macs*float64(b.N)/b.Elapsed().Seconds()/Peak(), "%ofpeak")
		})
	}
}
