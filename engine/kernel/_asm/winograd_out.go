package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// winoOut emits y = clamp(Aᵀ·M·A + bias) of one vector of tiles for many channels: four rows of four pixels a tile,
// stored by segments.
//
//	Aᵀ = 1  1  1  1  1  0
//	     0  1 -1  2 -2  0
//	     0  1  1  4  4  0
//	     0  1 -1  8 -8  1
//
// Rows 0 and 2 of Aᵀ·M have their terms in common, and 1 and 3: twelve vectors at a time, which 16 registers hold.
//
// With the balanced points (see winoBalanced):
//
//	Aᵀ = 1  1    1   1    1   0
//	     0  a   -a   b   -b   0
//	     0 1/2  1/2  2    2   0
//	     0 a/2 -a/2  2b  -2b  1
func winoOut(lv level, masked, balanced bool) {
	name, factors := "winoOut", []float64{2, 4, 8}
	if balanced {
		name, factors = "winoOutBalanced", balancedA
	}
	if masked {
		name += "Edge"
	}
	TEXT(name+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	src, dst, bias, channels := load(p, oSrc), load(p, oDst), load(p, oBias), load(p, oChannels)
	place, row, from := load(p, oPlace), load(p, oRow), load(p, oFrom)
	from6 := multiple(from, 3)
	ADDQ(from6, from6)
	from18, from30 := multiple(from6, 3), multiple(from6, 5)
	k := multipliers(lv, name, factors...)
	e := newEdge(lv, masked)
	q := GP64()
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
	// sums gives rows 0 and 2 of Aᵀ·m of s = m1 + m2 and t = m3 + m4; row 0 lacks m0.
	sums := func(s, t VecVirtual) (x, y VecVirtual) {
		x = lv.sum(s, t)
		if balanced {
			k.times(0.5, s)
			k.add(2, t, s)
		} else {
			k.add(4, t, s)
		}
		return x, s
	}
	// differences gives rows 1 and 3 of d = m1 - m2 and u = m3 - m4; row 3 lacks m5.
	differences := func(d, u VecVirtual) (x, y VecVirtual) {
		x = lv.copy(d)
		if balanced {
			k.times(rootA, x)
			k.add(rootB, u, x)
			k.times(cubeA, d)
			k.add(cubeB, u, d)
		} else {
			k.add(2, u, x)
			k.add(8, u, d)
		}
		return x, d
	}
	line := GP64() // dst, and rows down from it
	ahead := load(p, oPlane)
	ADDQ(ahead, ahead) // what the second next channel writes is fetched meanwhile
	label := 0
	times := func(m []VecVirtual, i int) {
		s, t := lv.sum(m[1], m[2]), lv.sum(m[3], m[4])
		VSUBPS(m[2], m[1], m[1])
		VSUBPS(m[4], m[3], m[3])
		o0, o2 := sums(s, t)
		VADDPS(o0, m[0], m[0])
		o1, o3 := differences(m[1], m[3])
		VADDPS(m[5], o3, o3)
		os := []VecVirtual{m[0], o1, o2, o3}
		b := lv.vec()
		VBROADCASTSS(Mem{Base: bias}, b)
		for _, o := range os {
			VADDPS(b, o, o)
		}
		// As in the micro-kernel, a NaN stays one if the result comes second.
		label++
		skip := fmt.Sprintf("free%d", label)
		CMPQ(field(p, oClamp), Imm(0))
		JE(LabelRef(skip))
		lim := lv.vec()
		VBROADCASTSS(field(p, oLo), lim)
		for _, o := range os {
			VMAXPS(o, lim, o)
		}
		CMPQ(field(p, oClamp), Imm(1))
		JE(LabelRef(skip))
		VBROADCASTSS(field(p, oHi), lim)
		for _, o := range os {
			VMINPS(o, lim, o)
		}
		Label(skip)
		r := GP64()
		for s, v := range transpose4(lv, os, 4) {
			MOVQ(field(place, 8*s), r)
			ADDQ(line, r)
			e.store(v, Mem{Base: r}, field(place, pMasks+i*outMasks+4*s))
			PREFETCHT0(Mem{Base: r, Index: ahead, Scale: 1})
		}
	}

	Label("channel")
	a, b := columns(func() (x, y VecVirtual) { // rows 0 and 2
		y = lv.get(at(1))
		VADDPS(at(2), y, y)
		t := lv.get(at(3))
		VADDPS(at(4), t, t)
		x, y = sums(y, t)
		VADDPS(at(0), x, x)
		return x, y
	})
	MOVQ(dst, line)
	times(a, 0)
	LEAQ(Mem{Base: dst, Index: row, Scale: 2}, line)
	times(b, 2)
	a, b = columns(func() (x, y VecVirtual) { // rows 1 and 3
		y = lv.get(at(1))
		VSUBPS(at(2), y, y)
		u := lv.get(at(3))
		VSUBPS(at(4), u, u)
		x, y = differences(y, u)
		VADDPS(at(5), y, y)
		return x, y
	})
	LEAQ(Mem{Base: dst, Index: row, Scale: 1}, line)
	times(a, 1)
	LEAQ(Mem{Base: line, Index: row, Scale: 2}, line)
	times(b, 3)
	ADDQ(field(p, oStep), src)
	ADDQ(field(p, oPlane), dst)
	ADDQ(Imm(4), bias)
	DECQ(channels)
	JNZ(LabelRef("channel"))
	VZEROUPPER()
	RET()
}
