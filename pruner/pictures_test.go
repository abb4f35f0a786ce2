package pruner

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/gate"
)

// worst is a wide image of which the original finds the left half and the pruned model the lower half.
func worst() gate.Shown {
	const w, h = 1280, 960
	s := gate.Shown{Picture: vision.NewImage(w, h), Before: vision.NewMask(w, h), After: vision.NewMask(w, h)}
	for i := range w * h {
		if i%w < w/2 {
			s.Before.Pix[i] = 1
		}
		if i/w >= h/2 {
			s.After.Pix[i] = 1
		}
		s.Picture.Pix[3*i] = byte(i / w / 4)
	}
	return s
}

func TestDifferenceShowsWhatBecameOfEachPixel(t *testing.T) {
	s := worst()
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(draw(s).Difference), "data:image/png;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if m.Bounds().Dx() != 320 || m.Bounds().Dy() != 240 {
		t.Fatalf("the difference is %v", m.Bounds())
	}
	for _, c := range []struct {
		name string
		x, y int
		want int
	}{{"lost", 80, 60, 2}, {"none", 240, 60, 0}, {"kept", 80, 180, 1}, {"gained", 240, 180, 3}} {
		if got := color.RGBAModel.Convert(m.At(c.x, c.y)); got != changeColours[c.want] {
			t.Errorf("%s: %v, want %v", c.name, got, changeColours[c.want])
		}
	}
}

// Pictures are the same bytes every time, small, and all that the page shows.
func TestPicturesInThePage(t *testing.T) {
	p := draw(worst())
	if p != draw(worst()) {
		t.Errorf("two drawings differ")
	}
	if n := len(p.Input) + len(p.Before) + len(p.After) + len(p.Difference); n > 100_000 {
		t.Errorf("%d bytes for one image", n)
	}
	p.Name = `"><script>`
	html := string((&Report{Gate: &gate.Result{}, Pictures: []Picture{p, p}}).HTML())
	if n := strings.Count(html, `src="data:image/`); n != 8 {
		t.Errorf("%d pictures in the page, want 8", n)
	}
	if strings.Contains(html, "<script") || strings.Contains(html, "ZgotmplZ") {
		t.Errorf("a name is markup, or a picture was refused")
	}
}
