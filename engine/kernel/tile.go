package kernel

import (
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// call is the operands of a micro-kernel. It computes, for each of rows rows, a tile of r channels and all pixels m of
// the row:
//
//	c[n·cstride + m] = clamp(init + Σ_step a[off[step] + m] · w[step·r + n], lo, hi)
//
// init is bias[n], or what c holds where bias is nil: that is how a sum is continued. A row is tiles·nv vectors long,
// but for the lanes that the last one lacks. Assembly knows the offsets of the fields. All distances are in bytes.
type call[T Float] struct {
	a       *T
	off     *int64
	steps   int64
	w       *T
	c       *T
	cstride int64
	bias    *T
	tiles   int64
	rows    int64
	arow    int64
	crow    int64
	last    int64 // lanes of a row's last vector, 1 to all
	lo, hi  T
}

// micro is the micro-kernels of one instruction set.
type micro[T Float] struct {
	lanes int
	// tiles[r][nv] computes a tile of r channels and nv vectors. Entry 0 of either index is nil.
	tiles [][]func(*call[T])
	// pairs[r][nv] computes 2r sums, of which 2n and 2n+1 are the even and the odd pixels of channel n: a row is twice as
	// long as its vectors. There must be a bias, one for each channel.
	pairs [][]func(*call[T])
	// columns[nv] computes one channel, one vector in each of nv rows, p.tiles groups of them; empty where tiles do.
	columns []func(*call[T])
	// zip2 interleaves a and b into dst, a multiple of some block, and says how many elements of each.
	zip2 func(dst, a, b []T) int
	// padRows and unzipRows pad rows, and split them for stride 2; nil where there is no assembly.
	padRows, unzipRows func(*padCall[T])
	maxHalves          func(*halvesCall[T]) // nil where there is no assembly
	// depths[edge][k/2-1][stride-1] computes a column of a depthwise convolution, of which taps are missing if edge is 1.
	depths *[2][3][2]func(*depthCall[T])
	wino   wino[T]
}

// maxTile bounds r, to size what depends on it.
const maxTile = 24

// vectors is the widest tile of r channels, in vectors.
func (k *micro[T]) vectors(r int) int { return len(k.tiles[r]) - 1 }

// maxChannels is the tallest tile.
func (k *micro[T]) maxChannels() int { return len(k.tiles) - 1 }

// microFor is the micro-kernels to use for T at a level.
func microFor[T Float](l isa.Level) *micro[T] {
	if k, ok := any(microFloat32(l)).(*micro[T]); ok && k != nil {
		return k
	}
	return genericMicro[T]()
}

// rows computes cols pixels of every row that p tells of: all but tiles and last, which are set here. a and c advance
// along the row in p, so the caller sets them again.
func (k *micro[T]) rows(p *call[T], r, cols int) {
	if p.steps == 0 { // nothing but init
		p.tiles, p.last = 1, int64(cols)
		tileGeneric(p, r, 1)
		return
	}
	k.along(p, k.tiles[r], cols, 1)
}

// along computes rows of cols pixels with tiles that give each of them so many results.
func (k *micro[T]) along(p *call[T], tiles []func(*call[T]), cols, each int) {
	var z T
	size := int(unsafe.Sizeof(z))
	vec := (cols + k.lanes - 1) / k.lanes
	last := cols - (vec-1)*k.lanes
	// An even split keeps the short tiles tall enough to cover the latency: 3+2+2 rather than 3+3+1.
	q := (vec + len(tiles) - 2) / (len(tiles) - 1)
	long, nv := vec%q, vec/q
	if long > 0 {
		p.tiles, p.last = int64(long), int64(k.lanes)
		tiles[nv+1](p)
		n := long * (nv + 1) * k.lanes * size
		p.a = (*T)(unsafe.Add(unsafe.Pointer(p.a), n))
		p.c = (*T)(unsafe.Add(unsafe.Pointer(p.c), n*each))
	}
	p.tiles, p.last = int64(q-long), int64(last)
	tiles[nv](p)
}

// column computes one channel as rows does, with tiles that go down the rows rather than along them.
func (k *micro[T]) column(p *call[T], cols int) {
	var z T
	size := int(unsafe.Sizeof(z))
	rows, a, c := int(p.rows), p.a, p.c
	q := (rows + len(k.columns) - 2) / (len(k.columns) - 1)
	nv, tall := rows/q, rows%q
	for x := 0; x < cols; x += k.lanes {
		p.a = (*T)(unsafe.Add(unsafe.Pointer(a), x*size))
		p.c = (*T)(unsafe.Add(unsafe.Pointer(c), x*size))
		p.last = int64(min(k.lanes, cols-x))
		if tall > 0 {
			p.tiles = int64(tall)
			k.columns[nv+1](p)
			n := tall * (nv + 1)
			p.a = (*T)(unsafe.Add(unsafe.Pointer(p.a), n*int(p.arow)))
			p.c = (*T)(unsafe.Add(unsafe.Pointer(p.c), n*int(p.crow)))
		}
		p.tiles = int64(q - tall)
		k.columns[nv](p)
	}
}
