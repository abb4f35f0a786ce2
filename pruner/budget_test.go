package pruner

import (
	"fmt"
	"strings"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
)

func TestParseTarget(t *testing.T) {
	for s, want := range map[string]Target{
		"macs=0.4": {"macs", 0.4}, "params=30%": {"params", 0.3}, " Filters=0.25": {"filters", 0.25},
		"latency=12ms": {"latency", 12}, "latency=0.5": {"latency", 0.5}, "speedup=2x": {"speedup", 2}, "SpeedUp=1.5": {"speedup", 1.5}, "auto": {"auto", 0},
	} {
		if got, err := ParseTarget(s); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "macs", "macs=", "macs=x", "macs=0", "macs=1", "macs=-1", "macs=NaN", "speed=0.5", "macs=150%", "latency=0ms", "latency=3s", "speedup=1", "speedup=0.5x", "auto=1", "latency=NaN"} {
		if got, err := ParseTarget(s); err == nil {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
}

// examine finds what can be removed of g, and what it costs.
func examine(g *graph.Graph, in []tensor.Type) (*group.Analysis, engine.Cost, error) {
	info, err := engine.Infer(g, in, tensor.Float32)
	if err != nil {
		return nil, engine.Cost{}, fmt.Errorf("infer: %w", err)
	}
	a, err := group.Analyze(g, info)
	if err != nil {
		return nil, engine.Cost{}, fmt.Errorf("analyze: %w", err)
	}
	return a, engine.CountInferred(g, info), nil
}

func load(t *testing.T, name string) (*graph.Graph, []tensor.Type, *group.Analysis, engine.Cost) {
	t.Helper()
	for _, m := range models.All() {
		if m.Name != name {
			continue
		}
		g, err := onnx.Decode(m.ONNX, onnx.Options{})
		if err != nil {
			t.Fatal(err)
		}
		in := []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 64, 64}}}
		a, base, err := examine(g, in)
		if err != nil {
			t.Fatal(err)
		}
		return g, in, a, base
	}
	t.Fatalf("no model %q", name)
	return nil, nil, nil, engine.Cost{}
}

// within is the budget of a run of one step.
func within(a *group.Analysis, base engine.Cost, opt Options) budget {
	r := &run{opt: opt, original: a, base: base}
	return r.budget()
}

// What the cost model predicts is what engine.Count finds in the cut graph, and the cut is the smallest that reaches
// the target: with any one class put back it would not.
func TestChooseReachesTargets(t *testing.T) {
	for _, model := range []string{"polyp-unet", "polyp-lite0"} {
		g, in, a, base := load(t, model)
		for _, target := range []string{"macs=0.4", "params=0.3", "filters=0.37"} {
			tg, err := ParseTarget(target)
			if err != nil {
				t.Fatal(err)
			}
			opt := Options{Target: tg}.withDefaults()
			remove, err := choose(a, random(a, 5), newCosts(a, base, nil), within(a, base, opt))
			if err != nil {
				t.Fatalf("%s %s: %v", model, target, err)
			}
			cut, err := rewrite.Cut(g, a, remove)
			if err != nil {
				t.Fatalf("%s %s: %v", model, target, err)
			}
			got, err := engine.Count(cut, in)
			if err != nil {
				t.Fatalf("%s %s: %v", model, target, err)
			}
			c := newCosts(a, base, nil)
			from := c.of(tg.Kind)
			for id := range remove {
				c.remove(id, 1)
			}
			if c.macs != got.MACs || c.params != got.Parameters {
				t.Errorf("%s %s: predicted %d MACs, %d parameters; counted %d, %d", model, target, c.macs, c.params, got.MACs, got.Parameters)
			}
			goal := int64(float64(from) * (1 - tg.Value))
			if c.of(tg.Kind) > goal+1 {
				t.Errorf("%s %s: %d of %d are left", model, target, c.of(tg.Kind), from)
			}
			for id := range remove {
				if c.of(tg.Kind)+c.back([]int{id}, tg.Kind) <= goal {
					t.Errorf("%s %s: class %d need not go", model, target, id)
					break
				}
			}
			for _, l := range a.Layers() {
				kept := l.Channels
				for _, id := range l.Class {
					if id >= 0 && remove[id] {
						kept--
					}
				}
				if float64(kept) < 0.1*float64(l.Channels)-1e-9 || kept < 1 {
					t.Errorf("%s %s: layer %s keeps %d of %d", model, target, l.Name, kept, l.Channels)
				}
			}
		}
	}
}

// Where every class is one filter, exactly the number asked for goes, equal scores by the number of the class.
func TestFiltersAreExact(t *testing.T) {
	_, _, a, base := load(t, "polyp-unet")
	imp := map[int]float64{}
	for _, id := range a.Free() {
		imp[id] = 1
	}
	opt := Options{Target: Target{"filters", 0.05}}.withDefaults()
	remove, err := choose(a, imp, newCosts(a, base, nil), within(a, base, opt))
	if err != nil {
		t.Fatal(err)
	}
	c := newCosts(a, base, nil)
	want := int((c.count*5 + 99) / 100)
	if len(remove) != want {
		t.Errorf("%d filters removed, want %d of %d", len(remove), want, c.count)
	}
	f := newFloor(a, within(a, base, opt).least)
	for i, id := range a.Free() {
		if i >= want {
			break
		}
		if !remove[id] && f.allows([]int{id}) && i < 10 {
			t.Errorf("class %d was kept before later ones of the same score", id)
		}
	}
}

func TestRoundLeavesMultiples(t *testing.T) {
	_, _, a, base := load(t, "polyp-unet")
	opt := Options{Target: Target{"macs", 0.3}, Round: 8}.withDefaults()
	remove, err := choose(a, random(a, 2), newCosts(a, base, nil), within(a, base, opt))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range a.Layers() {
		kept := l.Channels
		for _, id := range l.Class {
			if id >= 0 && remove[id] {
				kept--
			}
		}
		if l.Prunable > 0 && kept%8 != 0 {
			t.Errorf("layer %s keeps %d channels", l.Name, kept)
		}
	}
}

func TestUnreachableTargetSaysWhatIs(t *testing.T) {
	_, _, a, base := load(t, "polyp-unet")
	_, err := choose(a, random(a, 2), newCosts(a, base, nil), within(a, base, Options{Target: Target{"macs", 0.999}}.withDefaults()))
	if err == nil || !strings.Contains(err.Error(), "at most 9") {
		t.Errorf("error %v, want how much can be removed", err)
	}
}
