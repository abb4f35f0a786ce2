package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in kernel.depthCall.
const (
	dX, dY, dW, dRowsAt, dRows, dYRow = 0, 8, 16, 24, 32, 40
	dColumn, dYColumn, dMasks, dBias  = 48, 56, 64, 72
	dOut, dLo, dHi                    = 80, 84, 88
	rowsAtOnce                        = 4
)

// depthName is the name of the kernel of a kxk depthwise convolution.
func depthName(lv level, k, stride int) string {
	return fmt.Sprintf("depth%s_%dx%ds%d", lv.name, k, k, stride)
}

// depthwise512 emits a column of vectors of a kxk depthwise convolution, from its first row to its last. Taps of a column
// that lie outside of the image are masked: a masked product leaves its lanes as they are, and a masked load does not
// touch memory, so that edges are as fast as the rest.
func depthwise512(k, stride int) {
	lv := levels[1]
	TEXT(depthName(lv, k, stride), NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	x, y, w, rowsAt, rows := load(p, dX), load(p, dY), load(p, dW), load(p, dRowsAt), load(p, dRows)
	ADDQ(field(p, dColumn), x)
	ADDQ(field(p, dYColumn), y)
	masks := load(p, dMasks)
	count := k
	if stride == 2 {
		count = (k + 1) / 2 * 2
	}
	ks := make([]Register, count)
	for i := range ks {
		m := K()
		KMOVW(field(masks, 4*i), m)
		ks[i] = m
	}
	out := K()
	KMOVW(field(p, dOut), out)
	broadcast := func(m Mem) VecVirtual { v := ZMM(); VBROADCASTSS(m, v); return v }
	b := load(p, dBias)
	bias, lo, hi := broadcast(Mem{Base: b}), broadcast(field(p, dLo)), broadcast(field(p, dHi))
	var weights []VecVirtual // in registers, unless stride 2 takes too many others
	if stride == 1 || k == 3 {
		for i := range k * k {
			weights = append(weights, broadcast(field(w, 4*i)))
		}
	}
	var even, odd VecVirtual
	if stride == 2 {
		lanes := func(from int) VecVirtual {
			g, r := GLOBL(fmt.Sprintf("depthLanes%d_%d", k, from), RODATA|NOPTR), ZMM()
			for i := range 16 {
				DATA(4*i, U32(uint32(2*i+from)))
			}
			VMOVUPS(g, r)
			return r
		}
		even, odd = lanes(0), lanes(1)
	}
	product := func(tap int, v, acc VecVirtual) {
		if weights != nil {
			VFMADD231PS(v, weights[tap], acc)
			return
		}
		VFMADD231PS_BCST(field(w, 4*tap), v, acc)
	}
	q := GP64()
	Label("row")
	// A sum of 25 products one after the other takes 100 cycles: three at a time.
	sums := []VecVirtual{lv.copy(bias), ZMM(), ZMM()}
	for _, v := range sums[1:] {
		VXORPS(v.AsX(), v.AsX(), v.AsX())
	}
	for kh := range k {
		acc := sums[kh%len(sums)]
		MOVQ(field(rowsAt, 8*kh), q)
		ADDQ(x, q)
		if stride == 1 {
			for kw := range k {
				VFMADD231PS(field(q, 4*kw), weights[kh*k+kw], ks[kw], acc)
			}
			continue
		}
		for kw := 0; kw < k; kw += 2 {
			u, v := ZMM(), ZMM()
			VMOVUPS_Z(field(q, 4*kw), ks[kw], u)
			VMOVUPS_Z(field(q, 4*kw+64), ks[kw+1], v)
			if kw+1 < k {
				e := lv.copy(u)
				VPERMT2PS(v, even, e)
				product(kh*k+kw, e, acc)
				VPERMT2PS(v, odd, u)
				product(kh*k+kw+1, u, acc)
				continue
			}
			VPERMT2PS(v, even, u)
			product(kh*k+kw, u, acc)
		}
	}
	acc := sums[0]
	VADDPS(sums[2], sums[1], sums[1])
	VADDPS(sums[1], acc, acc)
	VMAXPS(acc, lo, acc)
	VMINPS(acc, hi, acc)
	VMOVUPS(acc, out, Mem{Base: y})
	ADDQ(Imm(uint64(8*stride)), rowsAt)
	ADDQ(field(p, dYRow), y)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// depthwise256 is depthwise512 for AVX2: four rows at a time share each weight. Where the column is within the image it is
// told so, and masks nothing but what it stores.
func depthwise256(k, stride int, edge bool) {
	lv := levels[0]
	name := depthName(lv, k, stride)
	if edge {
		name += "Edge"
	}
	TEXT(name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	x, w, rowsAt, rows := load(p, dX), load(p, dW), load(p, dRowsAt), load(p, dRows)
	ADDQ(field(p, dColumn), x)
	y := load(p, dY)
	ADDQ(field(p, dYColumn), y)
	count := k
	if stride == 2 {
		count = (k + 1) / 2 * 2
	}
	e := newEdge(lv, true)
	var masks []VecVirtual
	if edge {
		at := load(p, dMasks)
		for i := range count {
			masks = append(masks, e.mask(field(at, 4*i)))
		}
	}
	fetch := func(m Mem, i int) VecVirtual {
		v := YMM()
		if edge {
			VMASKMOVPS(m, masks[i], v)
		} else {
			VMOVUPS(m, v)
		}
		return v
	}
	body := func(n int) {
		q := make([]GPVirtual, n)
		acc := make([]VecVirtual, n)
		b := load(p, dBias)
		for r := range q {
			q[r], acc[r] = GP64(), YMM()
			VBROADCASTSS(Mem{Base: b}, acc[r])
		}
		for kh := range k {
			for r := range q {
				MOVQ(field(rowsAt, 8*(r*stride+kh)), q[r])
				ADDQ(x, q[r])
			}
			weight := func(kw int) VecVirtual { v := YMM(); VBROADCASTSS(field(w, 4*(kh*k+kw)), v); return v }
			if stride == 1 {
				for kw := range k {
					wv := weight(kw)
					for r := range q {
						if edge {
							VFMADD231PS(fetch(field(q[r], 4*kw), kw), wv, acc[r])
						} else {
							VFMADD231PS(field(q[r], 4*kw), wv, acc[r])
						}
					}
				}
				continue
			}
			for kw := 0; kw < k; kw += 2 {
				we := weight(kw)
				var wo VecVirtual
				if kw+1 < k {
					wo = weight(kw + 1)
				}
				for r := range q {
					u, v := fetch(field(q[r], 4*kw), kw), fetch(field(q[r], 4*kw+32), kw+1)
					t := YMM()
					VSHUFPS(Imm(0x88), v, u, t) // lanes 0 1 4 5 2 3 6 7, put in order at the end
					VFMADD231PS(t, we, acc[r])
					if wo != nil {
						VSHUFPS(Imm(0xdd), v, u, t)
						VFMADD231PS(t, wo, acc[r])
					}
				}
			}
		}
		lim := YMM()
		VBROADCASTSS(field(p, dLo), lim)
		for _, a := range acc {
			VMAXPS(a, lim, a)
		}
		VBROADCASTSS(field(p, dHi), lim)
		for _, a := range acc {
			VMINPS(a, lim, a)
		}
		mask := e.mask(field(p, dOut))
		for _, a := range acc {
			if stride == 2 {
				VPERMPD(Imm(0xd8), a, a)
			}
			VMASKMOVPS(a, mask, Mem{Base: y})
			ADDQ(field(p, dYRow), y)
		}
		ADDQ(Imm(uint64(8*stride*n)), rowsAt)
	}
	Label("rows")
	CMPQ(rows, Imm(rowsAtOnce))
	JLT(LabelRef("rest"))
	body(rowsAtOnce)
	SUBQ(Imm(rowsAtOnce), rows)
	JMP(LabelRef("rows"))
	Label("rest")
	TESTQ(rows, rows)
	JZ(LabelRef("done"))
	body(1)
	DECQ(rows)
	JMP(LabelRef("rest"))
	Label("done")
	VZEROUPPER()
	RET()
}

// depthwiseTall emits a depthwise convolution whose kxk weights no registers hold. They hold a column of weights: tap by
// tap of a row, each row of pixels is read once and goes into all results that it is part of, up to k of stride 1, so that
// products, not loads, bound it. Rows of results go together as long as their sums fit.
func depthwiseTall(lv level, k, stride int, edge bool) {
	name := depthName(lv, k, stride)
	if edge && lv.lanes == 8 {
		name += "Edge"
	}
	TEXT(name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	t := newTall(lv, k, stride, edge)
	together := map[int][]int{8: {7, 3, 1}, 16: {14, 7, 3, 1}}
	if stride == 2 {
		together = map[int][]int{8: {5, 2, 1}, 16: {8, 3, 1}}
	}
	for _, n := range together[lv.lanes] {
		this, next := fmt.Sprintf("rows%d", n), fmt.Sprintf("below%d", n)
		Label(this)
		CMPQ(t.rows, Imm(uint64(n)))
		JLT(LabelRef(next))
		t.block(n)
		SUBQ(Imm(uint64(n)), t.rows)
		JMP(LabelRef(this))
		Label(next)
	}
	VZEROUPPER()
	RET()
}

// tall is the state of depthwiseTall.
type tall struct {
	lv                    level
	k, stride             int
	masked                bool
	p, x, y, rowsAt, rows Register
	bits                  Mem // of AVX2: lane i has bit i set
	even, odd             VecVirtual
	xk, wk, mk            GPVirtual // pixels, weights and masks of the tap that goes on
}

func newTall(lv level, k, stride int, masked bool) *tall {
	t := &tall{lv: lv, k: k, stride: stride, masked: masked}
	t.p = Load(Param("p"), GP64())
	t.x, t.y, t.rowsAt, t.rows = load(t.p, dX), load(t.p, dY), load(t.p, dRowsAt), load(t.p, dRows)
	ADDQ(field(t.p, dColumn), t.x)
	ADDQ(field(t.p, dYColumn), t.y)
	table := func(value func(i int) uint32) Mem {
		g := GLOBL("depthTall"+fresh(), RODATA|NOPTR)
		for i := range lv.lanes {
			DATA(4*i, U32(value(i)))
		}
		return g
	}
	switch {
	case lv.lanes == 8:
		t.bits = table(func(i int) uint32 { return 1 << i })
	case stride == 2:
		t.even = lv.get(table(func(i int) uint32 { return uint32(2 * i) }))
		t.odd = lv.get(table(func(i int) uint32 { return uint32(2*i + 1) }))
	}
	return t
}

// block computes n rows of results.
func (t *tall) block(n int) {
	acc := make([]VecVirtual, n)
	b := load(t.p, dBias)
	for r := range acc {
		if acc[r] = t.lv.vec(); r == 0 {
			VBROADCASTSS(Mem{Base: b}, acc[r])
		} else {
			VMOVAPS(acc[0], acc[r])
		}
	}
	t.xk, t.wk, t.mk = GP64(), load(t.p, dW), load(t.p, dMasks)
	MOVQ(t.x, t.xk)
	count, again := GP64(), fmt.Sprintf("taps%d", n)
	MOVQ(U32(uint32(t.k/t.stride)), count)
	Label(again)
	switch {
	case t.stride == 1:
		t.taps(acc, 0)
	case t.lv.lanes == 16:
		t.taps(acc, 0, 1)
	default: // no registers for two columns of weights
		t.taps(acc, 0)
		t.taps(acc, 1)
	}
	for _, r := range []Register{t.xk, t.wk, t.mk} {
		ADDQ(Imm(uint64(4*t.stride)), r)
	}
	DECQ(count)
	JNZ(LabelRef(again))
	if t.stride == 2 {
		t.taps(acc, 0)
	}
	t.store(acc)
	ADDQ(Imm(uint64(8*t.stride*n)), t.rowsAt)
}

// taps adds the products of one tap of each row or, of stride 2, of an even one, an odd one or both.
func (t *tall) taps(acc []VecVirtual, which ...int) {
	weights := make([][]VecVirtual, 2)
	for _, tap := range which {
		for kh := range t.k {
			v := t.lv.vec()
			VBROADCASTSS(field(t.wk, 4*(kh*t.k+tap)), v)
			weights[tap] = append(weights[tap], v)
		}
	}
	var masks []Register
	for i := 0; i < t.stride && t.masked; i++ {
		masks = append(masks, t.mask(field(t.mk, 4*i)))
	}
	// Rows k apart share no result, and each result has a product in one of them: a sum waits for itself as late as can be.
	for first := range t.k {
		for i := first; i < t.stride*(len(acc)-1)+t.k; i += t.k {
			q := load(t.rowsAt, 8*i)
			pixels := t.pixels(q, masks, which)
			for _, tap := range which {
				for r, a := range acc {
					if kh := i - t.stride*r; kh >= 0 && kh < t.k {
						VFMADD231PS(pixels[tap], weights[tap][kh], a)
					}
				}
			}
		}
	}
}

// pixels reads what the taps read of a row. AVX2 leaves those of stride 2 in the order 0 1 4 5 2 3 6 7.
func (t *tall) pixels(q Register, masks []Register, which []int) (v [2]VecVirtual) {
	fetch := func(i int) VecVirtual {
		m, v := Mem{Base: t.xk, Index: q, Scale: 1, Disp: 4 * t.lv.lanes * i}, t.lv.vec()
		switch {
		case !t.masked:
			VMOVUPS(m, v)
		case t.lv.lanes == 16:
			VMOVUPS_Z(m, masks[i], v)
		default:
			VMASKMOVPS(m, masks[i], v)
		}
		return v
	}
	first := fetch(0)
	if t.stride == 1 {
		v[0] = first
		return v
	}
	second := fetch(1)
	for n, tap := range which {
		to := first
		switch {
		case t.lv.lanes == 8:
			VSHUFPS(Imm([]uint64{0x88, 0xdd}[tap]), second, first, to)
		case n < len(which)-1:
			to = t.lv.copy(first)
			fallthrough
		default:
			VPERMT2PS(second, []VecVirtual{t.even, t.odd}[tap], to)
		}
		v[tap] = to
	}
	return v
}

// mask makes a mask from bits.
func (t *tall) mask(at Mem) Register {
	if t.lv.lanes == 16 {
		k := K()
		KMOVW(at, k)
		return k
	}
	m := YMM()
	VPBROADCASTD(at, m)
	VPAND(t.bits, m, m)
	VPCMPEQD(t.bits, m, m)
	return m
}

// store clamps and stores one row after the other.
func (t *tall) store(acc []VecVirtual) {
	lo, hi := t.lv.vec(), t.lv.vec()
	VBROADCASTSS(field(t.p, dLo), lo)
	VBROADCASTSS(field(t.p, dHi), hi)
	out := t.mask(field(t.p, dOut))
	for _, a := range acc {
		VMAXPS(a, lo, a)
		VMINPS(a, hi, a)
		if t.lv.lanes == 16 {
			VMOVUPS(a, out, Mem{Base: t.y})
		} else {
			if t.stride == 2 {
				VPERMPD(Imm(0xd8), a, a)
			}
			VMASKMOVPS(a, out, Mem{Base: t.y})
		}
		ADDQ(field(t.p, dYRow), t.y)
	}
}

// depthTable writes the Go tables of depthwise kernels: by edge, kernel size and stride.
func depthTable() string {
	s := ""
	for _, lv := range levels {
		entries := ""
		for _, edge := range []string{"", "Edge"} {
			entries += "\t{"
			for _, k := range []int{3, 5, 7} {
				entries += "{"
				for _, stride := range []int{1, 2} {
					n := depthName(lv, k, stride)
					if lv.lanes == 8 {
						n += edge
					}
					entries += n + ", "
					if lv.lanes == 8 || edge == "" {
						s += fmt.Sprintf("\n//go:noescape\nfunc %s(p *depthCall[float32])\n", n)
					}
				}
				entries += "}, "
			}
			entries += "},\n"
		}
		s += fmt.Sprintf("\nvar depths%s = &[2][3][2]func(*depthCall[float32]){\n%s}\n", lv.name, entries)
	}
	return s
}
