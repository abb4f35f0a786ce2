package grad

import (
	"fmt"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// matrix reads a slice as rows x cols with any strides.
type matrix[T kernel.Float] struct {
	v          []T
	rows, cols int
	sr, sc     int
}

func dense[T kernel.Float](v []T, rows, cols int) matrix[T] { return matrix[T]{v, rows, cols, cols, 1} }

func (m matrix[T]) t() matrix[T] { return matrix[T]{m.v, m.cols, m.rows, m.sc, m.sr} }

// addProduct adds k·a·b to y. Products between prunable layers are rare and small, so it is a plain loop.
func addProduct[T kernel.Float](p *kernel.Pool, y, a, b matrix[T], k T) {
	each(p, y.rows, max(1, 1<<14/max(a.cols*y.cols, 1)), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			for l := range a.cols {
				f := k * a.v[i*a.sr+l*a.sc]
				yi, bi := i*y.sr, l*b.sr
				for range y.cols {
					y.v[yi] += f * b.v[bi]
					yi += y.sc
					bi += b.sc
				}
			}
		}
	})
}

// gemm is alpha A'B' + beta C: dA' = alpha dY B'ᵀ, dB' = alpha A'ᵀ dY, dC = beta dY summed over what C repeats.
func gemm[T kernel.Float](s *Site) (Step, error) {
	at := s.Attrs()
	alpha, beta := T(at.Float("alpha", 1)), T(at.Float("beta", 1))
	ta, tb := at.Int("transA", 0) != 0, at.Int("transB", 0) != 0
	out := s.Out[0].Shape
	if len(s.Shape(0)) != 2 || len(s.Shape(1)) != 2 || len(out) != 2 {
		return nil, fmt.Errorf("operands %v and %v are no matrices", s.Shape(0), s.Shape(1))
	}
	var loop *broadcast
	if s.Arg(2).Given() {
		var err error
		if loop, err = newBroadcast(out, s.Shape(2), s.Shape(2)); err != nil {
			return nil, err
		}
	}
	operand := func(t *tensor.Tensor, transposed bool) matrix[T] {
		m := dense(tensor.Of[T](t), t.Shape[0], t.Shape[1])
		if transposed {
			return m.t()
		}
		return m
	}
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		for i, n := range need {
			if n {
				din[i] = s.New(s.Shape(i))
				clear(tensor.Of[T](din[i]))
			}
		}
		d := operand(dout[0], false)
		if need[0] {
			addProduct(s.Pool, operand(din[0], ta), d, operand(in[1], tb).t(), alpha)
		}
		if need[1] {
			addProduct(s.Pool, operand(din[1], tb), operand(in[0], ta).t(), d, alpha)
		}
		if len(need) > 2 && need[2] {
			g := tensor.Of[T](din[2])
			loop.run(func(o, c, _, n, sc, _ int) {
				for i, v := range d.v[o : o+n] {
					g[c+i*sc] += beta * v
				}
			})
		}
		return din, nil
	}, nil
}

// matMul is numpy's: stacks of matrices broadcast, a vector is a row on the left and a column on the right.
func matMul[T kernel.Float](s *Site) (Step, error) {
	a, b := s.Shape(0).Clone(), s.Shape(1).Clone()
	if len(a) == 0 || len(b) == 0 {
		return nil, fmt.Errorf("operands %v and %v are no matrices", a, b)
	}
	if len(a) == 1 {
		a = tensor.Shape{1, a[0]}
	}
	if len(b) == 1 {
		b = tensor.Shape{b[0], 1}
	}
	m, k, n := a[len(a)-2], a[len(a)-1], b[len(b)-1]
	sa, sb := a[:len(a)-2], b[:len(b)-2]
	stack := make(tensor.Shape, max(len(sa), len(sb)))
	for i := range stack {
		stack[i] = 1
		for _, t := range []tensor.Shape{sa, sb} {
			if j := i - len(stack) + len(t); j >= 0 && t[j] != 1 {
				stack[i] = t[j]
			}
		}
	}
	loop, err := newBroadcast(stack, sa, sb)
	if err != nil {
		return nil, err
	}
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		for i, n := range need {
			if n {
				din[i] = s.New(s.Shape(i))
				clear(tensor.Of[T](din[i]))
			}
		}
		x, y, d := tensor.Of[T](in[0]), tensor.Of[T](in[1]), tensor.Of[T](dout[0])
		loop.run(func(o, ia, ib, rows, sa, sb int) {
			for i := range rows {
				pa, pb := (ia+i*sa)*m*k, (ib+i*sb)*k*n
				dy := dense(d[(o+i)*m*n:][:m*n], m, n)
				if need[0] {
					g := tensor.Of[T](din[0])[pa:][:m*k]
					addProduct(s.Pool, dense(g, m, k), dy, dense(y[pb:][:k*n], k, n).t(), 1)
				}
				if need[1] {
					g := tensor.Of[T](din[1])[pb:][:k*n]
					addProduct(s.Pool, dense(g, k, n), dense(x[pa:][:m*k], m, k).t(), dy, 1)
				}
			}
		})
		return din, nil
	}, nil
}
