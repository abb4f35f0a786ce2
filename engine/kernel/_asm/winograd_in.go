package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// winoIn emits V = Bᵀ·d·B of one vector of tiles for many channels. A lane is a tile: lane 4·l + s of the vector is
// tile l of segment s, since segments are loaded as they lie and transposed four by four.
//
// Rows are multiplied by B as they are loaded and wait in memory for their columns.
func winoIn(lv level, up, masked, balanced bool) {
	name := "winoIn"
	n, width := 6, 6 // rows and columns of d
	if up {
		name, n, width = "winoInUp", 4, 4
	}
	if balanced {
		name += "Balanced"
	}
	if masked {
		name += "Edge"
	}
	size := lv.lanes * 4
	TEXT(name+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	next := func(at, by int) { // what the next channel needs is kept in p: there are not enough registers
		r := load(p, by)
		ADDQ(r, field(p, at))
	}
	transform, factors := winoB, []float64{4, 2}
	switch {
	case up:
		transform, factors = winoBUp, []float64{4, 5}
	case balanced:
		transform, factors = winoBalanced, balancedB
	}
	k := multipliers(lv, name, factors...)
	e := newEdge(lv, masked)
	var spread VecVirtual // pairs of pixels that the tiles of a segment begin with
	if up && lv.lanes == 16 {
		g := GLOBL("winoPairs"+fresh(), RODATA|NOPTR)
		for i, v := range []uint64{0, 1, 1, 2, 2, 3, 3, 4} {
			DATA(8*i, U64(v))
		}
		spread = ZMM()
		VMOVUPS(g, spread)
	}
	Label("channel")
	masks, t, rows := load(p, iPlace), load(p, iTemp), GP64()
	q := make([]GPVirtual, 4)
	for s := range q {
		q[s] = load(masks, 8*s)
		ADDQ(field(p, iSrc), q[s])
	}
	ADDQ(Imm(pMasks), masks)
	row := load(p, iRow)
	MOVQ(U32(uint32(n)), rows)
	Label("row")
	first, second := make([]VecVirtual, 4), make([]VecVirtual, 4)
	for s := range q {
		at := Mem{Base: q[s]}
		mask := field(masks, 8*s)
		switch {
		case !up:
			first[s] = e.load(at, mask)
		case lv.lanes == 16:
			v := e.load(at, mask)
			first[s] = ZMM()
			VPERMPD(v, spread, first[s])
		case masked:
			v := e.load(at, mask) // six pixels count
			m := YMM()
			VPERMPD(Imm(0|1<<2|1<<4|2<<6), v, m)
			first[s] = m
		default:
			v := YMM()
			VMOVUPS(at, v.AsX())
			VINSERTF128(Imm(1), Mem{Base: q[s], Disp: 8}, v, v)
			first[s] = v
		}
	}
	d := transpose4(lv, first, 4)
	if !up {
		for s := range q {
			second[s] = e.load(Mem{Base: q[s], Disp: 16}, field(masks, 8*s+maskOfPlus4))
		}
		d = append(d, transpose4(lv, second, 2)...)
	}
	transform(lv, k, d, func(j int, v VecVirtual) { VMOVUPS(v, field(t, j*size)) })
	for s := range q {
		ADDQ(row, q[s])
	}
	if masked {
		ADDQ(Imm(inMasks), masks)
	}
	ADDQ(U32(uint32(width*size)), t)
	DECQ(rows)
	JNZ(LabelRef("row"))

	// Columns: point (i, j) goes to dst + (i·width + j)·to.
	r, cols, far, to := load(p, iDst), GP64(), GP64(), load(p, iTo)
	IMUL3Q(Imm(uint64(width)), to, far)
	far3, far5 := multiple(far, 3), multiple(far, 5)
	MOVQ(field(p, iTemp), t)
	MOVQ(U32(uint32(width)), cols)
	Label("column")
	d = d[:0]
	for i := range n {
		d = append(d, lv.get(field(t, i*width*size)))
	}
	transform(lv, k, d, func(i int, v VecVirtual) {
		switch i {
		case 0:
			VMOVUPS(v, Mem{Base: r})
		case 3:
			VMOVUPS(v, Mem{Base: r, Index: far3, Scale: 1})
		case 5:
			VMOVUPS(v, Mem{Base: r, Index: far5, Scale: 1})
		default:
			VMOVUPS(v, Mem{Base: r, Index: far, Scale: uint8(i)})
		}
	})
	ADDQ(to, r)
	ADDQ(U32(uint32(size)), t)
	DECQ(cols)
	JNZ(LabelRef("column"))

	next(iSrc, iPlane)
	next(iDst, iStep)
	DECQ(field(p, iChannels))
	JNZ(LabelRef("channel"))
	VZEROUPPER()
	RET()
}

// winoInWide emits winoIn for four segments that follow each other in a row of tiles, where all six rows of pixels are
// there: the rows are multiplied first, four vectors of pixels as they lie and one of the two pixels beside them, and
// only then transposed. Two rows of V are made at a time, those that have terms in common, so that nothing waits in
// memory.
//
// With AVX-512 columns are masked, and the vectors begin with the second column of the first tile: with a padding of one
// they are whole cache lines then.
func winoInWide(lv level, balanced bool) {
	wide := lv.lanes == 16
	size := lv.lanes * 4
	name, transform, factors := "winoInWide", winoB, []float64{4, 2}
	if balanced {
		name, transform, factors = "winoInWideBalanced", winoBalanced, balancedB
	}
	TEXT(name+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	k := multipliers(lv, name, factors...)
	q, row, place := load(p, iSrc), load(p, iRow), load(p, iPlace)
	ADDQ(field(place, 0), q)
	row3, row5 := multiple(row, 3), multiple(row, 5)
	dst, to := load(p, iDst), load(p, iTo)
	to3, to5 := multiple(to, 3), multiple(to, 5)
	channels, r := load(p, iChannels), GP64()
	masks := make([]Register, 6)
	var shift [2]VecVirtual // to the next tile and to the one before: the last's, and the first's, is beside the vectors
	if wide {
		for i := range masks {
			k := K()
			KMOVW(field(place, pColumns+4*i), k)
			masks[i] = k
		}
		for i := range shift {
			g := GLOBL(fmt.Sprintf("%sBeside%d", name, i), RODATA|NOPTR)
			for at := range 16 {
				from := 4*(at%4) + at/4 + 1 - 2*i // tile, in order
				switch from {
				case 16:
					from = 16
				case -1:
					from = 17
				default:
					from = 4*(from%4) + from/4
				}
				DATA(4*at, U32(uint32(from)))
			}
			shift[i] = ZMM()
			VMOVUPS(g, shift[i])
		}
	}
	// pixels loads vector v of row i, the fifth being the two pixels beside.
	pixels := func(i, v int) VecVirtual {
		m := Mem{Base: q, Disp: v * size}
		if wide {
			m.Disp += 4
		}
		switch i {
		case 3:
			m.Index, m.Scale = row3, 1
		case 5:
			m.Index, m.Scale = row5, 1
		case 1, 2, 4:
			m.Index, m.Scale = row, uint8(i)
		}
		x := lv.vec()
		if !wide {
			VMOVUPS(m, x)
			return x
		}
		VMOVUPS_Z(m, masks[v], x)
		if v == 4 {
			m.Disp = 0
			VBROADCASTSS(m, masks[5], x)
		}
		return x
	}
	pair := func(f func(v int) (x, y VecVirtual)) (a, b []VecVirtual) {
		for v := range 5 {
			x, y := f(v)
			a, b = append(a, x), append(b, y)
		}
		return a, b
	}
	// beside is x of the next tile, or of the one before.
	beside := func(x, e VecVirtual, i int) VecVirtual {
		d := lv.copy(x)
		VPERMT2PS(e, shift[i], d)
		return d
	}
	// next is o[i] one tile on.
	next := func(o []VecVirtual, i int, behind VecVirtual) VecVirtual {
		if i == 1 {
			e := YMM()
			VPSRLDQ(Imm(4), behind, e)
			behind = e
		}
		x, d := YMM(), YMM()
		VPALIGNR(Imm(4), o[i], behind, x)
		VPERM2F128(Imm(0x21), x, o[i], d)
		return d
	}
	// across multiplies row i by B and stores it.
	across := func(i int, raw []VecVirtual) {
		d := transpose4(lv, raw[:4], 4)
		if wide {
			d = []VecVirtual{beside(d[3], raw[4], 1), d[0], d[1], d[2], d[3], beside(d[0], raw[4], 0)}
		} else {
			d = append(d, next(d, 0, raw[4]), next(d, 1, raw[4]))
		}
		rowOfPoints(i, dst, to3, r)
		transform(lv, k, d, func(j int, v VecVirtual) {
			switch j {
			case 0:
				VMOVUPS(v, Mem{Base: r})
			case 3:
				VMOVUPS(v, Mem{Base: r, Index: to3, Scale: 1})
			case 5:
				VMOVUPS(v, Mem{Base: r, Index: to5, Scale: 1})
			default:
				VMOVUPS(v, Mem{Base: r, Index: to, Scale: uint8(j)})
			}
		})
	}
	// halves makes rows i and i+1 of balanced points: (d4 - m·d2) ± r·(d3 - m·d1).
	halves := func(m, r float64) func(v int) (x, y VecVirtual) {
		return func(v int) (x, y VecVirtual) {
			even, odd := pixels(4, v), pixels(3, v)
			k.sub(m, pixels(2, v), even)
			k.sub(m, pixels(1, v), odd)
			x = lv.copy(even)
			k.add(r, odd, x)
			k.sub(r, odd, even)
			return x, even
		}
	}
	// minus is rows i - j.
	minus := func(i, j, v int) VecVirtual {
		x := pixels(i, v)
		VSUBPS(pixels(j, v), x, x)
		return x
	}

	ahead := load(p, iPlane)
	ADDQ(ahead, ahead)

	Label("channel")
	// What the second next channel reads is fetched meanwhile: rows that the tiles above have not read.
	LEAQ(Mem{Base: q, Index: ahead, Scale: 1}, r)
	ADDQ(row, r)
	ADDQ(row, r)
	for i := range 4 {
		for v := range 4 {
			PREFETCHT0(Mem{Base: r, Disp: 4 + v*size})
		}
		if i < 3 {
			ADDQ(row, r)
		}
	}
	rows := []func(v int) (x, y VecVirtual){
		func(v int) (x, y VecVirtual) { // rows 0 and 5
			c, e := minus(4, 2, v), minus(3, 1, v)
			x, y = minus(0, 2, v), minus(5, 3, v)
			k.timesPlus(4, c, x)
			k.sub(4, e, y)
			return x, y
		},
		func(v int) (x, y VecVirtual) { // rows 1 and 2
			even, odd := pixels(4, v), pixels(3, v)
			k.sub(4, pixels(2, v), even)
			k.sub(4, pixels(1, v), odd)
			x = lv.sum(even, odd)
			VSUBPS(odd, even, even)
			return x, even
		},
		func(v int) (x, y VecVirtual) { // rows 3 and 4
			y, e := minus(4, 2, v), minus(3, 1, v)
			x = lv.copy(y)
			k.add(2, e, x)
			k.sub(2, e, y)
			return x, y
		},
	}
	if balanced {
		rows = []func(v int) (x, y VecVirtual){func(v int) (x, y VecVirtual) {
			x, y = pixels(0, v), pixels(5, v)
			VADDPS(pixels(4, v), x, x)
			k.sub(2.5, pixels(2, v), x)
			VADDPS(pixels(1, v), y, y)
			k.sub(2.5, pixels(3, v), y)
			return x, y
		}, halves(2, rootA), halves(0.5, rootB)}
	}
	for i, at := range [][2]int{{0, 5}, {1, 2}, {3, 4}} {
		a, b := pair(rows[i])
		across(at[0], a)
		across(at[1], b)
	}
	ADDQ(field(p, iPlane), q)
	ADDQ(field(p, iStep), dst)
	DECQ(channels)
	JNZ(LabelRef("channel"))
	VZEROUPPER()
	RET()
}
