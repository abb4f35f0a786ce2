package kernel

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// closeTo fails the test unless every got[i] is within bound of want[i].
func closeTo(t testing.TB, what string, got, want []float32, bound float64) {
	t.Helper()
	for i := range got {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= bound) {
			t.Fatalf("%s[%d of %d] = %g, want %g", what, i, len(got), got[i], want[i])
		}
	}
}

// Every transform of every instruction set equals generic, misaligned, and writes nothing else.
func TestWinogradTransforms(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k, def := microFor[float32](l), genericWino[float32]()
		rnd := rand.New(rand.NewPCG(4, uint64(l)))
		// What a wider vector does at once takes generic several.
		times := k.lanes / genericLanes
		for range 60 {
			vecs, skew := 1+rnd.IntN(4), rnd.IntN(16)
			n := vecs * k.lanes
			next := rnd.IntN(20)
			from, to := n+next+rnd.IntN(20), n+rnd.IntN(20)
			c := winoCall[float32]{vecs: int64(vecs), from: int64(4 * from), next: int64(4 * next), to: int64(4 * to), lo: -3, hi: 4}

			d := kerneltest.New[float32](24*from, skew, 1e3).Random(rnd)
			got, want := kerneltest.New[float32](points*to, skew/2, 7e3), kerneltest.New[float32](points*to, 0, 7e3)
			for i := range got.V {
				got.V[i], want.V[i] = 9, 9 // what lies between points must stay
			}
			c.src, c.dst = &d.V[0], &got.V[0]
			k.wino.in(&c)
			c.dst, c.vecs = &want.V[0], int64(vecs*times)
			def.in(&c)
			got.Check(t, "V")
			// An element is a sum with weights of at most 100 in all, of values up to 1.
			closeTo(t, "V", got.V, want.V, 2*100*8*kerneltest.Eps[float32]())

			m := kerneltest.New[float32](points*from, skew, 1e3).Random(rnd)
			to += 3 * n
			got, want = kerneltest.New[float32](4*to, skew/2, 7e3), kerneltest.New[float32](4*to, 0, 7e3)
			for i := range got.V {
				got.V[i], want.V[i] = 9, 9
			}
			c.src, c.dst, c.to, c.vecs = &m.V[0], &got.V[0], int64(4*to), int64(vecs)
			k.wino.out(&c)
			c.dst, c.vecs = &want.V[0], int64(vecs*times)
			def.out(&c)
			got.Check(t, "y")
			closeTo(t, "y", got.V, want.V, 2*361*8*kerneltest.Eps[float32]()) // weights of at most 19², values up to 1
		}
	})
}

// Splitting rows equals generic, for every number of units and rows.
func TestUnzip4(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k, def := microFor[float32](l).wino, genericWino[float32]().unzip4
		rnd := rand.New(rand.NewPCG(5, uint64(l)))
		for _, c := range []struct {
			f     func(*unzip4Call[float32])
			lanes int
		}{{k.unzip4, microFor[float32](l).lanes}, {k.narrow, 8}} {
			for units := 1; units <= 4 && c.f != nil; units++ {
				for rows := 1; rows <= 3; rows++ {
					n := units * c.lanes
					step, from := n-rnd.IntN(min(8, n)), 4*n+rnd.IntN(9)-4
					grid := rows*step + 24
					src := kerneltest.New[float32](rows*from+8, rnd.IntN(16), 1e3).Random(rnd)
					var got [2]*kerneltest.Buffer[float32]
					for i, f := range []func(*unzip4Call[float32]){c.f, def} {
						got[i] = kerneltest.New[float32](6*grid, 3*i, 7e3)
						p := unzip4Call[float32]{
							dst: &got[i].V[1], src: &src.V[0], rows: int64(rows), units: int64(units),
							grid: int64(4 * grid), step: int64(4 * step), from: int64(4 * from),
						}
						if i == 1 {
							p.units = int64(n / genericLanes)
						}
						f(&p)
						got[i].Check(t, "grids")
					}
					for i, v := range got[1].V {
						if got[0].V[i] != v {
							t.Fatalf("units=%d rows=%d: [%d] = %g, want %g", units, rows, i, got[0].V[i], v)
						}
					}
				}
			}
		}
	})
}

// checkWinograd compares a layer with the definition, once done in blocks and once phased.
func checkWinograd[T Float](t testing.TB, p *Pool, s ConvShape, withBias bool, skew int, l isa.Level, tune winoTuning, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := NoClamp
	if seed%2 == 0 {
		c = Clamp{-0.5, 0.75}
	}
	x := kerneltest.New[T](s.N*s.C*s.H*s.W, skew, 1e3).Random(rnd)
	w := kerneltest.New[T](s.C*s.M*9, 0, 3e3).Random(rnd)
	var bias []T
	if withBias {
		bias = kerneltest.New[T](s.M, 0, 5e3).Random(rnd).V
	}
	want, _ := defineConv(s, w.V, bias, x.V, c)
	d := newWinograd(l, s, w.V, bias, c)
	d.tuning = tune
	y := kerneltest.New[T](len(want), skew/2, 7e3)
	scratch := kerneltest.New[T](d.scratch(p.Workers()), 0, 9e3).Random(rnd)
	f := d.bind(p, scratch.V, y.V, x.V)
	for range 2 { // the second run finds used scratch and results
		f()
		x.Check(t, "x")
		y.Check(t, "y")
		scratch.Check(t, "scratch")
		// Values up to 1 and their weights: V is at most 100, U 1, and Aᵀ·M·A weighs by 361 in all, but errors of V and M
		// average out: fifty times the direct form's is never reached.
		bound := 50 * float64(s.C*9+2) * kerneltest.Eps[T]()
		for i := range y.V {
			if e := math.Abs(float64(y.V[i]) - want[i]); !(e <= bound) {
				t.Fatalf("y[%d of %d] = %g, want %g (off by %g, bound %g)", i, len(want), y.V[i], want[i], e, bound)
			}
		}
	}
}

// F(4x4,3x3) is the convolution, at every size, padding and number of channels, cut into blocks or phased.
func TestWinogradLaw(t *testing.T) {
	p := NewPool(3)
	defer p.Close()
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		rapid.Check(t, func(rt *rapid.T) {
			n := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(rt, name) }
			s := ConvShape{
				N: n("N", 1, 2), C: n("C", 1, 20), M: n("M", 1, 30), H: n("H", 1, 30), W: n("W", 1, 150), KH: 3, KW: 3,
				StrideH: 1, StrideW: 1, DilH: 1, DilW: 1, Group: 1,
				PadTop: n("PadTop", 0, 3), PadLeft: n("PadLeft", 0, 3), PadBottom: n("PadBottom", -1, 3), PadRight: n("PadRight", -1, 3),
			}
			s.H, s.W = max(s.H, 3-s.PadTop-s.PadBottom), max(s.W, 3-s.PadLeft-s.PadRight)
			s.OH, s.OW = s.H+s.PadTop+s.PadBottom-2, s.W+s.PadLeft+s.PadRight-2
			if !winogradFits(s) {
				rt.Fatalf("does not fit: %+v", s)
			}
			tune := winoTuning{n("tiles", 1, 80), n("phase", -1, 1)}
			rt.Logf("%+v", s)
			bias, skew, seed := rapid.Bool().Draw(rt, "bias"), n("skew", 0, 15), rapid.Uint64().Draw(rt, "seed")
			checkWinograd[float32](shim{t, rt}, p, s, bias, skew, l, tune, seed)
			if l == isa.Generic {
				checkWinograd[float64](shim{t, rt}, p, s, bias, skew, l, tune, seed)
			}
		})
	})
}

// With Gaussian data the error stays below 2e-5 of the largest result, up to 512 channels.
func TestWinogradAccuracy(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	for _, c := range []int{16, 64, 256, 512} {
		s := same(c, 8, 24, 3, 1, 1)
		rnd := rand.New(rand.NewPCG(6, uint64(c)))
		x, w := make([]float32, s.C*s.H*s.W+256), make([]float32, s.C*s.M*9)
		for _, v := range [][]float32{x, w} {
			for i := range v {
				v[i] = float32(rnd.NormFloat64())
			}
		}
		want, _ := defineConv(s, w, nil, x, NoClamp)
		top := 0.0
		for _, v := range want {
			top = max(top, math.Abs(v))
		}
		kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
			d := newWinograd(l, s, w, nil, NoClamp)
			y := make([]float32, len(want)+256)[:len(want)]
			d.bind(p, make([]float32, d.scratch(2)), y, x)()
			worst := 0.0
			for i, v := range y {
				worst = max(worst, math.Abs(float64(v)-want[i])/top)
			}
			t.Logf("%d channels: %.2g", c, worst)
			if worst > 2e-5 {
				t.Fatalf("%d channels: off by %g of the largest result", c, worst)
			}
		})
	}
}

// The bytes of a result do not depend on the number of workers, nor on how the work is cut.
func TestWinogradSameBytes(t *testing.T) {
	s := same(17, 21, 50, 3, 1, 1)
	rnd := rand.New(rand.NewPCG(7, 7))
	x := kerneltest.New[float32](s.C*s.H*s.W, 0, 0).Random(rnd).V
	w := kerneltest.New[float32](s.C*s.M*9, 0, 0).Random(rnd).V
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		var first []byte
		for workers := 1; workers <= 3; workers++ {
			p := NewPool(workers)
			for _, tune := range []winoTuning{winoNormal, {16, -1}, {64, 1}} {
				d := newWinograd(l, s, w, nil, NoClamp)
				d.tuning = tune
				y := make([]float32, s.M*s.OH*s.OW)
				d.bind(p, make([]float32, d.scratch(workers)), y, x)()
				got := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&y[0])), 4*len(y)))
				if first == nil {
					first = got
				}
				if !bytes.Equal(got, first) {
					t.Errorf("%v workers, %+v: other bytes", workers, tune)
				}
			}
			p.Close()
		}
	})
}

// The form follows the shape: Winograd where it has products to save, and never in float64.
func TestForm(t *testing.T) {
	dilated, strided := same(64, 64, 64, 3, 1, 1), same(64, 64, 64, 3, 2, 1)
	dilated.DilH, dilated.OH = 2, 62
	for _, c := range []struct {
		s    ConvShape
		want string
	}{
		{same(64, 64, 64, 3, 1, 1), "winograd F4"}, {same(16, 16, 256, 3, 1, 1), "winograd F4"},
		{same(33, 33, 64, 3, 1, 1), "winograd F4"}, {same(256, 256, 16, 3, 1, 1), "winograd F4"},
		{same(1, 16, 256, 3, 1, 1), "direct"}, {same(64, 1, 64, 3, 1, 1), "direct"}, {dilated, "direct"}, {strided, "direct"},
		{same(64, 64, 64, 1, 1, 1), "pointwise"}, {same(64, 64, 64, 3, 1, 64), "depthwise"},
		{same(64, 64, 64, 3, 1, 4), "grouped"}, {same(64, 64, 1, 1, 1, 1), "product"},
	} {
		for _, l := range kerneltest.Levels() {
			if l == isa.Generic {
				continue // there Winograd pays for more channels only
			}
			w := make([]float32, c.s.C/c.s.Group*c.s.M*c.s.KH*c.s.KW)
			if got := newConv(l, automatic, c.s, w, nil, NoClamp).Form(); got != c.want {
				t.Errorf("%v: %+v is %s, want %s", l, c.s, got, c.want)
			}
		}
	}
	s := same(64, 64, 16, 3, 1, 1)
	if got := NewConv(s, make([]float64, 64*64*9), nil, NoClamp).Form(); got != "direct" {
		t.Errorf("float64 is %s", got)
	}
}

// A run allocates nothing, in blocks and phased.
func TestWinogradAllocs(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	for _, size := range []int{16, 64} {
		s := same(16, 16, size, 3, 1, 1)
		k := newConv(isa.Best(), winogradF4, s, make([]float32, 16*16*9), nil, NoClamp)
		f := k.Bind(p, make([]float32, k.Scratch(2)), make([]float32, 16*size*size+256), make([]float32, 16*size*size+256))
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("at %d: a run allocates %g times", size, n)
		}
	}
}

// What is not a number stays so where it is read, through the clamp.
func TestWinogradNaN(t *testing.T) {
	p := NewPool(1)
	defer p.Close()
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		s := same(2, 3, 20, 3, 1, 1)
		w, x := make([]float32, s.C*s.M*9), make([]float32, s.C*s.H*s.W+256)
		for i := range w {
			w[i] = 1
		}
		x[5*s.W+6] = float32(math.NaN())
		d := newWinograd(l, s, w, nil, Clamp{0, 6})
		y := make([]float32, s.M*s.OH*s.OW+256)
		d.bind(p, make([]float32, d.scratch(1)+256), y, x)()
		for i := 4; i <= 6; i++ {
			for j := 5; j <= 7; j++ {
				if v := y[i*s.OW+j]; v == v {
					t.Errorf("y[%d][%d] = %g, reads a NaN", i, j, v)
				}
			}
		}
	})
}
