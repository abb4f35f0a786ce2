package kernel

import "unsafe"

// A vector of tiles is four segments, each of lanes/4 tiles side by side in one row of tiles: lane 4·l + s is tile l of
// segment s. Segments are loaded as they lie and transposed four by four.

// winoPlace says where the segments of a vector lie in a plane, and which of their pixels there are. Assembly knows the
// offsets of the fields.
type winoPlace struct {
	at [4]int64 // of the first pixel that a segment reads, in bytes; may lie outside
	// masks[i][s] is a bit for each of the first lanes pixels of row i of segment s, and for those from the fifth on.
	masks [6][4][2]uint32
	// columns is the masks of segments that follow each other, as winoInWide heeds them, the same in each row: those of
	// their pixels from the second on, then a bit for the one behind these, and the next bit for the first pixel.
	columns [6]uint32
}

// winoTarget says where the results of a vector's segments go, and which there are.
type winoTarget struct {
	at    [4]int64
	masks [4][4]uint32
}

// winoInCall is the operands of winoIn, which for each of channels channels gives V = Bᵀ·d·B of one vector of tiles:
// point p = 6·i + j goes to dst + p·to. temp has room for 36 vectors. winoInUp reads a tensor whose pixels stand for
// 2x2 each: d is 4x4 pixels of it, and V is 4x4 points (see winoUp). All distances are in bytes. A call changes src, dst
// and channels.
type winoInCall[T Float] struct {
	src, dst    *T
	place       *winoPlace
	temp        *T
	channels    int64
	row         int64 // from row to row of src
	plane, step int64 // from channel to channel, of src and of dst
	to          int64
}

// winoOutCall is the operands of winoOut, which for each channel gives y = clamp(Aᵀ·M·A + bias) of one vector of tiles.
// Point p of M is at src + p·from. clamp is 0 where neither bound is finite, 1 where lo alone is, else 2.
type winoOutCall[T Float] struct {
	src, dst    *T
	place       *winoTarget
	bias        *T
	channels    int64
	row         int64 // from row to row of dst
	plane, step int64 // from channel to channel, of dst and of src
	from        int64
	lo, hi      T
	clamp       int64
}

// winoSpan is what a point's products go over: channels of upsampled tensors, then of others. The places are in V.
type winoSpan struct {
	upAt, ups   int64
	at, channel int64
}

// winoMulCall is the operands of winoMul: for each point M[n] = Σ_c V[c]·U[c][n] over the channels of its span. winoAdd
// adds that to M, heeds no channels of upsampled tensors, and fetches so many lines from ahead on for each point.
type winoMulCall[T Float] struct {
	v, u, m      *T
	spans        *winoSpan
	points       int64
	vstep, mstep int64 // from channel to channel
	to           int64 // from point to point of M
	ahead        *T
	lines        int64
}

// winoWeightsCall is the operands of winoWeights, which gives U = G·g·Gᵀ at the balanced points, element by element:
// src is blocks of nine vectors of g, and point p of a block's vector goes to dst + p·to bytes.
type winoWeightsCall[T Float] struct {
	src, dst   *T
	blocks, to int64
}

// wino is the Winograd kernels of an instruction set, for either set of points (see winoPoints). The second of each
// pair heeds masks.
type wino[T Float] struct {
	in  [2][2]func(*winoInCall[T])
	up  [2]func(*winoInCall[T])
	out [2][2]func(*winoOutCall[T])
	// mul[r][nv] and add[r][nv] are for r channels and nv vectors.
	mul, add [][]func(*winoMulCall[T])
	weights  func(*winoWeightsCall[T])
	// wide is in for four segments that follow each other in a row of tiles, where all rows of pixels are there; nil where
	// that would be no faster. It heeds columns if wideMasks, else there must be all pixels.
	wide      [2]func(*winoInCall[T])
	wideMasks bool
}

func genericWino[T Float](rows int, vectors int) wino[T] {
	w := wino[T]{mul: [][]func(*winoMulCall[T]){nil}, add: [][]func(*winoMulCall[T]){nil}}
	w.weights = func(p *winoWeightsCall[T]) { winoWeightsGeneric(p, genericLanes) }
	for masked := range 2 {
		for points := range 2 {
			w.in[points][masked] = func(p *winoInCall[T]) { winoInGeneric(p, winoPoints(points), genericLanes, masked > 0) }
			w.out[points][masked] = func(p *winoOutCall[T]) { winoOutGeneric(p, winoPoints(points), genericLanes, masked > 0) }
		}
		w.up[masked] = func(p *winoInCall[T]) { winoUpGeneric(p, genericLanes, masked > 0) }
	}
	for r := 1; r <= rows; r++ {
		mul, add := []func(*winoMulCall[T]){nil}, []func(*winoMulCall[T]){nil}
		for nv := 1; nv <= vectors; nv++ {
			mul = append(mul, func(p *winoMulCall[T]) { winoMulGeneric(p, r, nv*genericLanes) })
			add = append(add, func(p *winoMulCall[T]) { winoAddGeneric(p, r, nv*genericLanes) })
		}
		w.mul, w.add = append(w.mul, mul), append(w.add, add)
	}
	return w
}

// element is element i of what lies bytes behind p.
func element[T Float](p *T, bytes int64, i int) *T {
	var z T
	return (*T)(unsafe.Add(unsafe.Pointer(p), int(bytes)+i*int(unsafe.Sizeof(z))))
}

// each calls tile for every channel and lane, with what gives pixel (i, j) of the lane's tile, of stride pixels.
func (p *winoInCall[T]) each(lanes, stride int, masked bool, tile func(lane int, d func(i, j int) T)) {
	for ; p.channels > 0; p.channels-- {
		for lane := range lanes {
			l, s := lane/4, lane%4
			tile(lane, func(i, j int) T {
				e, half := stride*l+j, 0
				if stride == 4 && j > 3 {
					e, half = e-4, 1
				}
				if masked && p.place.masks[i][s][half]>>e&1 == 0 {
					return 0
				}
				return *element(p.src, p.place.at[s]+int64(i)*p.row, stride*l+j)
			})
		}
		p.src = element(p.src, p.plane, 0)
		p.dst = element(p.dst, p.step, 0)
	}
}

// winoInGeneric is what every winoIn computes.
func winoInGeneric[T Float](p *winoInCall[T], points winoPoints, lanes int, masked bool) {
	p.each(lanes, 4, masked, func(lane int, at func(i, j int) T) {
		var d [6][6]T
		for i := range d {
			for j := range d[i] {
				d[i][j] = at(i, j)
			}
		}
		for i, row := range transformTile(points, d) {
			for j, v := range row {
				*element(p.dst, int64(6*i+j)*p.to, lane) = v
			}
		}
	})
}

// winoUpGeneric is what every winoInUp computes.
func winoUpGeneric[T Float](p *winoInCall[T], lanes int, masked bool) {
	p.each(lanes, 2, masked, func(lane int, at func(i, j int) T) {
		var d [4][4]T
		for i := range d {
			for j := range d[i] {
				d[i][j] = at(i, j)
			}
			d[i] = winoUp(d[i])
		}
		for j := range 4 {
			for i, v := range winoUp([4]T{d[0][j], d[1][j], d[2][j], d[3][j]}) {
				*element(p.dst, int64(4*i+j)*p.to, lane) = v
			}
		}
	})
}

// winoPoints is the points that F(4x4,3x3) interpolates at, beside 0 and infinity.
type winoPoints int

const (
	// wholePoints are 1, -1, 2 and -2: with them, products of upsampled tensors vanish.
	wholePoints winoPoints = iota
	// balancedPoints are a, -a, b and -b, with a = 1/√2 and b = √2: the weights of the transforms are smaller, and with them
	// the errors.
	balancedPoints
)

const (
	rootA, rootB = 0.70710678118654752440, 1.41421356237309504880
)

// winoB is Bᵀ·d.
func winoB[T Float](points winoPoints, d [6]T) [6]T {
	if points == balancedPoints {
		even, odd := d[4]-2*d[2], rootA*(d[3]-2*d[1])
		wide, far := d[4]-d[2]/2, rootB*(d[3]-d[1]/2)
		return [6]T{d[0] + d[4] - 2.5*d[2], even + odd, even - odd, wide + far, wide - far, d[5] + d[1] - 2.5*d[3]}
	}
	c, e := d[4]-d[2], d[3]-d[1]
	a, b := d[4]-4*d[2], d[3]-4*d[1]
	return [6]T{4*(d[0]-d[2]) + c, a + b, a - b, c + 2*e, c - 2*e, d[5] - d[3] - 4*e}
}

// winoUp is what is left of Bᵀ·(d0 d1 d1 d2 d2 d3), the rows of a tile that begins between the two of a pixel of a tensor
// upsampled by two: rows 0, 1 halved, 4, and 5. Row 2 is zero and row 3 is -3 times row 4: see upPoint.
func winoUp[T Float](d [4]T) [4]T {
	return [4]T{4*d[0] + d[2] - 5*d[1], d[2] - 4*d[1], d[1] - d[2], d[3] - 5*d[2] + 4*d[1]}
}

// upPoint gives for each row of Bᵀ·d which of winoUp it is, and times what; -1 where it is zero.
var upPoint = [6]struct {
	row    int
	factor float64
}{{0, 1}, {1, 2}, {-1, 0}, {2, -3}, {2, 1}, {3, 1}}

// winoOutGeneric is what every winoOut computes.
func winoOutGeneric[T Float](p *winoOutCall[T], points winoPoints, lanes int, masked bool) {
	for c := range p.channels {
		bias := *element(p.bias, 0, int(c))
		for lane := range lanes {
			l, s := lane/4, lane%4
			var m [6][6]T
			for i := range m {
				for j := range m[i] {
					m[i][j] = *element(p.src, c*p.step+int64(6*i+j)*p.from, lane)
				}
			}
			for i, row := range transformBack(points, m) {
				for j, v := range row {
					v += bias
					if v < p.lo {
						v = p.lo
					} else if v > p.hi {
						v = p.hi
					}
					if !masked || p.place.masks[i][s]>>(4*l+j)&1 != 0 {
						*element(p.dst, c*p.plane+p.place.at[s]+int64(i)*p.row, 4*l+j) = v
					}
				}
			}
		}
	}
}

// winoA is Aᵀ·m.
func winoA[T Float](points winoPoints, m [6]T) [4]T {
	s, d, t, u := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
	if points == balancedPoints {
		return [4]T{m[0] + s + t, rootA*d + rootB*u, s/2 + 2*t, rootA/2*d + 2*rootB*u + m[5]}
	}
	return [4]T{m[0] + s + t, d + 2*u, s + 4*t, d + 8*u + m[5]}
}

// winoMulGeneric is what every winoMul computes, for r channels and n tiles.
func winoMulGeneric[T Float](p *winoMulCall[T], r, n int) {
	spans := unsafe.Slice(p.spans, p.points)
	u := p.u
	for i, s := range spans {
		m := element(p.m, int64(i)*p.to, 0)
		for k := range r {
			clear(unsafe.Slice(element(m, int64(k)*p.mstep, 0), n))
		}
		for _, span := range [][2]int64{{s.upAt, s.ups}, {s.at, s.channel}} {
			for c := range span[1] {
				v := unsafe.Slice(element(p.v, span[0]+c*p.vstep, 0), n)
				for k := range r {
					w, y := *element(u, 0, k), unsafe.Slice(element(m, int64(k)*p.mstep, 0), n)
					for t, x := range v {
						y[t] += x * w
					}
				}
				u = element(u, 0, r)
			}
		}
	}
}

// winoAddGeneric is what every winoAdd computes, for r channels and n tiles.
func winoAddGeneric[T Float](p *winoMulCall[T], r, n int) {
	u, sum := p.u, make([]T, n)
	for i, s := range unsafe.Slice(p.spans, p.points) {
		for k := range r {
			clear(sum)
			for c := range s.channel {
				w := *element(u, 0, int(c)*r+k)
				for t, x := range unsafe.Slice(element(p.v, s.at+c*p.vstep, 0), n) {
					sum[t] += x * w
				}
			}
			m := unsafe.Slice(element(p.m, int64(i)*p.to+int64(k)*p.mstep, 0), n)
			for t, x := range sum {
				m[t] += x
			}
		}
		u = element(u, 0, int(s.channel)*r)
	}
}

// winoWeightsGeneric is what every winoWeights computes.
func winoWeightsGeneric[T Float](p *winoWeightsCall[T], lanes int) {
	for b := range int(p.blocks) {
		for lane := range lanes {
			var g [9]T
			for i := range g {
				g[i] = *element(p.src, 0, (9*b+i)*lanes+lane)
			}
			for i, row := range transformWeights(balancedPoints, g[:]) {
				for j, v := range row {
					*element(p.dst, int64(6*i+j)*p.to, b*lanes+lane) = T(v)
				}
			}
		}
	}
}

// winoG is G·g.
func winoG(points winoPoints, g0, g1, g2 float64) [6]float64 {
	if points == balancedPoints {
		return [6]float64{
			g0,
			-(g0 + rootA*g1 + g2/2) / 1.5,
			-(g0 - rootA*g1 + g2/2) / 1.5,
			(g0 + rootB*g1 + 2*g2) / 6,
			(g0 - rootB*g1 + 2*g2) / 6,
			g2,
		}
	}
	return [6]float64{
		g0 / 4,
		-(g0 + g1 + g2) / 6,
		-(g0 - g1 + g2) / 6,
		g0/24 + g1/12 + g2/6,
		g0/24 - g1/12 + g2/6,
		g2,
	}
}
