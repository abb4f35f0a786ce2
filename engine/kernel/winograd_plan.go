package kernel

import "github.com/secateur/secateur/engine/kernel/isa"

// winoMode is how the three steps of a layer, transform, multiply and transform back, are cut into tasks.
type winoMode int

const (
	// byBlocks: a task makes a block of tiles from pixels to pixels, in memory of its worker's.
	byBlocks winoMode = iota
	// byPanels: workers share the first step, then each takes panels of output channels through the others. For few tiles.
	byPanels
	// byPoints: workers share each step. What a point needs stays in a cache where all the points' does not.
	byPoints
	// byWeights: workers share the first step, then each takes groups of output channels, whose weights are transformed a
	// few at a time as they are needed. For weights that no cache holds: they are four times as large transformed.
	byWeights
)

// winoTuning is what plans go by.
type winoTuning struct {
	mode    winoMode
	vectors int // of tiles that a block has at most
}

// vectorsOf is how many vectors of tiles an image has.
func (d *winograd[T]) vectorsOf() int { return (d.ty*d.segments() + 3) / 4 }

// segments is how many segments a row of tiles has.
func (d *winograd[T]) segments() int { return (d.tx + d.k.lanes/4 - 1) / (d.k.lanes / 4) }

// tune chooses by the second-level cache, where V of a block should stay with what else it needs: as many vectors, up to
// 64 tiles, as take a third of it; but two, which share each weight, if they take little more than half. Where even
// those are too large, a point at a time.
func (d *winograd[T]) tune() winoTuning {
	cache := isa.SecondLevel()
	if d.thinPays() {
		return winoTuning{byWeights, thinVectors}
	}
	vector := max(d.values(), 1) * d.k.lanes * int(sizeOf[T]())
	if 2*vector > cache*5/8 && d.values()*d.s.M > 1<<20 {
		return winoTuning{byPoints, 48 / d.k.lanes} // whole tiles of three vectors, the widest that are eight channels tall
	}
	return winoTuning{byBlocks, max(2, min(64/d.k.lanes, cache/3/vector))}
}

// choose sets the panels to what the estimate of layer.choose says is fastest over a block. Nothing straddles here.
func (d *winograd[T]) choose() {
	vec := min(d.tuning.vectors, d.vectorsOf())
	best := 0.0
	for r := 1; r < len(d.k.wino.mul); r++ {
		panels := split(d.s.M, r)
		cost := 0.0
		for _, p := range panels {
			most := len(d.k.wino.mul[p.r]) - 1
			q := (vec + most - 1) / most
			for i := range q {
				nv := vec / q
				if i < vec%q {
					nv++
				}
				cost += d.productCost(p.r, nv)
			}
		}
		if best == 0 || cost < best {
			best, d.panels = cost, panels
		}
	}
}

// productCost estimates the cycles of a tile of products, of one point.
func (d *winograd[T]) productCost(r, nv int) float64 {
	products := float64(r * nv)
	step := max(products/2, float64(r+nv)/2*1.1, 4) + 0.2*float64(nv)
	return float64(d.ups+d.plain)*(step+0.25) + 20 + products
}

// winoCycles estimates what a layer takes one core, by Winograd and by the definition. What the transforms take, for a
// vector of tiles and a channel, and what shares of the peak are reached is fitted to BenchmarkForm.
func winoCycles[T Float](level isa.Level, s ConvShape) (winograd, definition float64) {
	lanes := float64(microFor[T](level).lanes)
	in, up, out := 250.0, 130.0, 190.0
	switch level {
	case isa.AVX2:
		in, up, out = 160, 90, 130
	case isa.Generic:
		in, up, out = 2000, 1000, 2000
	}
	seg := int(lanes) / 4
	vectors := float64(s.N * (((s.OH+3)/4*(((s.OW+3)/4+seg-1)/seg) + 3) / 4))
	c, ups := 0.0, 0.0
	for _, f := range s.sources() {
		if f.Up {
			ups += float64(f.C)
		} else {
			c += float64(f.C)
		}
	}
	m, pixels := float64(s.M), float64(s.N*s.OH*s.OW)/lanes
	// Tiles of one channel wait for what they load.
	few := min(m, 4) / 4
	products := (points*c + upPoints*ups) * m / 2
	winograd = vectors * (in*c + up*ups + (out+1.5*points)*m + products/(0.85*(0.4+0.6*few)))
	definition = 9*(c+ups)*m*pixels/2/(0.8*few) + (2*(c+ups)+3*m)*pixels
	if w := 2 * products; w > 1<<18 { // weights beyond the second-level cache
		const perCycle = 2.5 // words
		winograd += w / perCycle
		definition += 9 * (c + ups) * m / perCycle
	}
	return winograd, definition
}

// winogradPays estimates whether F(4x4,3x3) is faster than the direct form. It is not asked for in float64, whose users
// want exactness.
func winogradPays[T Float](level isa.Level, s ConvShape) bool {
	if sizeOf[T]() != 4 {
		return false
	}
	w, d := winoCycles[T](level, s)
	return 1.05*w < d
}

// winoPlan is how the work is cut for a number of workers, and where memory is.
type winoPlan struct {
	mode    winoMode
	vectors int // of the largest block
	blocks  int // of an image
	t       int // tiles that a block has room for
	// V has all points of the others' channels, then those of upsampled ones. In elements from point to point:
	v, up          int
	upAt           int // where the latter begin
	m              int // from point to point of M
	shared, worker int // elements
	temp           int // where a worker's memory for 36 vectors is
	groups         int // of output channels, of byWeights
	u              int // where a worker's memory for a panel's weights is
}

func (d *winograd[T]) plan(workers int) *winoPlan {
	all := d.vectorsOf()
	p := &winoPlan{mode: d.tuning.mode, vectors: max(1, min(d.tuning.vectors, all))}
	if p.mode == byWeights { // blocks as even as can be
		count := (all + p.vectors - 1) / p.vectors
		p.vectors = (all + count - 1) / count
	}
	if p.mode == byBlocks && workers > 1 {
		// Blocks for everyone, and as many for each.
		count := (d.s.N*all + p.vectors - 1) / p.vectors
		if count < 8*workers {
			count = (count + workers - 1) / workers * workers
			p.vectors = max(1, (d.s.N*all+count-1)/count)
		}
		if (d.s.N*all+p.vectors-1)/p.vectors < workers {
			p.mode, p.vectors = byPanels, all
		}
	}
	p.blocks = (all + p.vectors - 1) / p.vectors
	p.vectors = (all + p.blocks - 1) / p.blocks
	p.t = p.vectors * d.k.lanes
	// Points whole pages apart would compete for the same cache lines: an odd number of lines lies between them.
	odd := func(n int) int { return (n+31)/32*32 + 16 }
	p.v, p.up = odd(d.plain*p.t), odd(d.ups*p.t)
	p.upAt = points * p.v
	vs := p.upAt + upValues*p.up
	tall := 0
	for _, pn := range d.panels {
		tall = max(tall, pn.r)
	}
	p.m = odd(tall * p.t)
	switch p.mode {
	case byPoints:
		p.m = odd(d.s.M * p.t)
	case byWeights:
		p.groups = d.groupsOf(p, workers)
		most := 0
		for i := range p.groups {
			a, b := d.group(p, i)
			most = max(most, d.channelsOf(a, b))
		}
		p.m = odd(most * p.t)
	}
	ms := points * p.m
	p.worker = points*d.k.lanes + 64
	switch p.mode {
	case byBlocks:
		p.temp = vs + ms
		p.worker += vs + ms
	case byPanels:
		p.shared = vs
		p.temp = ms
		p.worker += ms
	case byPoints:
		p.shared = vs + ms
	case byWeights:
		p.shared = vs
		p.u = ms
		p.temp = ms + (points*d.thin.pairs(tall)+2*d.k.lanes+31)/32*32
		p.worker += p.temp
	}
	p.worker = (p.worker + 31) / 32 * 32
	p.shared = (p.shared + 31) / 32 * 32
	return p
}

func (d *winograd[T]) scratch(workers int) int {
	p := d.plan(workers)
	return p.shared + workers*p.worker
}
