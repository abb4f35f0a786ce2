package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/tensor"
)

// What was measured is kept, found again by another process, and changes results by no more than rounding.
func TestTuner(t *testing.T) {
	dir := t.TempDir()
	g := smallNet()
	x := randomInput(1, 1, 3, 64, 64)
	in := []tensor.Type{x.Type()}
	tuner := engine.OpenTuner(dir)
	n, err := tuner.Measure(context.Background(), g, in, 1, nil)
	if err != nil || n != 1 {
		t.Fatalf("measured %d convolutions (%v), want the one of 3x3", n, err)
	}
	again := engine.OpenTuner(dir)
	if n, err := again.Measure(context.Background(), g, in, 1, nil); err != nil || n != 0 {
		t.Fatalf("measured %d again (%v)", n, err)
	}
	want := mustRun(t, g, x, engine.Options{Threads: 1})
	for i, y := range mustRun(t, g, x, engine.Options{Threads: 1, Tune: again}) {
		if d := distance(y, want[i]); d > 1e-5 {
			t.Errorf("output %d differs by %g", i, d)
		}
	}
}

// A damaged file is nothing known, and a folder that cannot be written no error.
func TestTunerWithoutDisk(t *testing.T) {
	dir := t.TempDir()
	for _, content := range []string{"", "null", "{", `{"x": 3}`, "[]"} {
		if err := os.WriteFile(filepath.Join(dir, "tuning.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		tuner := engine.OpenTuner(dir)
		x := randomInput(1, 1, 3, 32, 32)
		mustRun(t, smallNet(), x, engine.Options{Tune: tuner})
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	x := randomInput(1, 1, 3, 32, 32)
	if n, err := engine.OpenTuner(filepath.Join(file, "below")).Measure(context.Background(), smallNet(), []tensor.Type{x.Type()}, 1, nil); err != nil || n != 1 {
		t.Errorf("measured %d (%v)", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := engine.OpenTuner("").Measure(ctx, smallNet(), []tensor.Type{x.Type()}, 1, nil); err == nil || n != 0 {
		t.Errorf("measured %d after the end (%v)", n, err)
	}
}
