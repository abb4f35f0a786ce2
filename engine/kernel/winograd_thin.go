package kernel

import (
	"sync"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/mem"
)

// thinWeights is the weights of a winograd as they are, nine for each pair of channels, of which the thirty-six are made
// when they are needed: for a layer of many channels and few tiles that is faster than to wait for four times as many bytes
// from memory, and it takes a quarter of it.
//
// Sums go over a chunk of input channels at a time, and are added up in memory: rounding errors are smaller for it.
type thinWeights[T Float] struct {
	chunks []panel // of input channels
	w      []T     // packed [chunk][panel][block][3·kh+kw][lane], where lanes of blocks are pairs [c][r]
	at     [][]int // where each chunk's panels begin, and the last's end
}

// someInputs is how many input channels a chunk has at most: a panel's weights of so many should stay in the first-level
// cache, or near it, from when they are made until they are read.
const someInputs = 32

func newThinWeights[T Float](d *winograd[T], w []T) *thinWeights[T] {
	t := &thinWeights[T]{chunks: split(d.s.C, someInputs)}
	n := 0
	for _, ch := range t.chunks {
		at := make([]int, 0, len(d.panels)+1)
		for _, pn := range d.panels {
			at = append(at, n)
			n += 9 * d.k.lanes * t.blocks(d.k.lanes, ch, pn)
		}
		t.at = append(t.at, append(at, n))
	}
	t.w = mem.Make[T](n)
	var wg sync.WaitGroup
	one := func(i int, ch panel) {
		for j, pn := range d.panels {
			to := t.w[t.at[i][j]:]
			for c := range ch.r {
				for k := range pn.r {
					block, lane := (c*pn.r+k)/d.k.lanes, (c*pn.r+k)%d.k.lanes
					for g, v := range w[((pn.first+k)*d.s.C+ch.first+c)*9:][:9] {
						to[(9*block+g)*d.k.lanes+lane] = v
					}
				}
			}
		}
	}
	for i, ch := range t.chunks {
		wg.Go(func() { one(i, ch) })
	}
	wg.Wait()
	return t
}

// blocks is how many vectors the pairs of a chunk and a panel fill.
func (t *thinWeights[T]) blocks(lanes int, ch, pn panel) int { return (ch.r*pn.r + lanes - 1) / lanes }

// pairs is the most that a chunk and a panel so tall have.
func (t *thinWeights[T]) pairs(tall int) int { return t.chunks[0].r * tall }

// group is the panels [a,b) of a group.
func (d *winograd[T]) group(p *winoPlan, i int) (a, b int) {
	return i * len(d.panels) / p.groups, (i + 1) * len(d.panels) / p.groups
}

// channelsOf is how many output channels panels [a,b) have.
func (d *winograd[T]) channelsOf(a, b int) int {
	return d.panels[b-1].first + d.panels[b-1].r - d.panels[a].first
}

// bindWeights binds byWeights.
func (r *winoRun[T]) bindWeights(p *Pool) func() {
	v, t := r.scratch[:r.p.shared], r.thin
	return r.bindSteps(r.bindIn(p, v), p.Loop(r.p.groups, func(worker, i int) {
		a, b := r.group(r.p, i)
		g0, g1 := r.span(r.b)
		first, count := r.panels[a].first, r.channelsOf(a, b)
		m := r.memory(worker)[:r.p.u]
		for ci := range t.chunks {
			for j := a; j < b; j++ {
				r.sums(worker, v, m[(r.panels[j].first-first)*r.p.t:], ci, j, g1-g0)
			}
		}
		r.out(worker, m, r.n, g0, g1, first, count)
	}))
}

// sums adds what chunk ci of the input channels gives panel j, of so many vectors of tiles.
func (r *winoRun[T]) sums(worker int, v, m []T, ci, j, vectors int) {
	t, ch, pn, lanes, size := r.thin, r.thin.chunks[ci], r.panels[j], r.k.lanes, sizeOf[T]()
	u, g := r.memory(worker)[r.p.u:r.p.temp], t.w[t.at[ci][j]:]
	// The last block may write past a point's end, over what the first writes after it.
	n, pairs := t.blocks(lanes, ch, pn), ch.r*pn.r
	w := &r.calls[worker].make
	w.to = int64(pairs) * size
	w.src, w.dst, w.blocks = &g[9*(n-1)*lanes], &u[(n-1)*lanes], 1
	r.k.wino.weights(w)
	if n > 1 {
		w.src, w.dst, w.blocks = &g[0], &u[0], int64(n-1)
		r.k.wino.weights(w)
	}
	c := &r.calls[worker].mul
	c.spans, c.points = &r.spans[ci*points], points
	c.vstep, c.mstep = int64(r.p.t)*size, int64(r.p.t)*size
	c.to = int64(r.p.m) * size
	row := r.k.wino.add[pn.r]
	if ci == 0 {
		row = r.k.wino.mul[pn.r]
	}
	q := (vectors + len(row) - 2) / (len(row) - 1)
	// What comes next is fetched meanwhile.
	const line = 64
	next := t.w[min(t.at[ci][j+1], len(t.w)-1):]
	c.lines = (int64(9*n*lanes)*size/line + int64(points*q) - 1) / int64(points*q)
	for i := range q {
		g0, g1 := i*vectors/q, (i+1)*vectors/q
		c.u, c.v, c.m = &u[0], &v[g0*lanes], &m[g0*lanes]
		c.ahead = &next[min(i*int(c.lines*line*points/size), len(next)-1)]
		row[g1-g0](c)
	}
}

// groupsOf is how many groups the output channels are cut into: so many that a group's sums take half of the second-level
// cache at most, and as many for each worker.
func (d *winograd[T]) groupsOf(p *winoPlan, workers int) int {
	sums := points * p.t * int(sizeOf[T]()) * d.s.M
	n := (sums + isa.SecondLevel()/2 - 1) / (isa.SecondLevel() / 2)
	return min((n+workers-1)/workers*workers, len(d.panels))
}

// spans is where each chunk's channels lie in V, point by point.
func (t *thinWeights[T]) spans(p *winoPlan, size int64) (s []winoSpan) {
	for _, ch := range t.chunks {
		for i := range points {
			s = append(s, winoSpan{at: int64(i*p.v+ch.first*p.t) * size, channel: int64(ch.r)})
		}
	}
	return s
}

// thinVectors is how many vectors of tiles share the weights that are made, and thinMost how many an image has at most where
// that pays.
const thinVectors, thinMost = 2, 4

// thinFits reports whether weights can be made when they are needed: a chunk and a channel fill a vector, and nothing is
// upsampled.
func (d *winograd[T]) thinFits() bool { return d.ups == 0 && d.s.C >= someInputs }

// thinPays reports whether to: where there are many times what the second-level cache holds of them, and few tiles.
func (d *winograd[T]) thinPays() bool {
	bytes := points * d.s.C * d.s.M * int(sizeOf[T]())
	return d.thinFits() && bytes > 8*isa.SecondLevel() && d.vectorsOf() <= thinMost
}
