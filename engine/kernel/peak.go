package kernel

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// Peak is how many float32 multiply-adds a second one core does when nothing has to be loaded from beyond its first-level
// cache: those of the tile that comes nearest, measured once.
func Peak() float64 { return measuredPeak() }

var measuredPeak = sync.OnceValue(func() float64 {
	k := microFor[float32](isa.Best())
	r := min(8, k.maxChannels())
	nv := k.vectors(r)
	if k.lanes == 8 && isa.Best() != isa.Generic {
		r, nv = 4, 3
	}
	const steps, turns = 256, 200
	a, w, c := make([]float32, 1024), make([]float32, steps*r), make([]float32, 1024*r)
	off, bias := make([]int64, steps), make([]float32, r)
	p := &call[float32]{
		a: &a[0], off: &off[0], steps: steps, w: &w[0], c: &c[0], cstride: 4096, bias: &bias[0],
		tiles: 1, rows: 1, last: int64(k.lanes), lo: -1e9, hi: 1e9,
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, v := range [][]float32{a, w} {
		for i := range v {
			v[i] = rnd.Float32() - 0.5
		}
	}
	best := time.Hour
	for range 30 {
		t := time.Now()
		for range turns {
			k.tiles[r][nv](p)
		}
		best = min(best, time.Since(t))
	}
	return turns * steps * float64(r*nv*k.lanes) / best.Seconds()
})
