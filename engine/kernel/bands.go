package kernel

import (
	"slices"
	"unsafe"
)

// bands is how a layer's work is cut into tasks, and where a worker keeps what. A task computes a band of output rows
// for some panels of some groups: it copies what the band reads, padded, into memory that stays in the second-level
// cache, and goes over it once for each panel. Copying again what two tasks need is cheaper than a barrier, and than
// reading it out of another core's cache.
type bands struct {
	rows, count    int // output rows (q) of the largest band, bands
	unit           int // a band has a multiple of so many rows, but for the last
	groups, gTasks int // groups of a task, tasks over groups
	pTasks         int // tasks over panels
	grid, plane    int // elements of one grid and of one channel's plane in the padded copy
	lines          int // rows of a grid
	apart          int // rows of taps, if each has its own copy of the rows it reads; 0: they share what lies between
	temp           int // elements of one panel's results in the temporary, 0 where they go straight to y
	tempRow        int
	tempChannel    int
	input          int // elements of the padded copy
	wide           int // elements of what an upsampled source is expanded to, one channel at a time
	worker         int // elements a worker has
}

// tuning is what cut goes by. Tests make it small, so that small layers are cut into many tasks.
type tuning struct {
	cache int // how much of a band's input stays in a core's second-level cache, in elements of four bytes
	worth int // products that a task should have: some microseconds, or handing it out costs more than it brings
}

var normal = tuning{cache: 80 << 10, worth: 1 << 18}

// firstElems is how many results should lie between the micro-kernel and what moves them on.
const firstElems = 6 << 10

func (l *layer[T]) bands(workers int) *bands {
	b := &bands{unit: 1}
	if l.s.N*l.rows*l.cols > 0 {
		l.cut(b, workers)
		l.place(b)
	}
	return b
}

// cut chooses tasks: first groups and bands as the cache wants them, then more bands and at last panels, until there
// are some for every worker.
func (l *layer[T]) cut(b *bands, workers int) {
	s := l.s
	pixels := l.flat && l.width == 1 // rows are pixels: a band has whole vectors, and no halo
	if pixels {
		b.unit = l.k.lanes
	}
	want := 1
	if workers > 1 {
		want = 4 * workers
	}
	macs := 0 // of one row of one group
	for _, p := range l.phases {
		macs += l.mg * l.cg * max(len(p.taps)+len(p.odd), 1) * p.cols
	}

	var z T
	perRow := l.cg * l.inH * l.inW * l.width * int(unsafe.Sizeof(z)) / 4
	rows := max(l.tuning.cache/perRow-l.maxRow/l.inH, 1)
	if l.inH == 1 && l.outH*l.outW == 1 && !l.direct && !s.anyUp() && l.evenly() {
		// Taps far apart need few of the rows between them.
		if taps := l.maxRow/s.DilH + 1; rows+l.maxRow > taps*rows {
			b.apart, rows = taps, max(l.tuning.cache/perRow/taps, 1)
		}
	}
	if tiles := 12 * l.k.lanes; pixels {
		rows = max(rows/tiles, 1) * tiles
	}
	if l.outW > 1 && l.direct && !l.paired { // what is to be interleaved should stay in the first-level cache
		rows = min(rows, max(firstElems/(l.panels[0].r*l.outW*l.width), 1))
	}
	rows = min(rows, l.rows)
	b.groups = min(max(l.tuning.worth/(macs*rows), 1), max(s.Group*s.N/want, 1), s.Group)
	b.gTasks = (s.Group + b.groups - 1) / b.groups
	b.count = (l.rows + rows - 1) / rows
	b.pTasks = 1

	panels := func(want int) {
		if have := s.N * b.gTasks * b.count; have < want {
			b.pTasks = min(len(l.panels), (want+have-1)/have, max(1, macs*l.rows/b.count/l.tuning.worth))
		}
	}
	if l.direct && l.mg > s.H*s.W { // more weights than input: let tasks share neither
		panels(want)
	}
	if have := s.N * b.gTasks * b.count * b.pTasks; have < want && b.pTasks == 1 {
		least := max(l.tuning.worth/macs, 4)
		switch {
		case pixels:
			least = max(l.tuning.worth/macs, 3*l.k.lanes)
		case l.flat: // of a short band, much is the lanes that its last vector lacks
			least = max(least, 8*l.k.lanes/l.width)
		}
		b.count = max(b.count, min((want+s.N*b.gTasks-1)/(s.N*b.gTasks), l.rows/least))
		if l.direct {
			panels(want)
		} else {
			panels((want + 1) / 2) // each copies the input anew: no more than it takes
		}
	}
	units := (l.rows + b.unit - 1) / b.unit
	b.count = min(b.count, units)
	b.rows = min((units+b.count-1)/b.count*b.unit, l.rows)
}

// evenly reports whether the rows of taps are multiples of the dilation. Those of a transposed convolution may begin
// elsewhere, by its padding.
func (l *layer[T]) evenly() bool {
	return !slices.ContainsFunc(l.phases[0].taps, func(t tap) bool { return t.row%l.s.DilH != 0 })
}

// place lays out a worker's memory.
func (l *layer[T]) place(b *bands) {
	if b.lines = b.rows + l.maxRow/l.inH; b.apart > 0 {
		b.lines = b.rows * b.apart
	}
	b.grid = b.lines * l.width
	if l.inH*l.inW > 1 {
		b.grid = (b.grid+15)/16*16 + 16 // filling a grid may spill behind it
	}
	if l.direct {
		b.plane = l.s.H * l.s.W
	} else {
		b.plane = (l.inH*l.inW*b.grid+15)/16*16 + 16
		if b.plane%1024 < 64 { // planes whole pages apart would compete for the same cache lines
			b.plane += 80
		}
		b.input = l.cg * b.plane
	}
	tall := 0
	for _, p := range l.panels {
		tall = max(tall, p.r)
	}
	if l.outW > 1 && !l.paired || l.flat && (l.width != l.cols || l.outH > 1) {
		b.tempRow = l.cols
		if l.flat {
			b.tempRow = l.width
		}
		b.tempChannel = (b.rows*b.tempRow+15)/16*16 + 16
		b.temp = tall * b.tempChannel
	}
	if b.input+b.temp > 0 {
		if l.s.anyUp() {
			b.wide = ((b.rows-1)*l.inH+l.maxRow+1)*l.s.W + 16
		}
		b.worker = (b.input+l.outW*b.temp+b.wide+15)/16*16 + 256
	}
}

// span is the rows of a band, of rows in all.
func (b *bands) span(band, rows int) (q0, q1 int) {
	units := (rows + b.unit - 1) / b.unit
	return band * units / b.count * b.unit, min((band+1)*units/b.count*b.unit, rows)
}

// scratch is how many elements workers need.
func (l *layer[T]) scratch(workers int) int {
	return l.bands(workers).worker * workers
}

// run is a layer bound to buffers.
type run[T Float] struct {
	*layer[T]
	b          *bands
	off        [][]int64
	scratch, y []T
	x          [][]T
	finish     Finish[T]
	calls      []paddedCall[T] // one for each worker
}

// paddedCall keeps the calls of two workers on separate cache lines.
type paddedCall[T Float] struct {
	call[T]
	pad padCall[T]
	_   [64]byte
}

func (l *layer[T]) bind(p *Pool, f Finish[T], scratch, y []T, x [][]T) func() {
	r := &run[T]{layer: l, b: l.bands(p.Workers()), scratch: scratch, y: y, x: x, finish: f}
	s := l.s
	for i, f := range s.sources() {
		need("x", len(x[i]), s.N*f.elems(s))
	}
	need("y", len(y), s.N*s.M*s.OH*s.OW)
	need("scratch", len(scratch), l.scratch(p.Workers()))
	if len(y) == 0 {
		return func() {}
	}
	for i := range l.phases {
		r.off = append(r.off, l.phases[i].offsets(l, r.b, x))
	}
	r.calls = make([]paddedCall[T], p.Workers())
	for i := range r.calls {
		r.calls[i].lo, r.calls[i].hi = l.lo, l.hi
	}
	b := r.b
	return p.Loop(s.N*b.gTasks*b.count*b.pTasks, func(worker, i int) {
		pt, i := i%b.pTasks, i/b.pTasks
		band, i := i%b.count, i/b.count
		gt, n := i%b.gTasks, i/b.gTasks
		q0, q1 := b.span(band, l.rows)
		p0, p1 := pt*len(l.panels)/b.pTasks, (pt+1)*len(l.panels)/b.pTasks
		for g := gt * b.groups; g < min((gt+1)*b.groups, s.Group); g++ {
			r.group(worker, n, g, q0, q1, p0, p1)
		}
	}).Run
}

// group computes rows [q0,q1) of panels [p0,p1) of group g of image n.
func (r *run[T]) group(worker, n, g, q0, q1, p0, p1 int) {
	s, b, c := &r.s, r.b, &r.calls[worker].call
	var a []T
	mem := r.scratch[worker*b.worker:][:b.worker]
	temp := mem[b.input:]
	if r.direct {
		a = r.x[0][((n*s.C+g*r.cg)*s.H+q0)*s.W:]
	} else {
		a = mem[:b.input]
		r.gather(&r.calls[worker].pad, a, temp[r.outW*b.temp:], n, g*r.cg, q0, q1)
	}
	for pi := p0; pi < p1; pi++ {
		pn := r.panels[pi]
		m := g*r.mg + pn.first
		y := r.y[(n*s.M+m)*s.OH*s.OW:]
		for i := range r.phases {
			ph := &r.phases[i]
			q1 := min(q1, ph.rows)
			if q1 <= q0 {
				continue
			}
			steps := r.cg * len(ph.taps)
			c.off, c.steps = &r.off[i][0], int64(steps)
			c.bias = &r.bias[m]
			c.w = nil
			if steps > 0 {
				c.w = &ph.w[(g*r.mg+pn.first)*r.cg*(len(ph.taps)+len(ph.odd))]
			}
			if ph.cols > 0 {
				r.phase(c, ph, pn.r, q1-q0, a, y[(q0*r.outH+ph.py)*s.OW:], temp)
			}
			if b.temp > 0 && ph.px == r.outW-1 {
				r.spread(ph, pn.r, q1-q0, y[(q0*r.outH+ph.py)*s.OW:], temp)
			}
		}
		r.finish.finished(s, r.y, n, m, pn.r, q0*r.outH, (q1-q0)*r.outH)
	}
}

// phase computes a panel of a band, into y or into the temporary.
func (r *run[T]) phase(c *call[T], ph *phase[T], tall, rows int, a, y, temp []T) {
	var z T
	size := int64(unsafe.Sizeof(z))
	c.a = &a[0]
	cols := ph.cols
	if r.flat {
		cols, rows = (rows-1)*r.width+ph.cols, 1
	}
	c.rows, c.arow = int64(rows), int64(r.width)*size
	if r.b.temp > 0 {
		c.c = &temp[ph.px*r.b.temp]
		c.cstride, c.crow = int64(r.b.tempChannel)*size, int64(r.b.tempRow)*size
	} else {
		c.c = &y[0]
		c.cstride, c.crow = int64(r.s.OH*r.s.OW)*size, int64(r.outH*r.s.OW)*size
	}
	switch {
	case r.column:
		r.k.column(c, cols)
	case r.paired:
		r.k.along(c, r.k.pairs[tall], cols, 2)
	default:
		r.k.rows(c, tall, cols)
	}
}

// spread writes a panel of all phases of one py from the temporary to y.
func (r *run[T]) spread(ph *phase[T], tall, rows int, y, temp []T) {
	ow := r.s.OW
	for n := range tall {
		for q := range rows {
			dst := y[n*r.s.OH*ow+q*r.outH*ow:][:ow]
			src := temp[n*r.b.tempChannel+q*r.b.tempRow:]
			switch r.outW {
			case 1:
				copy(dst, src)
			case 2:
				odd := src[r.b.temp:]
				j := r.k.zip2(dst, src[:(ow+1)/2], odd[:ow/2])
				for ; 2*j+1 < ow; j++ {
					dst[2*j], dst[2*j+1] = src[j], odd[j]
				}
				if 2*j < ow {
					dst[2*j] = src[j]
				}
			default:
				for px := range min(r.outW, ow) {
					from := src[px*r.b.temp:]
					for j, i := 0, px; i < ow; j, i = j+1, i+r.outW {
						dst[i] = from[j]
					}
				}
			}
		}
	}
}
