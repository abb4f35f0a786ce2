package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// column emits a micro-kernel of one channel whose nv vectors lie in as many rows, below each other: what depthwise
// convolution needs where rows are too short for several vectors. It walks fTiles groups of nv rows. There must be a
// bias.
func column(lv level, nv int) {
	wide := lv.lanes == 16
	TEXT(fmt.Sprintf("column%s_%d", lv.name, nv), NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	a, c, groups := load(p, fA), load(p, fC), load(p, fTiles)
	// Row v of a group is at q + v·arow: all multiples up to seven by index and scale.
	row := map[int]Register{1: load(p, fARow)}
	for _, m := range []int{3, 5, 7} {
		if m < nv {
			r := GP64()
			MOVQ(row[1], r)
			for range m - 1 {
				ADDQ(row[1], r)
			}
			row[m] = r
		}
	}
	crow := load(p, fCRow)
	at := func(q Register, v int) Mem {
		switch v {
		case 0:
			return Mem{Base: q}
		case 2, 4:
			return Mem{Base: q, Index: row[1], Scale: uint8(v)}
		case 6:
			return Mem{Base: q, Index: row[3], Scale: 2}
		}
		return Mem{Base: q, Index: row[v], Scale: 1}
	}
	k, mask := K(), lv.vec()
	if wide {
		t, last := GP64(), load(p, fLast)
		MOVL(U32(0xffff), t.As32())
		BZHIL(last.As32(), t.As32(), t.As32())
		KMOVW(t.As32(), k)
	} else {
		mask = maskOf(p, fLast)
	}

	Label("group")
	acc := make([]VecVirtual, nv)
	for v := range acc {
		acc[v] = lv.vec()
	}
	q := load(p, fBias)
	VBROADCASTSS(Mem{Base: q}, acc[0])
	for v := 1; v < nv; v++ {
		VMOVAPS(acc[0], acc[v])
	}
	off, steps, w, b := load(p, fOff), load(p, fSteps), load(p, fW), lv.vec()
	Label("step")
	MOVQ(Mem{Base: off}, q)
	ADDQ(a, q)
	VBROADCASTSS(Mem{Base: w}, b)
	for v := range nv {
		VFMADD231PS(at(q, v), b, acc[v])
	}
	ADDQ(Imm(4), w)
	ADDQ(Imm(8), off)
	DECQ(steps)
	JNZ(LabelRef("step"))
	VBROADCASTSS(field(p, fLo), b)
	for v := range nv {
		VMAXPS(acc[v], b, acc[v])
	}
	VBROADCASTSS(field(p, fHi), b)
	for v := range nv {
		VMINPS(acc[v], b, acc[v])
	}
	if !wide { // masked stores are slow on some CPUs
		CMPQ(field(p, fLast), Imm(8))
		JNE(LabelRef("masked"))
		for v := range nv {
			VMOVUPS(acc[v], Mem{Base: c})
			ADDQ(crow, c)
		}
		JMP(LabelRef("stored"))
		Label("masked")
	}
	for v := range nv {
		if wide {
			VMOVUPS(acc[v], k, Mem{Base: c})
		} else {
			VMASKMOVPS(acc[v], mask, Mem{Base: c})
		}
		ADDQ(crow, c)
	}
	if !wide {
		Label("stored")
	}
	for range nv {
		ADDQ(row[1], a)
	}
	DECQ(groups)
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}

// maxColumn is the most rows of a column: eight accumulators hide the latency.
const maxColumn = 8
