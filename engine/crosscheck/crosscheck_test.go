package crosscheck_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/crosscheck"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/zoo"
)

func native(name string) crosscheck.Side {
	return crosscheck.Side{
		Name: name, Serve: predict.Native(engine.Options{Threads: 1}), Verbatim: predict.Native(engine.Options{Threads: 1, Verbatim: true}),
	}
}

// faulty is a backend that takes one weight of node i for a larger one.
func faulty(b predict.Backend, i int) predict.Backend {
	return func(g *graph.Graph, in []tensor.Type) (func() (predict.Runner, error), error) {
		g = g.Clone()
		w := g.Nodes[i].Inputs[1]
		c := w.Const.Clone()
		tensor.Of[float32](c)[3] += 0.5
		w.Const = c
		return b(g, in)
	}
}

// network is one of the zoo's, with an input and the places of its convolutions whose weights nothing else reads.
func network(t *testing.T) (g *graph.Graph, in []*tensor.Tensor, convs []int) {
	t.Helper()
	g, err := zoo.Load("u-net", 1)
	if err != nil {
		t.Fatal(err)
	}
	uses := g.Uses()
	for i, n := range g.Nodes {
		if n.Op == "Conv" && n.Inputs[1].Const != nil && len(uses[n.Inputs[1]]) == 1 {
			convs = append(convs, i)
		}
	}
	return g, []*tensor.Tensor{zoo.Image(g, 2)}, convs
}

// TestFaultIsFound: the node whose weight differs is the one that is named, wherever it is.
func TestFaultIsFound(t *testing.T) {
	g, in, convs := network(t)
	if len(convs) < 5 {
		t.Fatalf("%d convolutions", len(convs))
	}
	for _, i := range convs {
		other := native("other")
		other.Serve, other.Verbatim = faulty(other.Serve, i), faulty(other.Verbatim, i)
		r, err := crosscheck.Compare(context.Background(), g, in, native("native"), other, crosscheck.Tolerance)
		if err != nil {
			t.Fatal(err)
		}
		if want := g.Nodes[i].String(); r.Start == nil || r.Start.Node != want {
			t.Errorf("a fault in %s was found at %+v", want, r.Start)
		}
		if r.Worst() <= crosscheck.Tolerance || len(r.Outputs) != len(g.Outputs) || r.Nodes != len(g.Nodes) {
			t.Errorf("worst %g, %d outputs, %d of %d nodes", r.Worst(), len(r.Outputs), r.Nodes, len(g.Nodes))
		}
	}
}

// TestNoFault: a backend agrees with itself, and what only shows as it serves has no node to blame.
func TestNoFault(t *testing.T) {
	g, in, convs := network(t)
	r, err := crosscheck.Compare(context.Background(), g, in, native("native"), native("again"), crosscheck.Tolerance)
	if err != nil {
		t.Fatal(err)
	}
	if r.Start != nil || r.Worst() != 0 || r.Unknown != "" {
		t.Errorf("got %+v", r)
	}
	other := native("other")
	other.Serve = faulty(other.Serve, convs[0])
	if r, err = crosscheck.Compare(context.Background(), g, in, native("native"), other, crosscheck.Tolerance); err != nil {
		t.Fatal(err)
	}
	if r.Start != nil || r.Worst() <= crosscheck.Tolerance {
		t.Errorf("got %+v", r)
	}
}

// TestWhoCannot: an error names the backend, and one that only cannot give every value leaves the outputs compared.
func TestWhoCannot(t *testing.T) {
	g, in, _ := network(t)
	refuses := func(*graph.Graph, []tensor.Type) (func() (predict.Runner, error), error) {
		return nil, errors.New("no such operator")
	}
	other := native("other")
	other.Verbatim = refuses
	r, err := crosscheck.Compare(context.Background(), g, in, native("native"), other, crosscheck.Tolerance)
	if err != nil || r.Unknown != "other, with every value an output: no such operator" || len(r.Outputs) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	other.Serve = refuses
	if _, err := crosscheck.Compare(context.Background(), g, in, native("native"), other, crosscheck.Tolerance); err == nil || err.Error() != "other: no such operator" {
		t.Errorf("got %v", err)
	}
}

// says is a backend whose one output is t.
func says(name string, t *tensor.Tensor) crosscheck.Side {
	b := func(g *graph.Graph, _ []tensor.Type) (func() (predict.Runner, error), error) {
		return func() (predict.Runner, error) {
			return speaker{slices.Repeat([]*tensor.Tensor{t}, len(g.Outputs))}, nil
		}, nil
	}
	return crosscheck.Side{Name: name, Serve: b, Verbatim: b}
}

type speaker struct{ out []*tensor.Tensor }

func (s speaker) Run(context.Context, []*tensor.Tensor) ([]*tensor.Tensor, error) { return s.out, nil }

func TestDifferences(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name     string
		a, b     *tensor.Tensor
		max, rel float64
		why      bool
	}{
		{"equal", tensor.From([]float32{1, nan, inf}, 3), tensor.From([]float32{1, nan, inf}, 3), 0, 0, false},
		{"apart", tensor.From([]float32{4, -2}, 2), tensor.From([]float32{4, -1}, 2), 1, 0.25, false},
		{"widths", tensor.From([]float64{4, -2}, 2), tensor.From([]float32{4, -1}, 2), 1, 0.25, false},
		{"not a number", tensor.From([]float32{nan}, 1), tensor.From([]float32{1}, 1), 0, 0, true},
		{"infinite", tensor.From([]float32{inf}, 1), tensor.From([]float32{-inf}, 1), 0, 0, true},
		{"shapes", tensor.From([]float32{1, 1}, 2), tensor.From([]float32{1, 1}, 1, 2), 0, 0, true},
	} {
		v := &graph.Value{Name: "y"}
		g := &graph.Graph{Inputs: []*graph.Value{v}, Outputs: []*graph.Value{v}}
		r, err := crosscheck.Compare(context.Background(), g, nil, says("a", c.a), says("b", c.b), crosscheck.Tolerance)
		if err != nil {
			t.Fatal(err)
		}
		d := r.Outputs[0]
		if c.why && (d.Why == "" || d.Rel <= 1e300) || !c.why && (d.Max != c.max || d.Rel != c.rel || d.Why != "") {
			t.Errorf("%s: got %+v", c.name, d)
		}
	}
}
