// Package train moves the weights of a graph down the gradient of a loss at its values, its logits or others.
//
// [Run] is stochastic gradient descent by Adam (Kingma and Ba, ICLR 2015) with native forward and backward passes. What is
// judged, and returned, is a running mean of the weights (Polyak and Juditsky, 1992). Weights are those of Conv,
// ConvTranspose, Gemm, PRelu and of normalisations; running statistics stay. What the loss is, against masks or against
// what another model computes, is the caller's, and so is what decides which epoch was best.
package train

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/grad"
)

// Example is what one step of the network sees: its input, batch 1, and the loss of the values that it computes, with the
// gradient at each of them, nil where it is zero.
type Example struct {
	Input *tensor.Tensor
	Loss  func(x []*tensor.Tensor) (value float64, gradients []*tensor.Tensor, err error)
}

// Examples are drawn in an order of the seed's. At may augment: epoch counts from 0.
type Examples struct {
	N  int
	At func(epoch, i int) (Example, error)
}

// Options of a training. The zero value has the defaults given.
type Options struct {
	Epochs   int     // 0: 10
	Batch    int     // examples whose gradients are averaged for a step; 0: 4
	Rate     float64 // Adam's step size at its greatest; 0: 1e-3
	Patience int     // stop after so many epochs without a better one; 0: half of Epochs, since most is gained as steps become small, at least 3
	Seed     uint64
	Pool     *kernel.Pool // nil: one core
	Memory   int64        // of both passes, in bytes, beside what Adam keeps; see grad.Options
	// Quality of a graph, larger is better: the best epoch is kept. It is asked first for the graph as it comes.
	Quality  func(context.Context, *graph.Graph) (float64, error)
	Progress func(done, total int) // in examples
	// Save, if set, is given the state after each epoch, and ends the training by an error. With it as Resume the same
	// training goes on from there and gives the same bytes. A state of another graph or other options is an error where it
	// does not fit, and gives nonsense where it does: who keeps states keeps them apart.
	Save   func(state []byte) error
	Resume []byte // nil: begin
}

// stepsOf is how many steps an epoch of n examples has.
func (o Options) stepsOf(n int) int { return (n + o.Batch - 1) / o.Batch }

func (o Options) withDefaults() Options {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&o.Epochs, 10)
	set(&o.Batch, 4)
	set(&o.Patience, max(3, (o.Epochs+1)/2))
	if o.Rate <= 0 {
		o.Rate = 1e-3
	}
	if o.Pool == nil {
		o.Pool = kernel.NewPool(1)
	}
	return o
}

// Epoch is how training stood after one.
type Epoch struct {
	Loss    float64 `json:"loss"`    // mean over the epoch's examples, as weights moved
	Quality float64 `json:"quality"` // after it
}

// Stats says what a training did.
type Stats struct {
	Weights int     `json:"weights"` // elements trained
	Steps   int     `json:"steps"`
	Before  float64 `json:"before"` // quality
	Epochs  []Epoch `json:"epochs"`
	Best    int     `json:"best"` // epochs after which the result was taken; 0: as it came
}

// over reports whether training ends here: after all epochs, or too many without a better one.
func (s *Stats) over(opt Options) bool {
	n := len(s.Epochs)
	return n >= opt.Epochs || n-s.Best >= opt.Patience
}

// top is the best quality so far.
func (s *Stats) top() float64 {
	if s.Best == 0 {
		return s.Before
	}
	return s.Epochs[s.Best-1].Quality
}

// Run trains a copy of g, whose values (of g) the examples' losses are of, and returns it as it was after
// the best epoch. The same seed gives the same bytes at any number of threads. A context that ends stops it within an
// example.
func Run(ctx context.Context, g *graph.Graph, in []tensor.Type, values []*graph.Value, examples Examples, opt Options) (*graph.Graph, *Stats, error) {
	opt = opt.withDefaults()
	t, err := newTrainer(g, in, values, opt)
	if err != nil {
		return nil, nil, err
	}
	stats := &Stats{Weights: t.elems()}
	var best [][]float32 // the weights of the best epoch; nil: as they came
	if opt.Resume != nil {
		stats, best, err = t.resume(opt.Resume, examples.N, opt)
	} else {
		stats.Before, err = opt.Quality(ctx, g)
	}
	if err != nil {
		return nil, nil, err
	}
	rng := rand.New(rand.NewPCG(opt.Seed, 0x7472)) // "tr"
	for range stats.Epochs {
		rng.Perm(examples.N) // was drawn before the state was saved
	}
	total := opt.Epochs * examples.N
	steps := opt.Epochs * opt.stepsOf(examples.N)
	for !stats.over(opt) {
		epoch := len(stats.Epochs)
		order := rng.Perm(examples.N)
		var sum float64
		for from := 0; from < len(order); from += opt.Batch {
			batch := order[from:min(from+opt.Batch, len(order))]
			loss, err := t.gradients(ctx, examples, epoch, batch)
			if err != nil {
				return nil, nil, err
			}
			sum += loss
			stats.Steps++
			adam(t.weights, stats.Steps, schedule(opt.Rate, stats.Steps, steps))
			if opt.Progress != nil {
				opt.Progress(epoch*examples.N+from+len(batch), total)
			}
		}
		mean := t.means()
		q, err := opt.Quality(ctx, t.with(mean))
		if err != nil {
			return nil, nil, err
		}
		better := q > stats.top()
		stats.Epochs = append(stats.Epochs, Epoch{sum / float64(examples.N), q})
		if better {
			best, stats.Best = mean, epoch+1
		}
		if opt.Save != nil {
			b, err := t.state(stats, best, stats.over(opt))
			if err == nil {
				err = opt.Save(b)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("save the state after epoch %d: %w", epoch+1, err)
			}
		}
	}
	if best == nil {
		return g, stats, nil
	}
	return t.with(best), stats, nil
}

// schedule is the size of step 1 to steps: it rises over the first tenth of the steps and falls by a cosine to a twentieth.
func schedule(rate float64, step, steps int) float64 {
	at := float64(step) / float64(steps)
	if at < 0.1 {
		return rate * at / 0.1
	}
	return rate * (0.05 + 0.95*(1+math.Cos(math.Pi*(at-0.1)/0.9))/2)
}

// learnt are the inputs of each operator that training moves.
var learnt = map[string][]int{
	"Conv": {1, 2}, "ConvTranspose": {1, 2}, "Gemm": {1, 2}, "PRelu": {1},
	"BatchNormalization": {1, 2}, "InstanceNormalization": {1, 2}, "GroupNormalization": {1, 2}, "LayerNormalization": {1, 2},
}

// trainer is a training under way.
type trainer struct {
	g       *graph.Graph // weights are its own
	in      []tensor.Type
	values  []*graph.Value
	options grad.Options
	edges   map[grad.Edge]bool
	passes  *grad.Backprop // made with the first batch
	weights []*weight
	of      map[*graph.Value]*weight
}

// weight is one tensor that is trained.
type weight struct {
	value *graph.Value
	x     []float32
	mean  []float64 // running mean of x, what is judged and kept
	sum   []float64 // gradients of a batch
	m, v  []float64 // Adam's moments
}

func newTrainer(g *graph.Graph, in []tensor.Type, values []*graph.Value, opt Options) (*trainer, error) {
	if opt.Quality == nil {
		return nil, fmt.Errorf("train: no quality to decide by")
	}
	c, of := g.CloneMap()
	t := &trainer{g: c, in: in, options: grad.Options{Pool: opt.Pool, Memory: opt.Memory, Once: true}, edges: map[grad.Edge]bool{}, of: map[*graph.Value]*weight{}}
	for _, v := range values {
		if of[v] == nil {
			return nil, fmt.Errorf("train: the graph has no value %q", v.Name)
		}
		t.values = append(t.values, of[v])
	}
	for _, n := range t.g.Nodes {
		for _, i := range learnt[n.Op] {
			v := n.Input(i)
			if n.Domain != "" && n.Domain != "ai.onnx" || v == nil || v.Const == nil || v.Const.DType != tensor.Float32 || slices.Contains(t.g.Outputs, v) {
				continue
			}
			t.edges[grad.Edge{Node: n, Input: i}] = true
			if t.of[v] == nil {
				v.Const, v.External = v.Const.Clone(), nil
				k := v.Const.Elems()
				w := &weight{value: v, x: tensor.Of[float32](v.Const), mean: make([]float64, k), sum: make([]float64, k), m: make([]float64, k), v: make([]float64, k)}
				for i, x := range w.x {
					w.mean[i] = float64(x)
				}
				t.of[v], t.weights = w, append(t.weights, w)
			}
		}
	}
	if len(t.weights) == 0 {
		return nil, fmt.Errorf("train: the graph has no weights in float32 to train")
	}
	return t, nil
}

func (t *trainer) elems() (n int) {
	for _, w := range t.weights {
		n += len(w.x)
	}
	return n
}

// means are the running means of all weights.
func (t *trainer) means() [][]float32 {
	var all [][]float32
	for _, w := range t.weights {
		mean := make([]float32, len(w.mean))
		for i, x := range w.mean {
			mean[i] = float32(x)
		}
		all = append(all, mean)
	}
	return all
}

// with is a copy of the graph with these weights.
func (t *trainer) with(weights [][]float32) *graph.Graph {
	c, of := t.g.CloneMap()
	for i, w := range t.weights {
		of[w.value].Const = tensor.From(weights[i], w.value.Const.Shape...)
	}
	return c
}

// gradients sets each weight's sum to the mean gradient over a batch, and returns the sum of the losses.
func (t *trainer) gradients(ctx context.Context, examples Examples, epoch int, batch []int) (float64, error) {
	var err error
	if t.passes == nil {
		t.passes, err = grad.NewBackprop(t.g, t.in, t.values, t.edges, t.options)
	} else {
		err = t.passes.Renew()
	}
	if err != nil {
		return 0, err
	}
	for _, w := range t.weights {
		clear(w.sum)
	}
	var sum float64
	for _, i := range batch {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		ex, err := examples.At(epoch, i)
		if err != nil {
			return 0, err
		}
		tr, err := t.passes.Forward(ctx, []*tensor.Tensor{ex.Input})
		if err != nil {
			return 0, err
		}
		x := make([]*tensor.Tensor, len(t.values))
		for k, v := range t.values {
			x[k] = tr[v]
		}
		value, ds, err := ex.Loss(x)
		if err != nil {
			return 0, fmt.Errorf("example %d: %w", i, err)
		}
		sum += value
		seeds := grad.Gradients{}
		for k, d := range ds {
			if d != nil {
				seeds[t.values[k]] = d
			}
		}
		err = t.passes.Backward(ctx, seeds, func(e grad.Edge, _, d *tensor.Tensor) error {
			g := t.of[e.Value()].sum
			for j, v := range tensor.Of[float32](d) {
				g[j] += float64(v) / float64(len(batch))
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// adam is the optimiser's step number steps: it moves the weights down their sums.
func adam(ws []*weight, steps int, rate float64) {
	const b1, b2, eps = 0.9, 0.999, 1e-8
	c1, c2 := 1-math.Pow(b1, float64(steps)), 1-math.Pow(b2, float64(steps))
	keep := min(0.97, float64(steps)/float64(steps+10)) // what a few examples did evens out over some thirty steps
	for _, w := range ws {
		for i, g := range w.sum {
			w.m[i] = b1*w.m[i] + (1-b1)*g
			w.v[i] = b2*w.v[i] + (1-b2)*g*g
			w.x[i] -= float32(rate * (w.m[i] / c1) / (math.Sqrt(w.v[i]/c2) + eps))
			w.mean[i] += (1 - keep) * (float64(w.x[i]) - w.mean[i])
		}
	}
}
