package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// tile emits one micro-kernel. It walks rows of tiles of r channels and nv vectors; the last vector of a row's last
// tile has fLast lanes.
func tile(lv level, r, nv int) { emitTile(lv, "tile", r, nv, false) }

// pairTile emits a micro-kernel of 2r sums, of which 2n and 2n+1 are the even and the odd pixels of channel n's row: what
// a transposed convolution of stride 2 makes of one row of pixels. There must be a bias, one for each channel.
func pairTile(lv level, r, nv int) { emitTile(lv, "pairTile", r, nv, true) }

func emitTile(lv level, name string, r, nv int, pairs bool) {
	wide := lv.lanes == 16
	size := lv.lanes * 4
	TEXT(fmt.Sprintf("%s%s_%dx%d", name, lv.name, r, nv), NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	arow, crow, rows := load(p, fA), load(p, fC), load(p, fRows)
	cs := load(p, fCStride)

	Label("row")
	a, c := GP64(), GP64()
	MOVQ(arow, a)
	MOVQ(crow, c)
	tiles := load(p, fTiles)

	Label("tile")
	sums := r
	if pairs {
		sums = 2 * r
	}
	acc := make([][]VecVirtual, sums)
	for n := range acc {
		for range nv {
			acc[n] = append(acc[n], lv.vec())
		}
	}
	t := GP64()
	if wide && !pairs {
		MOVL(U32(0xffff), t.As32())
		CMPQ(tiles, Imm(1))
		JNE(LabelRef("whole"))
		last := load(p, fLast)
		BZHIL(last.As32(), t.As32(), t.As32())
	}
	k := K()
	if wide && !pairs {
		Label("whole")
		KMOVW(t.As32(), k)
	}
	q := load(p, fBias)
	if !pairs {
		TESTQ(q, q)
		JZ(LabelRef("accumulate"))
	}
	for n := range sums {
		VBROADCASTSS(field(q, 4*(n*r/sums)), acc[n][0])
		for v := 1; v < nv; v++ {
			VMOVAPS(acc[n][0], acc[n][v])
		}
	}
	mask := lv.vec()
	if !pairs {
		JMP(LabelRef("product"))
		Label("accumulate")
		MOVQ(c, q)
		if !wide {
			laneMask(p, tiles, mask)
		}
		for n := range r {
			for v := range nv {
				switch {
				case v < nv-1:
					VMOVUPS(field(q, v*size), acc[n][v])
				case wide:
					VMOVUPS_Z(field(q, v*size), k, acc[n][v])
				default:
					VMASKMOVPS(field(q, v*size), mask, acc[n][v])
				}
			}
			if n < r-1 {
				ADDQ(cs, q)
			}
		}
	}

	Label("product")
	off, steps, w := load(p, fOff), load(p, fSteps), load(p, fW)
	Label("step")
	MOVQ(Mem{Base: off}, q)
	ADDQ(a, q)
	product(lv, acc, func(v int) Mem { return field(q, v*size) }, w)
	ADDQ(Imm(uint64(4*sums)), w)
	ADDQ(Imm(8), off)
	DECQ(steps)
	JNZ(LabelRef("step"))

	// MAXPS and MINPS return their second source if either is a NaN: the result must come second for a NaN to survive.
	lim := lv.vec()
	VBROADCASTSS(field(p, fLo), lim)
	for n := range sums {
		for v := range nv {
			VMAXPS(acc[n][v], lim, acc[n][v])
		}
	}
	VBROADCASTSS(field(p, fHi), lim)
	for n := range sums {
		for v := range nv {
			VMINPS(acc[n][v], lim, acc[n][v])
		}
	}
	MOVQ(c, q)
	step := size
	if pairs {
		step = 2 * size
		weave(lv, acc)
	}
	store := func(masked bool) {
		if pairs {
			storePairs(lv, p, acc, q, cs, masked)
			return
		}
		for n := range r {
			for v := range nv {
				switch {
				case v < nv-1 || !masked:
					VMOVUPS(acc[n][v], field(q, v*size))
				case wide:
					VMOVUPS(acc[n][v], k, field(q, v*size))
				default:
					VMASKMOVPS(acc[n][v], mask, field(q, v*size))
				}
			}
			if n < r-1 {
				ADDQ(cs, q)
			}
		}
	}
	CMPQ(tiles, Imm(1))
	JE(LabelRef("last"))
	store(false)
	ADDQ(U32(uint32(nv*size)), a)
	ADDQ(U32(uint32(nv*step)), c)
	DECQ(tiles)
	JMP(LabelRef("tile"))

	Label("last")
	if !wide && !pairs {
		laneMask(p, tiles, mask)
	}
	store(true)
	ADDQ(field(p, fARow), arow)
	ADDQ(field(p, fCRow), crow)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// weave interleaves sums 2n and 2n+1, in place: the first has the first half of the pixels.
func weave(lv level, acc [][]VecVirtual) {
	var low, high VecVirtual
	if lv.lanes == 16 {
		lanes := func(name string, from int) VecVirtual {
			g, r := GLOBL(name+fresh(), RODATA|NOPTR), ZMM()
			for i := range 16 {
				DATA(4*i, U32(uint32(from+i/2+i%2*16)))
			}
			VMOVUPS(g, r)
			return r
		}
		low, high = lanes("weaveLow", 0), lanes("weaveHigh", 8)
	}
	for n := 0; n < len(acc); n += 2 {
		for v := range acc[n] {
			a, b := acc[n][v], acc[n+1][v]
			if lv.lanes == 16 {
				first := lv.copy(a)
				VPERMT2PS(b, low, first)
				VPERMT2PS(b, high, a)
				acc[n][v], acc[n+1][v] = first, a
				continue
			}
			x, y := YMM(), YMM()
			VUNPCKLPS(b, a, x)
			VUNPCKHPS(b, a, y)
			VPERM2F128(Imm(0x20), y, x, a)
			VPERM2F128(Imm(0x31), y, x, b)
		}
	}
}

// storePairs stores what weave made; the last two vectors of a row have fLast pairs of lanes.
func storePairs(lv level, p Register, acc [][]VecVirtual, q, cs Register, masked bool) {
	size, nv := 4*lv.lanes, len(acc[0])
	var put [2]func(v VecVirtual, m Mem)
	if masked {
		for half := range put {
			// Lanes of this half: 2·last - half·lanes, between none and all.
			n, zero := GP64(), GP64()
			MOVQ(field(p, fLast), n)
			ADDQ(n, n)
			XORQ(zero, zero)
			if half == 1 {
				SUBQ(Imm(uint64(lv.lanes)), n)
				CMOVQLT(zero, n)
			} else {
				MOVQ(U32(uint32(lv.lanes)), zero)
				CMPQ(n, zero)
				CMOVQGT(zero, n)
			}
			if lv.lanes == 16 {
				t, k := GP32(), K()
				MOVL(U32(0xffff), t)
				BZHIL(n.As32(), t, t)
				KMOVW(t, k)
				put[half] = func(v VecVirtual, m Mem) { VMOVUPS(v, k, m) }
				continue
			}
			at, base, mask := GP64(), GP64(), YMM()
			MOVQ(U32(8), at)
			SUBQ(n, at)
			LEAQ(lanes, base)
			VMOVUPS(Mem{Base: base, Index: at, Scale: 4}, mask)
			put[half] = func(v VecVirtual, m Mem) { VMASKMOVPS(v, mask, m) }
		}
	}
	for n := 0; n < len(acc); n += 2 {
		for v := range nv {
			for half := range 2 {
				m := field(q, (2*v+half)*size)
				if masked && v == nv-1 {
					put[half](acc[n+half][v], m)
				} else {
					VMOVUPS(acc[n+half][v], m)
				}
			}
		}
		if n < len(acc)-2 {
			ADDQ(cs, q)
		}
	}
}

// product adds one step to r·nv accumulators: nv vectors of pixels times r weights from w on.
func product(lv level, acc [][]VecVirtual, pixels func(v int) Mem, w Register) {
	r, nv, wide := len(acc), len(acc[0]), lv.lanes == 16
	switch {
	case r == 1:
		b := lv.vec()
		VBROADCASTSS(field(w, 0), b)
		for v := range nv {
			VFMADD231PS(pixels(v), b, acc[0][v])
		}
	case nv == 1 && wide:
		x := lv.vec()
		VMOVUPS(pixels(0), x)
		for n := range r {
			VFMADD231PS_BCST(field(w, 4*n), x, acc[n][0])
		}
	case r < nv: // keep the weights, stream the pixels: the shorter side stays in registers
		b := make([]VecVirtual, r)
		for n := range b {
			b[n] = lv.vec()
			VBROADCASTSS(field(w, 4*n), b[n])
		}
		x := lv.vec()
		for v := range nv {
			VMOVUPS(pixels(v), x)
			for n := range r {
				VFMADD231PS(x, b[n], acc[n][v])
			}
		}
	default:
		x := make([]VecVirtual, nv)
		for v := range x {
			x[v] = lv.vec()
			VMOVUPS(pixels(v), x[v])
		}
		b := []VecVirtual{lv.vec()}
		if wide {
			b = append(b, lv.vec())
		}
		for n := range r {
			bn := b[n%len(b)]
			VBROADCASTSS(field(w, 4*n), bn)
			for v := range nv {
				VFMADD231PS(bn, x[v], acc[n][v])
			}
		}
	}
}

// lanes is eight set words, then eight clear ones: read from 8-n on, a mask of n lanes.
var lanes Mem

// laneMask sets mask to the lanes that the last vector of this tile has.
func laneMask(p, tiles Register, mask VecVirtual) {
	n, base := GP64(), GP64()
	XORQ(n, n)
	CMPQ(tiles, Imm(1))
	JNE(LabelRef(fresh()))
	MOVQ(U32(8), n)
	SUBQ(field(p, fLast), n)
	Label(current())
	LEAQ(lanes, base)
	VMOVUPS(Mem{Base: base, Index: n, Scale: 4}, mask)
}

var labels int

func fresh() string   { labels++; return current() }
func current() string { return fmt.Sprintf("mask%d", labels) }
