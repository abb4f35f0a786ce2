package gate

import (
	"context"
	"testing"

	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
)

// counted counts how often a model is asked.
type counted struct {
	fake
	n *int
}

func (c counted) Predict(ctx context.Context, img *vision.Image) (*predict.Prediction, error) {
	*c.n++
	return c.fake.Predict(ctx, img)
}

// A look says what Measure says, whatever it may remember, and what it remembers it does not ask for again.
func TestLookIsMeasure(t *testing.T) {
	for _, c := range []struct {
		name             string
		full, empties    int
		original, pruned fake
	}{
		{"near", 20, 5, exact(4), exact(16)},
		{"a finding where nothing is", 10, 5, exact(4), either(frame.empty, speck, exact(3))},
		{"nothing anywhere", 0, 5, nothing, nothing},
		{"nothing found", 8, 0, nothing, nothing},
	} {
		set := world(t, c.full, c.empties, true)
		agreement, err := Measure(t.Context(), c.original, c.pruned, set, Options{Unlabelled: true})
		if err != nil {
			t.Fatal(err)
		}
		dice, err := Measure(t.Context(), c.original, c.pruned, set, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wantAgreement := agreement.Agreement.Mean
		if agreement.N == 0 {
			wantAgreement = 1 - agreement.MeanDP
		}
		for _, remembered := range []int{0, 5, len(set.Items)} {
			asked := 0
			one := side * side * (3 + 2)
			l := NewLook(counted{c.original, &asked}, set, remembered*one)
			for round := 1; round <= 3; round++ {
				if got, err := l.Agreement(t.Context(), c.pruned); err != nil || got != wantAgreement {
					t.Errorf("%s, round %d: agreement %v (%v), Measure has %v", c.name, round, got, err, wantAgreement)
				}
				if got, err := l.Dice(t.Context(), c.pruned); err != nil || got != dice.Pruned.Dice {
					t.Errorf("%s, round %d: Dice %v (%v), Measure has %v", c.name, round, got, err, dice.Pruned.Dice)
				}
			}
			n := min(remembered, len(set.Items))
			if agreement.N == 0 { // probabilities are asked for anew
				continue
			}
			if want := n + 6*(len(set.Items)-n); asked != want {
				t.Errorf("%s: the original was asked %d times with room for %d images, want %d", c.name, asked, remembered, want)
			}
		}
	}
}
