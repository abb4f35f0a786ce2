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

// warp is a small affine move of an image: a flip of either axis, a turn, a scale and a shift.
type warp struct{ a, b, c, d, dx, dy float64 } // in the unit square around the centre

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
	s, c := math.Sincos(turn)
	return warp{fx * c / scale, -s / scale, s / scale, fy * c / scale, (rng.Float64() - 0.5) * 0.1, (rng.Float64() - 0.5) * 0.1}
}

// from is the pixel that (x, y) of a plane comes from, nearest, moved in at the edges.
func (w warp) from(x, y, h, wide int) int {
	u, v := (float64(x)+0.5)/float64(wide)-0.5, (float64(y)+0.5)/float64(h)-0.5
	at := func(t float64, n int) int { return min(max(int(math.Floor((t+0.5)*float64(n))), 0), n-1) }
	return at(w.c*u+w.d*v+w.dy, h)*wide + at(w.a*u+w.b*v+w.dx, wide)
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
