package kernel

import "unsafe"

const genericLanes = 8

// genericMicro is the definition of the micro-kernels, for any T on any machine.
func genericMicro[T Float]() *micro[T] {
	k := &micro[T]{
		lanes:  genericLanes,
		zip2:   func(_, _, _ []T) int { return 0 },
		tiles:  [][]func(*call[T]){nil},
		pairs:  [][]func(*call[T]){nil},
		wino:   genericWino[T](4, 8),
		depths: genericDepths[T](),
	}
	for r := 1; r <= 4; r++ {
		row := []func(*call[T]){nil}
		for nv := 1; nv <= 8; nv++ {
			row = append(row, func(p *call[T]) { tileGeneric(p, r, nv) })
		}
		k.tiles = append(k.tiles, row)
	}
	for r := 1; r <= 2; r++ {
		row := []func(*call[T]){nil}
		for nv := 1; nv <= 8; nv++ {
			row = append(row, func(p *call[T]) { pairGeneric(p, r, nv, genericLanes) })
		}
		k.pairs = append(k.pairs, row)
	}
	return k
}

func genericDepths[T Float]() *[2][3][2]func(*depthCall[T]) {
	var f [2][3][2]func(*depthCall[T])
	for edge := range f {
		for k := range f[edge] {
			for stride := range f[edge][k] {
				f[edge][k][stride] = func(p *depthCall[T]) { depthGeneric(p, 3+2*k, stride+1, genericLanes) }
			}
		}
	}
	return &f
}

// pairGeneric is what every pair tile computes.
func pairGeneric[T Float](p *call[T], r, nv, lanes int) {
	var z T
	size := int(unsafe.Sizeof(z))
	off := unsafe.Slice(p.off, p.steps)
	w := unsafe.Slice(p.w, int(p.steps)*2*r)
	m := (int(p.tiles)*nv-1)*lanes + int(p.last)
	for row := range p.rows {
		for n := range 2 * r {
			bias := *element(p.bias, 0, n/2)
			for i := range m {
				v := bias
				for s, o := range off {
					v += *element(p.a, row*p.arow+o, i) * w[s*2*r+n]
				}
				if v < p.lo {
					v = p.lo
				} else if v > p.hi {
					v = p.hi
				}
				*(*T)(unsafe.Add(unsafe.Pointer(p.c), int(row*p.crow)+n/2*int(p.cstride)+(2*i+n%2)*size)) = v
			}
		}
	}
}

// tileGeneric is what every micro-kernel computes.
func tileGeneric[T Float](p *call[T], r, nv int) {
	at := func(base *T, bytes int64, n int) []T {
		return unsafe.Slice((*T)(unsafe.Add(unsafe.Pointer(base), bytes)), n)
	}
	var z T
	off := unsafe.Slice(p.off, p.steps)
	w := unsafe.Slice(p.w, int(p.steps)*r)
	m := (int(p.tiles)*nv-1)*genericLanes + int(p.last)
	for row := range p.rows {
		for n := range r {
			c := at(p.c, row*p.crow+int64(n)*p.cstride, m)
			if p.bias != nil {
				b := *(*T)(unsafe.Add(unsafe.Pointer(p.bias), n*int(unsafe.Sizeof(z))))
				for i := range c {
					c[i] = b
				}
			}
			s := 0
			// Four steps at a time, so that c is read and written a quarter as often.
			for ; s+4 <= len(off); s += 4 {
				w0, w1, w2, w3 := w[s*r+n], w[s*r+r+n], w[s*r+2*r+n], w[s*r+3*r+n]
				a0, a1 := at(p.a, row*p.arow+off[s], m), at(p.a, row*p.arow+off[s+1], m)
				a2, a3 := at(p.a, row*p.arow+off[s+2], m), at(p.a, row*p.arow+off[s+3], m)
				for i := range c {
					c[i] += a0[i]*w0 + a1[i]*w1 + a2[i]*w2 + a3[i]*w3
				}
			}
			for ; s < len(off); s++ {
				ws, a := w[s*r+n], at(p.a, row*p.arow+off[s], m)
				for i := range c {
					c[i] += a[i] * ws
				}
			}
			for i, v := range c {
				if v < p.lo {
					c[i] = p.lo
				} else if v > p.hi {
					c[i] = p.hi
				}
			}
		}
	}
}
