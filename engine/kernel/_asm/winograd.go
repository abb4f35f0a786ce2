package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in kernel.winoCall.
const (
	wSrc, wDst, wVecs, wFrom, wNext, wTo = 0, 8, 16, 24, 32, 40
	wAhead, wLo, wHi                     = 48, 56, 60
)

// constants are the multipliers of the transforms: in registers where there are 32, else in memory.
type constants struct {
	lv level
	of map[int]Op
}

func multipliers(lv level, name string, vs ...int) constants {
	c := constants{lv, map[int]Op{}}
	for _, v := range vs {
		g := GLOBL(fmt.Sprintf("%s%s_%d", name, lv.name, v), RODATA|NOPTR)
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

func (c constants) add(k int, x, d VecVirtual)       { VFMADD231PS(c.of[k], x, d) }  // d += k·x
func (c constants) sub(k int, x, d VecVirtual)       { VFNMADD231PS(c.of[k], x, d) } // d -= k·x
func (c constants) timesPlus(k int, x, d VecVirtual) { VFMADD132PS(c.of[k], x, d) }  // d = k·d + x

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

// multiple returns k·r for k = 3 and 5.
func multiple(r Register, k int) GPVirtual {
	m := GP64()
	LEAQ(Mem{Base: r, Index: r, Scale: uint8(k - 1)}, m)
	return m
}

// winoIn emits V = Bᵀ·d·B for vectors of tiles, d[i][j] being in grid (j, i mod 4), i/4 rows of tiles down.
//
//	Bᵀ = 4  0 -5  0  1  0
//	     0 -4 -4  1  1  0
//	     0  4 -4 -1  1  0
//	     0 -2 -1  2  1  0
//	     0  2 -1 -2  1  0
//	     0  4  0 -5  0  1
//
// Two rows of Bᵀ·d are made at a time, those that have terms in common: twelve vectors, which 16 registers hold with
// what the second product needs. To read the grids three times is cheaper than to keep 36 vectors in memory.
func winoIn(lv level) {
	size := lv.lanes * 4
	TEXT("winoIn"+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	src, dst, vecs := load(p, wSrc), load(p, wDst), load(p, wVecs)
	from, to := load(p, wFrom), load(p, wTo)
	from3, to3, to5 := multiple(from, 3), multiple(to, 3), multiple(to, 5)
	k := multipliers(lv, "winoIn", 4, 2)
	q, q2, r := GP64(), GP64(), GP64()
	at := func(i int) Mem {
		switch i {
		case 3:
			return Mem{Base: q, Index: from3, Scale: 1}
		case 4:
			return Mem{Base: q2}
		case 5:
			return Mem{Base: q2, Index: from, Scale: 1}
		case 0:
			return Mem{Base: q}
		}
		return Mem{Base: q, Index: from, Scale: uint8(i)}
	}
	// columns makes rows a and b of Bᵀ·d.
	columns := func(f func() (x, y VecVirtual)) (a, b []VecVirtual) {
		MOVQ(src, q)
		MOVQ(src, q2)
		ADDQ(field(p, wNext), q2)
		for j := range 6 {
			x, y := f()
			a, b = append(a, x), append(b, y)
			if j < 5 {
				LEAQ(Mem{Base: q, Index: from, Scale: 4}, q)
				LEAQ(Mem{Base: q2, Index: from, Scale: 4}, q2)
			}
		}
		return a, b
	}
	// row multiplies a row by B and stores it from r on.
	row := func(d []VecVirtual) {
		c, e := lv.diff(d[4], d[2]), lv.diff(d[3], d[1])
		VSUBPS(d[2], d[0], d[0])
		k.timesPlus(4, c, d[0])
		VMOVUPS(d[0], Mem{Base: r})
		VSUBPS(d[3], d[5], d[5])
		k.sub(4, e, d[5])
		VMOVUPS(d[5], Mem{Base: r, Index: to5, Scale: 1})
		k.sub(4, d[2], d[4])
		k.sub(4, d[1], d[3])
		VMOVUPS(lv.sum(d[4], d[3]), Mem{Base: r, Index: to, Scale: 1})
		VMOVUPS(lv.diff(d[4], d[3]), Mem{Base: r, Index: to, Scale: 2})
		f := lv.copy(c)
		k.add(2, e, f)
		VMOVUPS(f, Mem{Base: r, Index: to3, Scale: 1})
		k.sub(2, e, c)
		VMOVUPS(c, Mem{Base: r, Index: to, Scale: 4})
	}

	Label("vec")
	a, b := columns(func() (x, y VecVirtual) { // rows 0 and 5
		t := lv.get(at(2))
		x = lv.get(at(0))
		VSUBPS(t, x, x)
		c := lv.get(at(4))
		VSUBPS(t, c, c)
		k.timesPlus(4, c, x)
		e := lv.get(at(3))
		y = lv.get(at(5))
		VSUBPS(e, y, y)
		VSUBPS(at(1), e, e)
		k.sub(4, e, y)
		return x, y
	})
	MOVQ(dst, r)
	row(a)
	LEAQ(Mem{Base: dst, Index: to3, Scale: 8}, r)
	LEAQ(Mem{Base: r, Index: to3, Scale: 2}, r)
	row(b)
	a, b = columns(func() (x, y VecVirtual) { // rows 1 and 2
		even, odd := lv.get(at(4)), lv.get(at(3))
		k.sub(4, lv.get(at(2)), even)
		k.sub(4, lv.get(at(1)), odd)
		return lv.sum(even, odd), lv.diff(even, odd)
	})
	LEAQ(Mem{Base: dst, Index: to3, Scale: 2}, r)
	row(a)
	LEAQ(Mem{Base: dst, Index: to3, Scale: 4}, r)
	row(b)
	a, b = columns(func() (x, y VecVirtual) { // rows 3 and 4
		y, e := lv.get(at(4)), lv.get(at(3))
		VSUBPS(at(2), y, y)
		VSUBPS(at(1), e, e)
		x = lv.copy(y)
		k.add(2, e, x)
		k.sub(2, e, y)
		return x, y
	})
	LEAQ(Mem{Base: dst, Index: to3, Scale: 4}, r)
	LEAQ(Mem{Base: r, Index: to3, Scale: 2}, r)
	row(a)
	LEAQ(Mem{Base: dst, Index: to3, Scale: 8}, r)
	row(b)
	ADDQ(U32(uint32(size)), src)
	ADDQ(U32(uint32(size)), dst)
	DECQ(vecs)
	JNZ(LabelRef("vec"))
	VZEROUPPER()
	RET()
}

// winoOut emits y = clamp(Aᵀ·M·A) for vectors of tiles, four rows of four pixels a tile, tiles side by side.
//
//	Aᵀ = 1  1  1  1  1  0
//	     0  1 -1  2 -2  0
//	     0  1  1  4  4  0
//	     0  1 -1  8 -8  1
//
// Rows 0 and 2 of Aᵀ·M have their terms in common, and 1 and 3.
func winoOut(lv level) {
	size := lv.lanes * 4
	TEXT("winoOut"+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	src, dst, vecs := load(p, wSrc), load(p, wDst), load(p, wVecs)
	from, to := load(p, wFrom), load(p, wTo)
	from6 := multiple(from, 3)
	ADDQ(from6, from6)
	from18, from30 := multiple(from6, 3), multiple(from6, 5)
	k := multipliers(lv, "winoOut", 2, 4, 8)
	weave := interleave(lv)
	ahead := load(p, wAhead)
	q, next := GP64(), GP64()
	at := func(i int) Mem {
		switch i {
		case 0:
			return Mem{Base: q}
		case 3:
			return Mem{Base: q, Index: from18, Scale: 1}
		case 5:
			return Mem{Base: q, Index: from30, Scale: 1}
		}
		return Mem{Base: q, Index: from6, Scale: uint8(i)}
	}
	columns := func(f func() (x, y VecVirtual)) (a, b []VecVirtual) {
		MOVQ(src, q)
		for j := range 6 {
			x, y := f()
			a, b = append(a, x), append(b, y)
			if j < 5 {
				ADDQ(from, q)
			}
		}
		return a, b
	}
	row := func(m []VecVirtual, out func(disp int) Mem) {
		s, t := lv.sum(m[1], m[2]), lv.sum(m[3], m[4])
		VSUBPS(m[2], m[1], m[1])
		VSUBPS(m[4], m[3], m[3])
		VADDPS(s, m[0], m[0])
		VADDPS(t, m[0], m[0])
		k.add(4, t, s)
		o1 := lv.copy(m[1])
		k.add(2, m[3], o1)
		k.add(8, m[3], m[1])
		VADDPS(m[5], m[1], m[1])
		os := []VecVirtual{m[0], o1, s, m[1]}
		// As in the micro-kernel, a NaN stays one if the result comes second.
		lim := lv.vec()
		VBROADCASTSS(field(p, wLo), lim)
		for _, o := range os {
			VMAXPS(o, lim, o)
		}
		VBROADCASTSS(field(p, wHi), lim)
		for _, o := range os {
			VMINPS(o, lim, o)
		}
		LEAQ(out(0), next)
		for i := range size / 16 {
			PREFETCHT0(Mem{Base: next, Index: ahead, Scale: 1, Disp: 64 * i})
		}
		weave(os, out)
	}

	Label("vec")
	a, b := columns(func() (x, y VecVirtual) { // rows 0 and 2
		y = lv.get(at(1))
		VADDPS(at(2), y, y)
		t := lv.get(at(3))
		VADDPS(at(4), t, t)
		x = lv.sum(y, t)
		VADDPS(at(0), x, x)
		k.add(4, t, y)
		return x, y
	})
	row(a, func(disp int) Mem { return Mem{Base: dst, Disp: disp} })
	row(b, func(disp int) Mem { return Mem{Base: dst, Index: to, Scale: 2, Disp: disp} })
	a, b = columns(func() (x, y VecVirtual) { // rows 1 and 3
		y = lv.get(at(1))
		VSUBPS(at(2), y, y)
		u := lv.get(at(3))
		VSUBPS(at(4), u, u)
		x = lv.copy(y)
		k.add(2, u, x)
		k.add(8, u, y)
		VADDPS(at(5), y, y)
		return x, y
	})
	row(a, func(disp int) Mem { return Mem{Base: dst, Index: to, Scale: 1, Disp: disp} })
	LEAQ(Mem{Base: dst, Index: to, Scale: 1}, q)
	row(b, func(disp int) Mem { return Mem{Base: q, Index: to, Scale: 2, Disp: disp} })
	ADDQ(U32(uint32(size)), src)
	ADDQ(U32(uint32(4*size)), dst)
	DECQ(vecs)
	JNZ(LabelRef("vec"))
	VZEROUPPER()
	RET()
}

// permutation is a register of lane numbers; those of the second operand count on from the first's.
func permutation(name string, lane func(i int) int) VecVirtual {
	g, r := GLOBL(name, RODATA|NOPTR), ZMM()
	for i := range 16 {
		DATA(4*i, U32(uint32(lane(i))))
	}
	VMOVUPS(g, r)
	return r
}

// interleave loads what it needs and returns what stores element i of o[0..3] next to each other, for all i.
func interleave(lv level) func(o []VecVirtual, out func(disp int) Mem) {
	if lv.lanes == 8 {
		return func(o []VecVirtual, out func(disp int) Mem) {
			q := transpose4(o)
			for i, v := range q { // tile i in the lower half, 4+i in the upper; storing halves spares the shuffles
				VMOVUPS(v.AsX(), out(16*i))
				VEXTRACTF128(Imm(1), v, out(64+16*i))
			}
		}
	}
	single := func(i int) int { return i/2 + i%2*16 }               // a0 b0 a1 b1 ..
	double := func(i int) int { return (i/4)*2 + i%2 + (i/2)%2*16 } // a0 a1 b0 b1 a2 a3 ..
	s0 := permutation("zipLow", single)
	s1 := permutation("zipHigh", func(i int) int { return single(i) + 8 })
	d0 := permutation("zipLow2", double)
	d1 := permutation("zipHigh2", func(i int) int { return double(i) + 8 })
	return func(o []VecVirtual, out func(disp int) Mem) {
		low01, low23 := lv.copy(o[0]), lv.copy(o[2])
		VPERMT2PS(o[1], s0, low01)
		VPERMT2PS(o[1], s1, o[0])
		VPERMT2PS(o[3], s0, low23)
		VPERMT2PS(o[3], s1, o[2])
		for half, v := range [][]VecVirtual{{low01, low23}, {o[0], o[2]}} {
			first := lv.copy(v[0])
			VPERMT2PS(v[1], d0, first)
			VMOVUPS(first, out(128*half))
			VPERMT2PS(v[1], d1, v[0])
			VMOVUPS(v[0], out(128*half+64))
		}
	}
}

// transpose4 transposes 4x4 floats in either half of four registers.
func transpose4(r []VecVirtual) []VecVirtual {
	t := []VecVirtual{YMM(), YMM(), YMM(), YMM()}
	VUNPCKLPS(r[1], r[0], t[0])
	VUNPCKHPS(r[1], r[0], t[1])
	VUNPCKLPS(r[3], r[2], t[2])
	VUNPCKHPS(r[3], r[2], t[3])
	o := []VecVirtual{YMM(), YMM(), YMM(), YMM()}
	VUNPCKLPD(t[2], t[0], o[0])
	VUNPCKHPD(t[2], t[0], o[1])
	VUNPCKLPD(t[3], t[1], o[2])
	VUNPCKHPD(t[3], t[1], o[3])
	return o
}
