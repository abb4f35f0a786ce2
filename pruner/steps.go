package pruner

import (
	"context"
	"fmt"
	"math"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/grad"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
	"github.com/secateur/secateur/pruner/score"
)

func (r *run) analyze(context.Context) error {
	r.progress("analyze", 0, 1)
	var err error
	if r.spec, err = vision.ReadSpec(r.g.Meta, r.g); err != nil {
		return err
	}
	r.in = []tensor.Type{predict.ServingType(r.g, r.spec)}
	r.current, r.kept = r.g, map[string][]int{}
	if err := r.look(); err != nil {
		return err
	}
	r.base, r.original = r.cost, r.analysis
	for _, l := range r.original.Layers() {
		all := make([]int, l.Channels)
		for i := range all {
			all[i] = i
		}
		r.kept[l.Node.Outputs[0].Name] = all
	}
	if len(r.analysis.Free()) == 0 {
		return fmt.Errorf("no channel of the model can be removed")
	}
	bytes, err := onnx.Encode(r.g)
	if err != nil {
		return err
	}
	if r.parentBytes = int64(len(bytes)); r.opt.Parent == "" {
		r.opt.Parent = sum(bytes)
	}
	return nil
}

// look finds cost and classes of the current graph.
func (r *run) look() error {
	info, err := engine.Infer(r.current, r.in, tensor.Float32)
	if err != nil {
		return err
	}
	if len(r.current.Outputs) > 0 {
		r.classes = r.spec.Labels(planes(info[r.current.Outputs[0]].Type.Shape, r.spec.Pre.Layout))
	}
	r.cost = engine.CountInferred(r.current, info)
	r.analysis, err = group.Analyze(r.current, info)
	return err
}

// planes is how many maps an output of this shape has.
func planes(s tensor.Shape, layout string) int {
	switch {
	case len(s) == 4 && layout == "NHWC":
		return s[3]
	case len(s) == 4:
		return s[1]
	}
	return 1
}

// score finds the importance of every class of the current graph.
func (r *run) score(ctx context.Context) error {
	imp, err := criteria[r.opt.Criterion](r, ctx)
	if err != nil {
		return err
	}
	r.importance = normalise(r.analysis, imp, r.opt.Normalise)
	return nil
}

func (r *run) taylor(ctx context.Context, norm score.Norm) (map[int]float64, error) {
	logits, _ := score.Logits(r.current)
	examples := score.Examples{N: len(r.fit.Items), At: func(i int) (score.Example, error) { return r.example(&r.fit.Items[i]) }}
	r.progress("score", 0, examples.N)
	edges := r.analysis.Edges()
	sum := newImportance(r.analysis, edges, norm)
	opt := score.Options{
		Labels: r.labels, Loss: r.kind(), Last: r.last(), Seed: r.opt.Seed, Pool: r.pool, Each: sum.add,
		Progress: func(done, total int) { r.progress("score", done, total) },
	}
	if _, err := score.TaylorFO(ctx, r.current, r.in, logits, examples, edges, opt); err != nil {
		return nil, err
	}
	return sum.mean(), nil
}

// importance adds up that of each class that can be removed, over all places where weights read it.
type importance struct {
	ids    []int
	at     [][]score.At
	sum    []float64
	weight float64
	norm   score.Norm
}

func newImportance(a *group.Analysis, edges []grad.Edge, norm score.Norm) *importance {
	at := map[int][]score.At{}
	for _, e := range edges {
		for p, id := range a.EdgeClasses(e) {
			if id >= 0 {
				at[id] = append(at[id], score.At{Edge: e, Position: p})
			}
		}
	}
	m := &importance{ids: a.Free(), norm: norm}
	m.sum = make([]float64, len(m.ids))
	for _, id := range m.ids {
		m.at = append(m.at, at[id])
	}
	return m
}

// add takes a sample: signed over the places of a class, absolute or squared before it is averaged.
func (m *importance) add(s score.Sample, weight float64) {
	for i, at := range m.at {
		m.sum[i] += weight * m.norm.Of(s.Sum(at))
	}
	m.weight += weight
}

func (m *importance) mean() map[int]float64 {
	imp := map[int]float64{}
	for i, id := range m.ids {
		imp[id] = m.sum[i] / m.weight
	}
	return imp
}

func (r *run) choose(context.Context) error {
	r.progress("select", 0, 1)
	left := r.costs()
	remove, err := choose(r.analysis, r.importance, left, r.budget())
	if err != nil {
		return err
	}
	r.predicted = left.ns / 1e6
	if r.cut, err = rewrite.Cut(r.current, r.analysis, remove); err != nil {
		return err
	}
	for _, l := range r.analysis.Layers() {
		name := l.Node.Outputs[0].Name
		var left []int
		for i, p := range r.kept[name] {
			if id := l.Class[i]; id < 0 || !remove[id] {
				left = append(left, p)
			}
		}
		r.kept[name] = left
	}
	r.opt.Log.Info("channels selected", "step", r.step+1, "classes", len(remove), "of", len(r.analysis.Classes))
	return r.next(r.cut)
}

// budget is what this step may leave: the target's part of the original that falls to the steps so far, with every
// layer's floor counted from the original.
func (r *run) budget() budget {
	whole := newCosts(r.original, r.base, r.table).of(r.opt.Target.counts())
	left, _ := r.opt.Target.left(whole)
	part := (float64(whole) - left) * float64(r.step+1) / float64(r.opt.Steps)
	b := budget{opt: r.opt, from: whole, goal: whole - int64(math.Ceil(part-1e-6)), least: map[string]int{}}
	for _, l := range r.original.Layers() {
		name := l.Node.Outputs[0].Name
		b.least[name] = max(r.opt.MinChannels, l.Channels-int(r.opt.MaxLayer*float64(l.Channels)), 1)
		if k := r.opt.Keep; k != nil && (k.MatchString(l.Name) || k.MatchString(name)) {
			b.least[name] = l.Channels
		}
	}
	return b
}

// next makes g the graph that goes on.
func (r *run) next(g *graph.Graph) error {
	r.pruned = g
	if r.step+1 == r.opt.Steps {
		return nil
	}
	r.current = g
	return r.look()
}
