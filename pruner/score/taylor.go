package score

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/grad"
	"github.com/secateur/secateur/pruner/loss"
)

const (
	// Probes is how many an example has unless Options say otherwise.
	Probes = 8
	// tiny is the ε of Ĝ, and the norm below which a loss has no direction to give: a random probe takes its place.
	tiny = 1e-12
)

// TaylorFO scores every channel position of the edges on the examples. It is the same at any thread count. A context
// that ends stops it within an example.
func TaylorFO(ctx context.Context, g *graph.Graph, in []tensor.Type, logits *graph.Value, examples Examples, edges []grad.Edge, opt Options) (*Scores, error) {
	t, err := newTaylor(g, in, logits, edges, opt)
	if err != nil {
		return nil, err
	}
	at := examples.At
	if t.opt.Pool.Workers() > 1 {
		at = examples.ahead()
	}
	for i := range examples.N {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ex, err := at(i)
		if err != nil {
			return nil, fmt.Errorf("example %d: %w", i, err)
		}
		if err := t.example(ctx, i, ex); err != nil {
			return nil, fmt.Errorf("example %d: %w", i, err)
		}
		if opt.Progress != nil {
			opt.Progress(i+1, examples.N)
		}
	}
	return t.scores, nil
}

// taylor is a scoring under way.
type taylor struct {
	opt      Options
	logits   *graph.Value // of the lean graph, which runs and is swept
	backprop *grad.Backprop
	of       map[grad.Edge]grad.Edge // the caller's edge that one of the lean graph stands for
	shapes   map[grad.Edge][3]int    // outer, channels, inner of the edge's input
	scores   *Scores
	row      Sample // of the sample before, to be used again with Options.Each
}

func newTaylor(g *graph.Graph, in []tensor.Type, logits *graph.Value, edges []grad.Edge, opt Options) (*taylor, error) {
	if opt.Float == tensor.Undefined {
		opt.Float = tensor.Float32
	}
	if opt.Probes <= 0 {
		opt.Probes = Probes
	}
	if opt.Pool == nil {
		opt.Pool = kernel.NewPool(1) // starts no goroutine
	}
	if logits == nil {
		return nil, fmt.Errorf("the model has no output to seed a gradient at")
	}
	for i, t := range in {
		if len(t.Shape) > 0 && t.Shape[0] != 1 {
			return nil, fmt.Errorf("input %d is %v: examples are scored one at a time, at batch 1", i, t)
		}
	}
	if len(in) != 1 {
		return nil, fmt.Errorf("the model takes %d inputs, an example has one", len(in))
	}
	info, err := engine.Infer(g, in, opt.Float)
	if err != nil {
		return nil, err
	}
	t := &taylor{
		opt: opt, of: map[grad.Edge]grad.Edge{}, shapes: map[grad.Edge][3]int{},
		scores: &Scores{Edges: edges, S: map[grad.Edge][][]float64{}},
	}
	for _, e := range edges {
		if e.Value() == nil {
			return nil, fmt.Errorf("%v is omitted", e)
		}
		shape := info[e.Value()].Type.Shape
		axis, err := Axis(e, len(shape))
		if err != nil {
			return nil, err
		}
		t.shapes[e] = [3]int{shape[:axis].Elems(), shape[axis], shape[axis+1:].Elems()}
		t.scores.S[e] = nil
	}
	g, to, logits, err := lean(g, in, opt.Float, edges, logits)
	if err != nil {
		return nil, err
	}
	t.logits = logits
	want := map[grad.Edge]bool{}
	for e, k := range to {
		want[k], t.of[k] = true, e
	}
	t.backprop, err = grad.NewBackprop(g, in, []*graph.Value{logits}, want, grad.Options{Float: opt.Float, Pool: opt.Pool, Memory: opt.Memory, Once: opt.Labels})
	return t, err
}

// example adds the samples of one example.
func (t *taylor) example(ctx context.Context, i int, ex Example) error {
	tr, err := t.backprop.Forward(ctx, []*tensor.Tensor{ex.Input})
	if err != nil {
		return err
	}
	l := tr[t.logits]
	if l == nil {
		return fmt.Errorf("the run has no value %q", t.logits.Name)
	}
	if t.opt.Labels {
		d, err := lossGradient(l, ex, t.opt)
		if err != nil {
			return err
		}
		if normalise(d) {
			return t.sample(ctx, d, 1)
		}
		d = probe(t.opt.Seed, i, 0, l)
		normalise(d)
		return t.sample(ctx, d, 1)
	}
	for k := range t.opt.Probes {
		d := probe(t.opt.Seed, i, k, l)
		normalise(d)
		if err := t.sample(ctx, d, 1/float64(t.opt.Probes)); err != nil {
			return err
		}
	}
	return nil
}

// lossGradient is G = ∂loss/∂L, in the shape of the logits l.
func lossGradient(l *tensor.Tensor, ex Example, opt Options) (*tensor.Tensor, error) {
	if ex.Truth == nil {
		return nil, fmt.Errorf("it has no truth, and scoring with labels was asked for")
	}
	_, d, err := loss.Planar(l, opt.Last, func(p *tensor.Tensor) (float64, *tensor.Tensor, error) {
		return loss.Loss(p, loss.Truth(ex.Truth, p.Shape[2], p.Shape[1]), opt.Loss)
	})
	return d, err
}

// normalise makes d of Euclidean length 1, unless it has next to none: then it says so.
func normalise(d *tensor.Tensor) bool {
	if d.DType == tensor.Float32 {
		return shorten(tensor.Of[float32](d))
	}
	return shorten(tensor.Of[float64](d))
}

func shorten[T kernel.Float](d []T) bool {
	norm := math.Sqrt(kernel.Dot(d, d))
	if !(norm > tiny) {
		return false
	}
	for i, x := range d {
		d[i] = T(float64(x) / (norm + tiny))
	}
	return true
}

// probe is G ~ N(0,1), a function of the seed, the example's number and the probe's number alone.
func probe(seed uint64, example, k int, like *tensor.Tensor) *tensor.Tensor {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[0:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(example))
	binary.LittleEndian.PutUint64(key[16:], uint64(k))
	r := rand.New(rand.NewChaCha8(key))
	d := tensor.New(like.DType, like.Shape...)
	switch d.DType {
	case tensor.Float32:
		v := tensor.Of[float32](d)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	default:
		v := tensor.Of[float64](d)
		for i := range v {
			v[i] = r.NormFloat64()
		}
	}
	return d
}

// sample takes one seed back and adds a row of sums for every edge.
func (t *taylor) sample(ctx context.Context, seed *tensor.Tensor, weight float64) error {
	row := t.row
	if t.opt.Each == nil || row == nil {
		row = Sample{}
		for _, e := range t.scores.Edges {
			row[e] = make([]float64, t.shapes[e][1])
		}
	}
	t.row = row
	for _, s := range row { // an edge that no gradient reaches is not visited
		clear(s)
	}
	err := t.backprop.Backward(ctx, grad.Gradients{t.logits: seed}, func(e grad.Edge, x, d *tensor.Tensor) error {
		e = t.of[e]
		s := row[e]
		if x.DType == tensor.Float64 {
			sums(t.opt.Pool, s, tensor.Of[float64](x), tensor.Of[float64](d), t.shapes[e])
		} else {
			sums(t.opt.Pool, s, tensor.Of[float32](x), tensor.Of[float32](d), t.shapes[e])
		}
		for c, v := range s {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("score of position %d at %v is %g", c, e, v)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if t.opt.Each != nil {
		t.opt.Each(row, weight)
		return nil
	}
	for e, s := range row {
		t.scores.S[e] = append(t.scores.S[e], s)
	}
	t.scores.Weight = append(t.scores.Weight, weight)
	return nil
}

// sums is Σ x·d for each position of the middle axis, in float64. A channel is one worker's, so the order of its sum,
// and with it every bit, does not depend on their number.
func sums[T kernel.Float](p *kernel.Pool, s []float64, x, d []T, shape [3]int) {
	outer, c, inner := shape[0], shape[1], shape[2]
	p.Loop(c, func(_, i int) {
		s[i] = 0
		for o := range outer {
			at := (o*c + i) * inner
			s[i] += kernel.Dot(x[at:at+inner], d[at:at+inner])
		}
	}).Run()
}
