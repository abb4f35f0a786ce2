package pruner

import (
	"context"
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/grad"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/score"
)

// ScoreOptions tunes Scores. The zero value scores as Prune does.
type ScoreOptions struct {
	Unlabelled bool // random probes instead of masks, even where the set has them
	Probes     int  // of each image without masks; 0: score.Probes
	Seed       uint64
	Float64    bool
	Threads    int // cores to use; 0: all. The result does not depend on it
	Progress   func(Progress)
	// Each, if set, is also given every sample, which is its to read until it returns, and its weight. The samples of an
	// image follow one another, images in the order of the set.
	Each func(s score.Sample, weight float64)
}

// Scored is what Scores found.
type Scored struct {
	Analysis   *group.Analysis
	Edges      []grad.Edge     // those that a sample has: where channels that can be removed are read
	Importance map[int]float64 // of each class that can be removed
	Labels     bool            // masks were used
}

// Scores tells how much each class of channels of g matters on the images of set: what Prune ranks them by, with nothing
// removed. ctx's error is passed on.
func Scores(ctx context.Context, g *graph.Graph, set *calib.Set, opt ScoreOptions) (*Scored, error) {
	if set == nil || len(set.Items) == 0 {
		return nil, fmt.Errorf("score channels: %w", calib.ErrEmpty)
	}
	r := &run{
		opt: Options{Seed: opt.Seed, Steps: 1, Progress: opt.Progress}, g: g, pool: kernel.NewPool(threads(opt.Threads)),
		fit: set, labels: set.Labelled && !opt.Unlabelled,
	}
	if err := r.analyze(ctx); err != nil {
		return nil, fmt.Errorf("analyze the model: %w", err)
	}
	o := score.Options{Probes: opt.Probes, Each: opt.Each}
	if opt.Float64 {
		o.Float = tensor.Float64
	}
	imp, err := r.taylor(ctx, score.Abs, o)
	if err != nil {
		return nil, fmt.Errorf("score channels: %w", err)
	}
	return &Scored{Analysis: r.analysis, Edges: readers(r.analysis), Importance: imp, Labels: r.labels}, nil
}

// score finds the importance of every class of the current graph.
func (r *run) score(ctx context.Context) error {
	imp, err := criteria[r.opt.Criterion].score(r, ctx)
	if err != nil {
		return err
	}
	r.importance = normalise(r.analysis, imp, r.opt.Normalise)
	return nil
}

// taylor scores the current graph on the fit images. opt is completed by what the run knows.
func (r *run) taylor(ctx context.Context, norm score.Norm, opt score.Options) (map[int]float64, error) {
	logits, _ := score.Logits(r.current)
	examples := score.Examples{N: len(r.fit.Items), At: func(i int) (score.Example, error) { return r.example(&r.fit.Items[i]) }}
	r.progress("score", 0, examples.N)
	edges := readers(r.analysis)
	sum, each := newImportance(r.analysis, edges, norm), opt.Each
	opt.Labels, opt.Loss, opt.Last, opt.Seed, opt.Pool = r.labels, r.kind(), r.last(), r.opt.Seed, r.pool
	opt.Each = func(s score.Sample, weight float64) {
		sum.add(s, weight)
		if each != nil {
			each(s, weight)
		}
	}
	opt.Progress = func(done, total int) { r.progress("score", done, total) }
	if _, err := score.TaylorFO(ctx, r.current, r.in, logits, examples, edges, opt); err != nil {
		return nil, err
	}
	return sum.mean(), nil
}

// readers lists the edges at which channels that can be removed are read: a gradient elsewhere, such as that of the first
// layer's input, the image, would be computed for nothing.
func readers(a *group.Analysis) []grad.Edge {
	free := map[int]bool{}
	for _, id := range a.Free() {
		free[id] = true
	}
	var es []grad.Edge
	for _, e := range a.Edges() {
		for _, id := range a.EdgeClasses(e) {
			if free[id] {
				es = append(es, e)
				break
			}
		}
	}
	return es
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
