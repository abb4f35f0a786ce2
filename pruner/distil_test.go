package pruner

import (
	"slices"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/rewrite"
)

// What the cut model computes at its hints is what the masked original does in the channels that are left: imitating that costs
// nothing. Imitating the original itself does.
func TestHintsAreChannelsOfTheOriginal(t *testing.T) {
	for _, name := range []string{"polyp-unet", "polyp-lite0"} {
		g := small(t, name)
		r, err := newRun(g, phantoms(t, 100, 4, false), phantoms(t, 200, 2, false), Options{Target: Target{"macs", 0.4}, Criterion: "random", NoRepair: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := do(t.Context(), append(r.prelude(), stage{"score channels", r.score})); err != nil {
			t.Fatal(err)
		}
		analysis := r.analysis
		remove, err := choose(analysis, r.importance, r.costs(), r.budget())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.choose(t.Context()); err != nil {
			t.Fatal(err)
		}
		mask, err := rewrite.Mask(g, analysis, remove)
		if err != nil {
			t.Fatal(err)
		}
		hints, err := r.hints(r.cut)
		if err != nil {
			t.Fatal(err)
		}
		layers := 0
		for _, l := range r.original.Layers() {
			if !l.Follows {
				layers++
			}
		}
		if len(hints) != layers-1 { // all but what gives the logits
			t.Errorf("%s: %d hints of %d layers", name, len(hints), layers)
		}
		named := map[string]*graph.Value{}
		for v := range mask.Values() {
			named[v.Name] = v
		}
		at, masked, original := logitsOf(r.cut), logitsOf(mask), logitsOf(g)
		for _, h := range hints {
			at, masked, original = append(at, h.cut), append(masked, named[h.original.Name]), append(original, h.original)
		}
		x, err := r.cached(0)
		if err != nil {
			t.Fatal(err)
		}
		run := func(g *graph.Graph, of []*graph.Value) []*tensor.Tensor {
			f, err := r.values(g, of)
			if err != nil {
				t.Fatal(err)
			}
			out, err := f(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		cost := func(want []*tensor.Tensor) float64 {
			v, grads, err := r.imitate(run(r.cut, at), want, hints)
			if err != nil || len(grads) != len(at) || slices.Contains(grads, nil) {
				t.Fatalf("%d gradients of %d values: %v", len(grads), len(at), err)
			}
			return v
		}
		if same, other := cost(run(mask, masked)), cost(run(g, original)); !(same < 1e-8 && other > 1e-2) {
			t.Errorf("%s: imitating the masked original costs %g, the original %g", name, same, other)
		}
	}
}
