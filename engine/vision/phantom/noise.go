package phantom

import "math"

// rng is SplitMix64: the generator is written out, so that a seed draws the same picture in every release of Go.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// between is uniform in [lo,hi).
func (r *rng) between(lo, hi float64) float64 {
	return lo + (hi-lo)*float64(r.next()>>11)/(1<<53)
}

// noise is smooth random values over space: a lattice of random numbers, interpolated.
type noise struct {
	perm  [513]uint8
	value [256]float32
}

func newNoise(r *rng) *noise {
	n := &noise{}
	for i := range 256 {
		n.perm[i] = uint8(i)
		n.value[i] = float32(r.between(-1, 1))
	}
	for i := 255; i > 0; i-- {
		j := int(r.next() % uint64(i+1))
		n.perm[i], n.perm[j] = n.perm[j], n.perm[i]
	}
	copy(n.perm[256:], n.perm[:257]) // so that sums of two indices need no wrapping
	return n
}

// at is the noise at a point, in [-1,1], with features of about one unit.
func (n *noise) at(x, y, z float64) float64 {
	fx, fy, fz := math.Floor(x), math.Floor(y), math.Floor(z)
	i, j, k := int(fx)&255, int(fy)&255, int(fz)&255
	u, v, w := fade(x-fx), fade(y-fy), fade(z-fz)
	// Hash along one axis after the other, so that corners share what they have in common.
	a, b := int(n.perm[i]), int(n.perm[i+1])
	aa, ab, ba, bb := int(n.perm[a+j])+k, int(n.perm[a+j+1])+k, int(n.perm[b+j])+k, int(n.perm[b+j+1])+k
	at := func(p int) float32 { return n.value[n.perm[p]] }
	near := lerp(lerp(at(aa), at(ba), u), lerp(at(ab), at(bb), u), v)
	far := lerp(lerp(at(aa+1), at(ba+1), u), lerp(at(ab+1), at(bb+1), u), v)
	return float64(lerp(near, far, w))
}

func lerp(a, b, t float32) float32 { return a + (b-a)*t }

func fade(t float64) float32 {
	s := float32(t)
	return s * s * s * (s*(s*6-15) + 10)
}

// smooth rises from 0 at lo to 1 at hi.
func smooth(lo, hi, v float64) float64 {
	t := min(max((v-lo)/(hi-lo), 0), 1)
	return t * t * (3 - 2*t)
}
