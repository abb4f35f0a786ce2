package predict_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
)

func open(t testing.TB, m models.Model) *predict.Model {
	t.Helper()
	g, err := onnx.Decode(m.ONNX, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := predict.New(g, predict.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The figures of MODEL_CARD.md, measured with ONNX Runtime and OpenCV.
var card = map[string]struct {
	dice         float64
	params, macs float64 // millions, at 256 x 256
}{"polyp-lite0": {0.8915, 3.81, 1933}, "polyp-unet": {0.8181, 1.95, 3032}}

func TestCostEqualsCard(t *testing.T) {
	for _, e := range models.All() {
		c, in, err := open(t, e).Cost()
		if err != nil {
			t.Fatal(err)
		}
		want := card[e.Name]
		// The card's figures are rounded to three digits after the point in their units.
		if p := float64(c.Parameters) / 1e6; math.Abs(p-want.params) > 0.0051 {
			t.Errorf("%s: %.4f M parameters, want %.2f", e.Name, p, want.params)
		}
		if m := float64(c.MACs) / 1e6; math.Abs(m-want.macs) > 0.51 {
			t.Errorf("%s: %.3f M multiply-adds at %v, want %.0f", e.Name, m, in, want.macs)
		}
	}
}

// The default model finds the polyps of phantoms, so that demos and tests without real data mean something.
func TestDefaultModelFindsPhantoms(t *testing.T) {
	m := open(t, models.Default())
	const n = 50
	sum := 0.0
	for seed := range uint64(n) {
		img, truth := phantom.Draw(seed, 0)
		p, err := m.Predict(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		sum += vision.Compare(p.Mask, truth).Dice
	}
	t.Logf("mean Dice on %d phantoms: %.4f", n, sum/n)
	if sum/n < 0.7 {
		t.Errorf("mean Dice on %d phantoms is %.4f, want at least 0.7", n, sum/n)
	}
}

// TestValDice measures the embedded models on Kvasir-SEG. The tolerance is that of resize and decoder: one grey level.
func TestValDice(t *testing.T) {
	dir := os.Getenv("SECATEUR_DATA")
	if dir == "" {
		t.Skip("set SECATEUR_DATA to a folder with val/images and val/masks of Kvasir-SEG")
	}
	images, err := filepath.Glob(filepath.Join(dir, "val", "images", "*"))
	if err != nil || len(images) != 100 {
		t.Fatalf("%d images in %s/val/images, want the 100 of the model card (%v)", len(images), dir, err)
	}
	for _, e := range models.All() {
		t.Run(e.Name, func(t *testing.T) {
			m := open(t, e)
			sum := 0.0
			for _, path := range images {
				sum += diceOf(t, m, path)
			}
			dice := sum / float64(len(images))
			t.Logf("mean Dice %.5f", dice)
			if want := card[e.Name].dice; math.Abs(dice-want) > 0.002 {
				t.Errorf("mean Dice %.5f, want %.4f within 0.002", dice, want)
			}
		})
	}
}

func diceOf(t *testing.T, m *predict.Model, path string) float64 {
	t.Helper()
	file := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	img, err := vision.Decode(file(path), vision.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	mask := filepath.Join(filepath.Dir(filepath.Dir(path)), "masks", filepath.Base(path))
	truth, err := vision.DecodeMask(file(mask), vision.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", mask, err)
	}
	p, err := m.Predict(t.Context(), img)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return vision.Compare(p.Mask, truth).Dice
}
