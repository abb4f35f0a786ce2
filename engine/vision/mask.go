package vision

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
)

// Mask is a class index per pixel, rows from the top. With one class the index is 0 or 1.
type Mask struct {
	W, H int
	Pix  []byte
	// Classes is the largest index that may occur; 0 reads as 1.
	Classes int
}

// NewMask returns an empty mask of one class.
func NewMask(w, h int) *Mask { return &Mask{W: w, H: h, Pix: make([]byte, w*h), Classes: 1} }

// Independent reports whether each class has a probability of its own, by a sigmoid here or in the graph. Otherwise the
// planes share one, as by a softmax.
func (s Spec) Independent() bool {
	return s.Post.Activation == "sigmoid" || s.Post.Activation == "none" && s.Post.Inside == "sigmoid"
}

// Labels is the largest class index of the masks that a model with so many output planes makes; see Mask.
func (s Spec) Labels(planes int) int {
	if planes <= 1 || s.Independent() {
		return max(planes, 1)
	}
	return planes - 1
}

// Mask decides each pixel.
//
// One plane: 1 where the probability is greater than the threshold. Several planes by softmax (or by the graph's own, or
// activation none): the most probable plane, 0 being the background. Several planes by sigmoid have no background: the
// most probable class plus one if it is greater than the threshold, else 0. Ties go to the lower index.
func (s Spec) Mask(p *Prob) *Mask {
	m := NewMask(p.W, p.H)
	m.Classes = s.Labels(p.C)
	threshold := float32(s.Post.Threshold)
	if p.C == 1 {
		for i, v := range p.P {
			if v > threshold {
				m.Pix[i] = 1
			}
		}
		return m
	}
	independent := s.Independent()
	n := p.W * p.H
	for i := range n {
		best, top := 0, p.P[i]
		for c := 1; c < p.C; c++ {
			if v := p.P[c*n+i]; v > top {
				best, top = c, v
			}
		}
		switch {
		case !independent:
			m.Pix[i] = byte(best)
		case top > threshold:
			m.Pix[i] = byte(best + 1)
		}
	}
	return m
}

// PNG encodes the mask as 8-bit gray: 0 and 255 for one class, the index for several.
func (m *Mask) PNG() []byte {
	g := &image.Gray{Pix: m.Pix, Stride: m.W, Rect: image.Rect(0, 0, m.W, m.H)}
	if m.Classes <= 1 {
		g.Pix = make([]byte, len(m.Pix))
		for i, v := range m.Pix {
			if v != 0 {
				g.Pix[i] = 255
			}
		}
	}
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestSpeed}
	_ = e.Encode(&b, g) // a bytes.Buffer does not fail, and gray of a valid size always encodes
	return b.Bytes()
}

// Area is the number of pixels with class c.
func (m *Mask) Area(c int) int { return bytes.Count(m.Pix, []byte{byte(c)}) }

// tints are the colours of the classes in overlays, from index 1 on; they repeat.
var tints = []color.RGBA{
	{64, 220, 255, 255}, {120, 255, 120, 255}, {255, 220, 64, 255}, {255, 120, 220, 255}, {160, 140, 255, 255}, {255, 150, 80, 255},
}

// Overlay draws the mask on the image: a light tint inside, and its contour. The mask must have the image's size; where
// it has not, the image is returned plain.
func Overlay(img *Image, m *Mask) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, img.W, img.H))
	for i := range img.W * img.H {
		out.Pix[4*i], out.Pix[4*i+1], out.Pix[4*i+2], out.Pix[4*i+3] = img.Pix[3*i], img.Pix[3*i+1], img.Pix[3*i+2], 255
	}
	if m == nil || m.W != img.W || m.H != img.H {
		return out
	}
	// The line grows with the picture, so that it is seen when a large one is shown small.
	r := max(1, min(img.W, img.H)/400)
	for y := range m.H {
		for x := range m.W {
			c := m.Pix[y*m.W+x]
			if c == 0 {
				continue
			}
			t, share := tints[int(c-1)%len(tints)], 40
			if m.Edge(x, y, r) {
				share = 255
			}
			p := out.Pix[4*(y*m.W+x):]
			for k, v := range [3]byte{t.R, t.G, t.B} {
				p[k] = byte((int(p[k])*(255-share) + int(v)*share) / 255)
			}
		}
	}
	return out
}

// Edge reports whether a pixel of another class, or the border of the picture, lies within r up, down, left or right.
func (m *Mask) Edge(x, y, r int) bool {
	c := m.Pix[y*m.W+x]
	for d := 1; d <= r; d++ {
		if x < d || y < d || x+d >= m.W || y+d >= m.H ||
			m.Pix[y*m.W+x-d] != c || m.Pix[y*m.W+x+d] != c || m.Pix[(y-d)*m.W+x] != c || m.Pix[(y+d)*m.W+x] != c {
			return true
		}
	}
	return false
}
