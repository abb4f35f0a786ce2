package pruner

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
	"github.com/secateur/secateur/pruner/rewrite/rewritetest"
)

// Whatever the graph, the scores and the target: no layer loses more than MaxLayer of its channels or keeps fewer than
// MinChannels, the target is reached, and of single classes none goes that need not. What cannot be reached is an error. The
// choice can be cut, and costs what was predicted.
func TestChoiceKeepsToItsBudget(t *testing.T) {
	reached := 0
	rapid.Check(t, func(t *rapid.T) {
		g := rewritetest.Graph(t)
		a, base, err := examine(g, rewritetest.In)
		if err != nil {
			t.Fatal(err)
		}
		opt := Options{
			Target:      Target{rapid.SampledFrom([]string{"macs", "params", "filters"}).Draw(t, "kind"), rapid.Float64Range(0.01, 0.6).Draw(t, "part")},
			MaxLayer:    rapid.SampledFrom([]float64{0, 0.3, 0.5, 0.75, 1}).Draw(t, "max layer"),
			MinChannels: rapid.IntRange(0, 3).Draw(t, "min channels"),
			Round:       rapid.SampledFrom([]int{0, 1, 2, 4}).Draw(t, "round"),
			Criterion:   rapid.SampledFrom([]string{"", "largest-layer"}).Draw(t, "criterion"),
		}.withDefaults()
		scores := random(a, rapid.Uint64().Draw(t, "seed"))
		if rapid.Bool().Draw(t, "all alike") {
			for id := range scores {
				scores[id] = 1
			}
		}
		costs, b := newCosts(a, base, nil), within(a, base, opt)
		remove, err := choose(a, scores, costs, b)
		if errors.Is(err, ErrUnreachable) {
			return
		}
		if err != nil {
			t.Fatalf("choose: %v", err)
		}
		if costs.of(opt.Target.Kind) > b.goal {
			t.Fatalf("%d of %d are left, %d may be", costs.of(opt.Target.Kind), b.from, b.goal)
		}
		reached++
		for _, l := range a.Layers() {
			gone := 0
			for _, id := range l.Class {
				if id >= 0 && remove[id] {
					gone++
				}
			}
			if kept := l.Channels - gone; gone > 0 && (float64(gone) > opt.MaxLayer*float64(l.Channels) || kept < opt.MinChannels) {
				t.Fatalf("layer %s of %d channels keeps %d; at most %g may go, and %d stay", l.Name, l.Channels, kept, opt.MaxLayer, opt.MinChannels)
			}
		}
		for id := range remove {
			if opt.Round <= 1 && costs.of(opt.Target.Kind)+costs.back([]int{id}, opt.Target.Kind) <= b.goal {
				t.Fatalf("class %d need not go", id)
			}
		}
		cut, err := rewrite.Cut(g, a, remove)
		if err != nil {
			t.Fatalf("cut: %v", err)
		}
		got, err := engine.Count(cut, rewritetest.In)
		if err != nil || got.MACs != costs.macs {
			t.Fatalf("%d multiply-adds, predicted %d (%v)", got.MACs, costs.macs, err)
		}
		apart := false // weights with two readers may have become two
		for v, us := range g.Uses() {
			w := group.WeightTensor(v)
			apart = apart || len(us) > 1 && w != nil && w.DType.IsFloat()
		}
		if got.Parameters != costs.params && !apart {
			t.Fatalf("%d parameters, predicted %d", got.Parameters, costs.params)
		}
	})
	if reached == 0 {
		t.Fatal("no target could be reached")
	}
}
