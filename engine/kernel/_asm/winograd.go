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
	pMasks, sSteps, sPlain, sNext  = 32, 8, 16, 32 // in kernel.winoPlace and winoSpan
	pColumns                       = 224
	inMasks, outMasks, maskOfPlus4 = 32, 16, 4 // bytes from row to row of masks, and to those of the second load
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

// winoIn emits V = Bᵀ·d·B of one vector of tiles for many channels. A lane is a tile: lane 4·l + s of the vector is
// tile l of segment s, since segments are loaded as they lie and transposed four by four.
//
// Rows are multiplied by B as they are loaded and wait in memory for their columns.
func winoIn(lv level, up, masked bool) {
	name := "winoIn"
	n, width := 6, 6 // rows and columns of d
	if up {
		name, n, width = "winoInUp", 4, 4
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
	transform, factors := winoB, []int{4, 2}
	if up {
		transform, factors = winoBUp, []int{4, 5}
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
func winoInWide(lv level) {
	wide := lv.lanes == 16
	size := lv.lanes * 4
	TEXT("winoInWide"+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	k := multipliers(lv, "winoInWide", 4, 2)
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
			g := GLOBL(fmt.Sprintf("winoBeside%d", i), RODATA|NOPTR)
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
		switch i {
		case 0:
			MOVQ(dst, r)
		case 1:
			LEAQ(Mem{Base: dst, Index: to3, Scale: 2}, r)
		case 2:
			LEAQ(Mem{Base: dst, Index: to3, Scale: 4}, r)
		case 3:
			LEAQ(Mem{Base: dst, Index: to3, Scale: 2}, r)
			LEAQ(Mem{Base: r, Index: to3, Scale: 4}, r)
		case 4:
			LEAQ(Mem{Base: dst, Index: to3, Scale: 8}, r)
		case 5:
			LEAQ(Mem{Base: dst, Index: to3, Scale: 8}, r)
			LEAQ(Mem{Base: r, Index: to3, Scale: 2}, r)
		}
		winoB(lv, k, d, func(j int, v VecVirtual) {
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
	a, b := pair(func(v int) (x, y VecVirtual) { // rows 0 and 5
		c, e := minus(4, 2, v), minus(3, 1, v)
		x, y = minus(0, 2, v), minus(5, 3, v)
		k.timesPlus(4, c, x)
		k.sub(4, e, y)
		return x, y
	})
	across(0, a)
	across(5, b)
	a, b = pair(func(v int) (x, y VecVirtual) { // rows 1 and 2
		even, odd := pixels(4, v), pixels(3, v)
		k.sub(4, pixels(2, v), even)
		k.sub(4, pixels(1, v), odd)
		x = lv.sum(even, odd)
		VSUBPS(odd, even, even)
		return x, even
	})
	across(1, a)
	across(2, b)
	a, b = pair(func(v int) (x, y VecVirtual) { // rows 3 and 4
		y, e := minus(4, 2, v), minus(3, 1, v)
		x = lv.copy(y)
		k.add(2, e, x)
		k.sub(2, e, y)
		return x, y
	})
	across(3, a)
	across(4, b)
	ADDQ(field(p, iPlane), q)
	ADDQ(field(p, iStep), dst)
	DECQ(channels)
	JNZ(LabelRef("channel"))
	VZEROUPPER()
	RET()
}

// winoOut emits y = clamp(Aᵀ·M·A + bias) of one vector of tiles for many channels: four rows of four pixels a tile,
// stored by segments.
//
//	Aᵀ = 1  1  1  1  1  0
//	     0  1 -1  2 -2  0
//	     0  1  1  4  4  0
//	     0  1 -1  8 -8  1
//
// Rows 0 and 2 of Aᵀ·M have their terms in common, and 1 and 3: twelve vectors at a time, which 16 registers hold.
func winoOut(lv level, masked bool) {
	name := "winoOut"
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
	k := multipliers(lv, name, 2, 4, 8)
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
	line := GP64() // dst, and rows down from it
	ahead := load(p, oPlane)
	ADDQ(ahead, ahead) // what the second next channel writes is fetched meanwhile
	label := 0
	times := func(m []VecVirtual, i int) {
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
		x = lv.sum(y, t)
		VADDPS(at(0), x, x)
		k.add(4, t, y)
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
		x = lv.copy(y)
		k.add(2, u, x)
		k.add(8, u, y)
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

// weightsAhead is how many bytes before they are needed weights are fetched.
const weightsAhead = 4096

// winoMul emits the sums over channels of all points, for r channels and nv vectors of tiles:
// M[p][n] = Σ_c V[p][c]·U[p][c][n]. The channels of a point are two spans of V.
func winoMul(lv level, r, nv int) {
	size := lv.lanes * 4
	TEXT(fmt.Sprintf("winoMul%s_%dx%d", lv.name, r, nv), NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	v, w, m := load(p, mV), load(p, mU), load(p, mM)
	spans, count := load(p, mSpans), load(p, mPoints)
	step, mstep := load(p, mVStep), load(p, mMStep)
	a, n := GP64(), GP64()

	Label("point")
	acc := make([][]VecVirtual, r)
	for i := range acc {
		for range nv {
			x := lv.vec()
			VXORPS(x.AsX(), x.AsX(), x.AsX())
			acc[i] = append(acc[i], x)
		}
	}
	for span, at := range []int{0, sPlain} {
		done := fmt.Sprintf("done%d", span)
		MOVQ(field(spans, at+sSteps), n)
		TESTQ(n, n)
		JZ(LabelRef(done))
		MOVQ(field(spans, at), a)
		ADDQ(v, a)
		loop := fmt.Sprintf("step%d", span)
		Label(loop)
		// Weights are read once for each block; the hardware's prefetcher stops at the end of every page.
		for line := 0; line < 4*r; line += 64 {
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
