package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// of is the definition of Clamp.
func (c Clamp) of(v float64) float64 {
	if v < c.Lo {
		v = c.Lo
	}
	if v > c.Hi {
		v = c.Hi
	}
	return v
}

// defineConv is ONNX's definition of Conv in float64. mag is the sum of the magnitudes of what is summed.
func defineConv[T Float](s ConvShape, w, bias, x []T, c Clamp) (y, mag []float64) {
	cg, mg := s.C/s.Group, s.M/s.Group
	for n := range s.N {
		for m := range s.M {
			for oh := range s.OH {
				for ow := range s.OW {
					sum, abs := start(bias, m)
					for k := range cg {
						for kh := range s.KH {
							for kw := range s.KW {
								ih, iw := oh*s.StrideH+kh*s.DilH-s.PadTop, ow*s.StrideW+kw*s.DilW-s.PadLeft
								if ih < 0 || ih >= s.H || iw < 0 || iw >= s.W {
									continue
								}
								v := float64(x[((n*s.C+m/mg*cg+k)*s.H+ih)*s.W+iw]) * float64(w[((m*cg+k)*s.KH+kh)*s.KW+kw])
								sum += v
								abs += math.Abs(v)
							}
						}
					}
					y, mag = append(y, c.of(sum)), append(mag, abs)
				}
			}
		}
	}
	return y, mag
}

func start[T Float](bias []T, m int) (sum, abs float64) {
	if bias == nil {
		return 0, 0
	}
	return float64(bias[m]), math.Abs(float64(bias[m]))
}

// defineConvTranspose scatters, as ONNX defines ConvTranspose, in float64.
func defineConvTranspose[T Float](s ConvShape, w, bias, x []T, c Clamp) (y, mag []float64) {
	cg, mg := s.C/s.Group, s.M/s.Group
	y, mag = make([]float64, s.N*s.M*s.OH*s.OW), make([]float64, s.N*s.M*s.OH*s.OW)
	for i := range y {
		y[i], mag[i] = start(bias, i/(s.OH*s.OW)%s.M)
	}
	for n := range s.N {
		for k := range s.C {
			for ih := range s.H {
				for iw := range s.W {
					for m := range mg {
						for kh := range s.KH {
							for kw := range s.KW {
								oh, ow := ih*s.StrideH+kh*s.DilH-s.PadTop, iw*s.StrideW+kw*s.DilW-s.PadLeft
								if oh < 0 || oh >= s.OH || ow < 0 || ow >= s.OW {
									continue
								}
								v := float64(x[((n*s.C+k)*s.H+ih)*s.W+iw]) * float64(w[((k*mg+m)*s.KH+kh)*s.KW+kw])
								i := ((n*s.M+k/cg*mg+m)*s.OH+oh)*s.OW + ow
								y[i] += v
								mag[i] += math.Abs(v)
							}
						}
					}
				}
			}
		}
	}
	for i := range y {
		y[i] = c.of(y[i])
	}
	return y, mag
}

// shapes draws a convolution, forward or transposed, that is small but may be odd in every way.
func shapes(t *rapid.T, transposed bool) ConvShape {
	n := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
	s := ConvShape{
		N: n("N", 1, 2), H: n("H", 1, 20), W: n("W", 1, 40), KH: n("KH", 1, 5), KW: n("KW", 1, 5),
		StrideH: n("StrideH", 1, 3), StrideW: n("StrideW", 1, 3), DilH: n("DilH", 1, 3), DilW: n("DilW", 1, 3),
		PadTop: n("PadTop", 0, 4), PadLeft: n("PadLeft", 0, 4), PadBottom: n("PadBottom", 0, 4), PadRight: n("PadRight", 0, 4),
		Group: n("Group", 1, 4),
	}
	if !transposed && rapid.Bool().Draw(t, "wide") { // taps that lie apart, and some that never leave the padding
		s.DilH, s.DilW, s.PadTop, s.PadLeft, s.PadBottom, s.PadRight = 4*s.DilH, 4*s.DilW, 4*s.PadTop, 4*s.PadLeft, 4*s.PadBottom, 4*s.PadRight
	}
	s.C, s.M = s.Group*n("C/Group", 1, 9), s.Group*n("M/Group", 1, 30)
	kh, kw := (s.KH-1)*s.DilH+1, (s.KW-1)*s.DilW+1
	if transposed {
		s.OH = max((s.H-1)*s.StrideH+kh-s.PadTop-s.PadBottom+n("OutPadH", 0, s.StrideH-1), 1)
		s.OW = max((s.W-1)*s.StrideW+kw-s.PadLeft-s.PadRight+n("OutPadW", 0, s.StrideW-1), 1)
		return s
	}
	s.H, s.W = max(s.H, kh-s.PadTop-s.PadBottom), max(s.W, kw-s.PadLeft-s.PadRight)
	drawSources(t, &s)
	s.OH, s.OW = (s.H+s.PadTop+s.PadBottom-kh)/s.StrideH+1, (s.W+s.PadLeft+s.PadRight-kw)/s.StrideW+1
	return s
}

// drawSources lets the input come from up to three tensors, upsampled or not.
func drawSources(t *rapid.T, s *ConvShape) {
	left := s.C
	for n := rapid.IntRange(0, 3).Draw(t, "sources"); n > 0 && left > 0; n-- {
		c := left // the last takes what is left
		if n > 1 {
			c = rapid.IntRange(1, left).Draw(t, "channels")
		}
		s.Sources = append(s.Sources, Source{c, rapid.Bool().Draw(t, "upsampled")})
		left -= c
	}
	if s.anyUp() {
		s.H, s.W = s.H+s.H%2, s.W+s.W%2
	}
}

// binder is what Conv and ConvTranspose have in common.
type binder[T Float] interface {
	Scratch(workers int) int
	BindFinish(p *Pool, f Finish[T], scratch, y []T, x ...[]T) func()
}

func checkLayer[T Float](t testing.TB, p *Pool, s ConvShape, transposed bool, withBias bool, skew int, l isa.Level, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := NoClamp
	if seed%2 == 0 {
		c = Clamp{-0.5, 0.75}
	}
	bufs, x := sources[T](s, rnd, skew)
	w := kerneltest.New[T](s.C*s.M/s.Group*s.KH*s.KW, 0, 3e3).Random(rnd)
	var bias []T
	if withBias {
		bias = kerneltest.New[T](s.M, 0, 5e3).Random(rnd).V
	}
	var k binder[T]
	var want, mag []float64
	// Small layers are cut into as many tasks as large ones.
	small := func(l *layer[T]) {
		if l != nil && seed%3 > 0 {
			l.tuning = tuning{cache: int(seed % 3000), worth: int(1 + seed%10)}
		}
	}
	if transposed {
		ct := newConvTranspose(l, s, w.V, bias, c)
		small(ct.l)
		k = ct
		want, mag = defineConvTranspose(s, w.V, bias, x[0], c)
	} else {
		cv := newConv(l, direct, s, w.V, bias, c)
		small(cv.l)
		k = cv
		want, mag = defineConv(s, w.V, bias, upsampled(s, x), c)
	}
	y := kerneltest.New[T](len(want), skew/2, 7e3)
	scratch := kerneltest.New[T](k.Scratch(p.Workers()), 0, 9e3).Random(rnd)
	f := k.BindFinish(p, finisher[T](s, seed, want, mag), scratch.V, y.V, x...)
	for range 2 { // the second run finds used scratch and results
		f()
		for _, b := range bufs {
			b.Check(t, "x")
		}
		y.Check(t, "y")
		scratch.Check(t, "scratch")
		kerneltest.Close(t, y.V, want, mag, s.C/s.Group*s.KH*s.KW)
	}
}

// Conv is ONNX's Conv and ConvTranspose its ConvTranspose, for every shape at every instruction set.
func TestConvLaw(t *testing.T) {
	p := NewPool(3)
	for _, transposed := range []bool{false, true} {
		kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
			rapid.Check(t, func(rt *rapid.T) {
				s := shapes(rt, transposed)
				bias, skew := rapid.Bool().Draw(rt, "bias"), rapid.IntRange(0, 15).Draw(rt, "skew")
				seed := rapid.Uint64().Draw(rt, "seed")
				rt.Logf("%+v", s)
				checkLayer[float32](shim{t, rt}, p, s, transposed, bias, skew, l, seed)
				if l == isa.Generic {
					checkLayer[float64](shim{t, rt}, p, s, transposed, bias, skew, l, seed)
				}
			})
		})
	}
}

// shim lets rapid see the failures of helpers that take a testing.TB.
type shim struct {
	testing.TB
	rt *rapid.T
}

func (s shim) Fatalf(format string, args ...any) { s.rt.Fatalf(format, args...) }
func (s shim) Helper()                           {}

// same is a convolution that keeps the size of its input.
func same(c, m, size, k, stride, group int) ConvShape {
	o := (size + stride - 1) / stride
	pad := max((o-1)*stride+k-size, 0)
	return ConvShape{
		N: 1, C: c, H: size, W: size, M: m, KH: k, KW: k, StrideH: stride, StrideW: stride, DilH: 1, DilW: 1,
		PadTop: pad / 2, PadLeft: pad / 2, PadBottom: pad - pad/2, PadRight: pad - pad/2, Group: group, OH: o, OW: o,
	}
}

// up is the transposed convolution, kernel and stride 2, that doubles its input.
func up(c, m, size int) ConvShape {
	return ConvShape{
		N: 1, C: c, H: size, W: size, M: m, KH: 2, KW: 2, StrideH: 2, StrideW: 2, DilH: 1, DilW: 1,
		Group: 1, OH: 2 * size, OW: 2 * size,
	}
}

// up4 is the transposed convolution of kernel 4 and stride 2 that doubles its input.
func up4(c, m, size int) ConvShape {
	s := up(c, m, size)
	s.KH, s.KW, s.PadTop, s.PadLeft, s.PadBottom, s.PadRight = 4, 4, 1, 1, 1, 1
	return s
}

// shapesOfUp4 draws a transposed convolution of kernel 4 and stride 2, of any padding and output padding.
func shapesOfUp4(t *rapid.T) ConvShape {
	n := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
	s := up4(1, 1, 1)
	s.N, s.H, s.W, s.Group = n("N", 1, 2), n("H", 1, 20), n("W", 1, 75), n("Group", 1, 2)
	s.C, s.M = s.Group*n("C/Group", 1, 9), s.Group*n("M/Group", 1, 30)
	s.PadTop, s.PadLeft, s.PadBottom, s.PadRight = n("PadTop", 0, 3), n("PadLeft", 0, 3), n("PadBottom", 0, 3), n("PadRight", 0, 3)
	s.OH = max(2*s.H+2-s.PadTop-s.PadBottom+n("OutPadH", 0, 1), 1)
	s.OW = max(2*s.W+2-s.PadLeft-s.PadRight+n("OutPadW", 0, 1), 1)
	return s
}

// A transposed convolution of kernel 4 and stride 2 takes a quarter of the weights for each output, and is what ONNX
// defines, at every instruction set.
func TestConvTranspose4Law(t *testing.T) {
	p := NewPool(3)
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		rapid.Check(t, func(rt *rapid.T) {
			s := shapesOfUp4(rt)
			skew, seed := rapid.IntRange(0, 15).Draw(rt, "skew"), rapid.Uint64().Draw(rt, "seed")
			k := newConvTranspose(l, s, make([]float32, s.C*s.M/s.Group*16), nil, NoClamp)
			if want := int64(s.N*s.M*s.OH*s.OW) * int64(4*s.C/s.Group); k.Products() != want {
				rt.Fatalf("%+v takes %d products, want %d", s, k.Products(), want)
			}
			checkLayer[float32](shim{t, rt}, p, s, true, seed%2 == 1, skew, l, seed)
			if l == isa.Generic {
				checkLayer[float64](shim{t, rt}, p, s, true, seed%2 == 1, skew, l, seed)
			}
		})
	})
}

// The kinds of layers that networks have, at sizes where bands, panels and groups are cut into several tasks.
func TestConvLayers(t *testing.T) {
	p := NewPool(2)
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		for name, s := range map[string]ConvShape{
			"3x3": same(16, 17, 96, 3, 1, 1), "first": same(3, 32, 96, 3, 2, 1), "deep": same(130, 40, 16, 3, 1, 1),
			"pointwise": same(24, 13, 61, 1, 1, 1), "depthwise": same(96, 96, 32, 3, 1, 96), "depthwise5s2": same(40, 40, 48, 5, 2, 40),
			"odd": same(7, 9, 45, 3, 1, 1), "multiplier": same(8, 24, 30, 3, 1, 8), "one pixel": same(48, 20, 1, 1, 1, 1),
			"head": same(16, 1, 100, 1, 1, 1), "small": same(20, 20, 8, 3, 1, 1),
		} {
			t.Run(name, func(t *testing.T) { checkLayer[float32](t, p, s, false, true, 1, l, 1) })
		}
		t.Run("up", func(t *testing.T) { checkLayer[float32](t, p, up(16, 9, 33), true, true, 1, l, 1) })
	})
}

// A run allocates nothing.
func TestConvAllocs(t *testing.T) {
	p := NewPool(2)
	ct := NewConvTranspose(up4(16, 16, 32), make([]float32, 16*16*16), nil, NoClamp)
	fct := ct.Bind(p, make([]float32, ct.Scratch(2)), make([]float32, 16*64*64+256), make([]float32, 16*32*32+256))
	if n := testing.AllocsPerRun(50, fct); n != 0 {
		t.Fatalf("a run of a transposed one allocates %g times", n)
	}
	s := same(16, 16, 32, 3, 1, 1)
	k := NewConv(s, make([]float32, 16*16*9), nil, NoClamp)
	f := k.Bind(p, make([]float32, k.Scratch(2)), make([]float32, 16*32*32+256), make([]float32, 16*32*32+256))
	if n := testing.AllocsPerRun(50, f); n != 0 {
		t.Fatalf("a run allocates %g times", n)
	}
}
