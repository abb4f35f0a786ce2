package pruner

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/pruner/rewrite"
)

func TestParseRange(t *testing.T) {
	for s, want := range map[string]Range{
		"0.1:0.8:0.1": {"macs", 0.1, 0.8, 0.1}, " params=0.2:0.2:1": {"params", 0.2, 0.2, 1}, "Filters=0.5:0.6:0.05": {"filters", 0.5, 0.6, 0.05},
	} {
		if got, err := ParseRange(s); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0.1", "0.1:0.8", "0:0.5:0.1", "0.5:0.1:0.1", "0.1:1:0.1", "0.1:0.8:0", "0.1:0.8:-1", "0.1:0.8:1e-9", "NaN:0.5:0.1", "latency=1:2:1", "a:b:c"} {
		if got, err := ParseRange(s); err == nil {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
	rg, _ := ParseRange("0.1:0.8:0.1")
	ts := rg.Targets()
	if len(ts) != 8 || ts[2].String() != "macs=0.3" || ts[7].String() != "macs=0.8" {
		t.Errorf("%v", ts)
	}
}

// A sweep's points go from large to small, what it draws is well-formed, and at each target it makes what Prune makes.
func TestSweep(t *testing.T) {
	ctx := context.Background()
	g, fit := small(t, "polyp-unet"), phantoms(t, 300, 5, true)
	last := 0.0
	opt := Options{Seed: 4, Threads: 1, Progress: func(p Progress) {
		if p.Fraction < last-1e-9 || p.Fraction > 1 {
			t.Errorf("progress went from %g to %g in %s", last, p.Fraction, p.Stage)
		}
		last = p.Fraction
	}}
	c, err := Sweep(ctx, g, fit, Range{"macs", 0.2, 0.6, 0.4}, opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Points) != 2 || c.Points[0].MACs <= c.Points[1].MACs || last != 1 {
		t.Fatalf("%d points, progress ended at %g: %+v", len(c.Points), last, c.Points)
	}
	for _, doc := range [][]byte{c.SVG()} {
		d := xml.NewDecoder(bytes.NewReader(doc))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, doc)
			}
		}
	}
	if page := string(c.HTML()); !strings.Contains(page, c.Points[0].Target) || strings.Contains(page, "src=\"http") {
		t.Errorf("page: %s", page)
	}
	opt.Progress, opt.Target = nil, Target{"macs", 0.2}
	r, err := Prune(ctx, g, fit, nil, opt)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Points[0]; r.Report.MACs.After != p.MACs || r.Report.Repair.After != p.Repaired {
		t.Errorf("prune: %d MACs, repaired to %g; sweep: %d, %g", r.Report.MACs.After, r.Report.Repair.After, p.MACs, p.Repaired)
	}
}

// Where images are too few for a verdict no bounds are drawn or told, and with as many as that they are.
func TestCurveBounds(t *testing.T) {
	for _, n := range []int{gate.MinImages - 1, gate.MinImages} {
		c := &Curve{Base: [2]int64{100, 100}, Original: 0.9, Line: 0.89, Images: n, Knee: 0}
		for _, left := range []int64{80, 60} {
			c.Points = append(c.Points, CurvePoint{MACs: left, Latency: Latency{Before: 2, After: 1}, Dice: gate.Interval{Mean: 0.9, Lower: 0.85, Upper: 0.95, N: n, Clusters: n}})
		}
		for what, doc := range map[string]string{"picture": string(c.SVG()), "page": string(c.HTML()), "sentence": c.Sentence()} {
			few, bounds := strings.Contains(doc, "too few images for bounds"), strings.Contains(doc, "0.8500 to 0.9500")
			if few == bounds || bounds != (n >= gate.MinImages) || what != "sentence" && bounds != strings.Contains(doc, "<polygon") {
				t.Errorf("%s of %d images: %s", what, n, doc)
			}
		}
	}
}

// Where nothing was repaired, nothing is said of repairs.
func TestCurveWithoutRepair(t *testing.T) {
	for _, none := range []bool{true, false} {
		c := &Curve{Base: [2]int64{100, 100}, Original: 0.9, Line: 0.89, NoRepair: none, Points: []CurvePoint{{MACs: 80, Latency: Latency{Before: 2, After: 1}}}}
		if page := string(c.HTML()); none == strings.Contains(page, "repair") || none == strings.Contains(page, "agreement, cut") {
			t.Errorf("without repair %v: %s", none, page)
		}
	}
}

// Auto takes the smallest of what it tried before the line was crossed, and says so in the file.
func TestAuto(t *testing.T) {
	g, fit, val := small(t, "polyp-unet"), phantoms(t, 400, 4, false), phantoms(t, 500, 3, false)
	opt := Options{Target: Target{Kind: "auto"}, Agreement: 0.3, Seed: 1, Threads: 1, NoRepair: true}
	r, err := Prune(context.Background(), g, fit, val, opt)
	if errors.Is(err, ErrUnreachable) || err != nil {
		t.Fatal(err)
	}
	c := r.Report.Curve
	if c == nil || c.Knee < 0 || c.Points[c.Knee].MACs != r.Report.MACs.After || c.Points[c.Knee].Dice.Mean < c.Line {
		t.Fatalf("%d MACs are left, of the curve %+v", r.Report.MACs.After, c)
	}
	if !strings.Contains(r.Graph.Meta[MetaKey], "auto, which chose "+c.Points[c.Knee].Target) {
		t.Errorf("metadata: %s", r.Graph.Meta[MetaKey])
	}
	opt.Agreement = 1
	if _, err := Prune(context.Background(), g, fit, val, opt); err == nil || !strings.Contains(err.Error(), "give a target") {
		t.Errorf("no model is good enough: %v", err)
	}
}

// What the latency table predicts follows removals one by one, and a target of time with its saved table gives the same
// bytes.
func TestLatencyTarget(t *testing.T) {
	ctx := context.Background()
	g, fit, val := small(t, "polyp-unet"), phantoms(t, 600, 4, false), phantoms(t, 700, 3, false)
	opt := Options{Target: Target{"speedup", 1.3}, Seed: 5, Threads: 1, NoRepair: true}
	opt.Save = func(b []byte) error { opt.Resume = b; return nil }
	r, err := Prune(ctx, g, fit, val, opt)
	if err != nil {
		t.Fatal(err)
	}
	// Broken off and begun again, a run has its table still.
	if again, err := Prune(ctx, g, fit, val, opt); err != nil || !bytes.Equal(again.ONNX, r.ONNX) {
		t.Errorf("resumed with the table that was saved: %v, or other bytes", err)
	}
	opt.Save, opt.Resume = nil, nil
	f := r.Report.Latency.Table
	if f == nil || f.After > f.Before/1.3*1.3 || f.After <= 0 || r.Latency == nil {
		t.Fatalf("%+v", r.Report.Latency)
	}
	opt.Latency = r.Latency
	again, err := Prune(ctx, g, fit, val, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.ONNX, r.ONNX) {
		t.Error("the same table gives other bytes")
	}
	// What is fast enough as it is, is not handed back as if it had been pruned.
	opt.Target = Target{"latency", 2 * r.Latency.Whole}
	if _, err := Prune(ctx, g, fit, val, opt); err == nil || !strings.Contains(err.Error(), "is reached already") {
		t.Errorf("%v for a model that takes %g ms: %v", opt.Target, r.Latency.Whole, err)
	}
	opt.Target = Target{"macs", 0.3}
	if plain, err := Prune(ctx, g, fit, val, opt); err != nil || plain.Report.Latency.Table != nil {
		t.Errorf("a table for a target of macs: %v", err)
	}
	other := small(t, "polyp-lite0")
	opt.Target = Target{"speedup", 1.3}
	if _, err := Prune(ctx, other, fit, val, opt); err == nil || !strings.Contains(err.Error(), "measure a new one") {
		t.Errorf("another model's table: %v", err)
	}

	_, _, a, base := load(t, "polyp-unet")
	c := newCosts(a, base, r.Latency)
	for i, id := range a.Free() {
		if i%3 != 0 {
			continue
		}
		c.remove(id, 1)
	}
	fresh := 0.0
	for i := range c.timed {
		fresh += c.timed[i].ns()
	}
	if d := (c.ns - fresh) / fresh; d > 1e-9 || d < -1e-9 {
		t.Errorf("%g ns followed, %g in all", c.ns, fresh)
	}
}

// Layers that are kept lose nothing, and no criterion misses the target or a floor.
func TestKeepAndCriteria(t *testing.T) {
	g, in, a, base := load(t, "polyp-unet")
	keep := regexp.MustCompile(`^/enc\.[01]/`)
	for _, name := range Criteria() {
		r := &run{opt: Options{Seed: 1}, analysis: a, original: a, base: base, cost: base}
		imp := random(a, 1)
		if !strings.HasPrefix(name, "taylor") {
			var err error
			if imp, err = criteria[name].score(r, context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		for _, by := range Normalisations() {
			opt := Options{Target: Target{"macs", 0.3}, Criterion: name, Keep: keep}.withDefaults()
			remove, err := choose(a, normalise(a, imp, by), newCosts(a, base, nil), within(a, base, opt))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			cut, err := rewrite.Cut(g, a, remove)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, err := engine.Count(cut, in); err != nil || got.MACs > base.MACs*7/10 || got.MACs < base.MACs*6/10 {
				t.Errorf("%s, %s: %d of %d MACs are left (%v)", name, by, got.MACs, base.MACs, err)
			}
			for _, l := range a.Layers() {
				gone := countIn(l.Class, remove)
				if keep.MatchString(l.Name) && gone > 0 || 10*(l.Channels-gone) < l.Channels {
					t.Errorf("%s, %s: layer %s loses %d of %d", name, by, l.Name, gone, l.Channels)
				}
			}
		}
	}
}

// A model without BatchNormalization has no scales to go by: it is an error where they are asked for, and no baseline.
func TestNoScales(t *testing.T) {
	g, fit, val := small(t, "polyp-unet"), phantoms(t, 800, 4, false), phantoms(t, 900, 3, false)
	before := map[*graph.Value]*graph.Value{}
	g.Nodes = slices.DeleteFunc(g.Nodes, func(n *graph.Node) bool {
		if n.Op != "BatchNormalization" {
			return false
		}
		before[n.Outputs[0]] = n.Inputs[0]
		return true
	})
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			if w := before[v]; w != nil {
				n.Inputs[i] = w
			}
		}
	}
	opt := Options{Target: Target{"macs", 0.2}, Threads: 1, NoRepair: true, Criterion: "bn-scale"}
	if _, err := Prune(t.Context(), g, fit, val, opt); !errors.Is(err, errNoScales) {
		t.Errorf("scored by scales: %v", err)
	}
	opt.Criterion, opt.Baselines = "magnitude", true
	r, err := Prune(t.Context(), g, fit, val, opt)
	if err != nil {
		t.Fatal(err)
	}
	if b := r.Report.Baselines; len(b) != len(Criteria())-1 || slices.ContainsFunc(b, func(b Baseline) bool { return b.Criterion == "bn-scale" }) {
		t.Errorf("baselines %+v", b)
	}
}

// Largest-layer-first takes from one layer until it is no larger than the next.
func TestLargestLayerFirst(t *testing.T) {
	_, _, a, base := load(t, "polyp-unet")
	opt := Options{Target: Target{"filters", 0.1}, Criterion: "largest-layer"}.withDefaults()
	remove, err := choose(a, magnitude(a), newCosts(a, base, nil), within(a, base, opt))
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	var left []int
	for _, l := range a.Layers() {
		most = max(most, l.Channels)
		if gone := countIn(l.Class, remove); gone > 0 {
			left = append(left, l.Channels-gone)
			if 2*l.Channels < most {
				t.Errorf("layer %s of %d channels loses %d", l.Name, l.Channels, gone)
			}
		}
	}
	for _, n := range left {
		if d := n - left[0]; d < -1 || d > 1 {
			t.Errorf("layers end at %v", left)
			break
		}
	}
}

func TestScope(t *testing.T) {
	for name, want := range map[string]string{
		"/encoder/layer1/layer1.0/conv1/Conv": "/encoder/layer1/layer1.0", "/enc.0/enc.0.3/Conv": "/enc.0/enc.0", "conv": "conv", "a.b.c": "a.b", "": "",
	} {
		if got := scope(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// Baselines and sensitivity are in the report if asked for, and change nothing else.
func TestBaselinesAndSensitivity(t *testing.T) {
	ctx := context.Background()
	g, fit, val := small(t, "polyp-unet"), phantoms(t, 800, 4, false), phantoms(t, 900, 3, false)
	opt := Options{Target: Target{"macs", 0.3}, Seed: 5, Threads: 1, NoRepair: true}
	plain, err := Prune(ctx, g, fit, val, opt)
	if err != nil {
		t.Fatal(err)
	}
	opt.Baselines, opt.Sensitivity = true, true
	r, err := Prune(ctx, g, fit, val, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(plain.ONNX, r.ONNX) {
		t.Error("to look changes the bytes")
	}
	if b := r.Report.Baselines; len(b) != len(Criteria()) || b[0].Criterion != DefaultCriterion || b[0].MACs != r.Report.MACs.After {
		t.Errorf("baselines %+v", b)
	}
	layers := 0
	for _, l := range r.Report.Layers {
		if l.Prunable > 0 && !l.Follows {
			layers++
		}
	}
	if s := r.Report.Sensitivity; len(s) != layers || !reflect.DeepEqual(s[0].Removed, sensitivityParts) {
		t.Errorf("%d layers' sensitivity, %+v", len(s), s)
	}
}
