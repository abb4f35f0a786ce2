package gate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/vision"
)

// images makes n labelled images with Dice near before, and d = shift + noise.
func images(n int, before, shift, noise float64, seed uint64) []Image {
	rng := rand.New(rand.NewPCG(seed, 0))
	var is []Image
	for i := range n {
		d := shift + noise*rng.NormFloat64()
		is = append(is, Image{
			Name: fmt.Sprint(i), Agreement: 1 - abs(d), found: true, foundBefore: true,
			Original: dice(before), Pruned: dice(before + d),
		})
	}
	return is
}

func dice(d float64) *Scores { return &Scores{Metrics: vision.Metrics{Dice: d}} }

func abs(x float64) float64 { return max(x, -x) }

func TestVerdict(t *testing.T) {
	opt := Options{Seed: 1}.withDefaults()
	empty := func(is []Image) []Image { // a model that finds nothing
		for i := range is {
			is[i].Pruned, is[i].Agreement, is[i].found = dice(0), 0, false
		}
		return is
	}
	nothing := []Image{}
	for i := range 50 { // nothing to find, and nothing found: perfect scores that prove nothing
		nothing = append(nothing, Image{Name: fmt.Sprint(i), Empty: true, Agreement: 1, Original: dice(1), Pruned: dice(1)})
	}
	for _, c := range []struct {
		name     string
		images   []Image
		labelled bool
		want     string
	}{
		{"no change", images(100, 0.8, 0, 0.01, 1), true, Pass},
		{"better", images(100, 0.8, 0.05, 0.05, 2), true, Pass},
		{"clearly worse", images(100, 0.8, -0.1, 0.05, 3), true, Fail},
		{"wide spread", images(100, 0.8, -0.005, 0.08, 4), true, CannotTell},
		{"too few", images(5, 0.8, 0.01, 0.001, 5), true, CannotTell},
		{"too few, and worse", images(1, 0.8, -0.02, 0, 5), true, CannotTell},
		{"too few, and nothing found", empty(images(2, 0.8, 0, 0, 6)), true, Fail},
		{"finds nothing", empty(images(100, 0.8, 0, 0, 6)), true, Fail},
		{"finds nothing, as the original", empty(images(100, 0, 0, 0, 7)), true, Fail},
		{"finds nothing where nothing is", nothing, true, CannotTell},
		{"no image", nil, true, CannotTell},
		{"unlabelled, agrees", images(100, 0.8, 0.005, 0.005, 8), false, Pass},
		{"unlabelled, differs", images(100, 0.8, -0.1, 0.02, 9), false, Fail},
		{"unlabelled, near the limit", images(60, 0.8, 0.03, 0.03, 10), false, CannotTell},
		{"unlabelled, finds nothing", empty(images(100, 0.8, 0, 0, 11)), false, Fail},
		{"unlabelled, no image has anything", nothing, false, CannotTell},
	} {
		if r := decide(c.images, c.labelled, opt); r.Verdict != c.want {
			t.Errorf("%s: %s, want %s: %s", c.name, r.Verdict, c.want, r.Sentence)
		}
	}
}

// A non-inferiority test at one-sided 2.5 % passes a model that is exactly delta worse about that often, not more.
func TestSizeOfTheTest(t *testing.T) {
	passes := 0
	const runs = 400
	for seed := range uint64(runs) {
		is := images(60, 0.8, -0.01, 0.05, 1000+seed)
		if decide(is, true, Options{Delta: 0.01, Seed: seed, Resamples: 2000}).Verdict == Pass {
			passes++
		}
	}
	// Binomial(400, 0.025) exceeds 24 with probability 1e-4; the bootstrap of 60 runs a little above the nominal level.
	if passes > 24 {
		t.Errorf("a model worse by delta passed %d times of %d", passes, runs)
	}
}

func TestEmptyImagesAreLeftOut(t *testing.T) {
	is := images(40, 0.8, 0, 0.01, 1)
	want := decide(is, true, Options{Seed: 3}.withDefaults())
	false1 := Image{Name: "e", Empty: true, found: true, Agreement: 0, Original: dice(1), Pruned: dice(0)}
	got := decide(append(is, false1), true, Options{Seed: 3}.withDefaults())
	if *got.Difference != *want.Difference || got.N != 40 || got.Empty.N != 1 || got.Empty.Pruned != 1 || got.Empty.Original != 0 {
		t.Errorf("with an empty image: %+v", got)
	}
}
