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

// places makes a vector's segments anywhere in a plane of w columns, whole or in part.
func places(rnd *rand.Rand, lanes, w, rows int) (p winoPlace, t winoTarget) {
	for s := range 4 {
		p.at[s] = int64(4 * (rnd.IntN(3)*w + rnd.IntN(5)))
		t.at[s] = int64(4 * (4*s*w + rnd.IntN(5)))
		for i := range rows {
			p.masks[i][s] = [2]uint32{rnd.Uint32N(1 << lanes), rnd.Uint32N(1 << lanes)}
		}
		for i := range 4 {
			t.masks[i][s] = rnd.Uint32N(1 << lanes)
		}
	}
	return p, t
}

func inWhole(p *winoInCall[float32], lanes int, masked bool) {
	winoInGeneric(p, wholePoints, lanes, masked)
}

func inBalanced(p *winoInCall[float32], lanes int, masked bool) {
	winoInGeneric(p, balancedPoints, lanes, masked)
}

// Every transform of every instruction set equals generic, misaligned, and writes nothing else.
func TestWinogradTransforms(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		rnd := rand.New(rand.NewPCG(4, uint64(l)))
		for range 100 {
			lanes, w := k.lanes, 30+rnd.IntN(20)
			plane := 16*w + rnd.IntN(20)
			const channels = 3
			place, target := places(rnd, lanes, w, 6)
			x := kerneltest.New[float32](channels*plane+lanes, rnd.IntN(16), 1e3).Random(rnd)
			temp := kerneltest.New[float32](points*lanes, 0, 5e3)
			for masked := range 2 {
				for _, c := range []struct {
					name   string
					f      func(*winoInCall[float32])
					def    func(*winoInCall[float32], int, bool)
					values int
				}{
					{"V", k.wino.in[wholePoints][masked], inWhole, points},
					{"balanced V", k.wino.in[balancedPoints][masked], inBalanced, points},
					{"V of upsampled", k.wino.up[masked], winoUpGeneric[float32], upValues},
				} {
					to := channels*lanes + rnd.IntN(20)
					got, want := kerneltest.New[float32](c.values*to, rnd.IntN(16), 7e3), kerneltest.New[float32](c.values*to, 0, 7e3)
					for i := range got.V {
						got.V[i], want.V[i] = 9, 9 // what lies between points must stay
					}
					call := winoInCall[float32]{
						place: &place, temp: &temp.V[0], row: int64(4 * w), plane: int64(4 * plane), step: int64(4 * lanes), to: int64(4 * to),
					}
					call.src, call.dst, call.channels = &x.V[0], &got.V[0], channels
					c.f(&call)
					call.src, call.dst, call.channels = &x.V[0], &want.V[0], channels
					c.def(&call, lanes, masked > 0)
					got.Check(t, c.name)
					temp.Check(t, "temp")
					// An element is a sum with weights of at most 100 in all, of values up to 1.
					closeTo(t, c.name, got.V, want.V, 2*100*8*kerneltest.Eps[float32]())
				}
				from := channels*lanes + rnd.IntN(20)
				m := kerneltest.New[float32](points*from, rnd.IntN(16), 1e3).Random(rnd)
				got, want := kerneltest.New[float32](channels*plane+lanes, rnd.IntN(16), 7e3), kerneltest.New[float32](channels*plane+lanes, 0, 7e3)
				for i := range got.V {
					got.V[i], want.V[i] = 9, 9
				}
				call := winoOutCall[float32]{
					src: &m.V[0], dst: &got.V[0], place: &target, bias: &x.V[0], channels: channels, row: int64(4 * w),
					plane: int64(4 * plane), step: int64(4 * lanes), from: int64(4 * from), clamp: int64(rnd.IntN(3)),
				}
				call.lo, call.hi = float32(math.Inf(-1)), float32(math.Inf(1))
				if call.clamp > 0 {
					call.lo = -3
				}
				if call.clamp > 1 {
					call.hi = 4
				}
				for which := range 2 {
					call.dst = &got.V[0]
					k.wino.out[which][masked](&call)
					call.dst = &want.V[0]
					winoOutGeneric(&call, winoPoints(which), lanes, masked > 0)
					got.Check(t, "y")
					closeTo(t, "y", got.V, want.V, 2*361*8*kerneltest.Eps[float32]()) // weights of at most 19², values up to 1
				}
			}
		}
	})
}

// Every tile of products equals generic.
func TestWinogradProducts(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		rnd := rand.New(rand.NewPCG(5, uint64(l)))
		for r := 1; r < len(k.wino.mul); r++ {
			for nv := 1; nv < len(k.wino.mul[r]); nv++ {
				n, count := nv*k.lanes, 1+rnd.IntN(4)
				vstep, mstep := n+rnd.IntN(9), n+rnd.IntN(9)
				to := r*mstep + rnd.IntN(9)
				spans := make([]winoSpan, count)
				steps := 0
				for i := range spans {
					spans[i] = winoSpan{int64(4 * rnd.IntN(50)), int64(rnd.IntN(4)), int64(4 * rnd.IntN(50)), int64(rnd.IntN(7))}
					steps += int(spans[i].ups + spans[i].channel)
				}
				v := kerneltest.New[float32](50+10*vstep, rnd.IntN(16), 1e3).Random(rnd)
				u := kerneltest.New[float32](steps*r+1, rnd.IntN(16), 3e3).Random(rnd)
				got, want := kerneltest.New[float32](count*to, rnd.IntN(16), 7e3), kerneltest.New[float32](count*to, 0, 7e3)
				for i := range got.V {
					got.V[i], want.V[i] = 9, 9
				}
				c := winoMulCall[float32]{
					v: &v.V[0], u: &u.V[0], m: &got.V[0], spans: &spans[0], points: int64(count),
					vstep: int64(4 * vstep), mstep: int64(4 * mstep), to: int64(4 * to),
				}
				k.wino.mul[r][nv](&c)
				c.m = &want.V[0]
				winoMulGeneric(&c, r, n)
				got.Check(t, "M")
				closeTo(t, "M", got.V, want.V, 10*10*kerneltest.Eps[float32]())
				// And what is added to it, while anything may be fetched.
				c.m, c.ahead, c.lines = &got.V[0], &u.V[0], int64(rnd.IntN(3))
				k.wino.add[r][nv](&c)
				c.m = &want.V[0]
				winoAddGeneric(&c, r, n)
				got.Check(t, "M")
				closeTo(t, "M", got.V, want.V, 2*10*10*kerneltest.Eps[float32]())
			}
		}
	})
}

// upsampled gives the dense input that sources stand for.
func upsampled[T Float](s ConvShape, x [][]T) []T {
	dense := make([]T, 0, s.N*s.C*s.H*s.W)
	for n := range s.N {
		for i, f := range s.sources() {
			h, w, by := s.H, s.W, 1
			if f.Up {
				h, w, by = h/2, w/2, 2
			}
			for c := range f.C {
				for y := range s.H {
					for k := range s.W {
						dense = append(dense, x[i][((n*f.C+c)*h+y/by)*w+k/by])
					}
				}
			}
		}
	}
	return dense
}

// sources makes the tensors that a convolution reads.
func sources[T Float](s ConvShape, rnd *rand.Rand, skew int) (bufs []*kerneltest.Buffer[T], x [][]T) {
	for _, f := range s.sources() {
		b := kerneltest.New[T](s.N*f.elems(s), skew, 1e3).Random(rnd)
		bufs, x = append(bufs, b), append(x, b.V)
	}
	return bufs, x
}

// checkWinograd compares a layer with the definition, once done in blocks and once phased.
func checkWinograd[T Float](t testing.TB, p *Pool, s ConvShape, withBias bool, skew int, l isa.Level, tune winoTuning, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := NoClamp
	if seed%2 == 0 {
		c = Clamp{-0.5, 0.75}
	}
	bufs, x := sources[T](s, rnd, skew)
	w := kerneltest.New[T](s.C*s.M*9, 0, 3e3).Random(rnd)
	var bias []T
	if withBias {
		bias = kerneltest.New[T](s.M, 0, 5e3).Random(rnd).V
	}
	want, _ := defineConv(s, w.V, bias, upsampled(s, x), c)
	d := newTunedWinograd(l, s, w.V, bias, c, tune)
	y := kerneltest.New[T](len(want), skew/2, 7e3)
	scratch := kerneltest.New[T](d.scratch(p.Workers()), 0, 9e3).Random(rnd)
	f := d.bind(p, finisher[T](s, seed, want, nil), scratch.V, y.V, x)
	for range 2 { // the second run finds used scratch and results
		f()
		for _, b := range bufs {
			b.Check(t, "x")
		}
		y.Check(t, "y")
		scratch.Check(t, "scratch")
		// Values up to 1 and their weights: V is at most 100, U 1, and Aᵀ·M·A weighs by 361 in all, but errors of V and M
		// average out: a hundred times the direct form's is never reached, in ten thousands of results of one channel (77).
		bound := 100 * float64(s.C*9+2) * kerneltest.Eps[T]()
		for i := range y.V {
			if e := math.Abs(float64(y.V[i]) - want[i]); !(e <= bound) {
				t.Fatalf("y[%d of %d] = %g, want %g (off by %g, bound %g)", i, len(want), y.V[i], want[i], e, bound)
			}
		}
	}
}

// The transform of weights of every instruction set equals generic, whose blocks may run over what comes behind them only.
func TestWinogradWeights(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		rnd := rand.New(rand.NewPCG(6, uint64(l)))
		for range 50 {
			blocks := 1 + rnd.IntN(5)
			to := blocks*k.lanes + rnd.IntN(20)
			g := kerneltest.New[float32](9*blocks*k.lanes, rnd.IntN(16), 1e3).Random(rnd)
			got, want := kerneltest.New[float32](points*to, rnd.IntN(16), 7e3), kerneltest.New[float32](points*to, 0, 7e3)
			for i := range got.V {
				got.V[i], want.V[i] = 9, 9
			}
			c := winoWeightsCall[float32]{&g.V[0], &got.V[0], int64(blocks), int64(4 * to)}
			k.wino.weights(&c)
			c = winoWeightsCall[float32]{&g.V[0], &want.V[0], int64(blocks), int64(4 * to)}
			winoWeightsGeneric(&c, k.lanes)
			got.Check(t, "U")
			closeTo(t, "U", got.V, want.V, 8*kerneltest.Eps[float32]()) // sums of values up to 1 with weights of 2 in all
		}
	})
}

// The weights are made on the way or ahead, at any number of workers: results differ by rounding, and workers change none.
func TestThinWeights(t *testing.T) {
	s := same(100, 75, 17, 3, 1, 1)
	rnd := rand.New(rand.NewPCG(9, 9))
	x := kerneltest.New[float32](s.C*s.H*s.W, 0, 0).Random(rnd).V
	w := kerneltest.New[float32](s.C*s.M*9, 0, 0).Random(rnd).V
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		run := func(workers int, tune winoTuning) []float32 {
			d := newTunedWinograd(l, s, w, nil, NoClamp, tune)
			if (d.thin != nil) != (tune.mode == byWeights) {
				t.Fatalf("%+v: other weights", tune)
			}
			y := make([]float32, s.M*s.OH*s.OW+256)
			d.bind(NewPool(workers), nil, make([]float32, d.scratch(workers)), y, [][]float32{x})()
			return y
		}
		want := run(1, winoTuning{byBlocks, 2})
		first := run(1, winoTuning{byWeights, 1})
		closeTo(t, "y", first, want, 900*kerneltest.Eps[float32]()*10)
		for workers := 1; workers <= 3; workers++ {
			for vectors := 1; vectors <= 4; vectors++ {
				closeTo(t, "y", run(workers, winoTuning{byWeights, vectors}), first, 0)
			}
		}
	})
}

// F(4x4,3x3) is the convolution, at every size, padding and number of channels, cut into blocks or phased.
func TestWinogradLaw(t *testing.T) {
	p := NewPool(3)
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		rapid.Check(t, func(rt *rapid.T) {
			n := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(rt, name) }
			s := ConvShape{
				N: n("N", 1, 2), C: n("C", 1, 20) + 32*n("more", 0, 2), M: n("M", 1, 30), H: n("H", 1, 30), W: n("W", 1, 150), KH: 3, KW: 3,
				StrideH: 1, StrideW: 1, DilH: 1, DilW: 1, Group: 1,
				PadTop: n("PadTop", 0, 3), PadLeft: n("PadLeft", 0, 3), PadBottom: n("PadBottom", -1, 3), PadRight: n("PadRight", -1, 3),
			}
			s.H, s.W = max(s.H, 3-s.PadTop-s.PadBottom), max(s.W, 3-s.PadLeft-s.PadRight)
			drawSources(rt, &s)
			if s.anyUp() {
				s.H, s.W, s.PadTop, s.PadLeft = 2*s.H+2, 2*(s.W/2+2), 1, 1
			}
			s.OH, s.OW = s.H+s.PadTop+s.PadBottom-2, s.W+s.PadLeft+s.PadRight-2
			if err := s.Check(); err != nil {
				rt.Fatalf("%v: %+v", err, s)
			}
			if !winogradFits(s) {
				rt.Fatalf("does not fit: %+v", s)
			}
			tune := winoTuning{winoMode(n("mode", 0, 3)), n("vectors", 1, 9)}
			rt.Logf("%+v", s)
			bias, skew, seed := rapid.Bool().Draw(rt, "bias"), n("skew", 0, 15), rapid.Uint64().Draw(rt, "seed")
			checkWinograd[float32](shim{t, rt}, p, s, bias, skew, l, tune, seed)
			if l == isa.Generic {
				checkWinograd[float64](shim{t, rt}, p, s, bias, skew, l, tune, seed)
			}
		})
	})
}

// With Gaussian data the error stays below 6e-6 of the largest result, up to 512 channels.
func TestWinogradAccuracy(t *testing.T) {
	p := NewPool(2)
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
			d.bind(p, nil, make([]float32, d.scratch(2)), y, [][]float32{x})()
			worst := 0.0
			for i, v := range y {
				worst = max(worst, math.Abs(float64(v)-want[i])/top)
			}
			t.Logf("%d channels: %.2g", c, worst)
			if worst > 6e-6 {
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
			for _, tune := range []winoTuning{{byBlocks, 4}, {byBlocks, 1}, {byPanels, 99}, {byPoints, 3}} {
				d := newTunedWinograd(l, s, w, nil, NoClamp, tune)
				y := make([]float32, s.M*s.OH*s.OW)
				d.bind(p, nil, make([]float32, d.scratch(workers)), y, [][]float32{x})()
				got := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&y[0])), 4*len(y)))
				if first == nil {
					first = got
				}
				if !bytes.Equal(got, first) {
					t.Errorf("%v workers, %+v: other bytes", workers, tune)
				}
			}
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
		{same(1, 16, 256, 3, 1, 1), "direct"}, {dilated, "direct"}, {strided, "direct"},
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
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		s := same(2, 3, 20, 3, 1, 1)
		w, x := make([]float32, s.C*s.M*9), make([]float32, s.C*s.H*s.W+256)
		for i := range w {
			w[i] = 1
		}
		x[5*s.W+6] = float32(math.NaN())
		d := newWinograd(l, s, w, nil, Clamp{0, 6})
		y := make([]float32, s.M*s.OH*s.OW+256)
		d.bind(p, nil, make([]float32, d.scratch(1)+256), y, [][]float32{x})()
		for i := 4; i <= 6; i++ {
			for j := 5; j <= 7; j++ {
				if v := y[i*s.OW+j]; v == v {
					t.Errorf("y[%d][%d] = %g, reads a NaN", i, j, v)
				}
			}
		}
	})
}

// A layer falls back to the definition by itself where Winograd would spoil it: here the sums in between, which are some
// hundred times the results, leave the range of float32. One with a trained network's kind of weights does not.
func TestWinogradFallsBack(t *testing.T) {
	if isa.Best() == isa.Generic {
		t.Skip("the form is another for want of speed")
	}
	s := same(32, 32, 64, 3, 1, 1)
	rnd := rand.New(rand.NewPCG(8, 8))
	w := make([]float32, s.C*s.M*9)
	for i := range w {
		w[i] = float32(rnd.NormFloat64())
	}
	if got := NewConv(s, w, nil, NoClamp).Form(); got != "winograd F4" {
		t.Errorf("normal weights: %s", got)
	}
	for i := range w {
		w[i] *= 1e37
	}
	k := NewConv(s, w, nil, NoClamp)
	if got := k.Form(); got != "direct" {
		t.Errorf("weights near the largest number: %s", got)
	}
	x := make([]float32, s.C*s.H*s.W+256)
	for i := range x {
		x[i] = rnd.Float32() / 16
	}
	y := make([]float32, s.M*s.OH*s.OW+256)
	k.Bind(NewPool(1), make([]float32, k.Scratch(1)+256), y, x)()
	for i, v := range y {
		if v-v != 0 {
			t.Fatalf("y[%d] = %g", i, v)
		}
	}
}
