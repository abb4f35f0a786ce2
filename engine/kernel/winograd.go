package kernel

import (
	"math"
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// points is how many products a tile of F(4x4,3x3) takes for each pair of channels, for 4·4·9 of the definition.
const points = 36

// winograd is a convolution by Winograd's F(4x4,3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", 2016): y = Aᵀ[Σ_c (G·g·Gᵀ) ⊙ (Bᵀ·d·B)]A for tiles of 4x4 results, which 6x6 pixels d give.
//
// Lanes run along tiles, so channels may be of any number, as everywhere in this package. The padded input is split into
// grids by row modulo 4 and column modulo 4, with columns 4 and 5 of a tile once more as grids of their own: then every
// d[i][j] of consecutive tiles is contiguous, over the ends of rows of tiles too. The sums over channels are 36 products
// of matrices, for the micro-kernel.
//
// Results of finite inputs are off by some 1e-6 of the largest; an infinite input makes NaNs of all that its tile gives.
type winograd[T Float] struct {
	k      *micro[T]
	s      ConvShape
	ty, tx int // rows and columns of tiles
	panels []panel
	u      []T // packed [point][panel][c][r]
	bias   []T
	zero   []T
	lo, hi T
	tuning winoTuning
}

// winoTuning is what plans go by. Tests make blocks small.
type winoTuning struct {
	tiles int // that a block has at most
	phase int // 1 phased, -1 not, 0 as the number of blocks says
}

// winoNormal: with 64 tiles four vectors share a weight, V and M of a few dozen channels stay in the second-level cache,
// and those of one point, whatever the channels, near the first. BenchmarkForm finds no shape that wants others.
var winoNormal = winoTuning{tiles: 64}

// winogradFits reports whether F(4x4,3x3) is defined here for the shape. Wide padding is left to the direct form.
func winogradFits(s ConvShape) bool {
	return s.KH == 3 && s.KW == 3 && s.StrideH == 1 && s.StrideW == 1 && s.DilH == 1 && s.DilW == 1 && s.Group == 1 &&
		s.PadTop <= 3 && s.PadLeft <= 3 && s.OH > 0 && s.OW > 0 && s.H > 0 && s.W > 0 &&
		s.OH+2-s.PadTop-s.H <= 4 && s.OW+2-s.PadLeft-s.W <= 4
}

// winogradPays estimates whether F(4x4,3x3) is faster than the direct form, in cycles for each tile; it is not asked for
// in float64, whose users want exactness. The shares of the peak and the cycles of the transforms, which wait for memory
// more than they compute, are fitted to BenchmarkForm.
func winogradPays[T Float](level isa.Level, s ConvShape) bool {
	var z T
	if unsafe.Sizeof(z) != 4 {
		return false
	}
	lanes := float64(microFor[T](level).lanes)
	in, out := 30.0, 17.0
	if level == isa.Generic {
		in, out = 75, 75
	}
	tiles := float64((s.OH + 3) / 4 * ((s.OW + 3) / 4))
	room := math.Ceil(tiles/lanes) * lanes / tiles // whole vectors
	c, m := float64(s.C), float64(s.M)
	definition := 9 * c * m * float64(s.OH*s.OW) / tiles / lanes / 2 / 0.8
	product := points * c * m / lanes / 2 / 0.75 * room
	if points*s.C*s.M > 1<<18 { // weights beyond the second-level cache
		const perCycle = 2.5 // words
		product += points * c * m / perCycle / min(tiles, 64)
		definition += 9 * c * m / perCycle / min(tiles, 64)
	}
	return 1.1*(product+in*c+out*m) < definition
}

func newWinograd[T Float](level isa.Level, s ConvShape, w, bias []T, cl Clamp) *winograd[T] {
	k := microFor[T](level)
	d := &winograd[T]{k: k, s: s, ty: (s.OH + 3) / 4, tx: (s.OW + 3) / 4, tuning: winoNormal}
	d.lo, d.hi = T(cl.Lo), T(cl.Hi)
	d.bias, d.zero = make([]T, s.M), make([]T, maxTile)
	copy(d.bias, bias)
	d.choose()
	d.u = make([]T, points*s.C*s.M)
	for _, pn := range d.panels {
		for c := range s.C {
			for n := range pn.r {
				g := w[((pn.first+n)*s.C+c)*9:][:9]
				var rows [6][3]float64 // G·g
				for j := range 3 {
					for i, v := range winoG(float64(g[j]), float64(g[3+j]), float64(g[6+j])) {
						rows[i][j] = v
					}
				}
				for i, r := range rows {
					for j, v := range winoG(r[0], r[1], r[2]) {
						d.u[((6*i+j)*s.M+pn.first)*s.C+c*pn.r+n] = T(v)
					}
				}
			}
		}
	}
	return d
}

// choose sets the panels to what the estimate of layer.choose says is fastest over a block. Nothing straddles here.
func (d *winograd[T]) choose() {
	vec := (min(d.tuning.tiles, d.ty*d.tx) + d.k.lanes - 1) / d.k.lanes
	best := 0.0
	for r := 1; r <= d.k.maxChannels(); r++ {
		panels := split(d.s.M, r)
		cost := 0.0
		for _, p := range panels {
			q := (vec + d.k.vectors(p.r) - 1) / d.k.vectors(p.r)
			cost += 30
			for i := range q {
				nv := vec / q
				if i < vec%q {
					nv++
				}
				products := float64(p.r * nv)
				step := max(products/2, float64(p.r+nv)/2*1.15, 4) + 0.25*float64(nv)
				cost += float64(d.s.C)*(step+0.5) + 25 + products
			}
		}
		if best == 0 || cost < best {
			best, d.panels = cost, panels
		}
	}
}

// winoPlan is how the work is cut, and where memory is. A task makes a block of tiles, from pixels to pixels, in memory
// of its worker's. Where there are too few blocks, the whole image is one, and the workers share each of its three steps.
type winoPlan struct {
	phased         bool
	rows, cols     int // tiles of the largest block
	countY, countX int
	t              int // tiles that a block has room for: whole vectors
	grid           int // elements of a grid
	v, m           int // elements from point to point
	tempRow        int
	shared, worker int // elements
}

// lead is the room before the first grid.
const lead = 16

func (d *winograd[T]) plan(workers int) *winoPlan {
	p := &winoPlan{rows: d.ty, cols: d.tx, countY: 1, countX: 1}
	target, tiles, lanes := d.tuning.tiles, d.s.N*d.ty*d.tx, d.k.lanes
	if workers > 1 { // as many blocks for every worker, unless there are many
		if count := (tiles + target - 1) / target; count < 4*workers {
			count = (count + workers - 1) / workers * workers
			target = min(target, max((tiles+count-1)/count, 2*lanes))
		}
	}
	if d.tx > target {
		p.countX = (d.tx + target - 1) / target
		p.cols = ((d.tx+p.countX-1)/p.countX + lanes - 1) / lanes * lanes
		p.countX = (d.tx + p.cols - 1) / p.cols
		p.rows = 1
	} else { // the rows that leave the fewest lanes idle
		vectors := func(rows int) float64 { return float64((rows*d.tx+lanes-1)/lanes) + 0.6 }
		best := 0.0
		for rows := 1; rows <= min(target/d.tx, d.ty); rows++ {
			cost := float64(d.ty/rows) * vectors(rows)
			if rest := d.ty % rows; rest > 0 {
				cost += vectors(rest)
			}
			if best == 0 || cost <= best {
				best, p.rows = cost, rows
			}
		}
	}
	p.countY = (d.ty + p.rows - 1) / p.rows
	p.phased = d.s.N*p.countX*p.countY < workers
	if d.tuning.phase != 0 {
		p.phased = d.tuning.phase > 0
	}
	if p.phased {
		p.rows, p.cols, p.countY, p.countX = d.ty, d.tx, 1, 1
	}
	p.t = (p.rows*p.cols + d.k.lanes - 1) / d.k.lanes * d.k.lanes
	// Points whole pages apart would compete for the same cache lines: an odd number of lines lies between them.
	odd := func(n int) int { return (n+31)/32*32 + 16 }
	p.grid = odd((p.rows+1)*p.cols + 32)
	p.v, p.m = odd(d.s.C*p.t), odd(d.s.M*p.t)
	p.tempRow = 4*p.t + 16
	p.worker = (lead + 24*p.grid + 4*p.tempRow + 63) / 32 * 32
	if p.phased {
		p.shared = points * (p.v + p.m)
	} else {
		p.worker += points * (p.v + p.m)
	}
	return p
}

func (d *winograd[T]) scratch(workers int) int {
	p := d.plan(workers)
	return p.shared + workers*p.worker
}
