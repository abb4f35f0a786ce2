package kernel

import (
	"math"
	"math/rand/v2"
)

// winogradBudget is the error that a layer may have by Winograd, relative to its largest result. A network's outputs are
// to be within 1e-4; errors of layers do not add up to more than a few times the largest, since each is of random sign and
// normalisation keeps their scale.
const winogradBudget = 3e-5

// estimateError gives the largest error of F(4x4,3x3) with these weights, relative to the largest result, on two made-up
// tiles: one of rectified noise, as activations are, and one that is smooth, where filters whose weights cancel leave
// little of what they sum. It looks at a few output channels, and depends on nothing but the weights.
func (d *winograd[T]) estimateError(w []T) float64 {
	rnd := rand.New(rand.NewPCG(1, 36))
	worst := 0.0
	for _, smooth := range []bool{false, true} {
		x := make([][6][6]T, d.s.C)
		for c := range x {
			for i := range 6 {
				for j := range 6 {
					v := max(rnd.NormFloat64(), 0)
					if smooth {
						v = 1 + 0.2*rnd.NormFloat64()
					}
					x[c][i][j] = T(v)
				}
			}
		}
		worst = max(worst, d.tileError(w, x))
	}
	return worst
}

// looksAt is how many output channels estimateError computes.
const looksAt = 6

func (d *winograd[T]) tileError(w []T, x [][6][6]T) float64 {
	v := make([][6][6]T, len(x))
	for c := range x {
		v[c] = transformTile(d.points, x[c])
	}
	var off, top float64
	n := min(looksAt, d.s.M)
	for k := range n {
		m := k * d.s.M / n
		var sum [6][6]T
		for c := range x {
			g := transformWeights(d.points, w[(m*d.s.C+c)*9:][:9])
			for i := range 6 {
				for j := range 6 {
					sum[i][j] += T(g[i][j]) * v[c][i][j]
				}
			}
		}
		y := transformBack(d.points, sum)
		for i := range 4 {
			for j := range 4 {
				exact := 0.0
				for c := range x {
					for t := range 9 {
						exact += float64(w[(m*d.s.C+c)*9+t]) * float64(x[c][i+t/3][j+t%3])
					}
				}
				off, top = max(off, math.Abs(float64(y[i][j])-exact)), max(top, math.Abs(exact))
			}
		}
	}
	if top == 0 {
		return 0
	}
	return off / top
}

// transformTile is Bᵀ·d·B.
func transformTile[T Float](points winoPoints, d [6][6]T) (v [6][6]T) {
	for i := range 6 {
		d[i] = winoB(points, d[i])
	}
	for j := range 6 {
		for i, x := range winoB(points, [6]T{d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j]}) {
			v[i][j] = x
		}
	}
	return v
}

// transformBack is Aᵀ·m·A.
func transformBack[T Float](points winoPoints, m [6][6]T) (y [4][4]T) {
	var r [6][4]T
	for i := range 6 {
		r[i] = winoA(points, m[i])
	}
	for j := range 4 {
		for i, x := range winoA(points, [6]T{r[0][j], r[1][j], r[2][j], r[3][j], r[4][j], r[5][j]}) {
			y[i][j] = x
		}
	}
	return y
}

// transformWeights is G·g·Gᵀ, in float64.
func transformWeights[T Float](points winoPoints, g []T) (u [6][6]float64) {
	var rows [6][3]float64
	for j := range 3 {
		for i, v := range winoG(points, float64(g[j]), float64(g[3+j]), float64(g[6+j])) {
			rows[i][j] = v
		}
	}
	for i, r := range rows {
		u[i] = winoG(points, r[0], r[1], r[2])
	}
	return u
}
