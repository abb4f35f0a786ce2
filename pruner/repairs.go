package pruner

import (
	"context"
	"errors"
	"fmt"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/loss"
	"github.com/secateur/secateur/pruner/repair"
	"github.com/secateur/secateur/pruner/score"
	"github.com/secateur/secateur/pruner/train"
)

// method is one way to repair a cut model. It may give nil, where the model has nothing that it could change.
type method struct {
	name  string
	share float64 // of the time that all take, about
	do    func(r *run, ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error)
	wants func(o Options, last bool) bool
	// by is what decides whether the result is kept: more is better, on the select images.
	by func(*run, context.Context, *graph.Graph) (float64, error)
}

// methods lists the repairs in the order that they are tried. Training belongs to the last step: what it moves is cut
// again in any other.
var methods = []method{
	{"ridge least squares", 0.3, (*run).ridge, func(Options, bool) bool { return true }, (*run).agreement},
	{"BatchNormalization recalibration", 0.1, (*run).recalibrate, func(Options, bool) bool { return true }, (*run).agreement},
	{"self-distillation", 0.6, (*run).distil, func(o Options, last bool) bool { return last && o.Distil > 0 }, (*run).agreement},
	{"fine-tuning on masks", 0.6, (*run).finetune, func(o Options, last bool) bool { return last && o.Finetune > 0 }, (*run).dice},
}

// repair tries every method on the cut model, one behind the other, and keeps what each makes only if it does better on
// the select images than what was there before: in agreement with the original, or against masks where it trains on them.
func (r *run) repair(ctx context.Context) error {
	defer func() { r.step++ }()
	last := r.step+1 == r.opt.Steps
	r.repairs = RepairReport{Images: len(r.sel.Items)}
	if r.opt.NoRepair {
		return nil
	}
	r.progress("repair", 0, 1)
	var err error
	if r.repairs.Before, err = r.agreement(ctx, r.cut); err != nil {
		return err
	}
	var all, done float64
	for _, m := range methods {
		if m.wants(r.opt, last) {
			all += m.share
		}
	}
	best := r.cut
	for _, m := range methods {
		if !m.wants(r.opt, last) {
			continue
		}
		r.part = func(i, n int) {
			r.progress("repair", int(1000*(done+m.share*float64(i)/float64(max(n, 1)))/all), 1000)
		}
		s := RepairStep{Method: m.name}
		if s.Before, err = m.by(r, ctx, best); err != nil {
			return err
		}
		g, err := m.do(r, ctx, best, &s)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		done += m.share
		if g == nil {
			continue
		}
		if s.After, err = m.by(r, ctx, g); err != nil {
			return err
		}
		if s.Kept = s.After > s.Before; s.Kept {
			best = g
		}
		r.repairs.Steps = append(r.repairs.Steps, s)
		r.opt.Log.Info("repaired", "step", r.step+1, "method", m.name, "before", s.Before, "after", s.After, "kept", s.Kept)
	}
	if r.repairs.After, err = r.agreement(ctx, best); err != nil {
		return err
	}
	return r.next(best)
}

func (r *run) images() repair.Images { return repair.Images{N: len(r.fit.Items), At: r.cached} }

func (r *run) ridge(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	fixed, stats, err := repair.Ridge(ctx, r.g, g, r.kept, r.in, r.images(), repair.Options{Seed: r.opt.Seed, Pool: r.pool, Progress: r.part})
	s.Ridge = stats
	return fixed, err
}

func (r *run) recalibrate(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	fixed, n, err := repair.Recalibrate(ctx, g, r.in, r.images(), repair.Options{Pool: r.pool, Progress: r.part})
	if s.Norms = n; n == 0 {
		return nil, err
	}
	return fixed, err
}

// distil trains g to give the original's probabilities. When to stop is decided by how near they are on the select images,
// which is much steadier than how well masks agree.
func (r *run) distil(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	teacher, err := r.logitsOf(r.g)
	if err != nil {
		return nil, err
	}
	soft := func(l, target *tensor.Tensor) (float64, *tensor.Tensor, error) {
		return planar(l, r.last(), func(l *tensor.Tensor) (float64, *tensor.Tensor, error) {
			return loss.Soft(l, planes4(target, r.last()), r.kind())
		})
	}
	at := func(epoch, i int) (train.Example, error) {
		x, err := r.augmented(epoch, i, nil)
		if err != nil {
			return train.Example{}, err
		}
		target, err := teacher(ctx, x)
		return train.Example{Input: x, Loss: func(l *tensor.Tensor) (float64, *tensor.Tensor, error) { return soft(l, target) }}, err
	}
	near := func(ctx context.Context, g *graph.Graph) (float64, error) {
		pupil, err := r.logitsOf(g)
		if err != nil {
			return 0, err
		}
		var sum float64
		for i := range r.sel.Items {
			x, err := r.input(&r.sel.Items[i])
			if err != nil {
				return 0, err
			}
			target, err := teacher(ctx, x)
			if err != nil {
				return 0, err
			}
			l, err := pupil(ctx, x)
			if err != nil {
				return 0, err
			}
			v, _, err := soft(l, target)
			if err != nil {
				return 0, err
			}
			sum -= v / float64(len(r.sel.Items))
		}
		return sum, nil
	}
	return r.train(ctx, g, s, at, r.opt.Distil, 5e-4, near)
}

// logitsOf gives what computes g's logits, which are its session's until the next call.
func (r *run) logitsOf(g *graph.Graph) (func(context.Context, *tensor.Tensor) (*tensor.Tensor, error), error) {
	logits, _ := score.Logits(g)
	h, of := g.CloneMap()
	h.Outputs = []*graph.Value{of[logits]}
	m, err := engine.Compile(h, r.in, engine.Options{Pool: r.pool})
	if err != nil {
		return nil, err
	}
	session := m.NewSession()
	return func(ctx context.Context, x *tensor.Tensor) (*tensor.Tensor, error) {
		out, err := session.Run(ctx, []*tensor.Tensor{x})
		if err != nil {
			return nil, err
		}
		return out[0], nil
	}, nil
}

// finetune trains g on the masks.
func (r *run) finetune(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	if !r.labels {
		return nil, errors.New("it takes masks for all calibration images")
	}
	kind := r.kind()
	at := func(epoch, i int) (train.Example, error) {
		var truth *vision.Mask
		x, err := r.augmented(epoch, i, &truth)
		if err != nil {
			return train.Example{}, err
		}
		return train.Example{Input: x, Loss: func(l *tensor.Tensor) (float64, *tensor.Tensor, error) {
			return planar(l, r.last(), func(l *tensor.Tensor) (float64, *tensor.Tensor, error) {
				n := len(l.Shape)
				return loss.Loss(l, loss.Truth(truth, l.Shape[n-1], l.Shape[n-2]), kind)
			})
		}}, nil
	}
	return r.train(ctx, g, s, at, r.opt.Finetune, 3e-4, r.dice)
}

func (r *run) train(ctx context.Context, g *graph.Graph, s *RepairStep, at func(epoch, i int) (train.Example, error), epochs int, rate float64, by func(context.Context, *graph.Graph) (float64, error)) (*graph.Graph, error) {
	logits, _ := score.Logits(g)
	out, stats, err := train.Run(ctx, g, r.in, logits, train.Examples{N: len(r.fit.Items), At: at}, train.Options{
		Epochs: epochs, Rate: rate, Seed: r.opt.Seed, Pool: r.pool, Quality: by, Progress: r.part,
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

// planes4 gives logits [1,h,w,c] with the classes in front; others as they are.
func planes4(l *tensor.Tensor, last bool) *tensor.Tensor {
	if !last || len(l.Shape) != 4 {
		return l
	}
	h, w, c := l.Shape[1], l.Shape[2], l.Shape[3]
	return interchange(l, h*w, c, tensor.Shape{1, c, h, w})
}

// planar calls f with logits whose classes lie in front, and gives its gradient as they lay.
func planar(l *tensor.Tensor, last bool, f func(*tensor.Tensor) (float64, *tensor.Tensor, error)) (float64, *tensor.Tensor, error) {
	v, d, err := f(planes4(l, last))
	if err != nil {
		return 0, nil, err
	}
	if last && len(l.Shape) == 4 {
		d = interchange(d, l.Shape[3], l.Shape[1]*l.Shape[2], l.Shape)
	}
	return v, d, nil
}

// interchange transposes the matrix [rows, columns] that float32 elements are.
func interchange(t *tensor.Tensor, rows, columns int, shape tensor.Shape) *tensor.Tensor {
	out := tensor.New(t.DType, shape...)
	dst, src := tensor.Of[float32](out), tensor.Of[float32](t)
	for i := range rows {
		for j := range columns {
			dst[j*rows+i] = src[i*columns+j]
		}
	}
	return out
}
