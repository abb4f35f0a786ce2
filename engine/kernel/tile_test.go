package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

// Every tile of every instruction set equals generic: at every height and width, at every tail of the last vector,
// misaligned, over several tiles and rows, begun from a bias and continued.
func TestTiles(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		rnd := rand.New(rand.NewPCG(1, uint64(l)))
		for r := 1; r <= k.maxChannels(); r++ {
			for nv := 1; nv <= k.vectors(r); nv++ {
				for last := 1; last <= k.lanes; last++ {
					testTile(t, k, rnd, r, nv, last, 1+rnd.IntN(3), 1+rnd.IntN(3), 1+rnd.IntN(20), last%2 == 0)
				}
			}
		}
	})
}

func testTile(t *testing.T, k *micro[float32], rnd *rand.Rand, r, nv, last, tiles, rows, steps int, resume bool) {
	name := fmt.Sprintf("%dx%d last=%d tiles=%d rows=%d steps=%d resume=%v", r, nv, last, tiles, rows, steps, resume)
	m := (tiles*nv-1)*k.lanes + last
	arow, crow := m+rnd.IntN(9), m+rnd.IntN(9)
	cstride := rows*crow + rnd.IntN(5)
	span := rows*arow + 40
	off := make([]int64, steps)
	for i := range off {
		off[i] = int64(4 * rnd.IntN(40))
	}
	a := kerneltest.New[float32](span, rnd.IntN(16), 1e3).Random(rnd)
	w := kerneltest.New[float32](steps*r, rnd.IntN(16), 3e3).Random(rnd)
	bias := kerneltest.New[float32](r, rnd.IntN(16), 5e3).Random(rnd)
	init := kerneltest.New[float32](r*cstride, 0, 7e3).Random(rnd)
	c := kerneltest.New[float32](r*cstride, rnd.IntN(16), 9e3)
	copy(c.V, init.V)
	p := &call[float32]{
		a: &a.V[0], off: &off[0], steps: int64(steps), w: &w.V[0], c: &c.V[0], cstride: int64(4 * cstride),
		bias: &bias.V[0], tiles: int64(tiles), rows: int64(rows), arow: int64(4 * arow), crow: int64(4 * crow),
		last: int64(last), lo: -1.5, hi: 1.25,
	}
	if resume {
		p.bias = nil
	}
	k.tiles[r][nv](p)
	got := append([]float32{}, c.V...)
	want := make([]float64, len(got))
	mag := make([]float64, len(got))
	for i, v := range init.V {
		want[i] = float64(v) // what lies between rows must stay
	}
	for n := range r {
		for row := range rows {
			for i := range m {
				at := n*cstride + row*crow + i
				sum := float64(bias.V[n])
				if resume {
					sum = float64(init.V[at])
				}
				mag[at] = math.Abs(sum)
				for s := range steps {
					v := float64(a.V[row*arow+i+int(off[s]/4)]) * float64(w.V[s*r+n])
					sum += v
					mag[at] += math.Abs(v)
				}
				want[at] = Clamp{-1.5, 1.25}.of(sum)
			}
		}
	}
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(name)
		}
	}()
	c.Check(t, "c")
	a.Check(t, "a")
	w.Check(t, "w")
	bias.Check(t, "bias")
	kerneltest.Close(t, got, want, mag, steps)
}

// A column of one channel equals the same rows done by generic, for every number of rows and pixels.
func TestColumns(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		if k.columns == nil {
			t.Skip("no columns at this level")
		}
		rnd := rand.New(rand.NewPCG(3, uint64(l)))
		for rows := 1; rows <= 2*len(k.columns)+1; rows++ {
			for cols := 1; cols <= 3*k.lanes; cols++ {
				arow, crow, steps := cols+rnd.IntN(9), cols+rnd.IntN(9), 1+rnd.IntN(12)
				off := make([]int64, steps)
				for i := range off {
					off[i] = int64(4 * rnd.IntN(40))
				}
				a := kerneltest.New[float32](rows*arow+40, rnd.IntN(16), 1e3).Random(rnd)
				w := kerneltest.New[float32](steps, rnd.IntN(16), 3e3).Random(rnd)
				c := kerneltest.New[float32](rows*crow, rnd.IntN(16), 7e3).Random(rnd)
				bias := []float32{0.25}
				p := call[float32]{
					a: &a.V[0], off: &off[0], steps: int64(steps), w: &w.V[0], c: &c.V[0], bias: &bias[0],
					rows: int64(rows), arow: int64(4 * arow), crow: int64(4 * crow), lo: -1, hi: 0.75,
				}
				want, mag := make([]float64, rows*crow), make([]float64, rows*crow)
				for i, v := range c.V {
					want[i] = float64(v) // what lies between rows must stay
				}
				for row := range rows {
					for i := range cols {
						sum, abs := 0.25, 0.25
						for s := range steps {
							v := float64(a.V[row*arow+i+int(off[s]/4)]) * float64(w.V[s])
							sum += v
							abs += math.Abs(v)
						}
						want[row*crow+i], mag[row*crow+i] = Clamp{-1, 0.75}.of(sum), abs
					}
				}
				k.column(&p, cols)
				c.Check(t, "c")
				kerneltest.Close(t, c.V, want, mag, steps)
			}
		}
	})
}

// A NaN in the input reaches the output, whatever the clamp.
func TestTileNaN(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		for r := 1; r <= k.maxChannels(); r++ {
			a := make([]float32, 256)
			a[0] = float32(math.NaN())
			w, bias, c, off := make([]float32, r), make([]float32, r), make([]float32, r*64), []int64{0}
			w[r-1] = 1
			p := &call[float32]{
				a: &a[0], off: &off[0], steps: 1, w: &w[0], c: &c[0], cstride: 4 * 64, bias: &bias[0], rows: 1, lo: 0, hi: 6,
			}
			k.rows(p, r, 3)
			if v := c[(r-1)*64]; v == v {
				t.Fatalf("r=%d: NaN became %g", r, v)
			}
		}
	})
}

// zip2 interleaves a multiple of its block, whatever the length.
func TestZip(t *testing.T) {
	kerneltest.EachLevel(t, func(t *testing.T, l isa.Level) {
		k := microFor[float32](l)
		rnd := rand.New(rand.NewPCG(2, 2))
		for n := range 70 {
			a, b := kerneltest.New[float32](n, n%7, 1).Random(rnd), kerneltest.New[float32](n, n%5, 2).Random(rnd)
			z := kerneltest.New[float32](2*n, n%3, 3)
			for i := range k.zip2(z.V, a.V, b.V) {
				if z.V[2*i] != a.V[i] || z.V[2*i+1] != b.V[i] {
					t.Fatalf("n=%d: pair %d is %g,%g, want %g,%g", n, i, z.V[2*i], z.V[2*i+1], a.V[i], b.V[i])
				}
			}
			z.Check(t, "z")
		}
	})
}
