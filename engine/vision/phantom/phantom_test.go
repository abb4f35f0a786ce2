package phantom_test

import (
	"bytes"
	"testing"

	"github.com/secateur/secateur/engine/vision/phantom"
)

func TestDrawIsDeterministic(t *testing.T) {
	a, ma := phantom.Draw(7, 12)
	b, mb := phantom.Draw(7, 12)
	if !bytes.Equal(a.Pix, b.Pix) || !bytes.Equal(ma.Pix, mb.Pix) {
		t.Error("the same seed and frame draw two pictures")
	}
	c, _ := phantom.Draw(8, 12)
	if bytes.Equal(a.Pix, c.Pix) {
		t.Error("two seeds draw one picture")
	}
}

// A frame is coloured inside a field of view with dark corners, and holds a polyp of plausible size that is in view.
func TestDrawLooksLikeAFrame(t *testing.T) {
	for seed := range uint64(12) {
		img, m := phantom.Draw(seed, int(37*seed))
		if img.W != phantom.Width || img.H != phantom.Height || m.W != img.W || m.H != img.H {
			t.Fatalf("seed %d: picture %dx%d, mask %dx%d", seed, img.W, img.H, m.W, m.H)
		}
		for _, i := range []int{0, img.W - 1, (img.H - 1) * img.W, img.W*img.H - 1} {
			if img.Pix[3*i] > 8 {
				t.Errorf("seed %d: corner %d is %d, want dark", seed, i, img.Pix[3*i])
			}
		}
		if share := float64(m.Area(1)) / float64(len(m.Pix)); share < 0.01 || share > 0.35 {
			t.Errorf("seed %d: the polyp is %.3f of the picture", seed, share)
		}
		var red, blue, dark int
		for i, v := range m.Pix {
			r, b := int(img.Pix[3*i]), int(img.Pix[3*i+2])
			red, blue = red+r, blue+b
			if v == 1 && r < 20 {
				dark++
			}
		}
		if red < blue+blue/4 {
			t.Errorf("seed %d: red %d, blue %d: not mucosa", seed, red, blue)
		}
		if dark*10 > m.Area(1) {
			t.Errorf("seed %d: %d of %d pixels of the polyp are out of view", seed, dark, m.Area(1))
		}
	}
}

// From one frame to the next little changes, and over a second something does.
func TestSequenceIsSmooth(t *testing.T) {
	for seed := range uint64(4) {
		_, m0 := phantom.Draw(seed, 0)
		_, m1 := phantom.Draw(seed, 1)
		_, m25 := phantom.Draw(seed, 25)
		step, second := differ(m0.Pix, m1.Pix), differ(m0.Pix, m25.Pix)
		if limit := m0.Area(1) / 5; step > limit {
			t.Errorf("seed %d: one frame moves %d pixels of the mask, want at most %d", seed, step, limit)
		}
		if second == 0 {
			t.Errorf("seed %d: nothing moves in a second", seed)
		}
	}
}

func differ(a, b []byte) int {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func BenchmarkDraw(b *testing.B) {
	for i := 0; b.Loop(); i++ {
		phantom.Draw(1, i)
	}
}
