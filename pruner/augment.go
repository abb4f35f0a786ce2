package pruner

import (
	"math"
	"math/rand/v2"

	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/loss"
	"github.com/secateur/secateur/pruner/score"
)

// augmented is fit image i as epoch sees it, flipped and moved a little as the seed says, and with masks its mask alike.
func (r *run) augmented(epoch, i int, masks bool) (score.Example, error) {
	var ex score.Example
	var err error
	if masks {
		ex, err = r.example(&r.fit.Items[i])
	} else {
		ex.Input, err = r.cached(i)
	}
	if err != nil {
		return ex, err
	}
	w := newWarp(rand.New(rand.NewPCG(r.opt.Seed^uint64(epoch)<<32, uint64(i))))
	h, wide := ex.Input.Shape[2], ex.Input.Shape[3]
	if r.last() {
		h, wide = ex.Input.Shape[1], ex.Input.Shape[2]
	}
	ex.Input = w.image(ex.Input, h, wide, r.last())
	if ex.Truth != nil {
		ex.Truth = w.mask(loss.Truth(ex.Truth, wide, h))
	}
	return ex, nil
}

// warp is a small affine move of an image about its centre: what comes to p, in pixels from the centre, was at
//
//	1/scale · R(turn) · F · p + shift
//
// with F a flip of either axis. It takes a circle to a circle, whatever the sides of the image.
type warp struct {
	xx, xy, yx, yy float64 // 1/scale · R · F
	dx, dy         float64 // shift, in parts of the sides
}

func newWarp(rng *rand.Rand) warp {
	turn := (rng.Float64() - 0.5) * 20 * math.Pi / 180
	scale := 0.9 + 0.2*rng.Float64()
	fx, fy := 1.0, 1.0
	if rng.IntN(2) == 1 {
		fx = -1
	}
	if rng.IntN(2) == 1 {
		fy = -1
	}
	return affine(turn, scale, fx, fy, (rng.Float64()-0.5)*0.1, (rng.Float64()-0.5)*0.1)
}

// affine is the warp of a turn in radians, a scale, flips (-1, or 1 for none) and a shift.
func affine(turn, scale, fx, fy, dx, dy float64) warp {
	s, c := math.Sincos(turn)
	return warp{fx * c / scale, -fy * s / scale, fx * s / scale, fy * c / scale, dx, dy}
}

// back is where what comes to (x, y) was, in pixels from the corner.
func (w warp) back(x, y float64, h, wide int) (float64, float64) {
	cx, cy := float64(wide)/2, float64(h)/2
	x, y = x-cx, y-cy
	return w.xx*x + w.xy*y + cx + w.dx*float64(wide), w.yx*x + w.yy*y + cy + w.dy*float64(h)
}

// from is the pixel that pixel (x, y) of a plane comes from, nearest, moved in at the edges.
func (w warp) from(x, y, h, wide int) int {
	u, v := w.back(float64(x)+0.5, float64(y)+0.5, h, wide)
	at := func(t float64, n int) int { return min(max(int(math.Floor(t)), 0), n-1) }
	return at(v, h)*wide + at(u, wide)
}

func (w warp) image(x *tensor.Tensor, h, wide int, last bool) *tensor.Tensor {
	out := tensor.New(tensor.Float32, x.Shape...)
	src, dst := tensor.Of[float32](x), tensor.Of[float32](out)
	c := len(src) / (h * wide)
	for y := range h {
		for k := range wide {
			from, to := w.from(k, y, h, wide), y*wide+k
			for i := range c {
				if last {
					dst[to*c+i] = src[from*c+i]
				} else {
					dst[i*h*wide+to] = src[i*h*wide+from]
				}
			}
		}
	}
	return out
}

func (w warp) mask(m *vision.Mask) *vision.Mask {
	out := &vision.Mask{W: m.W, H: m.H, Classes: m.Classes, Pix: make([]byte, len(m.Pix))}
	for y := range m.H {
		for x := range m.W {
			out.Pix[y*m.W+x] = m.Pix[w.from(x, y, m.H, m.W)]
		}
	}
	return out
}
