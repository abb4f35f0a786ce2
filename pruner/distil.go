package pruner

import (
	"context"
	"slices"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/loss"
	"github.com/secateur/secateur/pruner/score"
	"github.com/secateur/secateur/pruner/train"
)

const (
	// hintWeight is what being wrong altogether inside of the model costs, beside the loss at its end.
	hintWeight = 3
	// hintBytes bounds the original's values that hints ask for; training keeps as much of the cut model's, and gradients.
	hintBytes = 128 << 20
)

// hint is a value of the original that the cut model has as well, less some channels.
type hint struct {
	original, cut *graph.Value
	kept          []int // channels of the original
}

// distil trains g to give the original's probabilities, and on the way the channels that it has of the original's: a few dozen images
// say little by their masks alone, and much by what every layer makes of every place. When to stop is decided by how near
// probabilities are on the select images, which is much steadier than how well masks agree.
func (r *run) distil(ctx context.Context, g *graph.Graph, s *RepairStep) (*graph.Graph, error) {
	hints, err := r.hints(g)
	if err != nil {
		return nil, err
	}
	at, from := logitsOf(g), logitsOf(r.g)
	for _, h := range hints {
		at, from = append(at, h.cut), append(from, h.original)
	}
	teacher, err := r.values(r.g, from)
	if err != nil {
		return nil, err
	}
	near, err := r.nearness()
	if err != nil {
		return nil, err
	}
	example := func(epoch, i int) (train.Example, error) {
		ex, err := r.augmented(epoch, i, false)
		if err != nil {
			return train.Example{}, err
		}
		want, err := teacher(ctx, ex.Input)
		if err != nil {
			return train.Example{}, err
		}
		return train.Example{Input: ex.Input, Loss: func(x []*tensor.Tensor) (float64, []*tensor.Tensor, error) {
			return r.imitate(x, want, hints)
		}}, nil
	}
	return r.train(ctx, g, s, at, example, r.opt.Distil, 5e-4, near)
}

// imitate is the loss of values, logits and then hints, against the original's.
func (r *run) imitate(x, want []*tensor.Tensor, hints []hint) (float64, []*tensor.Tensor, error) {
	values, grads, errs := make([]float64, len(x)), make([]*tensor.Tensor, len(x)), make([]error, len(x))
	r.pool.Loop(len(x), func(_, i int) {
		if i == 0 {
			values[0], grads[0], errs[0] = r.soft(x[0], want[0])
		} else {
			values[i], grads[i], errs[i] = loss.Features(x[i], want[i], hints[i-1].kept, hintWeight/float64(len(hints)))
		}
	}).Run()
	var sum float64
	for i, err := range errs {
		if err != nil {
			return 0, nil, err
		}
		sum += values[i]
	}
	return sum, grads, nil
}

// soft is the loss of logits against the original's.
func (r *run) soft(l, original *tensor.Tensor) (float64, *tensor.Tensor, error) {
	want, err := loss.Planes(original, r.last())
	if err != nil {
		return 0, nil, err
	}
	return loss.Planar(l, r.last(), func(p *tensor.Tensor) (float64, *tensor.Tensor, error) { return loss.Soft(p, want, r.kind()) })
}

// nearness gives what says how near a graph's probabilities are to the original's on the select images: the loss, negated.
func (r *run) nearness() (func(context.Context, *graph.Graph) (float64, error), error) {
	teacher, err := r.values(r.g, logitsOf(r.g))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, g *graph.Graph) (float64, error) {
		pupil, err := r.values(g, logitsOf(g))
		if err != nil {
			return 0, err
		}
		var sum float64
		for i := range r.sel.Items {
			x, err := r.selected(i)
			if err != nil {
				return 0, err
			}
			want, err := r.once.logits.get(i, func() (*tensor.Tensor, error) {
				t, err := teacher(ctx, x)
				if err != nil {
					return nil, err
				}
				return t[0].Clone(), nil
			})
			if err != nil {
				return 0, err
			}
			l, err := pupil(ctx, x)
			if err != nil {
				return 0, err
			}
			v, _, err := r.soft(l[0], want)
			if err != nil {
				return 0, err
			}
			sum -= v / float64(len(r.sel.Items))
		}
		return sum, nil
	}, nil
}

// channelwise are operators that do the same to every place of a channel and nothing across channels: a hint is what they
// make of a layer's output, which is what the layers behind it read.
var channelwise = map[string]bool{
	"BatchNormalization": true, "Relu": true, "LeakyRelu": true, "PRelu": true, "Clip": true, "Elu": true, "HardSwish": true, "HardSigmoid": true, "Sigmoid": true,
}

// hints lists what the original and g both compute behind each convolution, in the order of nodes. Where that is more
// than hintBytes, the largest are left out.
func (r *run) hints(g *graph.Graph) ([]hint, error) {
	info, err := engine.Infer(r.g, r.in, tensor.Float32)
	if err != nil {
		return nil, err
	}
	left, err := engine.Infer(g, r.in, tensor.Float32)
	if err != nil {
		return nil, err
	}
	named := map[string]*graph.Value{}
	for v := range g.Values() {
		named[v.Name] = v
	}
	uses, logits := r.g.Uses(), logitsOf(r.g)[0]
	var hints []hint
	for _, l := range r.original.Layers() {
		v := l.Node.Outputs[0]
		kept := r.kept[v.Name]
		for len(uses[v]) == 1 && channelwise[uses[v][0].Node.Op] && uses[v][0].Input == 0 {
			v = uses[v][0].Node.Outputs[0]
		}
		h := hint{v, named[v.Name], kept}
		if l.Follows || (l.Op != "Conv" && l.Op != "ConvTranspose") || h.cut == nil || v == logits || slices.Contains(r.g.Outputs, v) {
			continue
		}
		a, b := info[v].Type, left[h.cut].Type
		if a.DType == tensor.Float32 && b.DType == tensor.Float32 && len(a.Shape) == 4 && len(b.Shape) == 4 && b.Shape[1] == len(kept) {
			hints = append(hints, h)
		}
	}
	bytes := func(h hint) int { return 4 * info[h.original].Type.Shape.Elems() }
	bySize := slices.Clone(hints)
	slices.SortStableFunc(bySize, func(a, b hint) int { return bytes(a) - bytes(b) })
	fits := map[*graph.Value]bool{}
	total := 0
	for _, h := range bySize {
		total += bytes(h)
		fits[h.original] = total <= hintBytes
	}
	return slices.DeleteFunc(hints, func(h hint) bool { return !fits[h.original] }), nil
}

// logitsOf is the one value of g that its masks come from.
func logitsOf(g *graph.Graph) []*graph.Value {
	l, _ := score.Logits(g)
	return []*graph.Value{l}
}

// values gives what computes values of g, which are its session's until the next call.
func (r *run) values(g *graph.Graph, of []*graph.Value) (func(context.Context, *tensor.Tensor) ([]*tensor.Tensor, error), error) {
	h, clone := g.CloneMap()
	h.Outputs = nil
	for _, v := range of {
		h.Outputs = append(h.Outputs, clone[v])
	}
	m, err := engine.Compile(h, r.in, engine.Options{Pool: r.pool})
	if err != nil {
		return nil, err
	}
	session := m.NewSession()
	return func(ctx context.Context, x *tensor.Tensor) ([]*tensor.Tensor, error) {
		return session.Run(ctx, []*tensor.Tensor{x})
	}, nil
}
