package kernel

import "unsafe"

// winoCall is the operands of winoIn and winoOut, for vecs vectors of tiles. Assembly knows the offsets of the fields.
// All distances are in bytes.
//
// winoIn: d[i][j] of tile t is at src + (4·j + i mod 4)·from + (i/4)·next, counted in tiles; point p = 6·i + j of
// V = Bᵀ·d·B goes to dst + p·to. winoOut: point p of M is at src + p·from; pixel j of row i of y = clamp(Aᵀ·M·A) goes to
// dst + i·to, element 4·t + j, and what lies ahead of it will be written soon.
type winoCall[T Float] struct {
	src, dst   *T
	vecs       int64
	from, next int64
	to, ahead  int64
	lo, hi     T
}

// unzip4Call is the operands of unzip4: rows rows of units units, a unit being 4 pixels for each lane. Pixel 4·t + j of
// a row goes to element t of grid j; for j < 2 also to element t-1 of grid 4+j, the element before the row included.
// What lies ahead of src will be read soon. All distances are in bytes.
type unzip4Call[T Float] struct {
	dst, src    *T
	rows, units int64
	grid        int64 // from grid to grid
	step, from  int64 // from row to row, of the grids and of src
	ahead       int64
}

// wino is the Winograd transforms of an instruction set.
type wino[T Float] struct {
	in, out func(*winoCall[T])
	unzip4  func(*unzip4Call[T])
	narrow  func(*unzip4Call[T]) // units of eight tiles, where those of unzip4 are of sixteen
}

func genericWino[T Float]() wino[T] {
	return wino[T]{winoInGeneric[T], winoOutGeneric[T], unzip4Generic[T], nil}
}

// element is element i of what lies bytes behind p.
func element[T Float](p *T, bytes int64, i int) *T {
	var z T
	return (*T)(unsafe.Add(unsafe.Pointer(p), int(bytes)+i*int(unsafe.Sizeof(z))))
}

// winoInGeneric is what every winoIn computes.
func winoInGeneric[T Float](p *winoCall[T]) {
	for t := range int(p.vecs) * genericLanes {
		var d [6][6]T // d, then d·B
		for i := range 6 {
			for j := range 6 {
				d[i][j] = *element(p.src, int64(4*j+i%4)*p.from+int64(i/4)*p.next, t)
			}
			d[i] = winoB(d[i])
		}
		for j := range 6 {
			for i, v := range winoB([6]T{d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j]}) {
				*element(p.dst, int64(6*i+j)*p.to, t) = v
			}
		}
	}
}

// winoB is Bᵀ·d.
func winoB[T Float](d [6]T) [6]T {
	c, e := d[4]-d[2], d[3]-d[1]
	a, b := d[4]-4*d[2], d[3]-4*d[1]
	return [6]T{4*(d[0]-d[2]) + c, a + b, a - b, c + 2*e, c - 2*e, d[5] - d[3] - 4*e}
}

// winoOutGeneric is what every winoOut computes.
func winoOutGeneric[T Float](p *winoCall[T]) {
	for t := range int(p.vecs) * genericLanes {
		var m [6][4]T // M·A
		for i := range 6 {
			var r [6]T
			for j := range r {
				r[j] = *element(p.src, int64(6*i+j)*p.from, t)
			}
			m[i] = winoA(r)
		}
		for j := range 4 {
			for i, v := range winoA([6]T{m[0][j], m[1][j], m[2][j], m[3][j], m[4][j], m[5][j]}) {
				if v < p.lo {
					v = p.lo
				} else if v > p.hi {
					v = p.hi
				}
				*element(p.dst, int64(i)*p.to, 4*t+j) = v
			}
		}
	}
}

// winoA is Aᵀ·m.
func winoA[T Float](m [6]T) [4]T {
	s, d, t, u := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
	return [4]T{m[0] + s + t, d + 2*u, s + 4*t, d + 8*u + m[5]}
}

// unzip4Generic is what every unzip4 does.
func unzip4Generic[T Float](p *unzip4Call[T]) {
	for row := range p.rows {
		for i := range int(p.units) * 4 * genericLanes {
			v := *element(p.src, row*p.from, i)
			j := i % 4
			*element(p.dst, int64(j)*p.grid+row*p.step, i/4) = v
			if j < 2 {
				*element(p.dst, int64(4+j)*p.grid+row*p.step, i/4-1) = v
			}
		}
	}
}

// winoG is G·g for the interpolation points 0, 1, -1, 2, -2 and infinity.
func winoG(g0, g1, g2 float64) [6]float64 {
	return [6]float64{
		g0 / 4,
		-(g0 + g1 + g2) / 6,
		-(g0 - g1 + g2) / 6,
		g0/24 + g1/12 + g2/6,
		g0/24 - g1/12 + g2/6,
		g2,
	}
}
