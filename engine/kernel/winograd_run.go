package kernel

// winoRun is a winograd bound to buffers.
type winoRun[T Float] struct {
	*winograd[T]
	p       *winoPlan
	spans   []winoSpan
	offsets []int // of points in a panel's weights, for one output channel
	scratch []T
	y       []T
	x       [][]T
	finish  Finish[T]
	calls   []winoCalls[T] // one for each worker
	n, b    int            // image and block, where workers share one
}

// winoCalls keeps the calls of two workers on separate cache lines.
type winoCalls[T Float] struct {
	in     winoInCall[T]
	mul    winoMulCall[T]
	out    winoOutCall[T]
	make   winoWeightsCall[T]
	place  winoPlace
	target winoTarget
	_      [64]byte
}

func (d *winograd[T]) bind(p *Pool, f Finish[T], scratch, y []T, x [][]T) func() {
	s, size := d.s, sizeOf[T]()
	r := &winoRun[T]{winograd: d, p: d.plan(p.Workers()), scratch: scratch, y: y, x: x, finish: f}
	for i, f := range d.sources {
		need("x", len(x[i]), s.N*f.elems(s))
	}
	need("y", len(y), s.N*s.M*s.OH*s.OW)
	need("scratch", len(scratch), d.scratch(p.Workers()))
	n := 0
	for i := range points {
		span := winoSpan{at: int64(i*r.p.v) * size, channel: int64(d.plain)}
		if at := d.upAt(i); at >= 0 {
			span.upAt, span.ups = int64(r.p.upAt+at*r.p.up)*size, int64(d.ups)
		}
		r.spans = append(r.spans, span)
		r.offsets = append(r.offsets, n)
		n += int(span.ups + span.channel)
	}
	if d.thin != nil {
		r.spans = d.thin.spans(r.p, size)
	}
	r.calls = make([]winoCalls[T], p.Workers())
	for i := range r.calls {
		c := &r.calls[i]
		c.in.place, c.out.place, c.mul.spans = &c.place, &c.target, &r.spans[0]
		c.in.temp = &r.memory(i)[r.p.temp]
		c.out.lo, c.out.hi, c.out.clamp = d.lo, d.hi, d.clamp
		c.out.row = int64(s.OW) * size
		c.out.plane = int64(s.OH*s.OW) * size
	}
	switch r.p.mode {
	case byPanels:
		return r.bindPanels(p)
	case byPoints:
		return r.bindPoints(p)
	case byWeights:
		return r.bindWeights(p)
	}
	return p.Loop(s.N*r.p.blocks, func(worker, i int) {
		n, b := i/r.p.blocks, i%r.p.blocks
		g0, g1 := r.span(b)
		mem := r.memory(worker)
		v, m := mem, mem[r.p.upAt+upValues*r.p.up:]
		for g := g0; g < g1; g++ {
			r.in(worker, v, n, g, g0, 0, r.s.C)
		}
		for _, pn := range r.panels {
			r.products(worker, v, m, pn, 0, points, g1-g0)
			r.out(worker, m, n, g0, g1, pn.first, pn.r)
		}
	}).Run
}

// someChannels is how many channels a task of the shared steps transforms.
const someChannels = 8

// bindIn is the first step of a block that workers share.
func (r *winoRun[T]) bindIn(p *Pool, v []T) *Loop {
	chunks := (r.s.C + someChannels - 1) / someChannels
	return p.Loop(r.p.vectors*chunks, func(worker, i int) {
		g0, g1 := r.span(r.b)
		if g, c := g0+i/chunks, i%chunks*someChannels; g < g1 {
			r.in(worker, v, r.n, g, g0, c, min(c+someChannels, r.s.C))
		}
	})
}

func (r *winoRun[T]) bindPanels(p *Pool) func() {
	v := r.scratch[:r.p.shared]
	return r.bindSteps(r.bindIn(p, v), p.Loop(len(r.panels), func(worker, i int) {
		g0, g1 := r.span(r.b)
		pn, m := r.panels[i], r.memory(worker)
		r.products(worker, v, m, pn, 0, points, g1-g0)
		r.out(worker, m, r.n, g0, g1, pn.first, pn.r)
	}))
}

func (r *winoRun[T]) bindPoints(p *Pool) func() {
	v, m := r.scratch, r.scratch[r.p.upAt+upValues*r.p.up:]
	mul := p.Loop(points, func(worker, i int) {
		g0, g1 := r.span(r.b)
		for _, pn := range r.panels {
			r.products(worker, v, m[pn.first*r.p.t:], pn, i, i+1, g1-g0)
		}
	})
	out := p.Loop((r.s.M+someChannels-1)/someChannels, func(worker, i int) {
		g0, g1 := r.span(r.b)
		first := i * someChannels
		r.out(worker, m[first*r.p.t:], r.n, g0, g1, first, min(someChannels, r.s.M-first))
	})
	return r.bindSteps(r.bindIn(p, v), mul, out)
}

// bindSteps runs loops for each block of each image.
func (r *winoRun[T]) bindSteps(steps ...*Loop) func() {
	return func() {
		for r.n = range r.s.N {
			for r.b = range r.p.blocks {
				for _, l := range steps {
					l.Run()
				}
			}
		}
	}
}

// span is the vectors of block b.
func (r *winoRun[T]) span(b int) (g0, g1 int) {
	all := r.vectorsOf()
	return b * all / r.p.blocks, (b + 1) * all / r.p.blocks
}

func (r *winoRun[T]) memory(worker int) []T {
	return r.scratch[r.p.shared+worker*r.p.worker:][:r.p.worker]
}

// in transforms channels [c0,c1) of vector g of image n, of the block that begins with g0.
func (r *winoRun[T]) in(worker int, v []T, n, g, g0, c0, c1 int) {
	size, call := sizeOf[T](), &r.calls[worker].in
	call.step = int64(r.p.t) * size
	have := -1 // which place is set: 0 plain, 1 upsampled
	var kernel func(*winoInCall[T])
	for i, f := range r.sources {
		lo, hi := max(c0-f.first, 0), min(c1-f.first, f.C)
		if lo >= hi {
			continue
		}
		h, w, kind, to, at := r.s.H, r.s.W, 0, r.p.v, 0
		if f.Up {
			h, w, kind, to, at = h/2, w/2, 1, r.p.up, r.p.upAt
		}
		if have != kind {
			kernel, have = r.place(&r.calls[worker].place, g, h, w, kind > 0), kind
		}
		call.src = &r.x[i][(n*f.C+lo)*h*w]
		call.dst = &v[at+(f.at+lo)*r.p.t+(g-g0)*r.k.lanes]
		call.channels, call.row, call.plane, call.to = int64(hi-lo), int64(w)*size, int64(h*w)*size, int64(to)*size
		kernel(call)
	}
}

// place finds the segments of vector g in a plane, and the kernel for them.
func (r *winoRun[T]) place(p *winoPlace, g, h, w int, up bool) func(*winoInCall[T]) {
	lanes, wide := r.k.lanes, r.segments()
	rows, stride, top, left := 6, 4, r.s.PadTop, r.s.PadLeft
	reach := lanes + 2
	if up {
		rows, stride, reach = 4, 2, lanes/2+2
	}
	size, masked := sizeOf[T](), 0
	var y0, x0 [4]int
	for s := range 4 {
		q := 4*g + s
		if q >= r.ty*wide { // there is none
			y0[s], x0[s], p.at[s], masked = h, 0, 0, 1
			continue
		}
		y0[s], x0[s] = stride*(q/wide)-top, stride*(lanes/4)*(q%wide)-left
		p.at[s] = int64(y0[s]*w+x0[s]) * size
		if y0[s] < 0 || y0[s]+rows > h || x0[s] < 0 || x0[s]+reach > w {
			masked = 1
		}
	}
	k := &r.k.wino
	switch {
	case up && masked == 0:
		return k.up[0]
	case !up && k.wide[r.points] != nil && y0[0] >= 0 && y0[0]+rows <= h && y0[0] == y0[3] && (masked == 0 || k.wideMasks):
		for s := range 5 {
			p.columns[s] = columnMask(x0[0]+1+s*lanes, lanes, w)
		}
		p.columns[4] &= 1
		p.columns[5] = columnMask(x0[0], 1, w) << 1
		return k.wide[r.points]
	case masked == 0:
		return k.in[r.points][0]
	}
	for s := range 4 {
		first, second := columnMask(x0[s], lanes, w), columnMask(x0[s]+4, lanes, w)
		for i := range rows {
			m := &p.masks[i][s]
			if y := y0[s] + i; y < 0 || y >= h {
				*m = [2]uint32{}
			} else {
				*m = [2]uint32{first, second}
			}
		}
	}
	if up {
		return k.up[1]
	}
	return k.in[r.points][1]
}

// columnMask has a bit for each of lanes columns from x on that lies in [0,w).
func columnMask(x, lanes, w int) uint32 {
	lo, hi := min(max(-x, 0), lanes), min(max(w-x, 0), lanes)
	if hi <= lo {
		return 0
	}
	return 1<<hi - 1<<lo
}

// products sums over channels for points [p0,p1), panel pn and so many vectors.
func (r *winoRun[T]) products(worker int, v, m []T, pn panel, p0, p1, vectors int) {
	size, c := sizeOf[T](), &r.calls[worker].mul
	c.spans, c.points = &r.spans[p0], int64(p1-p0)
	c.vstep, c.mstep = int64(r.p.t)*size, int64(r.p.t)*size
	c.to = int64(r.p.m) * size
	u := &r.u[pn.first*r.perChannel()+r.offsets[p0]*pn.r]
	row := r.k.wino.mul[pn.r]
	q := (vectors + len(row) - 2) / (len(row) - 1)
	for i := range q {
		g0, g1 := i*vectors/q, (i+1)*vectors/q
		c.u = u
		c.v = &v[g0*r.k.lanes]
		c.m = &m[p0*r.p.m+g0*r.k.lanes]
		row[g1-g0](c)
	}
}

// out transforms channels [first, first+count) of vectors [g0,g1) back, which begin at m.
func (r *winoRun[T]) out(worker int, m []T, n, g0, g1, first, count int) {
	size, c := sizeOf[T](), &r.calls[worker].out
	c.step, c.from, c.channels = int64(r.p.t)*size, int64(r.p.m)*size, int64(count)
	for g := g0; g < g1; g++ {
		masked := r.target(&r.calls[worker].target, g)
		c.src = &m[(g-g0)*r.k.lanes]
		c.dst = &r.y[(n*r.s.M+first)*r.s.OH*r.s.OW]
		c.bias = &r.bias[first]
		r.k.wino.out[r.points][masked](c)
	}
	if r.finish != nil {
		r.finishTiles(n, g0, g1, first, count)
	}
}

// target finds where the results of vector g go, and reports (as 1) whether there are too few for its lanes.
func (r *winoRun[T]) target(p *winoTarget, g int) (masked int) {
	lanes, wide, size := r.k.lanes, r.segments(), sizeOf[T]()
	for s := range 4 {
		q := 4*g + s
		y, x := 4*(q/wide), lanes*(q%wide)
		if q >= r.ty*wide {
			y, x = r.s.OH, 0
		}
		p.at[s] = int64(y*r.s.OW+x) * size
		cols := columnMask(x, lanes, r.s.OW)
		for i := range 4 {
			p.masks[i][s] = cols
			if y+i >= r.s.OH {
				p.masks[i][s] = 0
			}
		}
		if y+4 > r.s.OH || x+lanes > r.s.OW {
			masked = 1
		}
	}
	return masked
}
