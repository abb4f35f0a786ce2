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
