package pruner

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// A warp moves an image as it is: all distances change by the same factor, the scale's, and an odd number of flips mirrors
// it, whatever the sides of the image.
func TestWarpKeepsShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, wide := rapid.IntRange(1, 500).Draw(t, "h"), rapid.IntRange(1, 500).Draw(t, "w")
		turn, scale := rapid.Float64Range(-4, 4).Draw(t, "turn"), rapid.Float64Range(0.5, 2).Draw(t, "scale")
		flip := func(name string) float64 { return float64(2*rapid.IntRange(0, 1).Draw(t, name) - 1) }
		fx, fy := flip("fx"), flip("fy")
		w := affine(turn, scale, fx, fy, rapid.Float64Range(-1, 1).Draw(t, "dx"), rapid.Float64Range(-1, 1).Draw(t, "dy"))
		at := rapid.Float64Range(-500, 500)
		var p, q [3][2]float64
		for i := range p {
			p[i] = [2]float64{at.Draw(t, "x"), at.Draw(t, "y")}
			q[i][0], q[i][1] = w.back(p[i][0], p[i][1], h, wide)
		}
		across := func(p [3][2]float64) (ux, uy, vx, vy float64) {
			return p[1][0] - p[0][0], p[1][1] - p[0][1], p[2][0] - p[0][0], p[2][1] - p[0][1]
		}
		ux, uy, vx, vy := across(p)
		ax, ay, bx, by := across(q)
		if d := math.Hypot(ax, ay)*scale - math.Hypot(ux, uy); math.Abs(d) > 1e-9 {
			t.Fatalf("a distance of %g became %g at scale %g", math.Hypot(ux, uy), math.Hypot(ax, ay), scale)
		}
		if d := (ax*by-ay*bx)*scale*scale - fx*fy*(ux*vy-uy*vx); math.Abs(d) > 1e-5 { // products of numbers up to 2000
			t.Fatalf("an area of %g became %g with flips %g, %g", ux*vy-uy*vx, ax*by-ay*bx, fx, fy)
		}
	})
}

// A quarter turn of a rectangle takes the pixel to the right of the centre to the one below it, as far away.
func TestQuarterTurn(t *testing.T) {
	w := affine(math.Pi/2, 1, 1, 1, 0, 0)
	if x, y := w.back(60, 20, 40, 100); math.Abs(x-50) > 1e-9 || math.Abs(y-30) > 1e-9 {
		t.Errorf("(60, 20) of 100 x 40 comes from (%g, %g), want (50, 30)", x, y)
	}
}

// A flip mirrors each pixel, a second one takes it back, and images and masks move alike.
func TestFlips(t *testing.T) {
	const h, wide = 3, 5
	x := tensor.New(tensor.Float32, 1, 2, h, wide)
	m := vision.NewMask(wide, h)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range m.Pix {
		m.Pix[i] = byte(rng.IntN(2))
		tensor.Of[float32](x)[i], tensor.Of[float32](x)[h*wide+i] = float32(m.Pix[i]), rng.Float32()
	}
	for _, f := range [][2]float64{{1, 1}, {-1, 1}, {1, -1}, {-1, -1}} {
		w := affine(0, 1, f[0], f[1], 0, 0)
		once, mask := w.image(x, h, wide, false), w.mask(m)
		for y := range h {
			for k := range wide {
				fy, fk := y, k
				if f[0] < 0 {
					fk = wide - 1 - k
				}
				if f[1] < 0 {
					fy = h - 1 - y
				}
				if tensor.Of[float32](once)[y*wide+k] != float32(m.Pix[fy*wide+fk]) || mask.Pix[y*wide+k] != m.Pix[fy*wide+fk] {
					t.Fatalf("flip %v: (%d, %d) is not from (%d, %d)", f, k, y, fk, fy)
				}
			}
		}
		if !slices.Equal(tensor.Of[float32](w.image(once, h, wide, false)), tensor.Of[float32](x)) {
			t.Errorf("flip %v twice is not what it was", f)
		}
	}
}
