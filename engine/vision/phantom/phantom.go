// Package phantom draws synthetic colonoscopy frames with a polyp and its exact mask, from a seed alone: pictures for
// demos, benchmarks and tests that need neither files nor a patient.
//
// A frame looks down a tube. Depth along it follows from the distance to the lumen's centre, so folds, texture and vessels
// get perspective, and a later frame is the same wall seen from further on. Wall and polyp form one height field; its
// slope, under a light beside the camera, gives shading and the wet highlights.
package phantom

import (
	"math"

	"github.com/secateur/secateur/engine/vision"
)

// The size of a frame in pixels.
const (
	Width  = 352
	Height = 288
)

// Draw gives a frame of the sequence that seed names, and the mask of its polyp. The camera sways and moves a little
// with the frame number, 25 to a second; the polyp stays in view. One build on one kind of
// processor always draws the same bytes.
func Draw(seed uint64, frame int) (*vision.Image, *vision.Mask) {
	s := newScene(seed)
	s.move(frame)
	f := s.surface()
	return s.render(f), f.mask
}

// Coordinates are in half heights of the picture, from its centre, y down.
const unit = Height / 2

// scene is what a seed decides, and where the camera is.
type scene struct {
	noise *noise

	lumenX, lumenY, lumenR    float64 // centre and radius of the dark end of the tube
	squash, tilt              float64 // the tube's section is an ellipse
	folds, foldDepth, twist   float64
	bump, grain, wet, vessels float64
	hue, pale, exposure       float64
	round                     float64 // how round the field of view is: 1 a circle, 0 a rectangle with cut corners

	angle, reach, size   float64 // the polyp: direction from the lumen, distance, radius
	aspect, lean, height float64
	lobes                [3]float64
	lobePhase            [3]float64
	red, kin, contrast   float64 // its colour, how much of it is the wall's, its shadow
	polypWet, flat       float64
	sway                 [4]float64 // phases of the camera's motion

	// Set by move.
	advance, px, py, pr float64
}

func newScene(seed uint64) *scene {
	r := rng(seed)
	s := &scene{noise: newNoise(&r)}
	u := r.between
	s.angle = u(0, 2*math.Pi)
	s.size = u(0.24, 0.5)
	// The polyp lies near the middle, the lumen on its far side.
	cx, cy := u(-0.45, 0.45), u(-0.3, 0.3)
	s.reach = s.size + u(0.25, 0.55)
	s.lumenX, s.lumenY = cx-s.reach*math.Cos(s.angle), cy-s.reach*math.Sin(s.angle)
	s.lumenR = u(0.05, 0.22)
	s.squash, s.tilt = u(0.75, 1), u(0, math.Pi)
	s.folds, s.foldDepth, s.twist = u(1.2, 2.4), u(0.6, 1), u(0.4, 0.8)
	s.bump, s.grain, s.wet, s.vessels = u(0.7, 1.6), u(0.5, 1.2), u(0.3, 1), u(0, 0.8)
	s.hue, s.pale, s.exposure = u(0, 1), u(0, 1), u(0.95, 1.35)
	s.round = u(0, 1)
	s.aspect, s.lean, s.height = u(0.68, 1), u(0, math.Pi), u(0.5, 1.05)
	for i := range s.lobes {
		s.lobes[i], s.lobePhase[i] = u(0, 0.1)/float64(i+1), u(0, 2*math.Pi)
	}
	s.red, s.kin, s.contrast, s.polypWet, s.flat = u(0, 1), u(0.3, 0.75), u(0.35, 0.9), u(0.6, 1), u(0.5, 0.85)
	for i := range s.sway {
		s.sway[i] = u(0, 2*math.Pi)
	}
	return s
}

// move puts the camera where it is at a frame.
func (s *scene) move(frame int) {
	t := float64(frame) / 25
	sway := func(i int, period float64) float64 {
		// Minus its value at the start: frame 0 is the picture that the seed composed.
		return math.Sin(2*math.Pi*t/period+s.sway[i]) - math.Sin(s.sway[i])
	}
	s.advance = 0.10 * sway(0, 5.3)
	s.lumenX += 0.05 * sway(1, 3.7)
	s.lumenY += 0.05 * sway(2, 4.3)
	turn := 0.06 * sway(3, 6.1)
	// Going forward brings the wall towards the edge of the picture and makes it larger.
	k := s.scaleAt(s.reach) / (s.scaleAt(s.reach) - s.advance)
	s.px = s.lumenX + k*s.reach*math.Cos(s.angle+turn)
	s.py = s.lumenY + k*s.reach*math.Sin(s.angle+turn)
	s.pr = k * s.size
}

// scaleAt is the depth that is seen at a distance from the lumen's centre.
func (s *scene) scaleAt(r float64) float64 { return 0.8 / (r + 0.05) }

// polyp gives the distance from the polyp's centre, 1 on its outline, and the direction.
func (s *scene) polyp(x, y float64) (rho, dx, dy float64) {
	dx, dy = (x-s.px)/s.pr, (y-s.py)/s.pr
	c, n := math.Cos(s.lean), math.Sin(s.lean)
	a, b := dx*c+dy*n, (-dx*n+dy*c)/s.aspect
	rho = math.Hypot(a, b)
	if rho > 2 {
		return rho, dx, dy
	}
	phi := math.Atan2(b, a)
	edge := 1.0
	for i, l := range s.lobes {
		edge += l * math.Cos(float64(i+2)*phi+s.lobePhase[i])
	}
	return rho / edge, dx, dy
}

// view is how far inside the field of view a point lies, 0 on its border, in half heights.
func (s *scene) view(x, y float64) float64 {
	const aspect = float64(Width) / Height
	circle := 1.16 - math.Hypot(x, y*1.02)
	octagon := min(aspect-math.Abs(x)-0.01, 0.985-math.Abs(y), (1.72-math.Abs(x)-math.Abs(y))/math.Sqrt2)
	return s.round*circle + (1-s.round)*octagon
}
