package train_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/loss"
	"github.com/secateur/secateur/pruner/train"
)

// net is two convolutions with a normalisation between them, of random weights.
func net(seed uint64) (*graph.Graph, []tensor.Type) {
	rng := rand.New(rand.NewPCG(seed, 3))
	in := tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 2, 8, 8}}
	x := &graph.Value{Name: "x", Type: in}
	g := &graph.Graph{IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{x}}
	weights := func(lo, hi float64, shape ...int) *graph.Value {
		t := tensor.New(tensor.Float32, shape...)
		for i := range tensor.Of[float32](t) {
			tensor.Of[float32](t)[i] = float32(lo + (hi-lo)*rng.Float64())
		}
		v := &graph.Value{Name: fmt.Sprintf("w%d", len(g.Inits)), Type: t.Type(), Const: t}
		g.Inits = append(g.Inits, v)
		return v
	}
	node := func(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
		n := &graph.Node{Op: op, Name: fmt.Sprintf("n%d", len(g.Nodes)), Attrs: attrs, Inputs: in}
		n.Outputs = []*graph.Value{{Name: n.Name + ".y", Def: n}}
		g.Nodes = append(g.Nodes, n)
		return n.Outputs[0]
	}
	same := graph.Attrs{graph.IntsAttr("pads", 1, 1, 1, 1)}
	y := node("Conv", same, x, weights(-.5, .5, 6, 2, 3, 3), weights(-.1, .1, 6))
	y = node("BatchNormalization", nil, y, weights(.5, 1.5, 6), weights(-.5, .5, 6), weights(-.5, .5, 6), weights(.5, 2, 6))
	y = node("Conv", same, node("Relu", nil, y), weights(-.5, .5, 1, 6, 3, 3))
	g.Outputs = []*graph.Value{y}
	return g, []tensor.Type{in}
}

// problem is to make one net give another's logits.
func problem(t *testing.T) (g *graph.Graph, in []tensor.Type, ex train.Examples, quality func(context.Context, *graph.Graph) (float64, error)) {
	teacher, in := net(1)
	g, _ = net(2)
	m, err := engine.Compile(teacher, in, engine.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	var xs, ys []*tensor.Tensor
	for range 12 {
		x := tensor.New(tensor.Float32, 1, 2, 8, 8)
		for i := range tensor.Of[float32](x) {
			tensor.Of[float32](x)[i] = float32(rng.NormFloat64())
		}
		out, err := m.NewSession().Run(t.Context(), []*tensor.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		xs, ys = append(xs, x), append(ys, out[0].Clone())
	}
	ex = train.Examples{N: 8, At: func(_, i int) (train.Example, error) {
		return train.Example{Input: xs[i], Loss: func(x []*tensor.Tensor) (float64, []*tensor.Tensor, error) {
			v, d, err := loss.Soft(x[0], ys[i], loss.Sigmoid)
			return v, []*tensor.Tensor{d}, err
		}}, nil
	}}
	quality = func(ctx context.Context, g *graph.Graph) (float64, error) { // of the four that are not trained on
		m, err := engine.Compile(g, in, engine.Options{Threads: 1})
		if err != nil {
			return 0, err
		}
		var q float64
		for i := 8; i < 12; i++ {
			out, err := m.NewSession().Run(ctx, []*tensor.Tensor{xs[i]})
			if err != nil {
				return 0, err
			}
			v, _, err := loss.Soft(out[0], ys[i], loss.Sigmoid)
			if err != nil {
				return 0, err
			}
			q -= v
		}
		return q, nil
	}
	return g, in, ex, quality
}

func weightsOf(g *graph.Graph) string {
	s := ""
	for _, v := range g.Inits {
		s += fmt.Sprint(v.Name, tensor.Of[float32](v.Const))
	}
	return s
}

// Training makes the net like its teacher on examples that it has not seen, leaves what it was given as it was, and gives
// the same bytes at any number of threads.
func TestRun(t *testing.T) {
	g, in, ex, quality := problem(t)
	was := weightsOf(g)
	var first string
	for _, workers := range []int{1, 3} {
		calls := 0
		out, stats, err := train.Run(t.Context(), g, in, g.Outputs, ex, train.Options{
			Epochs: 30, Rate: 0.02, Seed: 5, Pool: kernel.NewPool(workers), Quality: quality, Progress: func(int, int) { calls++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		if stats.Best == 0 || len(stats.Epochs) == 0 || calls != stats.Steps {
			t.Fatalf("stats %+v with %d reports", stats, calls)
		}
		if q := stats.Epochs[stats.Best-1].Quality; !(q > 0.5*stats.Before) {
			t.Errorf("quality %g became %g: want half the loss gone", stats.Before, q)
		}
		if got, err := quality(t.Context(), out); err != nil || got != stats.Epochs[stats.Best-1].Quality {
			t.Errorf("the result has quality %g (%v), the best epoch had %g", got, err, stats.Epochs[stats.Best-1].Quality)
		}
		if weightsOf(g) != was {
			t.Fatal("the graph that was given has changed")
		}
		if first == "" {
			first = weightsOf(out)
		} else if weightsOf(out) != first {
			t.Error("the number of threads changes the weights")
		}
	}
}

// A loss of a value inside of the graph trains what lies before it, and nothing behind.
func TestInside(t *testing.T) {
	g, in, _, _ := problem(t)
	inside := g.Nodes[1].Outputs[0] // of the first convolution and its normalisation
	ex := train.Examples{N: 4, At: func(_, i int) (train.Example, error) {
		x := tensor.New(tensor.Float32, in[0].Shape...)
		for k := range tensor.Of[float32](x) {
			tensor.Of[float32](x)[k] = float32(i + k%3)
		}
		return train.Example{Input: x, Loss: func(x []*tensor.Tensor) (float64, []*tensor.Tensor, error) {
			d := x[1].Clone() // half the sum of squares
			var sum float64
			for _, v := range tensor.Of[float32](d) {
				sum += float64(v) * float64(v) / 2
			}
			return sum, []*tensor.Tensor{nil, d}, nil
		}}, nil
	}}
	epochs := 0.0
	out, stats, err := train.Run(t.Context(), g, in, []*graph.Value{g.Outputs[0], inside}, ex, train.Options{
		Epochs: 5, Rate: 0.01, Quality: func(context.Context, *graph.Graph) (float64, error) { epochs++; return epochs, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if first, last := stats.Epochs[0].Loss, stats.Epochs[4].Loss; !(last < 0.9*first) {
		t.Errorf("loss from %g to %g", first, last)
	}
	for i, v := range g.Inits {
		before, after := fmt.Sprint(tensor.Of[float32](v.Const)), fmt.Sprint(tensor.Of[float32](out.Inits[i].Const))
		reader := slices.IndexFunc(g.Nodes, func(n *graph.Node) bool { return slices.Contains(n.Inputs, v) })
		trained := reader == 0 || reader == 1 && slices.Index(g.Nodes[1].Inputs, v) < 3
		if (before != after) != trained {
			t.Errorf("%s of node %d: changed %v", v.Name, reader, before != after)
		}
	}
}

// If no epoch is better, what came goes back, after a few tries.
func TestNothingGained(t *testing.T) {
	g, in, ex, _ := problem(t)
	out, stats, err := train.Run(t.Context(), g, in, g.Outputs, ex, train.Options{
		Epochs: 50, Patience: 2, Quality: func(context.Context, *graph.Graph) (float64, error) { return 1, nil },
	})
	if err != nil || weightsOf(out) != weightsOf(g) || stats.Best != 0 || len(stats.Epochs) != 2 {
		t.Errorf("%d epochs, best %d, error %v; want two, none better, and the same weights", len(stats.Epochs), stats.Best, err)
	}
}

func TestCancelled(t *testing.T) {
	g, in, ex, quality := problem(t)
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	at := ex.At
	ex.At = func(epoch, i int) (train.Example, error) {
		if seen++; seen == 3 {
			cancel()
		}
		return at(epoch, i)
	}
	_, _, err := train.Run(ctx, g, in, g.Outputs, ex, train.Options{Quality: quality})
	if !errors.Is(err, context.Canceled) || seen != 3 {
		t.Errorf("error %v after %d examples, want it to stop at the third", err, seen)
	}
}

// A training that is broken off within any epoch and goes on from what it saved last ends as one that was not, also where
// its end was saved, and what it saves is the same from there on.
func TestResume(t *testing.T) {
	for _, patience := range []int{2, 20} {
		g, in, ex, quality := problem(t)
		var states [][]byte
		opt := train.Options{Epochs: 6, Rate: 0.02, Patience: patience, Seed: 5, Quality: quality}
		opt.Save = func(b []byte) error { states = append(states, b); return nil }
		if patience == 2 { // ends before its epochs do
			calls := 0
			opt.Quality = func(ctx context.Context, g *graph.Graph) (float64, error) {
				calls++
				q, err := quality(ctx, g)
				return q - float64(calls*calls), err
			}
		}
		want, stats, err := train.Run(t.Context(), g, in, g.Outputs, ex, opt)
		if err != nil || len(states) != len(stats.Epochs) {
			t.Fatalf("%d states of %d epochs, error %v", len(states), len(stats.Epochs), err)
		}
		opt.Quality = quality
		for n, state := range states {
			if patience == 2 && n+1 < len(states) {
				continue // the quality above is another after so many calls
			}
			var last []byte
			opt.Resume, opt.Save = state, func(b []byte) error { last = b; return nil }
			ctx, cancel := context.WithCancel(t.Context())
			broken := ex
			broken.At = func(epoch, i int) (train.Example, error) {
				if epoch == n+2 {
					cancel()
				}
				return ex.At(epoch, i)
			}
			got, again, err := train.Run(ctx, g, in, g.Outputs, broken, opt)
			if cancel(); errors.Is(err, context.Canceled) { // once more, in the epoch after next
				opt.Resume = last
				got, again, err = train.Run(t.Context(), g, in, g.Outputs, ex, opt)
			}
			if err != nil {
				t.Fatal(err)
			}
			if weightsOf(got) != weightsOf(want) || !reflect.DeepEqual(again, stats) {
				t.Errorf("resumed after epoch %d: %+v, in one go %+v; or other weights", n+1, again, stats)
			}
			if last != nil && !bytes.Equal(last, states[len(states)-1]) {
				t.Errorf("resumed after epoch %d: another last state", n+1)
			}
		}
	}
}

// Bytes that are no state of this training are an error.
func TestResumeRefuses(t *testing.T) {
	g, in, ex, quality := problem(t)
	var state []byte
	opt := train.Options{Epochs: 3, Batch: 3, Quality: quality, Save: func(b []byte) error { state = b; return errors.New("full") }}
	if _, _, err := train.Run(t.Context(), g, in, g.Outputs, ex, opt); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("a state that cannot be saved: %v", err)
	}
	opt.Save = nil
	set := func(at int, v uint64) []byte {
		b := bytes.Clone(state)
		binary.LittleEndian.PutUint64(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"empty": {}, "short": state[:len(state)-1], "long": append(bytes.Clone(state), 0), "head alone": state[:32],
		"steps": set(0, 2), "best": set(16, 2), "epochs": set(24, 2), "many epochs": set(24, 1<<63), "no epoch": set(24, 0),
	} {
		opt.Resume = b
		if _, _, err := train.Run(t.Context(), g, in, g.Outputs, ex, opt); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
