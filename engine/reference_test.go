package engine_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

// TestReference compares whole models with the outputs that scripts/ort_reference.py got from ONNX Runtime.
func TestReference(t *testing.T) {
	dir := os.Getenv("SECATEUR_REFERENCE")
	if dir == "" {
		t.Skip("set SECATEUR_REFERENCE to a folder written by scripts/ort_reference.py (make reference does)")
	}
	models, err := filepath.Glob(filepath.Join(dir, "*", "model.onnx"))
	if err != nil || len(models) == 0 {
		t.Fatalf("no cases under %s (%v)", dir, err)
	}
	for _, path := range models {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			g, err := onnx.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data := filepath.Join(filepath.Dir(path), "test_data_set_0")
			x := readTensor(t, filepath.Join(data, "input_0.pb"))
			for _, opt := range []engine.Options{{}, {Float64: true}} {
				got := mustRun(t, g, x, opt)
				for i := range got {
					want := readTensor(t, filepath.Join(data, fmt.Sprintf("output_%d.pb", i)))
					a, _ := got[i].Float64s()
					b, _ := want.Float64s()
					if len(a) != len(b) {
						t.Fatalf("output %d: %v, want %v", i, got[i].Type(), want.Type())
					}
					var diff, top float64
					for k := range a {
						diff, top = max(diff, math.Abs(a[k]-b[k])), max(top, math.Abs(b[k]))
					}
					t.Logf("float64=%v output %d: max|Δ|/max|y| = %.1e", opt.Float64, i, diff/top)
					if !(diff <= 1e-4*top) {
						t.Errorf("float64=%v output %d: max|Δ| = %g, max|y| = %g", opt.Float64, i, diff, top)
					}
				}
			}
		})
	}
}

func readTensor(t *testing.T, path string) *tensor.Tensor {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := onnx.DecodeTensor(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
