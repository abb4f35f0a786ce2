package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in kernel.winoInCall, winoOutCall and winoMulCall.
const (
	iSrc, iDst, iPlace, iTemp, iChannels = 0, 8, 16, 24, 32
	iRow, iPlane, iStep, iTo             = 40, 48, 56, 64

	oSrc, oDst, oPlace, oBias, oChannels = 0, 8, 16, 24, 32
	oRow, oPlane, oStep, oFrom           = 40, 48, 56, 64
	oLo, oHi, oClamp                     = 72, 76, 80

	mV, mU, mM, mSpans, mPoints    = 0, 8, 16, 24, 32
	mVStep, mMStep, mTo            = 40, 48, 56
	mAhead, mLines                 = 64, 72
	pMasks, sSteps, sPlain, sNext  = 32, 8, 16, 32 // in kernel.winoPlace and winoSpan
	pColumns                       = 224
	inMasks, outMasks, maskOfPlus4 = 32, 16, 4 // bytes from row to row of masks, and to those of the second load
)

// constants are the multipliers of the transforms: in registers where there are 32, else in memory.
type constants struct {
	lv level
	of map[float64]Op
}

func multipliers(lv level, name string, vs ...float64) constants {
	c := constants{lv, map[float64]Op{}}
	for i, v := range vs {
		g := GLOBL(fmt.Sprintf("%s%s_%d", name, lv.name, i), RODATA|NOPTR)
		for i := range 8 {
			DATA(4*i, U32(math.Float32bits(float32(v))))
		}
		c.of[v] = g
		if lv.lanes == 16 {
			r := ZMM()
			VBROADCASTSS(g, r)
			c.of[v] = r
		}
	}
	return c
}

// The rest is one line an instruction, named by what it does to d.

func (c constants) add(k float64, x, d VecVirtual)       { VFMADD231PS(c.of[k], x, d) }  // d += k·x
func (c constants) sub(k float64, x, d VecVirtual)       { VFNMADD231PS(c.of[k], x, d) } // d -= k·x
func (c constants) timesPlus(k float64, x, d VecVirtual) { VFMADD132PS(c.of[k], x, d) }  // d = k·d + x
func (c constants) times(k float64, d VecVirtual)        { VMULPS(c.of[k], d, d) }       // d = k·d

func (lv level) get(m Mem) VecVirtual { v := lv.vec(); VMOVUPS(m, v); return v }
func (lv level) sum(x, y VecVirtual) VecVirtual {
	v := lv.vec()
	VADDPS(y, x, v)
	return v
}
func (lv level) diff(x, y VecVirtual) VecVirtual {
	v := lv.vec()
	VSUBPS(y, x, v)
	return v
}
func (lv level) copy(x VecVirtual) VecVirtual { v := lv.vec(); VMOVAPS(x, v); return v }

// multiple returns k·r for k = 3, 5 and 9.
func multiple(r Register, k int) GPVirtual {
	m := GP64()
	LEAQ(Mem{Base: r, Index: r, Scale: uint8(k - 1)}, m)
	return m
}

// edge loads and stores vectors of which some lanes lie outside of the image, as masks of 32 bits in memory say.
type edge struct {
	lv   level
	on   bool
	bits VecVirtual // of each lane; AVX2 has no mask registers
}

func newEdge(lv level, on bool) edge {
	e := edge{lv: lv, on: on}
	if on && lv.lanes == 8 {
		g := GLOBL("laneBits"+fresh(), RODATA|NOPTR)
		for i := range 8 {
			DATA(4*i, U32(1<<i))
		}
		e.bits = YMM()
		VMOVUPS(g, e.bits)
	}
	return e
}

// mask makes a vector mask of AVX2.
func (e edge) mask(at Mem) VecVirtual {
	m := YMM()
	VPBROADCASTD(at, m)
	VPAND(e.bits, m, m)
	VPCMPEQD(e.bits, m, m)
	return m
}

func (e edge) load(m, mask Mem) VecVirtual {
	v := e.lv.vec()
	switch {
	case !e.on:
		VMOVUPS(m, v)
	case e.lv.lanes == 16:
		k := K()
		KMOVW(mask, k)
		VMOVUPS_Z(m, k, v)
	default:
		VMASKMOVPS(m, e.mask(mask), v)
	}
	return v
}

func (e edge) store(v VecVirtual, m, mask Mem) {
	switch {
	case !e.on:
		VMOVUPS(v, m)
	case e.lv.lanes == 16:
		k := K()
		KMOVW(mask, k)
		VMOVUPS(v, k, m)
	default:
		VMASKMOVPS(v, e.mask(mask), m)
	}
}

// transpose4 gives the first n columns of the 4x4 floats in every 128 bits of four registers: column j has element j of
// r[0], r[1], r[2], r[3].
func transpose4(lv level, r []VecVirtual, n int) []VecVirtual {
	pair := func(f func(...Op), x, y VecVirtual) VecVirtual { v := lv.vec(); f(y, x, v); return v }
	o := make([]VecVirtual, 0, 4)
	low := []VecVirtual{pair(VUNPCKLPS, r[0], r[1]), pair(VUNPCKLPS, r[2], r[3])}
	if n > 2 {
		high := []VecVirtual{pair(VUNPCKHPS, r[0], r[1]), pair(VUNPCKHPS, r[2], r[3])}
		o = append(o, pair(VUNPCKLPD, low[0], low[1]), pair(VUNPCKHPD, low[0], low[1]))
		return append(o, pair(VUNPCKLPD, high[0], high[1]), pair(VUNPCKHPD, high[0], high[1]))
	}
	return append(o, pair(VUNPCKLPD, low[0], low[1]), pair(VUNPCKHPD, low[0], low[1]))
}

// winoB multiplies by Bᵀ, six vectors in place.
//
//	Bᵀ = 4  0 -5  0  1  0
//	     0 -4 -4  1  1  0
//	     0  4 -4 -1  1  0
//	     0 -2 -1  2  1  0
//	     0  2 -1 -2  1  0
//	     0  4  0 -5  0  1
func winoB(lv level, k constants, d []VecVirtual, put func(i int, v VecVirtual)) {
	c, e := lv.diff(d[4], d[2]), lv.diff(d[3], d[1])
	k.sub(4, d[2], d[4])
	VSUBPS(d[2], d[0], d[0])
	k.timesPlus(4, c, d[0])
	put(0, d[0])
	VSUBPS(d[3], d[5], d[5])
	k.sub(4, d[1], d[3])
	k.sub(4, e, d[5])
	put(5, d[5])
	put(1, lv.sum(d[4], d[3]))
	VSUBPS(d[3], d[4], d[4])
	put(2, d[4])
	f := lv.copy(c)
	k.add(2, e, f)
	put(3, f)
	k.sub(2, e, c)
	put(4, c)
}

// The balanced points are 0, a, -a, b, -b and infinity, with a = 1/√2 and b = √2: weights of the transforms, and with them the
// errors, are smaller than those of 0, 1, -1, 2, -2.
var (
	rootA = math.Sqrt(0.5)
	rootB = math.Sqrt2
	cubeA = rootA / 2
	cubeB = rootB * 2
)

// balanced are the multipliers of Bᵀ, and of Aᵀ, for the balanced points.
var (
	balancedB = []float64{2.5, 2, 0.5, rootA, rootB}
	balancedA = []float64{0.5, 2, rootA, rootB, cubeA, cubeB}
)

// winoBalanced is winoB for the balanced points.
//
//	Bᵀ = 1   0  -5/2  0   1  0
//	     0 -2a   -2   a   1  0
//	     0  2a   -2  -a   1  0
//	     0 -b/2 -1/2  b   1  0
//	     0  b/2 -1/2 -b   1  0
//	     0   1    0 -5/2  0  1
func winoBalanced(lv level, k constants, d []VecVirtual, put func(i int, v VecVirtual)) {
	VADDPS(d[4], d[0], d[0])
	k.sub(2.5, d[2], d[0])
	put(0, d[0])
	VADDPS(d[1], d[5], d[5])
	k.sub(2.5, d[3], d[5])
	put(5, d[5])
	even, odd := lv.copy(d[4]), lv.copy(d[3])
	k.sub(2, d[2], even)
	k.sub(2, d[1], odd)
	x := lv.copy(even)
	k.add(rootA, odd, x)
	put(1, x)
	k.sub(rootA, odd, even)
	put(2, even)
	k.sub(0.5, d[2], d[4])
	k.sub(0.5, d[1], d[3])
	x = lv.copy(d[4])
	k.add(rootB, d[3], x)
	put(3, x)
	k.sub(rootB, d[3], d[4])
	put(4, d[4])
}

// winoBUp multiplies four vectors, each of which stands for two equal rows (but for the outer ones' halves that lie
// outside of the tile), by Bᵀ: what is left of it has four rows, up to factors that the weights take.
//
//	4 -5  1  0      row 0
//	0 -4  1  0      row 1 / 2; row 2 is zero
//	0  1 -1  0      row 4; row 3 is -3 of it
//	0  4 -5  1      row 5
func winoBUp(lv level, k constants, d []VecVirtual, put func(i int, v VecVirtual)) {
	a, b, c := d[0], d[1], d[2]
	k.timesPlus(4, c, a) // 4a + c
	k.sub(5, b, a)
	put(0, a)
	put(2, lv.diff(b, c))
	e := d[3]
	k.sub(5, c, e)
	k.add(4, b, e)
	put(3, e)
	k.sub(4, b, c)
	put(1, c)
}

// rowOfPoints sets r to where point (i, 0) of six by six lies, dst + 6·i·to.
func rowOfPoints(i int, dst, to3, r Register) {
	at := func(base Register, scale uint8) { LEAQ(Mem{Base: base, Index: to3, Scale: scale}, r) }
	switch i {
	case 0:
		MOVQ(dst, r)
	case 1:
		at(dst, 2)
	case 2:
		at(dst, 4)
	case 3:
		at(dst, 2)
		at(r, 4)
	case 4:
		at(dst, 8)
	case 5:
		at(dst, 8)
		at(r, 2)
	}
}
