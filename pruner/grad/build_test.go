package grad

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// net builds graphs for tests, float64 weights and all.
type net struct {
	g   *graph.Graph
	in  []tensor.Type
	rng *rand.Rand
}

func newNet(opset int, seed uint64) *net {
	return &net{g: &graph.Graph{IR: 8, Opsets: map[string]int{"": opset}}, rng: rand.New(rand.NewPCG(seed, 7))}
}

func (b *net) input(shape ...int) *graph.Value {
	t := tensor.Type{DType: tensor.Float64, Shape: shape}
	v := &graph.Value{Name: fmt.Sprintf("in%d", len(b.g.Inputs)), Type: t}
	b.g.Inputs, b.in = append(b.g.Inputs, v), append(b.in, t)
	return v
}

func (b *net) constant(t *tensor.Tensor) *graph.Value {
	v := &graph.Value{Name: fmt.Sprintf("c%d", len(b.g.Inits)), Type: t.Type(), Const: t}
	b.g.Inits = append(b.g.Inits, v)
	return v
}

func (b *net) weights(shape ...int) *graph.Value { return b.constant(b.random(-1, 1, shape...)) }

func (b *net) ints(v ...int64) *graph.Value { return b.constant(tensor.From(v, len(v))) }

func (b *net) random(lo, hi float64, shape ...int) *tensor.Tensor {
	t := tensor.New(tensor.Float64, shape...)
	for i := range tensor.Of[float64](t) {
		tensor.Of[float64](t)[i] = lo + (hi-lo)*b.rng.Float64()
	}
	return t
}

func (b *net) node(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
	return b.nodes(op, 1, attrs, in...)[0]
}

func (b *net) nodes(op string, outputs int, attrs graph.Attrs, in ...*graph.Value) []*graph.Value {
	n := &graph.Node{Op: op, Name: fmt.Sprintf("n%d", len(b.g.Nodes)), Attrs: attrs, Inputs: in}
	for i := range outputs {
		n.Outputs = append(n.Outputs, &graph.Value{Name: fmt.Sprintf("%s.%d", n.Name, i), Def: n})
	}
	b.g.Nodes = append(b.g.Nodes, n)
	return n.Outputs
}

// done makes vs the outputs, and returns what runs the graph in float64.
func (b *net) done(t *testing.T, vs ...*graph.Value) func(in []*tensor.Tensor) engine.Trace {
	t.Helper()
	b.g.Outputs = vs
	if err := b.g.Validate(); err != nil {
		t.Fatal(err)
	}
	m, err := engine.Compile(b.g, b.in, engine.Options{Verbatim: true, Float64: true, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession()
	return func(in []*tensor.Tensor) engine.Trace {
		tr, err := s.Trace(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
}

func dot(a, b *tensor.Tensor) float64 {
	var s float64
	y := tensor.Of[float64](b)
	for i, x := range tensor.Of[float64](a) {
		s += x * y[i]
	}
	return s
}

// inputs draws a value for every input.
func (b *net) inputs(lo, hi float64) []*tensor.Tensor {
	var in []*tensor.Tensor
	for _, t := range b.in {
		in = append(in, b.random(lo, hi, t.Shape...))
	}
	return in
}

// seeds draws a seed for every output.
func (b *net) seeds(tr engine.Trace) Gradients {
	s := Gradients{}
	for _, v := range b.g.Outputs {
		s[v] = b.random(-1, 1, tr[v].Shape...)
	}
	return s
}

// check compares the gradients at the inputs with central differences, at no more than most elements of each.
func (b *net) check(t *testing.T, run func([]*tensor.Tensor) engine.Trace, in []*tensor.Tensor, most int) {
	t.Helper()
	tr := run(in)
	seed := b.seeds(tr)
	value := func() float64 {
		tr := run(in)
		var s float64
		for v, d := range seed {
			s += dot(tr[v], d)
		}
		return s
	}
	sweep, err := New(b.g, b.in, tensor.Float64, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := sweep.Backward(context.Background(), tr, seed, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range engine.Inputs(b.g) {
		g := make([]float64, in[k].Elems())
		if got[v] != nil {
			g = tensor.Of[float64](got[v])
		}
		x := tensor.Of[float64](in[k])
		central(t, fmt.Sprintf("input %d", k), x, g, most, 1e-7, value)
	}
}

// central compares gradients g at x with central differences of value, at about so many elements of them.
func central(t *testing.T, what string, x, g []float64, most int, bound float64, value func() float64) {
	t.Helper()
	const h = 1e-5
	for i := 0; i < len(x); i += max(1, len(x)/most) {
		was := x[i]
		x[i] = was + h
		up := value()
		x[i] = was - h
		down := value()
		x[i] = was
		// The error of a central difference is of order h² f'''/6, and eps·|f|/h by rounding: both near 1e-9.
		if want := (up - down) / (2 * h); math.Abs(g[i]-want) > bound*(1+math.Abs(want)) {
			t.Fatalf("%s: gradient[%d] = %.9g, central difference %.9g", what, i, g[i], want)
		}
	}
}
