package phantom

import (
	"math"

	"github.com/secateur/secateur/engine/vision"
)

// fields is the surface seen through each pixel.
type fields struct {
	height []float64 // towards the camera, in half heights
	color  [][3]float64
	light  []float64 // how much light falls there, before the slope counts
	shine  []float64
	view   []float64
	mask   *vision.Mask
}

func (s *scene) surface() *fields {
	n := Width * Height
	f := &fields{
		height: make([]float64, n), color: make([][3]float64, n), light: make([]float64, n),
		shine: make([]float64, n), view: make([]float64, n), mask: vision.NewMask(Width, Height),
	}
	for i := range n {
		x, y := (float64(i%Width)+0.5-Width/2)/unit, (float64(i/Width)+0.5-Height/2)/unit
		if f.view[i] = s.view(x, y); f.view[i] < -0.02 {
			continue
		}
		s.wall(f, i, x, y)
		s.grow(f, i, x, y)
	}
	return f
}

// wall is the tube: folds across it, texture, vessels.
func (s *scene) wall(f *fields, i int, x, y float64) {
	warp := s.noise.at(1.3*x+11, 1.3*y, 3)
	dx, dy := x-s.lumenX+0.10*warp, y-s.lumenY+0.10*s.noise.at(1.3*x, 1.3*y+17, 5)
	c, n := math.Cos(s.tilt), math.Sin(s.tilt)
	a, b := dx*c+dy*n, (-dx*n+dy*c)/s.squash
	r := math.Hypot(a, b) + 1e-6
	depth := s.scaleAt(r) + s.advance
	// Around the tube and along it: a cylinder in noise space, so that nothing has a seam.
	cx, cy, cz := 1.2*a/r, 1.2*b/r, depth

	low := s.noise.at(1.4*cx, 1.4*cy, 1.1*cz)
	mid := s.noise.at(4*cx+3, 4*cy, 2.6*cz)
	fine := s.noise.at(13*cx, 13*cy+5, 8*cz)
	// Detail that is finer than the tube's perspective would show is of the picture's own plane.
	grain := s.noise.at(34*x, 34*y, 9+3*s.advance)

	phase := s.folds*cz + s.twist*s.noise.at(0.9*cx+5, 0.9*cy, 0.4*cz)
	fold := phase - math.Floor(phase)
	strength := s.foldDepth * smooth(-0.7, 0.3, s.noise.at(0.8*cx, 0.8*cy+9, 0.5*cz))
	// Rising slowly towards the camera's side and falling off behind: a crest, and the pocket that it hides.
	ridge := strength * smooth(0.15, 0.74, fold) * (1 - smooth(0.74, 1, fold))
	pocket := strength * (smooth(0.76, 0.98, fold) + 1 - smooth(0, 0.5, fold)) * smooth(0.9, 0.3, r)
	pocket = min(pocket, 1)

	f.height[i] = 0.13*ridge*min(r, 0.8) + s.bump*(0.018*mid+0.03*low)*min(r, 1) + 0.0032*s.grain*fine + 0.0011*s.grain*grain
	lumen := smooth(s.lumenR*0.3, s.lumenR+0.55, r+0.05*warp)
	f.light[i] = (0.04 + 0.96*lumen) * (0.84 + 0.14*low + 0.16*ridge) * (1 - 0.5*pocket)
	f.shine[i] = s.wet * lumen * smooth(-0.3, 0.5, mid+0.5*fine)

	pink := mix([3]float64{206, 128, 112}, [3]float64{214, 146, 92}, s.hue)
	red := mix([3]float64{176, 82, 70}, [3]float64{188, 100, 50}, s.hue)
	col := mix(pink, red, 0.35+0.3*low+0.12*mid+0.05*fine)
	col = mix(col, [3]float64{222, 178, 150}, 0.35*s.pale*smooth(0, 1, ridge+0.4*mid))
	// Vessels are where a noise passes zero, in patches.
	line := math.Abs(s.noise.at(2.6*cx+0.5*mid, 2.6*cy+0.5*low, 1.9*cz+0.15*fine))
	vessel := s.vessels * (1 - smooth(0.015, 0.05, line)) * smooth(-0.1, 0.5, s.noise.at(1.1*cx+7, 1.1*cy, cz))
	f.color[i] = mix(col, [3]float64{128, 36, 40}, 0.5*vessel)
}

// grow puts the polyp on the wall.
func (s *scene) grow(f *fields, i int, x, y float64) {
	rho, dx, dy := s.polyp(x, y)
	if rho >= 1 {
		// The polyp keeps the light off the wall behind it, seen from the lamp, and the wall rises to its foot.
		away := (dx*s.px + dy*s.py) / (math.Hypot(s.px, s.py) + 0.3)
		f.light[i] *= 1 - s.contrast*(0.22+0.34*smooth(-1, 1, away))*(1-smooth(1, 1.3, rho))
		return
	}
	f.mask.Pix[i] = 1
	dome := math.Pow(1-rho*rho, s.flat) // half is a ball, more runs out flat
	knob := s.noise.at(5*dx+31, 5*dy, 2)
	pits := s.noise.at(13*dx, 13*dy+23, 4)
	// Folds pass beneath it: little of the wall's relief comes through.
	base := 0.12 * f.height[i]
	f.height[i] = base + s.pr*s.height*(0.62*dome+0.028*knob*dome+0.0035*pits) + 0.0008*s.grain*s.noise.at(36*x, 36*y, 2)
	// It stands out of the tube towards the lamp: evenly lit, however dark the wall behind.
	f.light[i] = 0.78 + 0.06*knob + 0.14*dome
	f.shine[i] = s.polypWet * (0.6 + 0.4*smooth(-0.5, 0.5, knob))
	own := mix([3]float64{226, 122, 104}, [3]float64{206, 84, 74}, s.red)
	own = mix(own, mix([3]float64{206, 128, 112}, [3]float64{214, 146, 92}, s.hue), s.kin)
	own = mix(own, [3]float64{160, 54, 56}, 0.10*smooth(0.1, 0.7, pits)+0.12*smooth(0, 0.6, knob))
	f.color[i] = own
}

// render lights the surface: Lambert's law for the body, a narrow lobe for the wet film.
func (s *scene) render(f *fields) *vision.Image {
	img := vision.NewImage(Width, Height)
	for y := range Height {
		for x := range Width {
			i := y*Width + x
			open := smooth(-0.012, 0.012, f.view[i])
			if open == 0 {
				continue
			}
			l, r, u, d := i-min(x, 1), i+min(Width-1-x, 1), i-min(y, 1)*Width, i+min(Height-1-y, 1)*Width
			// Slopes of a polyp's rim are infinite in the model; the eye sees an edge.
			sx := clamp((f.height[r]-f.height[l])*unit/2, -3, 3)
			sy := clamp((f.height[d]-f.height[u])*unit/2, -3, 3)
			vx, vy := (float64(x)+0.5-Width/2)/unit, (float64(y)+0.5-Height/2)/unit
			// The lamp sits beside the lens, a little up and left; the wall far from the axis is lit from inside.
			lx, ly, lz := -0.12-0.38*vx, -0.18-0.38*vy, 1.0
			ll := math.Sqrt(lx*lx + ly*ly + lz*lz)
			nl := math.Sqrt(1 + sx*sx + sy*sy)
			cos := max(0, (-sx*lx-sy*ly+lz)/(nl*ll))
			hx, hy, hz := lx/ll-0.25*vx, ly/ll-0.25*vy, lz/ll+1
			spec := max(0, (-sx*hx-sy*hy+hz)/(nl*math.Sqrt(hx*hx+hy*hy+hz*hz)))
			glint := f.shine[i] * smooth(0.9945, 0.9985, spec)

			vignette := 1 - 0.34*smooth(0.5, 1.35, math.Hypot(vx, vy))
			body := s.exposure * f.light[i] * vignette * (0.22 + 0.84*cos)
			for c, v := range f.color[i] {
				v = v*body*1.1 + 6
				v += (255 - v) * 0.85 * glint
				// Cameras compress the brightest part.
				if v > 200 {
					v = 200 + 55*(1-math.Exp(-(v-200)/55))
				}
				img.Pix[3*i+c] = byte(clamp(v*open+0.5, 0, 255))
			}
		}
	}
	return img
}

func mix(a, b [3]float64, t float64) [3]float64 {
	t = clamp(t, 0, 1)
	return [3]float64{a[0] + (b[0]-a[0])*t, a[1] + (b[1]-a[1])*t, a[2] + (b[2]-a[2])*t}
}

func clamp(v, lo, hi float64) float64 { return min(max(v, lo), hi) }
