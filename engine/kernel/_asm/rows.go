package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// zip2 interleaves: dst[2i] = a[i], dst[2i+1] = b[i], eight at a time.
func zip2() {
	TEXT("zip2AVX2", NOSPLIT, "func(dst, a, b *float32, blocks int64)")
	Pragma("noescape")
	dst, a, b, n := Load(Param("dst"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("blocks"), GP64())
	x, y, lo, hi, z := YMM(), YMM(), YMM(), YMM(), YMM()
	Label("zip")
	VMOVUPS(Mem{Base: a}, x)
	VMOVUPS(Mem{Base: b}, y)
	VUNPCKLPS(y, x, lo)
	VUNPCKHPS(y, x, hi)
	VPERM2F128(Imm(0x20), hi, lo, z)
	VMOVUPS(z, Mem{Base: dst})
	VPERM2F128(Imm(0x31), hi, lo, z)
	VMOVUPS(z, Mem{Base: dst, Disp: 32})
	ADDQ(Imm(32), a)
	ADDQ(Imm(32), b)
	ADDQ(Imm(64), dst)
	DECQ(n)
	JNZ(LabelRef("zip"))
	VZEROUPPER()
	RET()
}

// Offsets in kernel.padCall.
const (
	gEven, gOdd, gSrc, gRows, gStep, gFrom = 0, 8, 16, 24, 32, 40
	gBlocks, gTail, gTail2                 = 48, 56, 64
	gEvenAt, gOddAt, gEvenEnd, gOddEnd     = 72, 80, 88, 96
)

// maskOf loads the mask of n lanes, 0 to 8, that a field holds.
func maskOf(p Register, disp int) VecVirtual {
	n, base, m := GP64(), GP64(), YMM()
	MOVQ(U32(8), n)
	SUBQ(field(p, disp), n)
	LEAQ(lanes, base)
	VMOVUPS(Mem{Base: base, Index: n, Scale: 4}, m)
	return m
}

// padRows copies rows and sets eight zeros at their start and around their end, before it writes what belongs there.
// The last vector of a row is loaded under a mask and stored whole: rows are written in order, so what it spills into
// the next is overwritten.
func padRows() {
	TEXT("padRowsAVX2", NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	dst, src, rows := load(p, gEven), load(p, gSrc), load(p, gRows)
	tail, zero, x := maskOf(p, gTail), YMM(), YMM()
	at, end := load(p, gEvenAt), load(p, gEvenEnd)
	VXORPS(zero, zero, zero)
	Label("row")
	VMOVUPS(zero, Mem{Base: dst})
	VMOVUPS(zero, Mem{Base: dst, Index: end, Scale: 1})
	d, s := GP64(), GP64()
	LEAQ(Mem{Base: dst, Index: at, Scale: 1}, d)
	MOVQ(src, s)
	n := load(p, gBlocks)
	TESTQ(n, n)
	JZ(LabelRef("tail"))
	Label("block")
	VMOVUPS(Mem{Base: s}, x)
	VMOVUPS(x, Mem{Base: d})
	ADDQ(Imm(32), s)
	ADDQ(Imm(32), d)
	DECQ(n)
	JNZ(LabelRef("block"))
	Label("tail")
	VMASKMOVPS(Mem{Base: s}, tail, x)
	VMOVUPS(x, Mem{Base: d})
	ADDQ(field(p, gStep), dst)
	ADDQ(field(p, gFrom), src)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// unzipRows is padRows for stride 2: even pixels of a row go to one grid, odd ones to another.
func unzipRows() {
	TEXT("unzipRowsAVX2", NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	even, odd, src, rows := load(p, gEven), load(p, gOdd), load(p, gSrc), load(p, gRows)
	tail, tail2, zero, x, y, z := maskOf(p, gTail), maskOf(p, gTail2), YMM(), YMM(), YMM(), YMM()
	VXORPS(zero, zero, zero)
	t, de, do, s := GP64(), GP64(), GP64(), GP64()
	split := func() {
		VSHUFPS(Imm(0x88), y, x, z)
		VPERMPD(Imm(0xd8), z, z)
		VMOVUPS(z, Mem{Base: de})
		VSHUFPS(Imm(0xdd), y, x, z)
		VPERMPD(Imm(0xd8), z, z)
		VMOVUPS(z, Mem{Base: do})
	}
	Label("row")
	VMOVUPS(zero, Mem{Base: even})
	VMOVUPS(zero, Mem{Base: odd})
	MOVQ(field(p, gEvenEnd), t)
	VMOVUPS(zero, Mem{Base: even, Index: t, Scale: 1})
	MOVQ(field(p, gOddEnd), t)
	VMOVUPS(zero, Mem{Base: odd, Index: t, Scale: 1})
	MOVQ(field(p, gEvenAt), de)
	ADDQ(even, de)
	MOVQ(field(p, gOddAt), do)
	ADDQ(odd, do)
	MOVQ(src, s)
	n := load(p, gBlocks)
	TESTQ(n, n)
	JZ(LabelRef("tail"))
	Label("block")
	VMOVUPS(Mem{Base: s}, x)
	VMOVUPS(Mem{Base: s, Disp: 32}, y)
	split()
	ADDQ(Imm(64), s)
	ADDQ(Imm(32), de)
	ADDQ(Imm(32), do)
	DECQ(n)
	JNZ(LabelRef("block"))
	Label("tail")
	VMASKMOVPS(Mem{Base: s}, tail, x)
	VMASKMOVPS(Mem{Base: s, Disp: 32}, tail2, y)
	split()
	ADDQ(field(p, gStep), even)
	ADDQ(field(p, gStep), odd)
	ADDQ(field(p, gFrom), src)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// Offsets in kernel.halvesCall.
const hSrc, hDst, hRows, hBlocks, hLast, hWidth, hSrcStep, hDstStep = 0, 8, 16, 24, 32, 40, 48, 56

// maxHalves emits rows of the largest of each 2x2 pixels.
func maxHalves(lv level) {
	wide, size := lv.lanes == 16, 4*lv.lanes
	TEXT("maxHalves"+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	src, dst, rows, width := load(p, hSrc), load(p, hDst), load(p, hRows), load(p, hWidth)
	k := K()
	var even, odd, mask VecVirtual
	if wide {
		t, last := GP64(), load(p, hLast)
		MOVL(U32(0xffff), t.As32())
		BZHIL(last.As32(), t.As32(), t.As32())
		KMOVW(t.As32(), k)
		lanes := func(name string, from int) VecVirtual {
			g, r := GLOBL(name, RODATA|NOPTR), ZMM()
			for i := range 16 {
				DATA(4*i, U32(uint32(2*i+from)))
			}
			VMOVUPS(g, r)
			return r
		}
		even, odd = lanes("evenLanes", 0), lanes("oddLanes", 1)
	} else {
		mask = maskOf(p, hLast)
	}
	// larger is the larger of x and y, in x; a NaN if either is.
	larger := func(x, y VecVirtual) {
		s := lv.sum(x, y)
		if wide {
			nan := K()
			VCMPPS(Imm(3), y, x, nan)
			VMAXPS(y, x, x)
			VMOVAPS(s, nan, x)
			return
		}
		nan := YMM()
		VCMPPS(Imm(3), y, x, nan)
		VMAXPS(y, x, x)
		VBLENDVPS(nan, s, x, x)
	}
	q, d := GP64(), GP64()
	vector := func() VecVirtual {
		x := make([]VecVirtual, 2)
		for i := range x {
			x[i] = lv.get(Mem{Base: q, Disp: i * size})
			larger(x[i], lv.get(Mem{Base: q, Index: width, Scale: 1, Disp: i * size}))
		}
		if wide {
			e := lv.copy(x[0])
			VPERMT2PS(x[1], even, e)
			VPERMT2PS(x[1], odd, x[0])
			larger(e, x[0])
			return e
		}
		e, o := YMM(), YMM()
		VSHUFPS(Imm(0x88), x[1], x[0], e)
		VSHUFPS(Imm(0xdd), x[1], x[0], o)
		larger(e, o)
		VPERMPD(Imm(0xd8), e, e)
		return e
	}
	Label("row")
	MOVQ(src, q)
	MOVQ(dst, d)
	n := load(p, hBlocks)
	TESTQ(n, n)
	JZ(LabelRef("last"))
	Label("block")
	VMOVUPS(vector(), Mem{Base: d})
	ADDQ(U32(uint32(2*size)), q)
	ADDQ(U32(uint32(size)), d)
	DECQ(n)
	JNZ(LabelRef("block"))
	Label("last")
	if v := vector(); wide {
		VMOVUPS(v, k, Mem{Base: d})
	} else {
		VMASKMOVPS(v, mask, Mem{Base: d})
	}
	ADDQ(field(p, hSrcStep), src)
	ADDQ(field(p, hDstStep), dst)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}
