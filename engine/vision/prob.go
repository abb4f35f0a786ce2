package vision

import (
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/tensor"
)

// Prob is a probability for each class and pixel: C planes of H rows of W, each in [0,1].
type Prob struct {
	W, H, C int
	P       []float32
}

// Plane is the probabilities of class c.
func (p *Prob) Plane(c int) []float32 { return p.P[c*p.W*p.H : (c+1)*p.W*p.H] }

// Probabilities applies the activation to a model's output, [1,c,h,w] or [1,h,w,c] by the layout, or [1,h,w] or [h,w] for
// one class, and interpolates the result bilinearly to w x h pixels (OpenCV's INTER_LINEAR on float32: pixel centres at
// half-integers, edges repeated).
func (s Spec) Probabilities(logits *tensor.Tensor, w, h int) (*Prob, error) {
	if w <= 0 || h <= 0 || w > DefaultMaxPixels/h {
		return nil, fmt.Errorf("probabilities at %d x %d", w, h)
	}
	small, err := s.activate(logits)
	if err != nil {
		return nil, err
	}
	if small.W == w && small.H == h {
		return small, nil
	}
	if small.C*w*h > tensor.MaxElements/4 {
		return nil, fmt.Errorf("probabilities of %d classes at %d x %d are too large", small.C, w, h)
	}
	big := &Prob{W: w, H: h, C: small.C, P: make([]float32, small.C*w*h)}
	for c := range small.C {
		stretch(big.Plane(c), w, h, small.Plane(c), small.W, small.H)
	}
	return big, nil
}

// activate brings logits into planes and applies the activation, at the size of the logits.
func (s Spec) activate(logits *tensor.Tensor) (*Prob, error) {
	x, err := logits.Float(tensor.Float32)
	if err != nil {
		return nil, fmt.Errorf("reading the model's output: %w", err)
	}
	sh := x.Shape
	for len(sh) > 1 && len(sh) < 4 { // [1,h,w] and [h,w] are one class
		if at := channelAxis(s.Pre.Layout); len(sh) == 3 {
			sh = append(append(sh[:at:at], 1), sh[at:]...)
		} else {
			sh = append(tensor.Shape{1}, sh...)
		}
	}
	if len(sh) != 4 || sh[0] != 1 || sh.Elems() <= 0 {
		return nil, fmt.Errorf("model's output has shape %v, want one map a class", []int(x.Shape))
	}
	c := sh[channelAxis(s.Pre.Layout)]
	h, w := sides(sh, s.Pre.Layout)
	if c > maxClasses {
		return nil, fmt.Errorf("model's output has %d classes (shape %v, layout %s), a mask holds %d", c, []int(x.Shape), s.Pre.Layout, maxClasses)
	}
	if n := len(s.Post.Classes); n != 0 && n != c {
		return nil, fmt.Errorf("model's output has %d classes, its metadata names %d", c, n)
	}
	p := &Prob{W: w, H: h, C: c, P: make([]float32, c*h*w)}
	v := tensor.Of[float32](x)
	if s.Pre.Layout == "NHWC" && c > 1 {
		for k := range c {
			plane := p.Plane(k)
			for i := range plane {
				plane[i] = v[i*c+k]
			}
		}
	} else {
		copy(p.P, v)
	}
	switch s.Post.Activation {
	case "sigmoid":
		for i, v := range p.P {
			p.P[i] = float32(1 / (1 + math.Exp(-float64(v))))
		}
	case "softmax":
		softmax(p)
	}
	return p, nil
}

func softmax(p *Prob) {
	n := p.W * p.H
	for i := range n {
		top := p.P[i]
		for k := i + n; k < len(p.P); k += n {
			top = max(top, p.P[k])
		}
		sum := 0.0
		for k := i; k < len(p.P); k += n {
			e := math.Exp(float64(p.P[k] - top))
			p.P[k] = float32(e)
			sum += e
		}
		for k := i; k < len(p.P); k += n {
			p.P[k] = float32(float64(p.P[k]) / sum)
		}
	}
}

// stretch is OpenCV's INTER_LINEAR for one float plane: across, then down.
func stretch(dst []float32, dw, dh int, src []float32, sw, sh int) {
	xs, ys := floatTaps(sw, dw), floatTaps(sh, dh)
	rows := [2][]float32{make([]float32, dw), make([]float32, dw)}
	have := [2]int{-1, -1}
	for y, t := range ys {
		if have[1] == t.a {
			rows[0], rows[1] = rows[1], rows[0]
			have[0], have[1] = have[1], have[0]
		}
		for k, sy := range [2]int{t.a, t.b} {
			if have[k] == sy {
				continue
			}
			have[k] = sy
			row, s := rows[k], src[sy*sw:(sy+1)*sw]
			for x, u := range xs {
				row[x] = s[u.a]*(1-u.w) + s[u.b]*u.w
			}
		}
		d := dst[y*dw : (y+1)*dw]
		r0, r1 := rows[0][:dw], rows[1][:dw]
		wa, wb := 1-t.w, t.w
		for x := range d {
			d[x] = r0[x]*wa + r1[x]*wb
		}
	}
}

type floatTap struct {
	a, b int
	w    float32 // share of b
}

func floatTaps(src, dst int) []floatTap {
	taps := make([]floatTap, dst)
	scale := float64(src) / float64(dst)
	for d := range taps {
		f := float32((float64(d)+0.5)*scale - 0.5)
		s := int(math.Floor(float64(f)))
		f -= float32(s)
		if s < 0 {
			s, f = 0, 0
		}
		if s >= src-1 {
			s, f = src-1, 0
		}
		taps[d] = floatTap{s, min(s+1, src-1), f}
	}
	return taps
}
