package predict_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
)

// Fast kernels change no mask: logits are within 1e-4 of the largest of those in float64, and a pixel is on the other
// side of the threshold only where the logit is within a thousandth of it.
//
// It runs on phantoms; if SECATEUR_DATA names a folder with val/images, also on every tenth of those, or on all of them if
// SECATEUR_EVERY is set, which takes some minutes.
func TestLogitsAreExact(t *testing.T) {
	if testing.Short() {
		t.Skip("float64 is slow, and slower under the race detector")
	}
	var images []*vision.Image
	for seed := range uint64(3) {
		img, _ := phantom.Draw(seed, 0)
		images = append(images, img)
	}
	if dir := os.Getenv("SECATEUR_DATA"); dir != "" {
		images = append(images, realImages(t, dir)...)
	} else {
		t.Log("on phantoms alone: SECATEUR_DATA names no folder with val/images")
	}
	for _, e := range models.All() {
		t.Run(e.Name, func(t *testing.T) { checkLogits(t, e, images) })
	}
}

func realImages(t *testing.T, dir string) (images []*vision.Image) {
	paths, err := filepath.Glob(filepath.Join(dir, "val", "images", "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no images in %s/val/images (%v)", dir, err)
	}
	for i, p := range paths {
		if i%10 > 0 && os.Getenv("SECATEUR_EVERY") == "" {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		img, err := vision.Decode(b, vision.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		images = append(images, img)
	}
	return images
}

func checkLogits(t *testing.T, e models.Model, images []*vision.Image) {
	g, err := onnx.Decode(e.ONNX, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := vision.ReadSpec(g.Meta, g)
	if err != nil {
		t.Fatal(err)
	}
	in := predict.ServingType(g, spec)
	session := func(opt engine.Options) *engine.Session {
		m, err := engine.Compile(g, []tensor.Type{in}, opt)
		if err != nil {
			t.Fatal(err)
		}
		return m.NewSession()
	}
	fast, exact := session(engine.Options{}), session(engine.Options{Float64: true})
	x := tensor.New(tensor.Float32, in.Shape...)
	worst, flips, near := 0.0, 0, 0
	for i, img := range images {
		if err := spec.Prepare(x, img); err != nil {
			t.Fatal(err)
		}
		run := func(s *engine.Session) []float64 {
			out, err := s.Run(t.Context(), []*tensor.Tensor{x})
			if err != nil {
				t.Fatal(err)
			}
			v, _ := out[0].Float64s()
			return v
		}
		got, want := run(fast), run(exact)
		off, top := 0.0, 0.0
		for k, w := range want {
			off, top = max(off, math.Abs(got[k]-w)), max(top, math.Abs(w))
			if (got[k] > 0) != (w > 0) {
				if flips++; math.Abs(w) < 1e-3 {
					near++
				}
			}
		}
		if off/top > 1e-4 {
			t.Errorf("image %d: logits off by %g of the largest", i, off/top)
		}
		worst = max(worst, off/top)
	}
	t.Logf("%d images: off by at most %.2g of the largest logit; %d pixels of %d flipped, %d of them within 0.001 of the threshold",
		len(images), worst, flips, len(images)*in.Shape.Elems()/3, near)
	if flips > near {
		t.Errorf("%d pixels flipped whose logit is not near the threshold", flips-near)
	}
}
