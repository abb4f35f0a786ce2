package repair

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/secateur/secateur/engine/kernel"
)

// left is what is minimised: ‖Z - X·W‖² + λ‖W - W_old‖².
func left(x, z, old []float32, w []float64, d, m int, l float64) float64 {
	sum := 0.0
	for i := range len(x) / d {
		for j := range m {
			v := float64(z[i*m+j])
			for k := range d {
				v -= float64(x[i*d+k]) * w[k*m+j]
			}
			sum += v * v
		}
	}
	for i, v := range old {
		sum += l * (w[i] - float64(v)) * (w[i] - float64(v))
	}
	return sum
}

// One block is solved exactly: no small step in any direction is better. More blocks, of which each sees what the others
// have left, come close to that, and no pass makes it worse.
func TestBlocksApproachTheWhole(t *testing.T) {
	const d, m, n, rho = 30, 3, 500, 0.01
	rng := rand.New(rand.NewPCG(5, 6))
	x, z, old := floats(n*d), floats(n*m), floats(d*m)
	for _, v := range [][]float32{x, z, old} {
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
	}
	for i := range n { // columns that have much in common, as neighbouring pixels have
		for k := 1; k < d; k++ {
			x[i*d+k] += 0.8 * x[i*d+k-1]
		}
	}
	l := 0.0
	for _, v := range x {
		l += float64(v) * float64(v) * rho / d
	}
	run := func(blocks [][2]int, passes int) float64 {
		s := newSystem(d, m, 64, old, kernel.NewPool(1))
		rest := slices.Clone(z)
		last := left(x, z, old, s.weights(), d, m, l)
		for pass := range passes {
			s.begin(blocks[pass%len(blocks)])
			for i := range n {
				copy(s.next(rest[i*m:(i+1)*m]), x[i*d:(i+1)*d])
			}
			if err := s.solve(rho); err != nil {
				t.Fatal(err)
			}
			now := left(x, z, old, s.weights(), d, m, l)
			if now > last*(1+1e-6) {
				t.Errorf("%v, pass %d: %g after %g", blocks, pass, now, last)
			}
			last = now
		}
		if len(blocks) == 1 {
			w := s.weights()
			for range 50 {
				v := slices.Clone(w)
				for i := range v {
					v[i] += 1e-3 * rng.NormFloat64()
				}
				if e := left(x, z, old, v, d, m, l); e < last {
					t.Errorf("%g is less than %g", e, last)
				}
			}
		}
		return last
	}
	whole := run(split(d, d), 1)
	blocks := split(d, 12)
	if len(blocks) != 3 || blocks[0] != [2]int{0, 10} || blocks[2] != [2]int{20, 30} {
		t.Fatalf("blocks %v", blocks)
	}
	start := left(x, z, old, newSystem(d, m, 1, old, nil).weights(), d, m, l)
	if e := run(blocks, sweeps*len(blocks)); start-e < 0.95*(start-whole) {
		t.Errorf("in blocks %g is left of %g, whole %g", e, start, whole)
	}
}
