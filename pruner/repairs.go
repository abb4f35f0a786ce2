package pruner

import (
	"context"
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/loss"
	"github.com/secateur/secateur/pruner/repair"
	"github.com/secateur/secateur/pruner/train"
)

// method is one way to repair a cut model. It may give nil, where the model has nothing that it could change.
type method struct {
	name  string
	share float64 // of the time that all take, about
	do    func(context.Context, *graph.Graph, *RepairStep) (*graph.Graph, error)
	// by is what decides whether the result is kept: more is better, on the select images.
	by criterionOf
}

// methods lists the repairs in the order that they are tried. Training belongs to the last step: what it moves is cut
// again in any other.
func (r *run) methods() []method {
	ms := []method{
		{"ridge least squares", 0.3, r.ridge, byAgreement},
		{"BatchNormalization recalibration", 0.1, r.recalibrate, byAgreement},
	}
	if r.step+1 < r.opt.Steps {
		return ms
	}
	if r.opt.Distil > 0 {
		ms = append(ms, method{"self-distillation", 0.6, r.distil, byAgreement})
	}
	if r.opt.Finetune > 0 {
		ms = append(ms, method{"fine-tuning on masks", 0.6, r.finetune, byDice})
	}
	return ms
}

// repair tries every method on the cut model, one behind the other, and keeps what each makes only if it does better on
// the select images than what was there before: in agreement with the original, or against masks where it trains on them.
func (r *run) repair(ctx context.Context) error {
	defer func() { r.step++ }()
	r.repairs = RepairReport{Images: len(r.sel.Items)}
	if r.opt.NoRepair {
		return nil
	}
	r.progress("repair", 0, 1)
	r.known = map[judged]float64{}
	defer func() { r.known = nil }()
	var err error
	if r.repairs.Before, err = r.judged(ctx, r.cut, byAgreement); err != nil {
		return err
	}
	var all, done float64
	for _, m := range r.methods() {
		all += m.share
	}
	best := r.cut
	for _, m := range r.methods() {
		r.part = func(i, n int) {
			r.progress("repair", int(1000*(done+m.share*float64(i)/float64(max(n, 1)))/all), 1000)
		}
		s := RepairStep{Method: m.name}
		if s.Before, err = r.judged(ctx, best, m.by); err != nil {
			return err
		}
		g, err := m.do(ctx, best, &s)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		done += m.share
		if g == nil {
			continue
		}
		if s.After, err = r.judged(ctx, g, m.by); err != nil {
			return err
		}
		if s.Kept = s.After > s.Before; s.Kept {
			best = g
		}
		r.repairs.Steps = append(r.repairs.Steps, s)
		r.opt.Log.Info("repaired", "step", r.step+1, "method", m.name, "before", s.Before, "after", s.After, "kept", s.Kept)
	}
	if r.repairs.After, err = r.judged(ctx, best, byAgreement); err != nil {
		return err
	}
	return r.next(best)
}

func (r *run) images() repair.Images { return repair.Images{N: len(r.fit.Items), At: r.cached} }

// strengths are the ρ that ridge least squares is tried with, from strong to weak.
var strengths = []float64{1, 0.1, 0.01, 0.001}

// ridge goes along strengths from the second, in the direction in which the select images agree better, as long as they do.
func (r *run) ridge(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	type result struct {
		g     *graph.Graph
		stats *repair.Stats
	}
	const about = 3 // runs in all
	var results [4]result
	samples, err := repair.Sample(ctx, r.g, g, r.kept, r.in, r.images(), repair.Options{Seed: r.opt.Seed, Pool: r.pool})
	if err != nil {
		return nil, err
	}
	part := r.part
	try := func(i int) (float64, error) {
		k := len(s.Tried)
		fixed, stats, err := samples.Ridge(ctx, strengths[i], func(done, n int) { part(min(k, about-1)*n+done, about*n) })
		if err != nil {
			return 0, err
		}
		results[i] = result{fixed, stats}
		q, err := r.judged(ctx, fixed, byAgreement)
		s.Tried = append(s.Tried, Tried{strengths[i], q})
		return q, err
	}
	at := 1
	best, err := try(at)
	if err != nil || len(results[at].stats.Solved) == 0 {
		s.Ridge = results[at].stats
		return results[at].g, err
	}
	for _, step := range []int{1, -1} {
		better := false
		for i := at + step; i >= 0 && i < len(strengths); i += step {
			q, err := try(i)
			if err != nil {
				return nil, err
			}
			if q <= best {
				break
			}
			best, at, better = q, i, true
		}
		if better {
			break
		}
	}
	s.Ridge = results[at].stats
	return results[at].g, nil
}

func (r *run) recalibrate(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	fixed, n, err := repair.Recalibrate(ctx, g, r.in, r.images(), repair.Options{Pool: r.pool, Progress: r.part})
	if s.Norms = n; n == 0 {
		return nil, err
	}
	return fixed, err
}

// finetune trains g on the masks.
func (r *run) finetune(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	at := func(epoch, i int) (train.Example, error) {
		ex, err := r.augmented(epoch, i, true)
		return train.Example{Input: ex.Input, Loss: func(x []*tensor.Tensor) (float64, []*tensor.Tensor, error) {
			v, d, err := loss.Planar(x[0], r.last(), func(p *tensor.Tensor) (float64, *tensor.Tensor, error) {
				return loss.Loss(p, loss.Truth(ex.Truth, p.Shape[2], p.Shape[1]), r.kind())
			})
			return v, []*tensor.Tensor{d}, err
		}}, err
	}
	dice := func(ctx context.Context, g *graph.Graph) (float64, error) { return r.quality(ctx, g, byDice) }
	return r.train(ctx, g, s, logitsOf(g), at, r.opt.Finetune, 3e-4, dice)
}

// train moves the weights of g by the losses, at values of g, that examples have.
func (r *run) train(ctx context.Context, g *graph.Graph, s *RepairStep, values []*graph.Value, at func(epoch, i int) (train.Example, error), epochs int, rate float64, by func(context.Context, *graph.Graph) (float64, error)) (*graph.Graph, error) {
	key, err := trainingKey(s.Method, g)
	if err != nil {
		return nil, err
	}
	out, stats, err := train.Run(ctx, g, r.in, values, train.Examples{N: len(r.fit.Items), At: at}, train.Options{
		Epochs: epochs, Rate: rate, Seed: r.opt.Seed, Pool: r.pool, Quality: by, Progress: r.part,
		Save: func(state []byte) error { return r.save(key, state) }, Resume: r.saved.parts[key],
	})
	s.Train = stats
	return out, err
}

func (r *run) kind() loss.Kind {
	if r.spec.Independent() {
		return loss.Sigmoid
	}
	return loss.Softmax
}

// last reports whether channels are the last axis of images and logits.
func (r *run) last() bool { return r.spec.Pre.Layout == "NHWC" }
