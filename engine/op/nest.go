package op

import (
	"fmt"

	"github.com/secateur/secateur/engine/tensor"
)

// maxLoops bounds how many loops remain once dimensions that lie behind one another are one. 16 is far beyond what any
// real tensor needs; the bound lets a run count in an array on its stack.
const maxLoops = 16

// maxArrays is how many arrays a nest walks at once: an output and three inputs.
const maxArrays = 4

// piece is the largest number of elements one call of a nest's row is given: enough to hide the call, little enough that
// a long row is shared among workers.
const piece = 1 << 14

// offsets are positions in the arrays of a nest, in elements.
type offsets [maxArrays]int

// nest is nested loops over several arrays at once, each read with its own strides. The innermost loop is left to a row
// function, which sees contiguous or constant operands and can be fast. Transpose, broadcasting, Slice, Concat, Split and
// Tile are all nests that differ in strides alone.
type nest struct {
	dims    []int     // outermost first; the last is the row
	strides []offsets // one for each of dims
	base    offsets   // where the arrays begin
}

// newNest walks dims with the strides of each array. Dimensions of 1 are dropped, and neighbours through which every
// array runs evenly become one.
func newNest(dims []int, base offsets, arrays ...[]int) (*nest, error) {
	n := &nest{base: base}
	for i, d := range dims {
		if d == 0 {
			return &nest{dims: []int{0}, strides: make([]offsets, 1)}, nil
		}
		if d == 1 {
			continue
		}
		var st offsets
		for a := range arrays {
			st[a] = arrays[a][i]
		}
		if k := len(n.dims) - 1; k >= 0 {
			even := true
			for a := range arrays {
				even = even && n.strides[k][a] == st[a]*d
			}
			if even {
				n.dims[k] *= d
				n.strides[k] = st
				continue
			}
		}
		n.dims = append(n.dims, d)
		n.strides = append(n.strides, st)
	}
	if len(n.dims) == 0 {
		n.dims, n.strides = []int{1}, make([]offsets, 1)
	}
	if len(n.dims) > maxLoops {
		return nil, fmt.Errorf("%d loops are needed over dimensions %v, at most %d are supported", len(n.dims), dims, maxLoops)
	}
	return n, nil
}

// inner is the length and the strides of a row.
func (n *nest) inner() (int, offsets) { return n.dims[len(n.dims)-1], n.strides[len(n.dims)-1] }

// outer is the number of rows.
func (n *nest) outer() int {
	rows := 1
	for _, d := range n.dims[:len(n.dims)-1] {
		rows *= d
	}
	return rows
}

// bind returns what calls row for every row, or piece of one, on the workers of env. row is given where it starts in
// each array and how many elements it covers.
func (n *nest) bind(env *Env, row func(o offsets, length int)) func() {
	length, step := n.inner()
	if length == 0 {
		return func() {}
	}
	pieces := (length + piece - 1) / piece
	return share(env, n.outer()*pieces, min(length, piece), func(lo, hi int) {
		var at [maxLoops]int
		o := n.seek(lo/pieces, &at)
		for p := lo % pieces; lo < hi; lo++ {
			q := o
			for a := range q {
				q[a] += p * piece * step[a]
			}
			row(q, min(piece, length-p*piece))
			if p++; p == pieces {
				p = 0
				n.next(&o, &at)
			}
		}
	})
}

// seek gives the offsets of a row, and its index in each outer loop.
func (n *nest) seek(row int, at *[maxLoops]int) offsets {
	o := n.base
	for k := len(n.dims) - 2; k >= 0; k-- {
		at[k] = row % n.dims[k]
		row /= n.dims[k]
		for a := range o {
			o[a] += at[k] * n.strides[k][a]
		}
	}
	return o
}

// next moves on by one row.
func (n *nest) next(o *offsets, at *[maxLoops]int) {
	for k := len(n.dims) - 2; k >= 0; k-- {
		for a := range o {
			o[a] += n.strides[k][a]
		}
		if at[k]++; at[k] < n.dims[k] {
			return
		}
		for a := range o {
			o[a] -= at[k] * n.strides[k][a]
		}
		at[k] = 0
	}
}

// share returns what calls f on pieces of [0,n), on the workers of env if the work is worth waking them: cost is the
// number of elements that one of n touches.
func share(env *Env, n, cost int, f func(lo, hi int)) func() {
	const worth = 1 << 15
	if env.Pool.Workers() == 1 || n < 2 || n*cost < worth {
		return func() { f(0, n) }
	}
	k := min(n, 4*env.Pool.Workers())
	return env.Pool.Loop(k, func(_, i int) { f(n*i/k, n*(i+1)/k) }).Run
}

// word is an element by its size alone.
type word interface {
	uint8 | uint16 | uint32 | uint64
}

// move returns what copies src (array 1 of the nest) to dst (array 0), whose elements have size bytes.
func (n *nest) move(env *Env, size int, dst, src *tensor.Tensor) func() {
	switch size {
	case 1:
		return moveWords[uint8](env, n, dst, src)
	case 2:
		return moveWords[uint16](env, n, dst, src)
	case 4:
		return moveWords[uint32](env, n, dst, src)
	}
	return moveWords[uint64](env, n, dst, src)
}

func moveWords[T word](env *Env, n *nest, dst, src *tensor.Tensor) func() {
	y, x := tensor.View[T](dst), tensor.View[T](src)
	if k := len(n.dims); k > 1 && n.strides[k-1][0] == 1 && n.strides[k-1][1] != 1 && n.strides[k-2][1] == 1 {
		return transposeWords(env, n, y, x)
	}
	_, step := n.inner()
	switch {
	case step[0] == 1 && step[1] == 1:
		return n.bind(env, func(o offsets, length int) { copy(y[o[0]:o[0]+length], x[o[1]:]) })
	case step[0] == 1 && step[1] == 0:
		return n.bind(env, func(o offsets, length int) {
			v := x[o[1]]
			row := y[o[0] : o[0]+length]
			for i := range row {
				row[i] = v
			}
		})
	}
	return n.bind(env, func(o offsets, length int) {
		for range length {
			y[o[0]] = x[o[1]]
			o[0] += step[0]
			o[1] += step[1]
		}
	})
}

// transposeWords copies where dst runs along the last loop and src along the one before it. It goes tile by tile, so that
// a line of cache that one row brings in serves the next rows as well.
func transposeWords[T word](env *Env, n *nest, y, x []T) func() {
	const tile = 16
	k := len(n.dims)
	rows, cols := n.dims[k-2], n.dims[k-1]
	dy, dx := n.strides[k-2][0], n.strides[k-1][1]
	bands := (rows + tile - 1) / tile
	outer := &nest{dims: n.dims[:k-1], strides: n.strides[:k-1], base: n.base} // its last loop is the rows, walked here
	return share(env, outer.outer()*bands, tile*cols, func(lo, hi int) {
		var at [maxLoops]int
		for ; lo < hi; lo++ {
			o := outer.seek(lo/bands, &at)
			r0 := lo % bands * tile
			r1 := min(r0+tile, rows)
			for c0 := 0; c0 < cols; c0 += tile {
				c1 := min(c0+tile, cols)
				for r := r0; r < r1; r++ {
					out := y[o[0]+r*dy+c0 : o[0]+r*dy+c1]
					p := o[1] + r + c0*dx
					for c := range out {
						out[c] = x[p]
						p += dx
					}
				}
			}
		}
	})
}
