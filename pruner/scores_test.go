package pruner

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/score"
)

// Importance is the mean over samples of what stands or falls together, the same at any number of threads, and that of
// every class that can be removed and of no other.
func TestScores(t *testing.T) {
	g := small(t, "polyp-unet")
	for _, labelled := range []bool{true, false} {
		set := phantoms(t, 100, 2, labelled)
		opt := ScoreOptions{Probes: 3, Seed: 5, Threads: 1}
		one, err := Scores(t.Context(), g, set, opt)
		if err != nil {
			t.Fatal(err)
		}
		samples, mean := 0, newImportance(one.Analysis, one.Edges, score.Abs)
		opt.Threads = 2
		opt.Each = func(s score.Sample, weight float64) { // edges of another analysis of the same nodes are the same
			samples++
			mean.add(s, weight)
		}
		two, err := Scores(t.Context(), g, set, opt)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(one.Importance, two.Importance) || !maps.Equal(one.Importance, mean.mean()) {
			t.Errorf("labels %v: 1 thread, 2 threads and the mean of their samples differ", labelled)
		}
		if want := map[bool]int{true: 2, false: 6}[labelled]; samples != want || one.Labels != labelled {
			t.Errorf("labels %v: %d samples, want %d; labels are said to be %v", labelled, samples, want, one.Labels)
		}
		free := one.Analysis.Free()
		for _, id := range free {
			if v, ok := one.Importance[id]; !ok || v < 0 {
				t.Errorf("labels %v: class %d has %g, %v", labelled, id, v, ok)
			}
		}
		if len(free) != len(one.Importance) {
			t.Errorf("labels %v: %d classes have an importance, %d can be removed", labelled, len(one.Importance), len(free))
		}
		for _, e := range one.Edges {
			if e.Value() == g.Inputs[0] {
				t.Errorf("labels %v: the image is scored at %v", labelled, e)
			}
		}
	}
}

// A context that ends stops scoring within the image under way.
func TestScoresStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	samples := 0
	opt := ScoreOptions{Threads: 1, Each: func(score.Sample, float64) { samples++; cancel() }}
	if _, err := Scores(ctx, small(t, "polyp-unet"), phantoms(t, 100, 3, true), opt); !errors.Is(err, context.Canceled) || samples != 1 {
		t.Errorf("%d samples and error %v", samples, err)
	}
}

func TestScoresRefuse(t *testing.T) {
	for name, g := range map[string]*graph.Graph{"no set": small(t, "polyp-unet"), "no output": {}} {
		set := phantoms(t, 1, 1, true)
		if name == "no set" {
			set = nil
		}
		_, err := Scores(t.Context(), g, set, ScoreOptions{})
		if err == nil || set == nil && !errors.Is(err, calib.ErrEmpty) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
