package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// weightsAhead is how many bytes before they are needed weights are fetched.
const weightsAhead = 4096

// winoMul emits the sums over channels of all points, for r channels and nv vectors of tiles:
// M[p][n] = Σ_c V[p][c]·U[p][c][n]. The channels of a point are two spans of V.
func winoMul(lv level, r, nv int) { sums(lv, r, nv, false) }

// winoAdd emits M[p][n] += Σ_c V[p][c]·U[p][c][n], for weights that were made just before. A point's channels are one span,
// and so many lines of what the weights after these are made from are fetched meanwhile.
func winoAdd(lv level, r, nv int) { sums(lv, r, nv, true) }

func sums(lv level, r, nv int, add bool) {
	size := lv.lanes * 4
	name, parts := "winoMul", []int{0, sPlain}
	if add {
		name, parts = "winoAdd", []int{sPlain}
	}
	TEXT(fmt.Sprintf("%s%s_%dx%d", name, lv.name, r, nv), NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	v, w, m := load(p, mV), load(p, mU), load(p, mM)
	spans, count := load(p, mSpans), load(p, mPoints)
	step, mstep := load(p, mVStep), load(p, mMStep)
	a, n := GP64(), GP64()
	var ahead, lines GPVirtual
	if add {
		ahead, lines = load(p, mAhead), load(p, mLines)
	}

	Label("point")
	if add {
		MOVQ(lines, n)
		TESTQ(n, n)
		JZ(LabelRef("fetched"))
		Label("fetch")
		PREFETCHT0(Mem{Base: ahead})
		ADDQ(Imm(64), ahead)
		DECQ(n)
		JNZ(LabelRef("fetch"))
		Label("fetched")
	}
	acc := make([][]VecVirtual, r)
	for i := range acc {
		for range nv {
			x := lv.vec()
			VXORPS(x.AsX(), x.AsX(), x.AsX())
			acc[i] = append(acc[i], x)
		}
	}
	for span, at := range parts {
		done := fmt.Sprintf("done%d", span)
		MOVQ(field(spans, at+sSteps), n)
		TESTQ(n, n)
		JZ(LabelRef(done))
		MOVQ(field(spans, at), a)
		ADDQ(v, a)
		loop := fmt.Sprintf("step%d", span)
		Label(loop)
		// Weights are read once for each block; the hardware's prefetcher stops at the end of every page.
		for line := 0; line < 4*r && !add; line += 64 {
			PREFETCHT0(field(w, weightsAhead+line))
		}
		product(lv, acc, func(v int) Mem { return field(a, v*size) }, w)
		ADDQ(step, a)
		ADDQ(Imm(uint64(4*r)), w)
		DECQ(n)
		JNZ(LabelRef(loop))
		Label(done)
	}
	q := GP64()
	MOVQ(m, q)
	for i := range r {
		for j := range nv {
			if add {
				VADDPS(field(q, j*size), acc[i][j], acc[i][j])
			}
			VMOVUPS(acc[i][j], field(q, j*size))
		}
		if i < r-1 {
			ADDQ(mstep, q)
		}
	}
	ADDQ(field(p, mTo), m)
	ADDQ(Imm(sNext), spans)
	DECQ(count)
	JNZ(LabelRef("point"))
	VZEROUPPER()
	RET()
}
