package pruner

import (
	"context"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/pruner/gate"
)

func (r *run) model(g *graph.Graph) (*predict.Model, error) {
	return predict.New(g, predict.Options{Engine: engine.Options{Pool: r.pool}, Spec: &r.spec})
}

// quality is the mean Dice of g on the select images: against the masks, or without them against the original.
func (r *run) quality(ctx context.Context, g *graph.Graph) (float64, error) {
	original, err := r.model(r.g)
	if err != nil {
		return 0, err
	}
	pruned, err := r.model(g)
	if err != nil {
		return 0, err
	}
	v, err := gate.Measure(ctx, original, pruned, r.sel, gate.Options{Unlabelled: !r.labels, Resamples: 1})
	if err != nil {
		return 0, err
	}
	switch {
	case v.N == 0: // nothing to find anywhere: what is left to compare is how far probabilities moved
		return 1 - v.MeanDP, nil
	case v.Labelled:
		return v.Pruned.Dice, nil
	}
	return v.Agreement.Mean, nil
}

func (r *run) judge(ctx context.Context) error {
	original, err := r.model(r.g)
	if err != nil {
		return err
	}
	pruned, err := r.model(r.pruned)
	if err != nil {
		return err
	}
	r.verdict, err = gate.Judge(ctx, original, pruned, r.val, gate.Options{
		Unlabelled: !r.valLabels, Delta: r.opt.Delta, Agreement: r.opt.Agreement, GroupBy: r.opt.GroupBy, Seed: r.opt.Seed,
		Progress: func(done, total int) { r.progress("gate", done, total) },
		Show:     func(s gate.Shown) { r.pictures = append(r.pictures, draw(s)) }, ShowMax: maxPictures,
	})
	return err
}
