package vision

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawMask draws blobs, lines and specks, or nothing at all.
func drawMask(t *rapid.T, w, h, classes int, label string) *Mask {
	m := NewMask(w, h)
	m.Classes = classes
	for range rapid.IntRange(0, 4).Draw(t, label+" blobs") {
		x0, y0 := rapid.IntRange(0, w-1).Draw(t, "x"), rapid.IntRange(0, h-1).Draw(t, "y")
		bw, bh := rapid.IntRange(1, w).Draw(t, "w"), rapid.IntRange(1, h).Draw(t, "h")
		c := rapid.IntRange(0, classes).Draw(t, "class")
		for y := y0; y < min(h, y0+bh); y++ {
			for x := x0; x < min(w, x0+bw); x++ {
				m.Pix[y*w+x] = byte(c)
			}
		}
	}
	return m
}

// slowHD95 is the definition, pixel by pixel.
func slowHD95(a, b *Mask) float64 {
	worst := 0.0
	for c := 1; c <= 255; c++ {
		edge := func(m *Mask) (ps [][2]int) {
			is := func(x, y int) bool {
				return x >= 0 && y >= 0 && x < m.W && y < m.H && int(m.Pix[y*m.W+x]) == c
			}
			for y := range m.H {
				for x := range m.W {
					if is(x, y) && !(is(x-1, y) && is(x+1, y) && is(x, y-1) && is(x, y+1)) {
						ps = append(ps, [2]int{x, y})
					}
				}
			}
			return ps
		}
		p, q := edge(a), edge(b)
		switch {
		case len(p)+len(q) == 0:
			continue
		case len(p) == 0 || len(q) == 0:
			worst = max(worst, math.Hypot(float64(a.W), float64(a.H)))
			continue
		}
		directed := func(p, q [][2]int) float64 {
			var ds []float64
			for _, u := range p {
				near := math.Inf(1)
				for _, v := range q {
					near = min(near, math.Hypot(float64(u[0]-v[0]), float64(u[1]-v[1])))
				}
				ds = append(ds, near)
			}
			slices.Sort(ds)
			return ds[int(math.Ceil(0.95*float64(len(ds))-1e-9))-1]
		}
		worst = max(worst, directed(p, q), directed(q, p))
	}
	return worst
}

func TestHD95IsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 24).Draw(t, "width"), rapid.IntRange(1, 24).Draw(t, "height")
		classes := rapid.IntRange(1, 3).Draw(t, "classes")
		a, b := drawMask(t, w, h, classes, "a"), drawMask(t, w, h, classes, "b")
		got, want := HD95(a, b), slowHD95(a, b)
		if math.Abs(got-want) > 1e-9 {
			t.Fatalf("%d x %d: %g, want %g\n%v\n%v", w, h, got, want, a.Pix, b.Pix)
		}
		if back := HD95(b, a); back != got {
			t.Fatalf("not symmetric: %g and %g", got, back)
		}
	})
}

func TestHD95(t *testing.T) {
	square := func(x0, y0, side int) *Mask {
		m := NewMask(40, 30)
		for y := y0; y < y0+side; y++ {
			for x := x0; x < x0+side; x++ {
				m.Pix[y*m.W+x] = 1
			}
		}
		return m
	}
	speck := square(5, 5, 10)
	speck.Pix[29*40+39] = 1 // 1 pixel of 37: under 5 %, so that it does not count
	for _, c := range []struct {
		name string
		a, b *Mask
		want float64
	}{
		{"the same", square(5, 5, 10), square(5, 5, 10), 0},
		{"moved by 3", square(5, 5, 10), square(8, 5, 10), 3},
		{"a far speck", square(5, 5, 10), speck, 0},
		{"both empty", square(0, 0, 0), square(0, 0, 0), 0},
		{"one empty", square(5, 5, 10), square(0, 0, 0), 50},
		{"single pixels", square(0, 0, 1), square(3, 4, 1), 5},
	} {
		if got := HD95(c.a, c.b); got != c.want {
			t.Errorf("%s: %g, want %g", c.name, got, c.want)
		}
	}
}

func BenchmarkHD95(b *testing.B) {
	p, q := NewMask(1280, 1024), NewMask(1280, 1024)
	for y := range p.H {
		for x := range p.W {
			if math.Hypot(float64(x-640), float64(y-512)) < 400 {
				p.Pix[y*p.W+x] = 1
			}
			if math.Hypot(float64(x-600), float64(y-500)) < 420 {
				q.Pix[y*q.W+x] = 1
			}
		}
	}
	for b.Loop() {
		HD95(p, q)
	}
}
