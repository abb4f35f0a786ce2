package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vectorKernel is a loop over elements: y from a, perhaps b, and two numbers.
type vectorKernel struct {
	name string
	two  bool // it reads b
	make func(v *vectorLoop) func(a, b VecVirtual) VecVirtual
}

// vectorLoop is what bodies of such loops share: numbers broadcast before the loop.
type vectorLoop struct {
	lv   level
	name string
	s, t VecVirtual // the arguments
	have map[uint32]Op
	kept map[uint32]Op
}

// number is a constant in every lane: in a register of AVX-512, in memory for AVX2.
func (v *vectorLoop) number(x float64) Op { return v.bits(math.Float32bits(float32(x))) }

func (v *vectorLoop) bits(b uint32) (c Op) {
	if c, ok := v.have[b]; ok {
		return c
	}
	defer func() { v.have[b] = c }()
	g := GLOBL(fmt.Sprintf("%s%s_%08x", v.name, v.lv.name, b), RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(b))
	}
	if v.lv.lanes == 8 {
		return g
	}
	r := ZMM()
	VBROADCASTSS(g, r)
	return r
}

// register is a constant in a register.
func (v *vectorLoop) register(x float64) VecVirtual {
	r := v.lv.vec()
	VMOVUPS(v.number(x), r)
	return r
}

// where gives yes where x compares so with y, else no.
func (v *vectorLoop) where(predicate int, x VecVirtual, y Op, yes, no VecVirtual) {
	if v.lv.lanes == 16 {
		k := K()
		VCMPPS(Imm(uint64(predicate)), y, x, k)
		VMOVAPS(yes, k, no)
		return
	}
	m := YMM()
	VCMPPS(Imm(uint64(predicate)), y, x, m)
	VBLENDVPS(m, yes, no, no)
}

const less, greater, unordered = 17, 30, 3 // predicates of VCMPPS: LT_OQ, GT_OQ, UNORD_Q

// exp is eˣ as exp32 of package op has it: x = n·ln 2 + r, a polynomial for eʳ, and n put into the exponent.
func (v *vectorLoop) exp() func(x VecVirtual) VecVirtual {
	lv := v.lv
	log2e, shift := v.number(1.44269504088896341), v.number(12582912)
	hi, lo := v.number(0.693359375), v.number(-2.12194440e-4)
	var poly []Op
	for _, c := range []float64{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		poly = append(poly, v.number(c))
	}
	one, least, most := v.number(1), v.number(-87.33654), v.number(88.72283)
	shiftBits, bias := v.bits(math.Float32bits(12582912)), v.bits(127)
	inf := v.number(math.Inf(1))
	return func(x VecVirtual) VecVirtual {
		t, n := lv.vec(), lv.vec()
		VMULPS(log2e, x, t)
		VADDPS(shift, t, t)
		VSUBPS(shift, t, n)
		r := lv.copy(x)
		VFNMADD231PS(hi, n, r)
		VFNMADD231PS(lo, n, r)
		p := lv.vec()
		VMOVUPS(poly[0], p)
		for _, c := range poly[1:] {
			VFMADD213PS(c, r, p) // p = p·r + c
		}
		VMULPS(r, p, p)
		VFMADD213PS(r, r, p)
		VADDPS(one, p, p)
		// n runs to 128, whose power of two is no float32, so it comes in two factors.
		h := lv.vec()
		VPSUBD(shiftBits, t, t)
		VPSRAD(Imm(1), t, h)
		VPSUBD(h, t, t)
		for _, e := range []VecVirtual{h, t} {
			VPADDD(bias, e, e)
			VPSLLD(Imm(23), e, e)
			VMULPS(e, p, p)
		}
		zero, large := lv.vec(), lv.vec()
		VXORPS(zero.AsX(), zero.AsX(), zero.AsX())
		v.where(less, x, least, zero, p)
		VMOVUPS(inf, large)
		v.where(greater, x, most, large, p)
		return p
	}
}

// sigmoid is 1/(1+e⁻ˣ).
func (v *vectorLoop) sigmoid() func(x VecVirtual) VecVirtual {
	exp, one := v.exp(), v.number(1)
	return func(x VecVirtual) VecVirtual {
		n := v.lv.vec()
		VXORPS(n.AsX(), n.AsX(), n.AsX())
		VSUBPS(x, n, n)
		e := exp(n)
		VADDPS(one, e, e)
		q := v.lv.vec()
		VMOVUPS(one, q)
		VDIVPS(e, q, q)
		return q
	}
}

// tanh is tanh32 of package op: a polynomial near 0, where 1 - 2/(e²ˣ+1) would cancel.
func (v *vectorLoop) tanh() func(x VecVirtual) VecVirtual {
	exp, lv := v.exp(), v.lv
	one, two, near := v.number(1), v.number(2), v.number(0.625)
	sign, rest := v.bits(1<<31), v.bits(1<<31-1)
	var poly []Op
	for _, c := range []float64{-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1} {
		poly = append(poly, v.number(c))
	}
	and := VANDPS
	return func(x VecVirtual) VecVirtual {
		a := lv.vec()
		and(rest, x, a)
		e := lv.vec()
		VADDPS(a, a, e)
		e = exp(e)
		VADDPS(one, e, e)
		q := lv.vec()
		VMOVUPS(two, q)
		VDIVPS(e, q, q)
		far := lv.vec()
		VMOVUPS(one, far)
		VSUBPS(q, far, far)
		s := lv.vec()
		and(sign, x, s)
		VORPS(s, far, far)
		z, p := lv.vec(), lv.vec()
		VMULPS(x, x, z)
		VMOVUPS(poly[0], p)
		for _, c := range poly[1:] {
			VFMADD213PS(c, z, p)
		}
		VMULPS(z, p, p)
		VFMADD213PS(x, x, p) // p·x + x
		v.where(less, a, near, p, far)
		return far
	}
}

// stored is a constant in memory, of as many lanes as a vector has: for loops that have more constants than registers.
func (v *vectorLoop) stored(x float64) Op { return v.storedBits(math.Float32bits(float32(x))) }

func (v *vectorLoop) storedBits(b uint32) Op {
	if c, ok := v.kept[b]; ok {
		return c
	}
	g := GLOBL(fmt.Sprintf("%s%s_stored_%08x", v.name, v.lv.name, b), RODATA|NOPTR)
	for i := range v.lv.lanes {
		DATA(4*i, U32(b))
	}
	v.kept[b] = g
	return g
}

// polynomial is c₀xⁿ + c₁xⁿ⁻¹ + …, with constants in memory.
func (v *vectorLoop) polynomial(c []float64) func(x VecVirtual) VecVirtual {
	return func(x VecVirtual) VecVirtual {
		p := v.lv.vec()
		VMOVUPS(v.stored(c[0]), p)
		for _, c := range c[1:] {
			VFMADD213PS(v.stored(c), x, p)
		}
		return p
	}
}

// erfNear, erfFar and erfEdges are those of package op, where erf32 says what they are.
var (
	erfNear = []float64{-5.863064434379339e-4, 4.9682906828820705e-3, -2.674994058907032e-2, 1.1281371116638184e-1, -3.761245310306549e-1, 1.2837915122509003e-1}
	erfFar  = []float64{-1.495848937338451e-5, 3.4772377694025636e-4, -3.66393756121397e-3, 2.3532062768936157e-2,
		-1.0540927946567535e-1, 3.636523187160492e-1, -1.1278343200683594, -2.1506017947103828e-4}
	erfEdge, erfFlat, erfEnd = 0.95, 4.2, 10.0
)

// erf gives erf x by a polynomial, for |x| below erfEdge, 1 - erf |x| from there on, and |x|.
func (v *vectorLoop) erf() func(x VecVirtual) (near, far, a VecVirtual) {
	exp, lv := v.exp(), v.lv
	p, q := v.polynomial(erfNear), v.polynomial(erfFar)
	least := func(a VecVirtual, most float64) VecVirtual { // a NaN stays one
		r := lv.vec()
		VMOVUPS(v.stored(most), r)
		VMINPS(a, r, r)
		return r
	}
	return func(x VecVirtual) (near, far, a VecVirtual) {
		a = lv.vec()
		VANDPS(v.storedBits(1<<31-1), x, a)
		e := q(least(a, erfFlat))
		t := least(a, erfEnd)
		VFNMADD231PS(t, t, e)
		far = exp(e)
		z := lv.vec()
		VMULPS(x, x, z)
		near = p(z)
		VFMADD213PS(x, x, near)
		return near, far, a
	}
}

// extreme is the larger or smaller of two: the instruction gives the second operand where one is no number, and zeros.
func extreme(f func(...Op)) func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
	return func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
		return func(a, b VecVirtual) VecVirtual {
			r := v.lv.vec()
			f(b, a, r)
			v.where(unordered, a, a, a, r)
			return r
		}
	}
}

func pairOf(f func(...Op)) func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
	return func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
		return func(a, b VecVirtual) VecVirtual { f(b, a, a); return a }
	}
}

func numberOf(f func(...Op)) func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
	return func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
		return func(a, _ VecVirtual) VecVirtual { f(v.s, a, a); return a }
	}
}

var vectorKernels = []vectorKernel{
	{"add", true, pairOf(VADDPS)},
	{"sub", true, pairOf(VSUBPS)},
	{"mul", true, pairOf(VMULPS)},
	{"div", true, pairOf(VDIVPS)},
	{"max", true, extreme(VMAXPS)},
	{"min", true, extreme(VMINPS)},
	{"addNumber", false, numberOf(VADDPS)},
	{"mulNumber", false, numberOf(VMULPS)},
	{"scale", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // s·a + t
		return func(a, _ VecVirtual) VecVirtual { VFMADD132PS(v.s, v.t, a); return a }
	}},
	{"mix", true, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // s·a + t·b
		return func(a, b VecVirtual) VecVirtual { VMULPS(v.t, b, b); VFMADD132PS(v.s, b, a); return a }
	}},
	{"clip", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // a NaN stays one, as in the micro-kernel
		return func(a, _ VecVirtual) VecVirtual { VMAXPS(a, v.s, a); VMINPS(a, v.t, a); return a }
	}},
	{"leaky", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // a, or s·a where a < 0
		zero := v.register(0)
		return func(a, _ VecVirtual) VecVirtual {
			y := v.lv.vec()
			VMULPS(v.s, a, y)
			r := v.lv.copy(a)
			v.where(less, a, zero, y, r)
			return r
		}
	}},
	{"hardSwish", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // a·min(max(s·a+t, 0), 1)
		zero, one := v.register(0), v.register(1)
		return func(a, _ VecVirtual) VecVirtual {
			y := v.lv.copy(a)
			VFMADD132PS(v.s, v.t, y)
			VMAXPS(y, zero, y)
			VMINPS(y, one, y)
			VMULPS(y, a, a)
			return a
		}
	}},
	{"gate", true, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // a where s < b < t, else 0
		return func(a, b VecVirtual) VecVirtual {
			above, y := v.lv.vec(), v.lv.vec()
			VXORPS(above.AsX(), above.AsX(), above.AsX())
			VXORPS(y.AsX(), y.AsX(), y.AsX())
			v.where(greater, b, v.s, a, above)
			v.where(less, b, v.t, above, y)
			return y
		}
	}},
	{"exp", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // e^(a-s)
		exp := v.exp()
		return func(a, _ VecVirtual) VecVirtual { VSUBPS(v.s, a, a); return exp(a) }
	}},
	{"sigmoid", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
		f := v.sigmoid()
		return func(a, _ VecVirtual) VecVirtual { return f(a) }
	}},
	{"tanh", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
		f := v.tanh()
		return func(a, _ VecVirtual) VecVirtual { return f(a) }
	}},
	{"erf", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
		f := v.erf()
		return func(x, _ VecVirtual) VecVirtual {
			near, e, a := f(x)
			y, s := v.lv.vec(), v.lv.vec()
			VMOVUPS(v.stored(1), y)
			VSUBPS(e, y, y)
			VANDPS(v.storedBits(1<<31), x, s)
			VORPS(s, y, y)
			v.where(less, a, v.stored(erfEdge), near, y)
			return y
		}
	}},
	{"gelu", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual { // a·(1+erf(a/√2))/2
		f := v.erf()
		return func(x, _ VecVirtual) VecVirtual {
			z := v.lv.vec()
			VMULPS(v.stored(math.Sqrt2/2), x, z)
			near, e, a := f(z)
			y := v.lv.vec()
			VMOVUPS(v.stored(2), y)
			VSUBPS(e, y, y)
			v.where(less, z, v.stored(0), e, y) // 1 + erf z is 1 - erf |z| there, without what would cancel
			VADDPS(v.stored(1), near, near)
			v.where(less, a, v.stored(erfEdge), near, y)
			VMULPS(v.stored(0.5), x, x)
			VMULPS(y, x, x)
			return x
		}
	}},
	{"silu", false, func(v *vectorLoop) func(a, b VecVirtual) VecVirtual {
		f := v.sigmoid()
		return func(a, _ VecVirtual) VecVirtual { q := f(a); VMULPS(a, q, q); return q }
	}},
}

// emit writes the loop: whole vectors, then one that is masked.
func (k vectorKernel) emit(lv level) {
	TEXT(k.name+lv.name, NOSPLIT, "func(y, a, b *float32, n int64, s, t float32)")
	Pragma("noescape")
	y, a, b, n := Load(Param("y"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64()), GP64()
	Load(Param("n"), n)
	v := &vectorLoop{lv: lv, name: k.name, have: map[uint32]Op{}, kept: map[uint32]Op{}}
	v.s, v.t = lv.vec(), lv.vec()
	s, t := XMM(), XMM()
	Load(Param("s"), s)
	Load(Param("t"), t)
	VBROADCASTSS(s, v.s)
	VBROADCASTSS(t, v.t)
	body := k.make(v)
	size := 4 * lv.lanes
	Label("whole")
	CMPQ(n, U32(uint32(lv.lanes)))
	JLT(LabelRef("rest"))
	x := lv.get(Mem{Base: a})
	var x2 VecVirtual
	if k.two {
		x2 = lv.get(Mem{Base: b})
	}
	VMOVUPS(body(x, x2), Mem{Base: y})
	ADDQ(U32(uint32(size)), a)
	ADDQ(U32(uint32(size)), b)
	ADDQ(U32(uint32(size)), y)
	SUBQ(U32(uint32(lv.lanes)), n)
	JMP(LabelRef("whole"))
	Label("rest")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	x, x2 = lv.vec(), nil
	if k.two {
		x2 = lv.vec()
	}
	if lv.lanes == 16 {
		m, kk := GP64(), K()
		MOVL(U32(0xffff), m.As32())
		BZHIL(n.As32(), m.As32(), m.As32())
		KMOVW(m.As32(), kk)
		VMOVUPS_Z(Mem{Base: a}, kk, x)
		if k.two {
			VMOVUPS_Z(Mem{Base: b}, kk, x2)
		}
		VMOVUPS(body(x, x2), kk, Mem{Base: y})
	} else {
		at, base, mask := GP64(), GP64(), YMM()
		MOVQ(U32(8), at)
		SUBQ(n, at)
		LEAQ(lanes, base)
		VMOVUPS(Mem{Base: base, Index: at, Scale: 4}, mask)
		VMASKMOVPS(Mem{Base: a}, mask, x)
		if k.two {
			VMASKMOVPS(Mem{Base: b}, mask, x2)
		}
		VMASKMOVPS(body(x, x2), mask, Mem{Base: y})
	}
	Label("done")
	VZEROUPPER()
	RET()
}

// dot adds products of float32 to 8 sums in float64, product i to sum i mod 8. A product is exact there, so that a fused
// multiply-add rounds as an addition does.
func dot(lv level) {
	TEXT("dot"+lv.name, NOSPLIT, "func(sum *float64, a, b *float32, blocks int64)")
	Pragma("noescape")
	to, a, b, n := Load(Param("sum"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("blocks"), GP64())
	var sums []VecVirtual
	for at := 0; at < 8; at += lv.lanes / 2 {
		s := lv.vec()
		VMOVUPD(Mem{Base: to, Disp: 8 * at}, s)
		sums = append(sums, s)
	}
	Label("block")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	for i, s := range sums {
		x, y := lv.vec(), lv.vec()
		VCVTPS2PD(Mem{Base: a, Disp: 2 * lv.lanes * i}, x)
		VCVTPS2PD(Mem{Base: b, Disp: 2 * lv.lanes * i}, y)
		VFMADD231PD(y, x, s)
	}
	ADDQ(U32(32), a)
	ADDQ(U32(32), b)
	DECQ(n)
	JMP(LabelRef("block"))
	Label("done")
	for i, s := range sums {
		VMOVUPD(s, Mem{Base: to, Disp: 4 * lv.lanes * i})
	}
	VZEROUPPER()
	RET()
}

// vectorTable writes the Go table of an instruction set's loops.
func vectorTable() string {
	s := ""
	for _, lv := range levels {
		s += fmt.Sprintf("\nvar vectors%s = &vectors{\n", lv.name)
		for _, k := range vectorKernels {
			s += fmt.Sprintf("\t%s: %s%s,\n", k.name, k.name, lv.name)
		}
		s += fmt.Sprintf("\tdot: dot%s,\n}\n\n//go:noescape\nfunc dot%s(sum *float64, a, b *float32, blocks int64)\n", lv.name, lv.name)
		for _, k := range vectorKernels {
			s += fmt.Sprintf("\n//go:noescape\nfunc %s%s(y, a, b *float32, n int64, s, t float32)\n", k.name, lv.name)
		}
	}
	return s
}
