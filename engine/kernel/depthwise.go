package kernel

import (
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// depthwise is a depthwise convolution, 3x3, 5x5 or 7x7 at stride 1 or 2. Nothing is copied: rows outside of the image are
// read from a row of zeros, and taps outside of its columns are masked.
type depthwise[T Float] struct {
	k       *micro[T]
	s       ConvShape
	w, bias []T
	zeros   []T
	lo, hi  T
	columns []depthColumn
	band    int // rows that stay in the first-level cache from column to column
}

// depthColumn is a column of vectors: which taps and results there are.
type depthColumn struct {
	masks [8]uint32
	out   uint32
	edge  int // 1 if a tap is missing
}

// depthwiseFits reports whether there is a kernel for the shape.
func depthwiseFits[T Float](level isa.Level, s ConvShape) bool {
	return microFor[T](level).depths != nil && s.Group == s.C && s.M == s.C && s.KH == s.KW &&
		(s.KH == 3 || s.KH == 5 || s.KH == 7) && s.StrideH == s.StrideW && s.StrideH <= 2 && s.DilH == 1 && s.DilW == 1 &&
		len(s.Sources) == 0 && s.N*s.OH*s.OW > 0 && s.H > 0 && s.W > 0
}

// zeroMargin is how many elements before and after the row of zeros are allocated with it. Masked lanes read nothing, but a
// processor takes hundreds of cycles to find that out if they lie in a page that was never touched.
const zeroMargin = 64

func newDepthwise[T Float](level isa.Level, s ConvShape, w, bias []T, c Clamp) *depthwise[T] {
	d := &depthwise[T]{k: microFor[T](level), s: s, w: append([]T(nil), w...), bias: make([]T, s.M), zeros: make([]T, zeroMargin+s.W+zeroMargin), lo: T(c.Lo), hi: T(c.Hi)}
	copy(d.bias, bias)
	lanes := d.k.lanes
	d.band = depthBand(s, lanes)
	for x := 0; x < s.OW; x += lanes {
		c := depthColumn{out: columnMask(0, lanes, s.OW-x)}
		full := columnMask(0, lanes, lanes)
		first := x*s.StrideW - s.PadLeft
		if s.StrideW == 1 {
			for kw := range s.KW {
				c.masks[kw] = columnMask(first+kw, lanes, s.W)
			}
		} else {
			for kw := 0; kw < s.KW; kw += 2 {
				c.masks[kw], c.masks[kw+1] = columnMask(first+kw, lanes, s.W), columnMask(first+kw+lanes, lanes, s.W)
			}
		}
		for _, m := range c.masks[:(s.KW+s.StrideW-1)/s.StrideW*s.StrideW] {
			if m != full {
				c.edge = 1
			}
		}
		d.columns = append(d.columns, c)
	}
	return d
}

// firstLevel is how many elements of input and output of a band should be in the first-level cache.
const firstLevel = 6 << 10

// depthBand is how many rows to compute before the next column. Kernels of 7x7 take blocks of rows together: rows left over
// take several times as long, so that a band is whole blocks, of every kernel that has so many lanes.
func depthBand(s ConvShape, lanes int) int {
	band := max(firstLevel/(s.StrideH*s.W+s.OW), 4)
	if s.KH < 7 {
		return band
	}
	block := 14
	if s.StrideH == 2 {
		block = 10
		if lanes == 16 {
			block = 8
		}
	}
	return max((band+block/2)/block, 1) * block
}

// depthRun is a depthwise convolution bound to buffers.
type depthRun[T Float] struct {
	*depthwise[T]
	y, x   []T
	finish Finish[T]
	states []depthState[T] // one for each worker
}

type depthState[T Float] struct {
	call   depthCall[T]
	rowsAt []int64
	_      [64]byte
}

func (d *depthwise[T]) bind(p *Pool, f Finish[T], y, x []T) func() {
	s := d.s
	need("x", len(x), s.N*s.C*s.H*s.W)
	need("y", len(y), s.N*s.M*s.OH*s.OW)
	r := &depthRun[T]{depthwise: d, y: y, x: x, finish: f, states: make([]depthState[T], p.Workers())}
	size := sizeOf[T]()
	for i := range r.states {
		st := &r.states[i]
		st.rowsAt = make([]int64, (s.OH-1)*s.StrideH+s.KH)
		for k := range st.rowsAt {
			st.rowsAt[k] = int64((k-s.PadTop)*s.W) * size // those outside are set for each plane
		}
		st.call = depthCall[T]{yrow: int64(s.OW) * size, lo: d.lo, hi: d.hi}
	}
	const worth = 1 << 17 // products of a task
	each := max(1, worth/(s.KH*s.KW*s.OH*s.OW))
	planes := s.N * s.C
	return p.Loop((planes+each-1)/each, func(worker, i int) {
		for n := i * each; n < min((i+1)*each, planes); n++ {
			r.plane(&r.states[worker], n)
		}
	}).Run
}

// plane computes plane n, of all images'.
func (r *depthRun[T]) plane(st *depthState[T], n int) {
	s, size := &r.s, sizeOf[T]()
	c := &st.call
	c.x = &r.x[n*s.H*s.W]
	ch := n % s.C
	c.w, c.bias = &r.w[ch*s.KH*s.KW], &r.bias[ch]
	zero := int64(uintptr(unsafe.Pointer(&r.zeros[zeroMargin])) - uintptr(unsafe.Pointer(c.x)))
	c.zero = zero
	for i := range min(s.PadTop, len(st.rowsAt)) {
		st.rowsAt[i] = zero
	}
	for i := min(s.PadTop+s.H, len(st.rowsAt)); i < len(st.rowsAt); i++ {
		st.rowsAt[i] = zero
	}
	kernels := r.k.depths
	for y := 0; y < s.OH; y += r.band {
		c.y = &r.y[(n*s.OH+y)*s.OW]
		c.rows, c.rowsAt = int64(min(r.band, s.OH-y)), &st.rowsAt[y*s.StrideH]
		for i := range r.columns {
			col := &r.columns[i]
			x := i * r.k.lanes
			c.column, c.ycolumn = int64(x*s.StrideW-s.PadLeft)*size, int64(x)*size
			c.masks, c.out = &col.masks, col.out
			kernels[col.edge][s.KH/2-1][s.StrideH-1](c)
		}
		r.finish.finished(s, r.y, n/s.C, ch, 1, y, r.band)
	}
}
