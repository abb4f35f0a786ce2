package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// A depthwise convolution is the convolution, for every size, stride and padding, at every instruction set.
func TestDepthwiseLaw(t *testing.T) {
	p := NewPool(2)
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		rapid.Check(t, func(rt *rapid.T) {
			n := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(rt, name) }
			c, k, stride := n("C", 1, 5), 3+2*n("K", 0, 2), n("stride", 1, 2)
			s := ConvShape{
				N: n("N", 1, 2), C: c, M: c, Group: c, H: n("H", 1, 40), W: n("W", 1, 75), KH: k, KW: k, StrideH: stride, StrideW: stride,
				DilH: 1, DilW: 1, PadTop: n("PadTop", 0, 6), PadLeft: n("PadLeft", 0, 6), PadBottom: n("PadBottom", -1, 4), PadRight: n("PadRight", -1, 4),
			}
			s.H, s.W = max(s.H, k-s.PadTop-s.PadBottom), max(s.W, k-s.PadLeft-s.PadRight)
			s.OH, s.OW = (s.H+s.PadTop+s.PadBottom-k)/stride+1, (s.W+s.PadLeft+s.PadRight-k)/stride+1
			checkDepthwise(shim{t, rt}, p, s, n("skew", 0, 15), l, rapid.Uint64().Draw(rt, "seed"))
		})
	})
}

// Every number of rows that a kernel takes together and every tail of a row, at every instruction set.
func TestDepthwiseTails(t *testing.T) {
	p := NewPool(1)
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		for _, k := range []int{3, 5, 7} {
			for _, stride := range []int{1, 2} {
				for size := 1; size <= 36; size++ {
					checkDepthwise(t, p, same(2, 2, stride*size, k, stride, 2), size%16, l, uint64(size))
				}
			}
		}
	})
}

func checkDepthwise(t testing.TB, p *Pool, s ConvShape, skew int, l isa.Level, seed uint64) {
	if !depthwiseFits[float32](l, s) {
		t.Fatalf("%+v does not fit", s)
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := NoClamp
	if seed%2 == 0 {
		c = Clamp{-0.5, 0.75}
	}
	x := kerneltest.New[float32](s.N*s.C*s.H*s.W, skew, 1e3).Random(rnd)
	w := kerneltest.New[float32](s.C*s.KH*s.KW, 0, 3e3).Random(rnd)
	bias := kerneltest.New[float32](s.M, 0, 5e3).Random(rnd).V
	want, mag := defineConv(s, w.V, bias, x.V, c)
	y := kerneltest.New[float32](len(want), skew/2, 7e3)
	f := newDepthwise(l, s, w.V, bias, c).bind(p, finisher[float32](s, seed, want, mag), y.V, x.V)
	for range 2 {
		f()
		x.Check(t, "x")
		y.Check(t, "y")
		kerneltest.Close(t, y.V, want, mag, s.KH*s.KW)
	}
}

// A run allocates nothing, and what is not a number stays so through the clamp.
func TestDepthwiseRun(t *testing.T) {
	p := NewPool(2)
	s := same(40, 40, 24, 5, 1, 40)
	w, x := make([]float32, 40*25), make([]float32, 40*24*24+256)
	for i := range w {
		w[i] = 1
	}
	x[5*24+6] = float32(math.NaN())
	k := NewConv(s, w, nil, Clamp{0, 6})
	if k.Form() != "depthwise" {
		t.Fatalf("it is %s", k.Form())
	}
	y := make([]float32, 40*24*24+256)
	f := k.Bind(p, nil, y, x)
	if n := testing.AllocsPerRun(20, f); n != 0 {
		t.Errorf("a run allocates %g times", n)
	}
	for i := 3; i <= 7; i++ {
		for j := 4; j <= 8; j++ {
			if v := y[i*24+j]; v == v {
				t.Errorf("y[%d][%d] = %g, reads a NaN", i, j, v)
			}
		}
	}
}
