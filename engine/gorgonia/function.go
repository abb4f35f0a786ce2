package gorgonia

import (
	"fmt"
	"hash"
	"hash/fnv"
	"math"
	"slices"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// function is an operator of our own for gorgonia. It computes in float64 and rounds its result.
type function struct {
	name  string // of its own: gorgonia takes operators that print alike for the same
	ranks []int  // of the inputs
	shape []int  // of the result
	dt    tensor.Dtype
	do    func(in [][]float64) []float64
	// diff gives the gradients at the inputs from that at the result; nil for functions that are gradients themselves.
	diff func(in G.Nodes, dy *G.Node) (G.Nodes, error)
}

var (
	_ G.Op   = &function{}
	_ G.SDOp = &function{}
)

// Arity implements gorgonia.Op.
func (f *function) Arity() int { return len(f.ranks) }

// Type implements gorgonia.Op.
func (f *function) Type() hm.Type {
	of := hm.TypeVariable('a')
	var ts []hm.Type
	for _, r := range append(slices.Clone(f.ranks), len(f.shape)) {
		ts = append(ts, G.TensorType{Dims: r, Of: of})
	}
	return hm.NewFnType(ts...)
}

// InferShape implements gorgonia.Op.
func (f *function) InferShape(...G.DimSizer) (tensor.Shape, error) { return f.shape, nil }

// ReturnsPtr implements gorgonia.Op.
func (*function) ReturnsPtr() bool { return false }

// CallsExtern implements gorgonia.Op.
func (*function) CallsExtern() bool { return false }

// OverwritesInput implements gorgonia.Op.
func (*function) OverwritesInput() int { return -1 }

// String implements gorgonia.Op.
func (f *function) String() string { return f.name }

// WriteHash implements gorgonia.Op.
func (f *function) WriteHash(h hash.Hash) { _, _ = fmt.Fprint(h, f.name) } // a hash never fails to write

// Hashcode implements gorgonia.Op.
func (f *function) Hashcode() uint32 {
	h := fnv.New32a()
	f.WriteHash(h)
	return h.Sum32()
}

// Do implements gorgonia.Op.
func (f *function) Do(in ...G.Value) (_ G.Value, err error) {
	defer guard("node "+f.name, &err)
	vs := make([][]float64, len(in))
	for i, v := range in {
		if vs[i], err = read(v); err != nil {
			return nil, fmt.Errorf("node %s: %w", f.name, err)
		}
	}
	return dense(f.dt, f.do(vs), f.shape...), nil
}

// read gives a value's elements in row-major order: gorgonia's transposed tensors keep them in another.
func read(v G.Value) ([]float64, error) {
	if d, ok := v.(*tensor.Dense); ok && d.RequiresIterator() {
		v = d.Materialize().(*tensor.Dense)
	}
	x, _, err := numbers(v.Data())
	return x, err
}

// DiffWRT implements gorgonia.SDOp.
func (f *function) DiffWRT(n int) []bool {
	if f.diff == nil {
		return nil
	}
	return slices.Repeat([]bool{true}, n)
}

// SymDiff implements gorgonia.SDOp.
func (f *function) SymDiff(in G.Nodes, _, dy *G.Node) (G.Nodes, error) { return f.diff(in, dy) }

// call makes f's value of its inputs, at once if they are all known. shape is the result's.
func (l *lowering) call(f *function, shape []int, in ...value) (value, error) {
	n := elements(shape)
	if n > maxElements {
		return value{}, fmt.Errorf("%v: %w", shape, errTooLarge)
	}
	if n == 0 {
		return value{shape: shape, array: []float64{}}, nil
	}
	if !slices.ContainsFunc(in, func(v value) bool { return !v.known() }) {
		vs := make([][]float64, len(in))
		for i, v := range in {
			vs[i] = v.array
		}
		return known(f.do(vs), shape...), nil
	}
	nodes := make(G.Nodes, len(in))
	for i, v := range in {
		nodes[i] = l.node(v)
		f.ranks = append(f.ranks, nodes[i].Dims())
	}
	f.name, f.dt, f.shape = l.unique(f.name), l.dt, atLeast1(shape)
	y, err := G.ApplyOp(f, nodes...)
	return value{shape: shape, node: y}, err
}

// gradient makes a node for a function that is part of a derivative, in the shape of like.
func (l *lowering) gradient(name string, like *G.Node, do func(in [][]float64) []float64, in ...*G.Node) (*G.Node, error) {
	f := &function{name: l.unique(name), shape: like.Shape(), dt: l.dt, do: do}
	for _, n := range in {
		f.ranks = append(f.ranks, n.Dims())
	}
	return G.ApplyOp(f, in...)
}

// The kinds of function: sum, product, largest, all, and what is made of them.

// terms calls add for each term of a sum: y[j] = Σ w·x[i].
type terms func(add func(i, j int, w float64))

// sum is a linear function of x. Its gradient is the same sum read the other way.
func (l *lowering) sum(name string, x value, shape []int, t terms) (value, error) {
	n, m := elements(x.shape), elements(shape)
	return l.call(&function{
		name: name,
		do: func(in [][]float64) []float64 {
			y := make([]float64, m)
			t(func(i, j int, w float64) { y[j] += w * in[0][i] })
			return y
		},
		diff: func(in G.Nodes, dy *G.Node) (G.Nodes, error) {
			dx, err := l.gradient(name, in[0], func(in [][]float64) []float64 {
				dx := make([]float64, n)
				t(func(i, j int, w float64) { dx[i] += w * in[0][j] })
				return dx
			}, dy)
			return G.Nodes{dx}, err
		},
	}, shape, x)
}

// products calls add for each term of a sum of products: y[j] = Σ a[i]·b[k].
type products func(add func(i, k, j int))

// product is linear in a and in b. If one of them is known it is a sum.
func (l *lowering) product(name string, a, b value, shape []int, p products) (value, error) {
	switch {
	case b.known():
		return l.sum(name, a, shape, func(add func(i, j int, w float64)) {
			p(func(i, k, j int) { add(i, j, b.array[k]) })
		})
	case a.known():
		return l.sum(name, b, shape, func(add func(i, j int, w float64)) {
			p(func(i, k, j int) { add(k, j, a.array[i]) })
		})
	}
	n, m, o := elements(a.shape), elements(b.shape), elements(shape)
	return l.call(&function{
		name: name,
		do: func(in [][]float64) []float64 {
			y := make([]float64, o)
			p(func(i, k, j int) { y[j] += in[0][i] * in[1][k] })
			return y
		},
		diff: func(in G.Nodes, dy *G.Node) (G.Nodes, error) {
			da, err := l.gradient(name, in[0], func(in [][]float64) []float64 {
				da := make([]float64, n)
				p(func(i, k, j int) { da[i] += in[0][k] * in[1][j] })
				return da
			}, in[1], dy)
			if err != nil {
				return nil, err
			}
			db, err := l.gradient(name, in[1], func(in [][]float64) []float64 {
				db := make([]float64, m)
				p(func(i, k, j int) { db[k] += in[0][i] * in[1][j] })
				return db
			}, in[0], dy)
			return G.Nodes{da, db}, err
		},
	}, shape, a, b)
}

// candidates calls try for each x[i] that y[j] is the largest of.
type candidates func(try func(i, j int))

// largest gives the gradient of each y to the first of the largest x.
func (l *lowering) largest(name string, x value, shape []int, c candidates) (value, error) {
	n, m := elements(x.shape), elements(shape)
	best := func(x []float64) []int {
		at := slices.Repeat([]int{-1}, m)
		c(func(i, j int) {
			if at[j] < 0 || x[i] > x[at[j]] {
				at[j] = i
			}
		})
		return at
	}
	return l.call(&function{
		name: name,
		do: func(in [][]float64) []float64 {
			y := make([]float64, m)
			for j, i := range best(in[0]) {
				y[j] = math.Inf(-1)
				if i >= 0 {
					y[j] = in[0][i]
				}
			}
			return y
		},
		diff: func(in G.Nodes, dy *G.Node) (G.Nodes, error) {
			dx, err := l.gradient(name, in[0], func(in [][]float64) []float64 {
				dx := make([]float64, n)
				for j, i := range best(in[0]) {
					if i >= 0 {
						dx[i] += in[1][j]
					}
				}
				return dx
			}, in[0], dy)
			return G.Nodes{dx}, err
		},
	}, shape, x)
}

// each applies y = f(x) to every element; slope is f's derivative.
func (l *lowering) each(name string, x value, f, slope func(x float64) float64) (value, error) {
	return l.all(name, x, func(x []float64) []float64 {
		y := make([]float64, len(x))
		for i, x := range x {
			y[i] = f(x)
		}
		return y
	}, func(x, dy []float64) []float64 {
		dx := make([]float64, len(x))
		for i, x := range x {
			dx[i] = dy[i] * slope(x)
		}
		return dx
	})
}

// all is a function of all elements together, in the shape of x, with its gradient.
func (l *lowering) all(name string, x value, f func(x []float64) []float64, back func(x, dy []float64) []float64) (value, error) {
	return l.call(&function{
		name: name,
		do:   func(in [][]float64) []float64 { return f(in[0]) },
		diff: func(in G.Nodes, dy *G.Node) (G.Nodes, error) {
			dx, err := l.gradient(name, in[0], func(in [][]float64) []float64 { return back(in[0], in[1]) }, in[0], dy)
			return G.Nodes{dx}, err
		},
	}, x.shape, x)
}

// affine is y = x·scale + shift with numbers for each index along an axis; scale or shift may be nil.
func (l *lowering) affine(name string, x value, axis int, scale, shift []float64) (value, error) {
	inner, n := elements(x.shape[axis+1:]), x.shape[axis]
	do := func(x, shift []float64) []float64 {
		y := slices.Clone(x)
		for i := range y {
			c := i / inner % n
			if scale != nil {
				y[i] *= scale[c]
			}
			if shift != nil {
				y[i] += shift[c]
			}
		}
		return y
	}
	for _, p := range [][]float64{scale, shift} {
		if p != nil && len(p) != n {
			return value{}, fmt.Errorf("%d numbers for %d channels", len(p), n)
		}
	}
	return l.all(name, x,
		func(x []float64) []float64 { return do(x, shift) },
		func(_, dy []float64) []float64 { return do(dy, nil) })
}
