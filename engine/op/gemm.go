package op

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var gemmFamily = slices.Concat(
	since(Def{Op: "Gemm", Infer: inferGemm, New: newGemm}, 1, 6, 7, 9, 11, 13),
	since(Def{Op: "MatMul", Infer: inferMatMul, New: newMatMul}, 1, 9, 13),
)

// gemmDims gives M, K, N of Y = α·A'·B' + β·C.
func gemmDims(s *Site) (m, k, n int, err error) {
	if err := s.require(2); err != nil {
		return 0, 0, 0, err
	}
	if err := s.floatOnly(); err != nil {
		return 0, 0, 0, err
	}
	a, b := s.Shape(0), s.Shape(1)
	if len(a) != 2 || len(b) != 2 || s.DType(1) != s.Float {
		return 0, 0, 0, fmt.Errorf("inputs are %v and %v, want matrices of one type", s.Arg(0).Type, s.Arg(1).Type)
	}
	m, k = a[0], a[1]
	if s.Attrs().Int("transA", 0) != 0 {
		m, k = k, m
	}
	kb, n := b[0], b[1]
	if s.Attrs().Int("transB", 0) != 0 {
		kb, n = n, kb
	}
	if k != kb {
		return 0, 0, 0, fmt.Errorf("inputs %v and %v cannot be multiplied", s.Arg(0).Type, s.Arg(1).Type)
	}
	return m, k, n, nil
}

func inferGemm(s *Site) ([]tensor.Type, error) {
	m, _, n, err := gemmDims(s)
	if err != nil {
		return nil, err
	}
	if c := s.Arg(2); c.Given() {
		if out, err := broadcast(c.Type.Shape, tensor.Shape{m, n}); err != nil || !slices.Equal(out, tensor.Shape{m, n}) || c.Type.DType != s.Float {
			return nil, fmt.Errorf("input C is %v, which does not broadcast to [%d,%d]", c.Type, m, n)
		}
	}
	return s.sized(s.Float, tensor.Shape{m, n})
}

func newGemm(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return gemmOf[float32](s) }, func() (Kernel, error) { return gemmOf[float64](s) })
}

// gemm runs Y = α·A'·B' + β·C. A constant B is transposed and packed once.
type gemm[T kernel.Float] struct {
	m, k, n        int
	transA, transB bool
	alpha, beta    T
	packed         *kernel.MatMul[T]
	add            *nest // Y += β·C
}

func gemmOf[T kernel.Float](s *Site) (Kernel, error) {
	m, k, n, err := gemmDims(s)
	if err != nil {
		return nil, err
	}
	g := &gemm[T]{m: m, k: k, n: n, transA: s.Attrs().Int("transA", 0) != 0, transB: s.Attrs().Int("transB", 0) != 0,
		alpha: T(s.Attrs().Float("alpha", 1)), beta: T(s.Attrs().Float("beta", 1))}
	if c := s.Arg(2); c.Given() {
		out := tensor.Shape{m, n}
		if g.add, err = newNest(out, offsets{}, out.Strides(), broadcastStrides(c.Type.Shape, out)); err != nil {
			return nil, err
		}
	}
	if b := s.Arg(1).Const; b != nil {
		v := tensor.Of[T](b)
		if g.transB {
			v = transpose(make([]T, len(v)), v, n, k)
		}
		g.packed = kernel.NewMatMul(m, k, n, v)
	}
	return g, nil
}

// transpose writes x, rows by cols, as cols by rows.
func transpose[T kernel.Float](y, x []T, rows, cols int) []T {
	for i := range rows {
		for j := range cols {
			y[j*rows+i] = x[i*cols+j]
		}
	}
	return y
}

// sizes gives how many elements the transposed A and B and the product need.
func (g *gemm[T]) sizes(workers int) (a, b, product int) {
	if g.transA {
		a = (g.m*g.k+15)/16*16 + 256
	}
	if g.packed != nil {
		return a, 0, g.packed.Scratch(workers)
	}
	if g.transB {
		b = (g.n*g.k+15)/16*16 + 256
	}
	return a, b, kernel.ScratchAB(workers, g.m, g.k, g.n)
}

// Scratch implements Scratcher.
func (g *gemm[T]) Scratch(workers int) int {
	a, b, p := g.sizes(workers)
	return tensor.DTypeOf[T]().Size(a + b + p)
}

// Bind implements Kernel.
func (g *gemm[T]) Bind(env *Env, out, in []*tensor.Tensor) func() error {
	y, a0 := tensor.Of[T](out[0]), tensor.Of[T](in[0])
	na, nb, _ := g.sizes(env.Pool.Workers())
	scratch := scratchOf[T](env)
	a := a0
	if g.transA {
		a = scratch[:g.m*g.k]
	}
	var b0, b []T
	var product func()
	if g.packed != nil {
		product = g.packed.Bind(env.Pool, scratch[na+nb:], y, a, nil)
	} else {
		b0 = tensor.Of[T](in[1])
		if b = b0; g.transB {
			b = scratch[na:][:g.n*g.k]
		}
		product = kernel.MatMulAB(env.Pool, g.m, g.k, g.n, scratch[na+nb:], y, a, b)
	}
	finish := g.finish(env, y, in)
	return func() error {
		if g.transA {
			transpose(a, a0, g.k, g.m)
		}
		if g.packed == nil && g.transB {
			transpose(b, b0, g.n, g.k)
		}
		product()
		finish()
		return nil
	}
}

// finish scales the product and adds C.
func (g *gemm[T]) finish(env *Env, y []T, in []*tensor.Tensor) func() {
	add := func() {}
	if g.add != nil {
		c := tensor.Of[T](in[2])
		_, step := g.add.inner()
		add = g.add.bind(env, func(o offsets, length int) {
			for i := range length {
				y[o[0]+i*step[0]] += g.beta * c[o[1]+i*step[1]]
			}
		})
	}
	return func() {
		if g.alpha != 1 {
			for i := range y {
				y[i] *= g.alpha
			}
		}
		add()
	}
}

// matMulDims gives the matrices' sizes and the shape of the batch; vectors count as matrices of one row or column.
func matMulDims(s *Site) (a, b, batch, out tensor.Shape, err error) {
	if err := s.require(2); err != nil {
		return nil, nil, nil, nil, err
	}
	if err := s.floatOnly(); err != nil {
		return nil, nil, nil, nil, err
	}
	a, b = s.Shape(0).Clone(), s.Shape(1).Clone()
	if len(a) == 0 || len(b) == 0 || s.DType(1) != s.Float {
		return nil, nil, nil, nil, fmt.Errorf("inputs are %v and %v, want matrices of one type", s.Arg(0).Type, s.Arg(1).Type)
	}
	row, col := len(a) == 1, len(b) == 1
	if row {
		a = tensor.Shape{1, a[0]}
	}
	if col {
		b = tensor.Shape{b[0], 1}
	}
	if a[len(a)-1] != b[len(b)-2] {
		return nil, nil, nil, nil, fmt.Errorf("inputs %v and %v cannot be multiplied", s.Arg(0).Type, s.Arg(1).Type)
	}
	if batch, err = broadcast(a[:len(a)-2], b[:len(b)-2]); err != nil {
		return nil, nil, nil, nil, err
	}
	out = batch.Clone()
	if !row {
		out = append(out, a[len(a)-2])
	}
	if !col {
		out = append(out, b[len(b)-1])
	}
	return a, b, batch, out, nil
}

func inferMatMul(s *Site) ([]tensor.Type, error) {
	_, _, _, out, err := matMulDims(s)
	if err != nil {
		return nil, err
	}
	return s.sized(s.Float, out)
}

func newMatMul(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return matMulOf[float32](s) }, func() (Kernel, error) { return matMulOf[float64](s) })
}

// maxBatch bounds the products of one MatMul: each is prepared by itself.
const maxBatch = 1 << 16

// matMul multiplies matrices, one pair for each element of the batch. A constant right side without a batch is packed,
// and all rows of the left one go through it at once.
type matMul[T kernel.Float] struct {
	m, k, n int
	a, b    []int // where the matrices of each product begin
	packed  *kernel.MatMul[T]
}

func matMulOf[T kernel.Float](s *Site) (Kernel, error) {
	as, bs, batch, _, err := matMulDims(s)
	if err != nil {
		return nil, err
	}
	m := &matMul[T]{m: as[len(as)-2], k: as[len(as)-1], n: bs[len(bs)-1]}
	if b := s.Arg(1).Const; b != nil && bs[:len(bs)-2].Elems() == 1 {
		m.m *= batch.Elems()
		m.packed = kernel.NewMatMul(m.m, m.k, m.n, tensor.Of[T](b))
		return m, nil
	}
	if batch.Elems() > maxBatch {
		return nil, s.Unsupported("a batch of %d products", batch.Elems())
	}
	sa, sb := broadcastStrides(as[:len(as)-2], batch), broadcastStrides(bs[:len(bs)-2], batch)
	for i := range batch.Elems() {
		a, b, r := 0, 0, i
		for x := len(batch) - 1; x >= 0; x-- {
			a += r % batch[x] * sa[x]
			b += r % batch[x] * sb[x]
			r /= batch[x]
		}
		m.a, m.b = append(m.a, a*m.m*m.k), append(m.b, b*m.k*m.n)
	}
	return m, nil
}

// Scratch implements Scratcher.
func (m *matMul[T]) Scratch(workers int) int {
	if m.packed != nil {
		return tensor.DTypeOf[T]().Size(m.packed.Scratch(workers))
	}
	return tensor.DTypeOf[T]().Size(kernel.ScratchAB(workers, m.m, m.k, m.n))
}

// Bind implements Kernel.
func (m *matMul[T]) Bind(env *Env, out, in []*tensor.Tensor) func() error {
	y, a := tensor.Of[T](out[0]), tensor.Of[T](in[0])
	if m.packed != nil {
		run := m.packed.Bind(env.Pool, scratchOf[T](env), y, a, nil)
		return func() error { run(); return nil }
	}
	b := tensor.Of[T](in[1])
	runs := make([]func(), len(m.a))
	for i := range runs {
		runs[i] = kernel.MatMulAB(env.Pool, m.m, m.k, m.n, scratchOf[T](env), y[i*m.m*m.n:][:m.m*m.n], a[m.a[i]:][:m.m*m.k], b[m.b[i]:][:m.k*m.n])
	}
	return func() error {
		for _, f := range runs {
			f()
		}
		return nil
	}
}
