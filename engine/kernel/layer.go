package kernel

import (
	"slices"
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/mem"
)

// tap is a weight's place: where it reads in the padded input for the first output of its phase.
type tap struct {
	row, col int
	kh, kw   int
}

// phase is the outputs (q·outH+py, j·outW+px) for all q, j. A convolution has one; a transposed one has stride·stride,
// each a plain convolution with those taps that fall on whole input pixels.
type phase[T Float] struct {
	py, px     int
	rows, cols int
	taps       []tap
	odd        []tap // those of the odd pixels, if the layer is paired
	w          []T   // packed [group][panel][step][r], steps being channels of a group by taps; paired, [..][r][2]
}

// panel is the output channels of a group that go through one tile.
type panel struct{ first, r int }

// layer is a convolution, plain or transposed, over the micro-kernel. The padded input is split into inH·inW grids, so
// that what a tap reads for consecutive outputs is contiguous whatever the stride, and the rows of a grid follow each
// other at one distance. Then off[step] is all that dilation, padding and stride amount to.
type layer[T Float] struct {
	k          *micro[T]
	s          ConvShape
	cg, mg     int
	inH, inW   int // input pixels per output: the stride of a convolution
	outH, outW int // output pixels per input: the stride of a transposed one
	top, left  int // zeros before the input
	maxRow     int // largest tap.row
	maxCol     int
	rows, cols int // of the largest phase
	direct     bool
	flat       bool // a band is one row of pixels, junk between its rows included
	paired     bool // two phases of a row are computed at once, and their pixels interleaved on the way to y
	column     bool // tiles go down the rows
	width      int  // row stride of a grid
	panels     []panel
	phases     []phase[T]
	bias       []T
	lo, hi     T
	tuning     tuning
}

// convPhases lays out a convolution: one phase, taps where the definition reads.
func convPhases[T Float](s ConvShape) *layer[T] {
	l := &layer[T]{s: s, inH: s.StrideH, inW: s.StrideW, outH: 1, outW: 1, top: s.PadTop, left: s.PadLeft}
	ph := phase[T]{rows: s.OH, cols: s.OW}
	for kh := range s.KH {
		for kw := range s.KW {
			ph.taps = append(ph.taps, tap{kh * s.DilH, kw * s.DilW, kh, kw})
		}
	}
	l.phases = []phase[T]{ph}
	return l
}

// transposePhases lays out a transposed convolution. Output oh gets input ih through tap kh where
// oh = ih·stride + kh·dil - pad; for oh = q·stride + py that is ih = q + (py+pad-kh·dil)/stride, if it is whole. So
// a kernel of 4x4 and stride 2 is four convolutions of 2x2, each with its quarter of the weights.
func transposePhases[T Float](s ConvShape) *layer[T] {
	l := &layer[T]{s: s, inH: 1, inW: 1, outH: s.StrideH, outW: s.StrideW}
	type hit struct{ k, at int }
	hits := func(k, dil, pad, stride, p int) (h []hit, low int) {
		for i := range k {
			if v := p + pad - i*dil; v%stride == 0 {
				h = append(h, hit{i, v / stride})
				low = min(low, v/stride)
			}
		}
		return h, low
	}
	for py := range s.StrideH {
		_, low := hits(s.KH, s.DilH, s.PadTop, s.StrideH, py)
		l.top = max(l.top, -low)
	}
	for px := range s.StrideW {
		_, low := hits(s.KW, s.DilW, s.PadLeft, s.StrideW, px)
		l.left = max(l.left, -low)
	}
	for py := range s.StrideH {
		for px := range s.StrideW {
			ph := phase[T]{py: py, px: px, rows: (s.OH - py + s.StrideH - 1) / s.StrideH, cols: (s.OW - px + s.StrideW - 1) / s.StrideW}
			hh, _ := hits(s.KH, s.DilH, s.PadTop, s.StrideH, py)
			ww, _ := hits(s.KW, s.DilW, s.PadLeft, s.StrideW, px)
			for _, h := range hh {
				for _, w := range ww {
					ph.taps = append(ph.taps, tap{h.at + l.top, w.at + l.left, h.k, w.k})
				}
			}
			l.phases = append(l.phases, ph)
		}
	}
	return l
}

// finish chooses tiles and packs the weights. weight gives that from channel c of a group to output channel m.
func (l *layer[T]) finish(level isa.Level, bias []T, cl Clamp, weight func(m, c, kh, kw int) T) *layer[T] {
	s := l.s
	l.k, l.tuning = microFor[T](level), normal
	l.cg, l.mg = s.C/s.Group, s.M/s.Group
	l.lo, l.hi = T(cl.Lo), T(cl.Hi)
	l.bias = make([]T, s.M)
	copy(l.bias, bias)
	for _, p := range l.phases {
		l.rows, l.cols = max(l.rows, p.rows), max(l.cols, p.cols)
		for _, t := range p.taps {
			l.maxRow, l.maxCol = max(l.maxRow, t.row), max(l.maxCol, t.col)
		}
	}
	l.width = l.cols + l.maxCol/l.inW
	// Assembly reads from several tensors as from one; Go's checks of pointers forbid that to the definition.
	several := l.k.padRows != nil && s.N == 1 && !s.anyUp()
	l.direct = (len(s.Sources) == 0 || several) && l.inH == 1 && l.inW == 1 && l.top == 0 && l.left == 0 &&
		l.rows+l.maxRow <= s.H && l.cols+l.maxCol <= s.W
	if l.direct && l.scattered() {
		l.direct = false
	}
	if l.direct {
		l.width = s.W
	}
	l.choose()
	if !l.flat && !l.direct {
		l.width = (l.width + 15) / 16 * 16 // so that some taps read whole cache lines
	}
	if l.paired {
		l.pair()
	}
	for i := range l.phases {
		l.phases[i].pack(l, weight)
	}
	return l
}

// pairs reports whether even and odd pixels of an output row come from the same input pixels, as those of a transposed
// convolution do whose kernel is as wide as its stride of two.
func (l *layer[T]) pairs() bool {
	if l.outW != 2 || l.outH > 2 || l.s.OW%2 != 0 || l.noTaps() {
		return false
	}
	for i := 0; i < len(l.phases); i += 2 {
		even, odd := l.phases[i], l.phases[i+1]
		if len(even.taps) != len(odd.taps) {
			return false
		}
		for t := range even.taps {
			if even.taps[t].row != odd.taps[t].row || even.taps[t].col != odd.taps[t].col {
				return false
			}
		}
	}
	return true
}

// pair makes one phase of two: the second's taps are the first's odd ones.
func (l *layer[T]) pair() {
	var ps []phase[T]
	for i := 0; i < len(l.phases); i += 2 {
		p := l.phases[i]
		p.odd = l.phases[i+1].taps
		ps = append(ps, p)
	}
	l.phases = ps
}

// scattered reports whether it is better to copy what a band reads, though it could be read in place: a row of each of
// many planes, which lie whole pages apart, takes a page's entry in the translation buffer for every channel, and all of
// them compete for the same lines of the caches. A copy pays if many output channels read it.
func (l *layer[T]) scattered() bool {
	results := l.mg * l.outH * l.outW
	bytes := l.cg * l.s.H * l.s.W * int(sizeOf[T]())
	return l.cg >= 64 && results >= 128 && (l.outW > 1 || bytes > isa.SecondLevel())
}

func (p *phase[T]) pack(l *layer[T], weight func(m, c, kh, kw int) T) {
	p.w = mem.Make[T](l.s.M * l.cg * (len(p.taps) + len(p.odd)))[:0]
	for g := range l.s.Group {
		for _, pn := range l.panels {
			for c := range l.cg {
				for i, t := range p.taps {
					for n := range pn.r {
						p.w = append(p.w, weight(g*l.mg+pn.first+n, c, t.kh, t.kw))
						if p.odd != nil {
							p.w = append(p.w, weight(g*l.mg+pn.first+n, c, p.odd[i].kh, p.odd[i].kw))
						}
					}
				}
			}
		}
	}
}

// offsets is where each step reads, in bytes, in planes laid out by b; where nothing is copied, in those of x, counted
// from x[0].
func (p *phase[T]) offsets(l *layer[T], b *bands, x [][]T) []int64 {
	var z T
	size := int64(unsafe.Sizeof(z))
	off := make([]int64, 0, l.cg*len(p.taps)+1)
	first, source, at := 0, 0, int64(0) // channel, tensor and place that the planes are counted from
	for c := range l.cg {
		if l.direct && len(l.s.Sources) > 0 && c == first+l.s.Sources[source].C {
			first, source = c, source+1
			at = int64(uintptr(unsafe.Pointer(&x[source][0])) - uintptr(unsafe.Pointer(&x[0][0])))
		}
		for _, t := range p.taps {
			line := t.row / l.inH
			if b.apart > 0 {
				line = t.row / l.s.DilH * b.rows
			}
			o := (c-first)*b.plane + (t.row%l.inH*l.inW+t.col%l.inW)*b.grid + line*l.width + t.col/l.inW
			off = append(off, at+int64(o)*size)
		}
	}
	return append(off, 0) // never read; &off[0] must exist
}

// choose sets panels and flat to what the estimate says is fastest.
func (l *layer[T]) choose() {
	// Short rows of one channel: along them, a tile would not fill the registers.
	if l.mg == 1 && l.outW == 1 && l.width > 1 && l.k.columns != nil && l.cols <= 3*l.k.lanes && !l.noTaps() {
		l.panels, l.column = split(1, 1), true
		return
	}
	best := 0.0
	steps := 0
	for _, p := range l.phases {
		steps = max(steps, l.cg*len(p.taps))
	}
	try := func(r int, flat, paired bool) {
		panels := split(l.mg, r)
		most, each := l.k.vectors, 1
		if paired {
			most, each = func(r int) int { return len(l.k.pairs[r]) - 1 }, 2
		}
		rows, cols := min(l.rows, 16), l.cols
		if l.width == 1 {
			rows = min(l.rows, 12*l.k.lanes)
		}
		cost := 0.0
		extra := 0.0 // cycles to copy a vector of results out of the temporary
		if flat {
			if l.width != l.cols || l.outW != 1 || l.outH != 1 {
				extra = 6
			}
			cols, rows = (rows-1)*l.width+l.cols, 1
		} else if paired {
			extra = 1
		} else if l.outW != 1 {
			extra = 6
		}
		vec := (cols + l.k.lanes - 1) / l.k.lanes
		for _, p := range panels {
			q := (vec + most(p.r) - 1) / most(p.r)
			for i := range q {
				nv := vec / q
				if i < vec%q {
					nv++
				}
				products := float64(each * p.r * nv)
				// Two products or two loads start in a cycle; a load that straddles cache lines, as those of a padded
				// row do, counts twice. The rest is fitted to measurements: a load bound is met to 87 %, and a
				// vector costs a quarter of a cycle, or one if it straddles.
				loads, straddle := float64(each*p.r+nv), 0.25
				if !l.direct {
					loads, straddle = float64(each*p.r+2*nv), 1
				}
				step := max(products/2, loads/2*1.15, 4) + straddle*float64(nv)
				cost += float64(rows) * 2 / float64(each) * (float64(steps)*(step+0.5) + 25 + products*(1+extra))
			}
		}
		cost *= 1 + 0.02*float64(rows-1)/float64(rows)
		if best == 0 || cost < best {
			best, l.panels, l.flat, l.paired = cost, panels, flat, paired
		}
	}
	for r := 1; r <= l.k.maxChannels(); r++ {
		try(r, true, false)
		if l.width != l.cols || l.outW != 1 || l.outH != 1 {
			try(r, false, false)
		}
	}
	for r := 1; r < len(l.k.pairs) && l.pairs(); r++ {
		try(r, false, true)
	}
}

// noTaps reports whether a phase reads nothing: its outputs are the bias.
func (l *layer[T]) noTaps() bool {
	return slices.ContainsFunc(l.phases, func(p phase[T]) bool { return len(p.taps) == 0 })
}

// products is how many multiply-adds a run takes.
func (l *layer[T]) products() (n int64) {
	for _, p := range l.phases {
		n += int64(len(p.taps)+len(p.odd)) * int64(p.rows*p.cols)
	}
	return n * int64(l.s.N*l.s.M) * int64(l.cg)
}

// split divides n channels into panels of at most r, as evenly as can be.
func split(n, r int) []panel {
	count := (n + r - 1) / r
	ps := make([]panel, 0, count)
	for i, first := 0, 0; i < count; i++ {
		h := n / count
		if i < n%count {
			h++
		}
		ps = append(ps, panel{first, h})
		first += h
	}
	return ps
}
