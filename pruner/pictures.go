package pruner

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"

	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/gate"
)

// What the report shows of the worst images.
const (
	maxPictures  = 12
	pictureWidth = 320
)

// Picture is one of the worst held-out images. Its parts are data URIs, so that a page with them needs no other file.
type Picture struct {
	Name          string
	Caption       string
	Input         template.URL
	Before, After template.URL // the image with each model's mask on it
	Difference    template.URL // of the masks; see changes
}

// draw makes the pictures of one image.
func draw(s gate.Shown) Picture {
	w, h := s.Picture.W, s.Picture.H
	if w > pictureWidth {
		w, h = pictureWidth, max(1, (h*pictureWidth+w/2)/w)
	}
	if h > 2*pictureWidth { // a strip on end
		w, h = max(1, w*2*pictureWidth/h), 2*pictureWidth
	}
	// Area averages of a thin mask would vanish: masks are drawn on the small picture, each pixel of which takes the class
	// that most of what it covers has.
	small := shrink(s.Picture, w, h)
	p := Picture{
		Name: s.Image.Name, Input: jpegURI(vision.Overlay(small, nil)),
		Before: jpegURI(vision.Overlay(small, reduce(s.Before, w, h))), After: jpegURI(vision.Overlay(small, reduce(s.After, w, h))),
		Difference: changes(s, w, h),
		Caption:    fmt.Sprintf("Dice against the original %.3f, HD95 %.1f pixels", s.Image.Agreement, s.Image.HD95),
	}
	if s.Truth != nil {
		o, q := s.Image.Original, s.Image.Pruned
		p.Caption = fmt.Sprintf("Dice %.3f before, %.3f after; sensitivity %.3f, %.3f; HD95 %.1f, %.1f pixels", o.Dice, q.Dice, o.Sensitivity, q.Sensitivity, o.HD95, q.HD95)
	}
	return p
}

// changeColours tell apart for all kinds of colour blindness (Okabe and Ito), and in gray by their lightness.
var changeColours = color.Palette{
	color.RGBA{0x20, 0x22, 0x26, 255}, // neither model finds anything
	color.RGBA{0x9a, 0x9d, 0xa3, 255}, // kept: both find the same
	color.RGBA{0xe6, 0x9f, 0x00, 255}, // lost: the original alone
	color.RGBA{0x00, 0x72, 0xb2, 255}, // gained: the pruned model alone
	color.RGBA{0xcc, 0x79, 0xa7, 255}, // another class
	color.RGBA{0xff, 0xff, 0xff, 255}, // the truth's outline
}

// changes draws what became of each pixel, with the truth's outline where it is known.
func changes(s gate.Shown, w, h int) template.URL {
	what := vision.NewMask(s.Before.W, s.Before.H)
	for i, b := range s.Before.Pix {
		switch a := s.After.Pix[i]; {
		case a == b && a == 0:
		case a == b:
			what.Pix[i] = 1
		case a == 0:
			what.Pix[i] = 2
		case b == 0:
			what.Pix[i] = 3
		default:
			what.Pix[i] = 4
		}
	}
	m := image.NewPaletted(image.Rect(0, 0, w, h), changeColours)
	copy(m.Pix, reduce(what, w, h).Pix)
	if s.Truth != nil {
		t := reduce(s.Truth, w, h)
		for y := range h {
			for x := range w {
				if i := y*w + x; t.Pix[i] != 0 && t.Edge(x, y, 1) {
					m.Pix[i] = 5
				}
			}
		}
	}
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestCompression}
	_ = e.Encode(&b, m) // a bytes.Buffer does not fail
	return uri("png", b.Bytes())
}

func jpegURI(m image.Image) template.URL {
	var b bytes.Buffer
	_ = jpeg.Encode(&b, m, &jpeg.Options{Quality: 80}) // a bytes.Buffer does not fail, and no side is above 65535
	return uri("jpeg", b.Bytes())
}

func uri(kind string, b []byte) template.URL {
	return template.URL("data:image/" + kind + ";base64," + base64.StdEncoding.EncodeToString(b))
}

// shrink averages areas, in whole numbers. w and h are at most the image's.
func shrink(m *vision.Image, w, h int) *vision.Image {
	out := vision.NewImage(w, h)
	for y := range h {
		for x := range w {
			x0, x1, y0, y1 := x*m.W/w, (x+1)*m.W/w, y*m.H/h, (y+1)*m.H/h
			var sum [3]int
			for v := y0; v < y1; v++ {
				for u := x0; u < x1; u++ {
					for c := range sum {
						sum[c] += int(m.Pix[3*(v*m.W+u)+c])
					}
				}
			}
			n := (x1 - x0) * (y1 - y0)
			for c := range sum {
				out.Pix[3*(y*w+x)+c] = byte((sum[c] + n/2) / n)
			}
		}
	}
	return out
}

// reduce gives each small pixel the commonest index of what it covers, the higher of two as common.
func reduce(m *vision.Mask, w, h int) *vision.Mask {
	out := vision.NewMask(w, h)
	out.Classes = m.Classes
	for y := range h {
		for x := range w {
			var n [256]int
			best := 0
			for v := y * m.H / h; v < (y+1)*m.H/h; v++ {
				for u := x * m.W / w; u < (x+1)*m.W/w; u++ {
					c := int(m.Pix[v*m.W+u])
					n[c]++
					if n[c] > n[best] || n[c] == n[best] && c > best {
						best = c
					}
				}
			}
			out.Pix[y*w+x] = byte(best)
		}
	}
	return out
}
