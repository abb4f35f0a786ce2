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

// agreement is the mean Dice of g's masks against the original's on the select images. It decides over repairs with masks
// as well: masks say the same with several times the spread, and there are few images.
func (r *run) agreement(ctx context.Context, g *graph.Graph) (float64, error) {
	v, err := r.measure(ctx, g, false)
	if err != nil {
		return 0, err
	}
	if v.N == 0 { // nothing to find anywhere: what is left to compare is how far probabilities moved
		return 1 - v.MeanDP, nil
	}
	return v.Agreement.Mean, nil
}

// dice is the mean Dice of g against the masks of the select images.
func (r *run) dice(ctx context.Context, g *graph.Graph) (float64, error) {
	v, err := r.measure(ctx, g, true)
	if err != nil || v.N == 0 {
		return 0, err
	}
	return v.Pruned.Dice, nil
}

func (r *run) measure(ctx context.Context, g *graph.Graph, labelled bool) (*gate.Result, error) {
	original, err := r.model(r.g)
	if err != nil {
		return nil, err
	}
	pruned, err := r.model(g)
	if err != nil {
		return nil, err
	}
	return gate.Measure(ctx, original, pruned, r.sel, gate.Options{Unlabelled: !labelled, Resamples: 1})
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
