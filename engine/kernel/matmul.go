package kernel

import (
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// product is y[m,n] = a[m,k]·b[k,n] over the micro-kernel: lanes run along the columns of b, rows of a take the part
// of output channels. b is read in blocks of columns, each [k][block], packed so that a block is one stream of memory;
// a is packed by panels of rows at every run, unless m is 1.
type product[T Float] struct {
	k             *micro[T]
	m, depth, n   int
	panels        []panel
	block, blocks int
	chunks        int // tasks over panels
	zero          []T
	off           []int64
	lo, hi        T
}

func newProduct[T Float](level isa.Level, m, k, n int) *product[T] {
	p := &product[T]{k: microFor[T](level), m: m, depth: k, n: n, lo: T(NoClamp.Lo), hi: T(NoClamp.Hi), zero: make([]T, maxTile)}
	p.panels = split(m, min(8, p.k.maxChannels()))
	tall := 1
	if len(p.panels) > 0 {
		tall = p.panels[0].r
	}
	p.block = p.k.vectors(tall) * p.k.lanes
	p.blocks = (n + p.block - 1) / p.block
	p.chunks = 1
	if p.blocks > 0 && p.blocks < 16 {
		p.chunks = max(1, min(len(p.panels), 16/p.blocks))
	}
	return p
}

// offsets is where each step reads if the rows of b are stride elements apart.
func (p *product[T]) offsets(stride int) []int64 {
	var z T
	off := make([]int64, p.depth+1)
	for i := range off {
		off[i] = int64(i*stride) * int64(unsafe.Sizeof(z))
	}
	return off
}

// packA copies a panel of rows to [k][r].
func (p *product[T]) packA(dst, a []T, pn panel) {
	for n := range pn.r {
		row := a[(pn.first+n)*p.depth:][:p.depth]
		for i, j := 0, n; i < len(row); i, j = i+1, j+pn.r {
			dst[j] = row[i]
		}
	}
}

// packB copies columns [j0, j0+block) of b to [k][block], zeros past the last.
func (p *product[T]) packB(dst, b []T, j0 int) {
	w := min(p.block, p.n-j0)
	for i := range p.depth {
		d := dst[i*p.block:][:p.block]
		copy(d, b[i*p.n+j0:][:w])
		clear(d[w:])
	}
}

// tile computes one panel and block. b is the block, or b itself from column j0 on; w the packed panel.
func (p *product[T]) tile(c *call[T], off []int64, pn panel, j0 int, y, w, b, bias []T) {
	var z T
	cols := min(p.block, p.n-j0)
	y = y[pn.first*p.n+j0:]
	c.bias = &p.zero[0]
	if bias != nil {
		for n := range pn.r {
			copy(y[n*p.n:][:cols], bias[j0:])
		}
		c.bias = nil // go on from what y holds
	}
	c.a, c.w = nil, nil
	if p.depth > 0 {
		c.a, c.w = &b[0], &w[0]
	}
	c.off, c.steps = &off[0], int64(p.depth)
	c.c, c.cstride = &y[0], int64(p.n)*int64(unsafe.Sizeof(z))
	c.rows, c.arow, c.crow = 1, 0, 0
	p.k.rows(c, pn.r, cols)
}

func (p *product[T]) calls(workers int) []paddedCall[T] {
	cs := make([]paddedCall[T], workers)
	for i := range cs {
		cs[i].lo, cs[i].hi = p.lo, p.hi
	}
	return cs
}

// bind makes the two loops: pack a, then multiply. block gives a task its block of b and the offsets into it.
func (p *product[T]) bind(pool *Pool, scratch, y, a, bias []T, off []int64, block func(worker, j0 int) []T) func() {
	if p.m*p.n == 0 {
		return func() {}
	}
	calls := p.calls(pool.Workers())
	w := a
	if p.m > 1 {
		w = scratch[:p.m*p.depth]
	}
	mul := pool.Loop(p.blocks*p.chunks, func(worker, i int) {
		j0, chunk := i/p.chunks*p.block, i%p.chunks
		b := block(worker, j0)
		for q := chunk * len(p.panels) / p.chunks; q < (chunk+1)*len(p.panels)/p.chunks; q++ {
			pn := p.panels[q]
			p.tile(&calls[worker].call, off, pn, j0, y, w[pn.first*p.depth:], b, bias)
		}
	})
	if p.m == 1 {
		return mul.Run
	}
	pack := pool.Loop(len(p.panels), func(_, i int) {
		pn := p.panels[i]
		p.packA(w[pn.first*p.depth:], a, pn)
	})
	return func() {
		pack.Run()
		mul.Run()
	}
}

// MatMul is a product with a constant right side, which is packed. It is immutable: sessions share it.
type MatMul[T Float] struct {
	*product[T]
	b    []T // [block][k][columns of a block]
	bias []T // Bind's, where it gives none
}

// NewMatMul prepares y[m,n] = a[m,k]·b[k,n] + bias. It keeps no reference to b.
func NewMatMul[T Float](m, k, n int, b []T) *MatMul[T] { return newMatMul(isa.Best(), m, k, n, b) }

func newMatMul[T Float](level isa.Level, m, k, n int, b []T) *MatMul[T] {
	mm := &MatMul[T]{product: newProduct[T](level, m, k, n)}
	mm.b = make([]T, mm.blocks*k*mm.block+mm.block)
	for i := range mm.blocks {
		mm.packB(mm.b[i*k*mm.block:], b, i*mm.block)
	}
	mm.off = mm.offsets(mm.block)
	return mm
}

// Scratch is how many elements of working memory Bind needs.
func (m *MatMul[T]) Scratch(int) int {
	if m.m <= 1 {
		return 0
	}
	return m.m * m.depth
}

// Bind returns what computes y [m,n] from a [m,k]; bias is nil or [n]. See [Conv.Bind].
func (m *MatMul[T]) Bind(p *Pool, scratch, y, a, bias []T) func() {
	if bias == nil && len(m.bias) > 0 {
		bias = m.bias
	}
	need("a", len(a), m.m*m.depth)
	need("y", len(y), m.m*m.n)
	need("scratch", len(scratch), m.Scratch(p.Workers()))
	if bias != nil {
		need("bias", len(bias), m.n)
	}
	return m.bind(p, scratch, y, a, bias, m.off, func(_, j0 int) []T { return m.b[j0*m.depth:] })
}

// ScratchAB is how many elements of working memory MatMulAB needs.
func ScratchAB(workers, m, k, n int) int {
	if m <= 1 {
		return 0
	}
	return m*k + 16 + workers*(k+1)*8*maxLanes
}

// maxLanes is the most lanes of any instruction set.
const maxLanes = 16

// MatMulAB returns what computes y[m,n] = a[m,k]·b[k,n], neither of them constant. See [Conv.Bind].
func MatMulAB[T Float](p *Pool, m, k, n int, scratch, y, a, b []T) func() {
	return matMulAB(isa.Best(), p, m, k, n, scratch, y, a, b)
}

func matMulAB[T Float](level isa.Level, p *Pool, m, k, n int, scratch, y, a, b []T) func() {
	need("a", len(a), m*k)
	need("b", len(b), k*n)
	need("y", len(y), m*n)
	need("scratch", len(scratch), ScratchAB(p.Workers(), m, k, n))
	pr := newProduct[T](level, m, k, n)
	if m <= 1 { // packing would cost as much as the product
		return pr.bind(p, scratch, y, a, nil, pr.offsets(n), func(_, j0 int) []T {
			if k == 0 {
				return nil
			}
			return b[j0:]
		})
	}
	size := (k + 1) * pr.block
	return pr.bind(p, scratch, y, a, nil, pr.offsets(pr.block), func(worker, j0 int) []T {
		mem := scratch[m*k+worker*size:][:size]
		pr.packB(mem, b, j0)
		return mem
	})
}
