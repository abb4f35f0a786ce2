package pruner

import (
	"context"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/pruner/gate"
)

// models makes what predicts with the original, once, and with g.
func (r *run) models(g *graph.Graph) (original, other *predict.Model, err error) {
	if r.once.whole == nil {
		if r.once.whole, err = r.model(r.g); err != nil {
			return nil, nil, err
		}
	}
	other, err = r.model(g)
	return r.once.whole, other, err
}

func (r *run) model(g *graph.Graph) (*predict.Model, error) {
	return predict.New(g, predict.Options{Engine: engine.Options{Pool: r.pool}, Spec: &r.spec})
}

// criterionOf is what the select images are looked at for.
type criterionOf int

const (
	// byAgreement is the mean Dice of masks against the original's. It decides over repairs with masks as well: masks say the
	// same with several times the spread, and there are few images.
	byAgreement criterionOf = iota
	// byDice is the mean Dice against the masks.
	byDice
)

// quality judges g on the select images; more is better.
func (r *run) quality(ctx context.Context, g *graph.Graph, by criterionOf) (float64, error) {
	original, other, err := r.models(g)
	if err != nil {
		return 0, err
	}
	if r.once.look == nil {
		r.once.look = gate.NewLook(original, r.sel, lookBytes)
	}
	if by == byDice {
		return r.once.look.Dice(ctx, other)
	}
	return r.once.look.Agreement(ctx, other)
}

// judged is a graph and what it was looked at for.
type judged struct {
	g  *graph.Graph
	by criterionOf
}

// judged is quality, which a repair asks for again and again of the same graphs.
func (r *run) judged(ctx context.Context, g *graph.Graph, by criterionOf) (float64, error) {
	if q, ok := r.known[judged{g, by}]; ok {
		return q, nil
	}
	q, err := r.quality(ctx, g, by)
	if err == nil {
		r.known[judged{g, by}] = q
	}
	return q, err
}

func (r *run) judge(ctx context.Context) error {
	original, pruned, err := r.models(r.pruned)
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
