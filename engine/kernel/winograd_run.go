package kernel

import "unsafe"

// winoRun is a winograd bound to buffers.
type winoRun[T Float] struct {
	*winograd[T]
	p             *winoPlan
	off           []int64
	scratch, y, x []T
	calls         []winoCalls[T] // one for each worker
	n             int            // image, where phased
}

// winoCalls keeps the calls of two workers on separate cache lines.
type winoCalls[T Float] struct {
	mul   call[T]
	wino  winoCall[T]
	unzip unzip4Call[T]
	_     [64]byte
}

// winoBlock is a block of tiles and its memory.
type winoBlock[T Float] struct {
	n, ty, tx, rows, cols int
	v, m, grids, temp     []T

	end   int     // the first column of x behind the block's whole tiles
	zeros [16]int // where a row of grids has padding: behind its first element
	pads  int
}

func (d *winograd[T]) bind(p *Pool, scratch, y, x []T) func() {
	s := d.s
	r := &winoRun[T]{winograd: d, p: d.plan(p.Workers()), scratch: scratch, y: y, x: x}
	need("x", len(x), s.N*s.C*s.H*s.W)
	need("y", len(y), s.N*s.M*s.OH*s.OW)
	need("scratch", len(scratch), d.scratch(p.Workers()))
	var z T
	for c := range s.C {
		r.off = append(r.off, int64(c*r.p.t)*int64(unsafe.Sizeof(z)))
	}
	r.calls = make([]winoCalls[T], p.Workers())
	for i := range r.calls {
		c := &r.calls[i]
		c.mul.lo, c.mul.hi = T(NoClamp.Lo), T(NoClamp.Hi)
		c.wino.lo, c.wino.hi = d.lo, d.hi
	}
	if !r.p.phased {
		count := r.p.countY * r.p.countX
		return p.Loop(s.N*count, func(worker, i int) {
			b := r.block(worker, i/count, i%count)
			for c := range s.C {
				r.in(worker, &b, c)
			}
			r.products(worker, &b, 0, points)
			for m := range s.M {
				r.out(worker, &b, m)
			}
		}).Run
	}
	in := p.Loop(s.C, func(worker, c int) {
		b := r.block(worker, r.n, 0)
		r.in(worker, &b, c)
	})
	mul := p.Loop(points, func(worker, i int) {
		b := r.block(worker, r.n, 0)
		r.products(worker, &b, i, i+1)
	})
	out := p.Loop(s.M, func(worker, m int) {
		b := r.block(worker, r.n, 0)
		r.out(worker, &b, m)
	})
	return func() {
		for n := range s.N {
			r.n = n
			in.Run()
			mul.Run()
			out.Run()
		}
	}
}

// block is block i of image n.
func (r *winoRun[T]) block(worker, n, i int) winoBlock[T] {
	p := r.p
	b := winoBlock[T]{n: n, ty: i / p.countX * p.rows, tx: i % p.countX * p.cols}
	b.rows, b.cols = min(p.rows, r.ty-b.ty), min(p.cols, r.tx-b.tx)
	mem := r.scratch[p.shared+worker*p.worker:][:p.worker]
	vm := mem
	if p.phased {
		vm = r.scratch[:p.shared]
	} else {
		mem = mem[points*(p.v+p.m):]
	}
	b.v, b.m = vm[:points*p.v], vm[points*p.v:][:points*p.m]
	b.grids, b.temp = mem[:lead+24*p.grid], mem[lead+24*p.grid:]

	col := 4*b.tx - r.s.PadLeft // of the block's first column in x
	b.end = col + 4*b.cols
	pad := func(at int) {
		b.zeros[b.pads] = at
		b.pads++
	}
	for i := range -col {
		pad(i * 4 * p.grid)
	}
	for i := max(r.s.W-col, 0); i < 4*b.cols; i++ {
		pad(i%4*4*p.grid + i/4)
		if i%4 < 2 && i >= 4 {
			pad((4+i%4)*4*p.grid + i/4 - 1)
		}
	}
	return b
}

// in transforms channel c.
func (r *winoRun[T]) in(worker int, b *winoBlock[T], c int) {
	var z T
	size := int64(unsafe.Sizeof(z))
	r.fill(&r.calls[worker].unzip, b, c)
	w := &r.calls[worker].wino
	w.src, w.dst = &b.grids[lead], &b.v[c*r.p.t]
	w.vecs = int64((b.rows*b.cols + r.k.lanes - 1) / r.k.lanes)
	w.from, w.next, w.to = int64(r.p.grid)*size, int64(b.cols)*size, int64(r.p.v)*size
	r.k.wino.in(w)
}

// products sums over channels for points [p0,p1).
func (r *winoRun[T]) products(worker int, b *winoBlock[T], p0, p1 int) {
	var z T
	c := &r.calls[worker].mul
	c.off, c.steps = &r.off[0], int64(r.s.C)
	c.cstride = int64(r.p.t) * int64(unsafe.Sizeof(z))
	c.rows, c.arow, c.crow = 1, 0, 0
	for p := p0; p < p1; p++ {
		for _, pn := range r.panels {
			c.a, c.w, c.c = &b.v[p*r.p.v], &r.u[(p*r.s.M+pn.first)*r.s.C], &b.m[p*r.p.m+pn.first*r.p.t]
			c.bias = &r.zero[0]
			if p == 7 { // whose column of Aᵀ is all ones: what is added here is added to every result
				c.bias = &r.bias[pn.first]
			}
			r.k.rows(c, pn.r, b.rows*b.cols)
		}
	}
}

// out transforms output channel m back, straight to y where rows of tiles are whole vectors of whole tiles.
func (r *winoRun[T]) out(worker int, b *winoBlock[T], m int) {
	var z T
	size := int64(unsafe.Sizeof(z))
	s := &r.s
	w := &r.calls[worker].wino
	y := r.y[(b.n*s.M+m)*s.OH*s.OW:][:s.OH*s.OW]
	w.from = int64(r.p.m) * size
	whole := 0 // rows of tiles
	if b.cols%r.k.lanes == 0 && 4*(b.tx+b.cols) <= s.OW {
		whole = min(b.rows, s.OH/4-b.ty)
		w.ahead = int64(s.OH*s.OW) * size
		w.to, w.vecs = int64(s.OW)*size, int64(b.cols/r.k.lanes)
		for k := range whole {
			w.src, w.dst = &b.m[m*r.p.t+k*b.cols], &y[4*(b.ty+k)*s.OW+4*b.tx]
			r.k.wino.out(w)
		}
		if whole == b.rows {
			return
		}
	}
	w.src, w.dst, w.ahead = &b.m[m*r.p.t+whole*b.cols], &b.temp[0], 0
	w.to, w.vecs = int64(r.p.tempRow)*size, int64(((b.rows-whole)*b.cols+r.k.lanes-1)/r.k.lanes)
	r.k.wino.out(w)
	wide := min(4*b.cols, s.OW-4*b.tx)
	for k := whole; k < b.rows; k++ {
		for i := range min(4, s.OH-4*(b.ty+k)) {
			copy(y[(4*(b.ty+k)+i)*s.OW+4*b.tx:][:wide], b.temp[i*r.p.tempRow+4*(k-whole)*b.cols:])
		}
	}
}

// fill splits what the block reads of channel c into grids.
func (r *winoRun[T]) fill(u *unzip4Call[T], b *winoBlock[T], c int) {
	var z T
	size := int64(unsafe.Sizeof(z))
	s, wide, grid := &r.s, b.cols, r.p.grid
	plane := (b.n*s.C + c) * s.H * s.W
	units := (wide + r.k.lanes - 1) / r.k.lanes
	split := r.k.wino.unzip4
	if r.k.wino.narrow != nil && (wide-1)%16 < 8 {
		split, units = r.k.wino.narrow, (wide+7)/8
	}
	u.units, u.grid, u.ahead = int64(units), int64(4*grid)*size, int64(s.H*s.W)*size
	u.step, u.from = int64(wide)*size, int64(4*s.W)*size
	// Row y of the block is row y/4 of the grids of y mod 4. Those of [y0,y1) are rows of x.
	lines, top := 4*b.rows+2, 4*b.ty-s.PadTop
	y0 := min(max(-top, 0), lines)
	y1 := max(min(s.H-top, lines), y0)
	at := plane + top*s.W + 4*b.tx - s.PadLeft // of row 0
	for rb := range 4 {
		if first := y0 + (rb-y0)&3; first < y1 {
			r.splitRows(u, split, b, first, y1, at)
		}
	}
	for y := y0; y < y1; y++ {
		r.mend(b, y, plane+(top+y)*s.W)
	}
	// Last, since a row may spill before and behind it.
	for y := range lines {
		if y < y0 || y >= y1 {
			for j := range 6 {
				clear(b.grids[lead+(4*j+y%4)*grid+y/4*wide:][:wide])
			}
		}
	}
}

// splitRows splits rows y, y+4, y+8.. below y1. Row 0 begins at x[at].
func (r *winoRun[T]) splitRows(u *unzip4Call[T], split func(*unzip4Call[T]), b *winoBlock[T], y, y1, at int) {
	w, wide, grid := r.s.W, b.cols, r.p.grid
	g := b.grids[lead+y%4*grid:]
	for ; y < y1 && (at+y*w < 0 || at+y*w >= len(r.x)); y += 4 { // not to be read in vectors
		col := 4*b.tx - r.s.PadLeft
		row := r.x[at+y*w-col:][:w]
		for p := range 4 * wide {
			v, k := T(0), y/4*wide+p/4
			if i := col + p; i >= 0 && i < w {
				v = row[i]
			}
			g[p%4*4*grid+k] = v
			if p%4 < 2 && k > 0 {
				g[(4+p%4)*4*grid+k-1] = v
			}
		}
	}
	if y < y1 {
		u.dst, u.src, u.rows = &g[y/4*wide], &r.x[at+y*w], int64((y1-y+3)/4)
		split(u)
	}
}

// mend sets what splitting row y left wrong: padding, and the last elements of grids 4 and 5. It begins at x[at].
func (r *winoRun[T]) mend(b *winoBlock[T], y, at int) {
	grid := 4 * r.p.grid
	d := b.grids[lead+y%4*r.p.grid+y/4*b.cols:]
	var v4, v5 T
	row := r.x[at:][:r.s.W]
	if b.end < len(row) {
		v4 = row[b.end]
	}
	if b.end+1 < len(row) {
		v5 = row[b.end+1]
	}
	d[4*grid+b.cols-1], d[5*grid+b.cols-1] = v4, v5
	for _, z := range b.zeros[:b.pads] {
		d[z] = 0
	}
}
