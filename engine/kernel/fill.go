package kernel

import "unsafe"

// padCall is the operands of padRows and unzipRows. Each of rows rows of src goes to even from evenAt on (unzipRows:
// pixels 0, 2, 4.. there and 1, 3, 5.. to odd from oddAt on), with zeros before it and in the eight elements that begin
// at evenEnd, but for those that are pixels. Assembly knows the offsets of the fields. All distances are in bytes.
//
// Up to 16 elements past the end of the last row are overwritten.
type padCall[T Float] struct {
	even, odd       *T
	src             *T
	rows            int64
	step, from      int64 // from row to row, of even and odd, and of src
	blocks          int64 // whole vectors of a row (unzipRows: pairs of them) before its last
	tail, tail2     int64 // lanes of the last vector, and of the other of its pair
	evenAt, oddAt   int64
	evenEnd, oddEnd int64
}

// gather fills the planes of one group, whose channels begin with first, from the tensors that they come from. wide is
// room for what an upsampled one is expanded to.
func (r *run[T]) gather(p *padCall[T], dst, wide []T, n, first, q0, q1 int) {
	s := &r.s
	if len(s.Sources) == 0 {
		for ch := range r.cg {
			r.fill(p, dst[ch*r.b.plane:], r.x[0][(n*s.C+first+ch)*s.H*s.W:][:s.H*s.W], 0, q0, q1)
		}
		return
	}
	at := -first // of the source's first channel in dst
	for i, f := range s.Sources {
		for ch := max(-at, 0); ch < min(f.C, r.cg-at); ch++ {
			plane := f.elems(*s) / f.C
			x, base := r.x[i][(n*f.C+ch)*plane:][:plane], 0
			if f.Up {
				base = max(q0*r.inH-r.top, 0)
				x = r.expand(wide, x, base, min((q1-1)*r.inH+r.maxRow+1-r.top, s.H))
			}
			r.fill(p, dst[(at+ch)*r.b.plane:], x, base, q0, q1)
		}
		at += f.C
	}
}

// expand gives rows [y0,y1) of x upsampled by two.
func (r *run[T]) expand(wide, x []T, y0, y1 int) []T {
	w := r.s.W
	for y := y0; y < y1; y++ {
		dst := wide[(y-y0)*w:][:w]
		if y > y0 && y%2 == 1 {
			copy(dst, wide[(y-1-y0)*w:])
			continue
		}
		src := x[y/2*(w/2):][:w/2]
		for i := r.k.zip2(dst, src, src); i < len(src); i++ {
			dst[2*i], dst[2*i+1] = src[i], src[i]
		}
	}
	return wide[:max(y1-y0, 0)*w]
}

// fill copies what outputs of rows [q0,q1) read of one input plane, whose row base x begins with: padded, and split into
// grids.
func (r *run[T]) fill(p *padCall[T], dst, x []T, base, q0, q1 int) {
	b := r.b
	for i := range b.apart {
		r.fillLines(p, dst[i*b.rows*r.width:], x, base, q0+i*r.s.DilH-r.top, q1-q0)
	}
	if b.apart > 0 {
		return
	}
	lines := (q1-q0-1)*r.inH + r.maxRow + 1
	// Rows rb, rb+inH, rb+2·inH.. of the padded input are rows 0, 1, 2.. of the grids of rb.
	for rb := range min(r.inH, lines) {
		r.fillLines(p, dst[rb*r.inW*b.grid:], x, base, q0*r.inH+rb-r.top, (lines-rb+r.inH-1)/r.inH)
	}
}

// fillLines fills n rows of the grids that g begins with, from input rows ih, ih+inH, ih+2·inH.., which may be padding.
func (r *run[T]) fillLines(p *padCall[T], g, x []T, base, ih, n int) {
	s, b := &r.s, r.b
	k0 := 0
	if ih < 0 {
		k0 = min((-ih+r.inH-1)/r.inH, n)
	}
	k1 := k0
	if first := ih + k0*r.inH; first < s.H {
		k1 = min(n, k0+(s.H-first+r.inH-1)/r.inH)
	}
	if s.W == 0 { // padding is all there is
		k0, k1 = n, n
	}
	for cb := range r.inW {
		clear(g[cb*b.grid:][:k0*r.width])
	}
	if k1 > k0 {
		r.fillRows(p, g[k0*r.width:], x[(ih+k0*r.inH-base)*s.W:], k1-k0)
	}
	// Last, since filling a row may spill behind it.
	for cb := range r.inW {
		clear(g[cb*b.grid:][k1*r.width : n*r.width])
	}
}

// fillRows fills rows rows of the grids of one rb, which begin at g, from src on.
func (r *run[T]) fillRows(p *padCall[T], g, src []T, rows int) {
	var z T
	size := int64(unsafe.Sizeof(z))
	w := r.s.W
	if r.inH*r.inW == 1 && r.left == 0 && r.width == w {
		copy(g[:rows*w], src)
		return
	}
	need := r.cols + r.maxCol/r.inW // what is read of a row of a grid; the rest of width only aligns it
	p.src = &src[0]
	p.rows, p.step, p.from = int64(rows), int64(r.width)*size, int64(r.inH*w)*size
	switch {
	case r.inW == 1 && r.k.padRows != nil && need >= 8 && r.left <= 8 && need-r.left-w <= 8 && r.left < need:
		w = min(w, need-r.left)
		p.even = &g[0]
		p.blocks, p.tail = int64(w-1)/8, int64(w-1)%8+1
		p.evenAt, p.evenEnd = int64(r.left)*size, int64(need-8)*size
		r.k.padRows(p)
		return
	case r.inW == 2 && r.k.unzipRows != nil && need >= 8 && r.left <= 16:
		even, odd := g[r.left%2*r.b.grid:], g[(1-r.left%2)*r.b.grid:] // grids that row's even and odd pixels go to
		je, jo := r.left/2, (r.left+1)/2
		w = min(w, 2*(need-max(je, jo))) // so that no pixel spills farther than a vector
		if w < r.s.W && w < 2*need-r.left || need-je-w/2 > 8 || need-jo-w/2 > 8 || w <= 0 {
			break
		}
		p.even, p.odd = &even[0], &odd[0]
		t := (w-1)%16 + 1
		p.blocks, p.tail, p.tail2 = int64(w-1)/16, int64(min(t, 8)), int64(max(t-8, 0))
		p.evenAt, p.oddAt = int64(je)*size, int64(jo)*size
		p.evenEnd, p.oddEnd = int64(need-8)*size, int64(need-8)*size
		r.k.unzipRows(p)
		return
	}
	for i := range rows {
		r.fillRow(g[i*r.width:], src[i*r.inH*r.s.W:][:r.s.W])
	}
}

// fillRow splits one row: grid cb has padded pixels cb, cb+inW, cb+2·inW and so on.
func (r *run[T]) fillRow(d, row []T) {
	for cb := range r.inW {
		g := d[cb*r.b.grid:][:r.width]
		// Element j is padded pixel j·inW + cb, which is row[j·inW + cb - left].
		j0 := 0
		if r.left > cb {
			j0 = min((r.left-cb+r.inW-1)/r.inW, len(g))
		}
		i := j0*r.inW + cb - r.left
		j1 := j0 + min(len(g)-j0, max(0, (len(row)-i+r.inW-1)/r.inW))
		clear(g[:j0])
		clear(g[j1:])
		if r.inW == 1 {
			copy(g[j0:j1], row[i:])
			continue
		}
		for j := j0; j < j1; j++ {
			g[j] = row[i]
			i += r.inW
		}
	}
}
