package vision

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/tensor"
)

// reference is testdata/resize.json, which scripts/vision_reference.py writes with OpenCV and Pillow.
type reference struct {
	Images []struct {
		Src, Dst [2]int
		In       []byte
		Out      map[string][]byte
	}
	Planes []struct {
		Src, Dst [2]int
		In, Out  []float32
	}
}

func readReference(t testing.TB) reference {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "resize.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r reference
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResizeEqualsReference(t *testing.T) {
	for _, c := range readReference(t).Images {
		src := mustDecode(t, c.In)
		for method, out := range c.Out {
			t.Run(fmt.Sprintf("%s/%dx%d-%dx%d", method, c.Src[0], c.Src[1], c.Dst[0], c.Dst[1]), func(t *testing.T) {
				want := mustDecode(t, out)
				got, err := Resize(src, c.Dst[0], c.Dst[1], method)
				if err != nil {
					t.Fatal(err)
				}
				// One grey level: sums are taken in another order, so a value near a half may round the other way.
				sameWithin(t, got, want, 1)
			})
		}
	}
}

func TestProbabilitiesEqualReference(t *testing.T) {
	s := Spec{Pre: Preprocess{Layout: "NCHW"}, Post: Postprocess{Activation: "none"}}
	for _, c := range readReference(t).Planes {
		p, err := s.Probabilities(tensor.From(c.In, 1, 1, c.Src[1], c.Src[0]), c.Dst[0], c.Dst[1])
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range p.P {
			// Two lerps of values in [0,1] in float32, and weights rounded to float32.
			if d := math.Abs(float64(v - c.Out[i])); d > 1e-6 {
				t.Fatalf("%v to %v: p[%d] = %g, want %g", c.Src, c.Dst, i, v, c.Out[i])
			}
		}
	}
}

func TestResizeLaws(t *testing.T) {
	flat := NewImage(13, 9)
	for i := range flat.Pix {
		flat.Pix[i] = []byte{200, 100, 7}[i%3]
	}
	r := noisy(13, 9)
	for method := range resizers {
		same, err := Resize(r, r.W, r.H, method)
		if err != nil || !slices.Equal(same.Pix, r.Pix) {
			t.Errorf("%s: a resize to the same size changes the picture (%v)", method, err)
		}
		for _, size := range [][2]int{{1, 1}, {5, 20}, {26, 18}, {64, 3}, {12, 8}} {
			got, err := Resize(flat, size[0], size[1], method)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range got.Pix {
				if want := flat.Pix[i%3]; v != want {
					t.Fatalf("%s to %v: a flat picture becomes %d, want %d", method, size, v, want)
				}
			}
		}
	}
	if _, err := Resize(r, 4, 4, "cubic"); err == nil || !strings.Contains(err.Error(), "cubic") {
		t.Errorf("an unknown method gives %v", err)
	}
	if _, err := Resize(r, 1<<30, 1<<30, "area"); err == nil {
		t.Error("a huge target is accepted")
	}
}

func noisy(w, h int) *Image {
	m := NewImage(w, h)
	x := uint32(1)
	for i := range m.Pix {
		x = x*1664525 + 1013904223
		m.Pix[i] = byte(x >> 24)
	}
	return m
}

func mustDecode(t testing.TB, b []byte) *Image {
	t.Helper()
	m, err := Decode(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sameWithin(t testing.TB, got, want *Image, tol int) {
	t.Helper()
	if got.W != want.W || got.H != want.H {
		t.Fatalf("size %dx%d, want %dx%d", got.W, got.H, want.W, want.H)
	}
	for i, v := range got.Pix {
		if d := int(v) - int(want.Pix[i]); d > tol || d < -tol {
			t.Fatalf("x=%d y=%d channel %d: %d, want %d", i/3%got.W, i/3/got.W, i%3, v, want.Pix[i])
		}
	}
}

func BenchmarkResize(b *testing.B) {
	src := noisy(622, 530)
	for method := range resizers {
		b.Run(method, func(b *testing.B) {
			for b.Loop() {
				if _, err := Resize(src, 256, 256, method); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProbabilities(b *testing.B) {
	s, _ := ReadSpec(nil, nil)
	x := tensor.New(tensor.Float32, 1, 1, 256, 256)
	for b.Loop() {
		if _, err := s.Probabilities(x, 622, 530); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	s, _ := ReadSpec(nil, nil)
	src := noisy(622, 530)
	x := tensor.New(tensor.Float32, 1, 3, 256, 256)
	for b.Loop() {
		if err := s.Prepare(x, src); err != nil {
			b.Fatal(err)
		}
	}
}
