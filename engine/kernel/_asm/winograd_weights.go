package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in kernel.winoWeightsCall.
const uSrc, uDst, uBlocks, uTo = 0, 8, 16, 24

// balancedG are the factors of G for the balanced points: those of g0, g1 and g2 in rows 1 and 2, and in rows 3 and 4.
var balancedG = [2][3]float64{{-1 / 1.5, -rootA / 1.5, -0.5 / 1.5}, {1. / 6, rootB / 6, 2. / 6}}

// winoWeights emits U = G·g·Gᵀ at the balanced points, element by element: a lane is a pair of channels. A block is nine
// vectors of g, and point p of it goes to dst + p·to.
//
//	G = 1             0     0
//	   -2/3 (1   a    1/2)
//	   -2/3 (1  -a    1/2)
//	    1/6 (1   b    2  )
//	    1/6 (1  -b    2  )
//	    0   0    1
func winoWeights(lv level) {
	size := lv.lanes * 4
	TEXT("winoWeights"+lv.name, NOSPLIT, "func(p *float32)")
	Pragma("noescape")
	p := Load(Param("p"), GP64())
	var factors []float64
	for _, f := range balancedG {
		factors = append(factors, f[:]...)
	}
	k := multipliers(lv, "winoWeights", factors...)
	src, dst, blocks, to := load(p, uSrc), load(p, uDst), load(p, uBlocks), load(p, uTo)
	to3, to5, r := multiple(to, 3), multiple(to, 5), GP64()

	g := func(i, j int) Mem { return field(src, (3*i+j)*size) }
	// pair is rows 1 and 2, or 3 and 4, of G times a vector of three.
	pair := func(f [3]float64, g0, g1, g2 Op) (x, y VecVirtual) {
		x = lv.vec()
		VMOVUPS(g0, x)
		VMULPS(k.of[f[0]], x, x)
		z := lv.vec()
		VMOVUPS(g2, z)
		k.add(f[2], z, x)
		VMOVUPS(g1, z)
		y = lv.copy(x)
		k.add(f[1], z, x)
		k.sub(f[1], z, y)
		return x, y
	}
	// row multiplies row i of G·g by Gᵀ and stores it.
	row := func(i int, t [3]Op) {
		rowOfPoints(i, dst, to3, r)
		v := lv.vec()
		VMOVUPS(t[0], v)
		VMOVUPS(v, Mem{Base: r})
		x, y := pair(balancedG[0], t[0], t[1], t[2])
		VMOVUPS(x, Mem{Base: r, Index: to, Scale: 1})
		VMOVUPS(y, Mem{Base: r, Index: to, Scale: 2})
		x, y = pair(balancedG[1], t[0], t[1], t[2])
		VMOVUPS(x, Mem{Base: r, Index: to3, Scale: 1})
		VMOVUPS(y, Mem{Base: r, Index: to, Scale: 4})
		v = lv.vec()
		VMOVUPS(t[2], v)
		VMOVUPS(v, Mem{Base: r, Index: to5, Scale: 1})
	}

	Label("block")
	row(0, [3]Op{g(0, 0), g(0, 1), g(0, 2)})
	for i, f := range balancedG {
		var a, b [3]Op
		for j := range 3 {
			a[j], b[j] = pair(f, g(0, j), g(1, j), g(2, j))
		}
		row(1+2*i, a)
		row(2+2*i, b)
	}
	row(5, [3]Op{g(2, 0), g(2, 1), g(2, 2)})
	ADDQ(U32(uint32(9*size)), src)
	ADDQ(Imm(uint64(size)), dst)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}
