package score

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/grad"
)

var size = []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}}

// unet is two levels with a skip; the skip and its half-size copy have two consumers.
func unet(last string) *graph.Graph {
	r := rand.New(rand.NewPCG(5, 5))
	g := &graph.Graph{IR: 8, Opsets: map[string]int{"": 17}}
	weights := func(shape ...int) *graph.Value {
		t := tensor.New(tensor.Float32, shape...)
		for i := range tensor.Of[float32](t) {
			tensor.Of[float32](t)[i] = float32(r.NormFloat64() / 3)
		}
		v := &graph.Value{Name: string(rune('a' + len(g.Inits))), Const: t}
		g.Inits = append(g.Inits, v)
		return v
	}
	node := func(name, op string, at graph.Attrs, in ...*graph.Value) *graph.Value {
		n := &graph.Node{Op: op, Name: name, Attrs: at, Inputs: in}
		n.Outputs = []*graph.Value{{Name: name + ".out", Def: n}}
		g.Nodes = append(g.Nodes, n)
		return n.Outputs[0]
	}
	same := graph.Attrs{graph.IntsAttr("pads", 1, 1, 1, 1)}
	twice := graph.Attrs{graph.IntsAttr("strides", 2, 2), graph.IntsAttr("kernel_shape", 2, 2)}
	x := &graph.Value{Name: "image", Type: size[0]}
	g.Inputs = []*graph.Value{x}
	skip := node("r1", "Relu", nil, node("c1", "Conv", same, x, weights(4, 3, 3, 3), weights(4)))
	d := node("r2", "Relu", nil, node("c2", "Conv", same, node("p", "MaxPool", twice, skip), weights(5, 4, 3, 3), weights(5)))
	u := node("u", "ConvTranspose", graph.Attrs{graph.IntsAttr("strides", 2, 2)}, d, weights(5, 3, 2, 2))
	y := node("c3", "Conv", same, node("cat", "Concat", graph.Attrs{graph.IntAttr("axis", 1)}, skip, u), weights(4, 7, 3, 3), weights(4))
	y = node("head", "Conv", nil, node("r3", "Relu", nil, y), weights(1, 4, 1, 1), weights(1))
	if last != "" {
		y = node("last", last, nil, y)
	}
	g.Outputs = []*graph.Value{y}
	return g
}

func edgesOf(g *graph.Graph) (es []grad.Edge) {
	for _, n := range g.Nodes {
		if n.Op == "Conv" || n.Op == "ConvTranspose" {
			es = append(es, grad.Edge{Node: n})
		}
	}
	return es
}

func examples(n int) Examples {
	return Examples{N: n, At: func(i int) (Example, error) {
		r := rand.New(rand.NewPCG(uint64(i), 9))
		x := tensor.New(tensor.Float32, 1, 3, 8, 8)
		for j := range tensor.Of[float32](x) {
			tensor.Of[float32](x)[j] = float32(r.NormFloat64())
		}
		m := &vision.Mask{W: 16, H: 16, Pix: make([]byte, 256)}
		for j := range m.Pix {
			m.Pix[j] = byte(r.IntN(2))
		}
		return Example{x, m}, nil
	}}
}

func taylorFO(t *testing.T, g *graph.Graph, n int, opt Options) *Scores {
	t.Helper()
	l, _ := Logits(g)
	s, err := TaylorFO(context.Background(), g, size, l, examples(n), edgesOf(g), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// scaled puts k in front of position c of the channels that e reads.
func scaled(g *graph.Graph, e grad.Edge, c, channels int, k float64) *graph.Graph {
	at := slices.Index(g.Nodes, e.Node)
	g = g.Clone()
	n := g.Nodes[at]
	f := tensor.New(tensor.Float64, 1, channels, 1, 1)
	for i := range channels {
		tensor.Of[float64](f)[i] = 1
	}
	tensor.Of[float64](f)[c] = k
	v := &graph.Value{Name: "factor", Const: f}
	g.Inits = append(g.Inits, v)
	m := &graph.Node{Op: "Mul", Name: "scale", Inputs: []*graph.Value{n.Inputs[e.Input], v}}
	m.Outputs = []*graph.Value{{Name: "scaled", Def: m}}
	n.Inputs[e.Input] = m.Outputs[0]
	g.Nodes = slices.Insert(g.Nodes, at, m)
	return g
}

// The score is the first-order Taylor estimate of Mask: taking the part eps of one channel away from one consumer
// changes <Ĝ, L> by -eps·s.
func TestScoreIsTaylorEstimateOfMask(t *testing.T) {
	const eps = 1e-5
	g := unet("")
	s := taylorFO(t, g, 1, Options{Probes: 1, Seed: 3, Float: tensor.Float64})
	ex, _ := examples(1).At(0)
	run := func(g *graph.Graph) *tensor.Tensor {
		m, err := engine.Compile(g, size, engine.Options{Verbatim: true, Float64: true, Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{ex.Input})
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	before := run(g)
	d := probe(3, 0, 0, before)
	if !normalise(d) {
		t.Fatal("a random probe has no length")
	}
	for _, e := range edgesOf(g) {
		for c, want := range s.S[e][0] {
			after := run(scaled(g, e, c, len(s.S[e][0]), 1-eps))
			var change float64
			for i, v := range tensor.Of[float64](after) {
				change += tensor.Of[float64](d)[i] * (v - tensor.Of[float64](before)[i])
			}
			// What the first order leaves out is of order eps, where a ReLU's kink is crossed; rounding is 1e-16/eps.
			if got := -change / eps; math.Abs(got-want) > 1e-3*(1e-3+math.Abs(want)) {
				t.Errorf("%v position %d: masking a part costs %g, score %g", e, c, got, want)
			}
		}
	}
}

// Examples are not summed before the absolute value: opposite signs would cancel, and another channel would go first.
func TestSumOverExamplesComesAfterAbs(t *testing.T) {
	g := unet("")
	s := taylorFO(t, g, 6, Options{Labels: true})
	differ := false
	for e, rows := range s.S {
		for c := range rows[0] {
			var signed float64
			for n := range rows {
				signed += rows[n][c] / float64(len(rows))
			}
			abs := s.Importance([]At{{e, c}}, Abs)
			if abs < math.Abs(signed)-1e-12 {
				t.Fatalf("%v position %d: mean |s| = %g is under |mean s| = %g", e, c, abs, math.Abs(signed))
			}
			differ = differ || abs > 2*math.Abs(signed)
		}
	}
	if !differ {
		t.Error("no channel's signs cancel over the examples: the test shows nothing")
	}
}

// Each example's seed has length 1, so an example's loss may be scaled at will without changing a score.
func TestSeedsAreNormalised(t *testing.T) {
	for _, k := range []float64{1e-9, 1, 1e9} {
		d := tensor.From([]float64{3 * k, -4 * k}, 2)
		if v := tensor.Of[float64](d); !normalise(d) || math.Abs(v[0]-0.6) > 1e-3 || math.Abs(v[1]+0.8) > 1e-3 {
			t.Errorf("(3,-4)*%g is normalised to %v", k, v)
		}
	}
	if normalise(tensor.New(tensor.Float32, 3)) {
		t.Error("zero has a direction")
	}
}

// The scores are the same bits at any thread count; another seed draws other probes.
func TestDeterministic(t *testing.T) {
	g := unet("")
	pool := kernel.NewPool(3)
	for _, labels := range []bool{false, true} {
		a := taylorFO(t, g, 3, Options{Labels: labels, Seed: 1})
		b := taylorFO(t, g, 3, Options{Labels: labels, Seed: 1, Pool: pool})
		c := taylorFO(t, g, 3, Options{Labels: labels, Seed: 2})
		for e, rows := range a.S {
			for n := range rows {
				if !slices.Equal(rows[n], b.S[e][n]) {
					t.Fatalf("labels %v: %v differs between 1 and 3 threads", labels, e)
				}
				if slices.Equal(rows[n], c.S[e][n]) != labels {
					t.Fatalf("labels %v: %v does not follow the seed", labels, e)
				}
			}
		}
		samples := 3
		if !labels {
			samples *= Probes
		}
		var sum float64
		for _, w := range a.Weight {
			sum += w
		}
		if len(a.Weight) != samples || math.Abs(sum-3) > 1e-12 {
			t.Fatalf("labels %v: %d samples of weight %g, want %d of 3", labels, len(a.Weight), sum, samples)
		}
	}
}

// A class's positions are summed, signed, within a sample, and the norm comes last.
func TestImportance(t *testing.T) {
	a, b := grad.Edge{Node: &graph.Node{}}, grad.Edge{Node: &graph.Node{}}
	s := &Scores{
		S:      map[grad.Edge][][]float64{a: {{1, 5}, {-2, 0}}, b: {{2}, {4}}},
		Weight: []float64{1, 3},
	}
	at := []At{{a, 0}, {b, 0}}
	if got, want := s.Importance(at, Abs), (1*3.+3*2)/4; got != want {
		t.Errorf("abs: %g, want %g", got, want)
	}
	if got, want := s.Importance(at, Square), (1*9.+3*4)/4; got != want {
		t.Errorf("square: %g, want %g", got, want)
	}
}

// A final activation is left out: its saturation would hide what the logits depend on.
func TestLogits(t *testing.T) {
	for last, want := range map[string]string{"": "", "Sigmoid": "sigmoid", "Softmax": "softmax"} {
		g := unet(last)
		v, a := Logits(g)
		if a != want || v.Name != "head.out" {
			t.Errorf("after %q: logits %q, activation %q, want head.out, %q", last, v.Name, a, want)
		}
	}
	plain, sig := taylorFO(t, unet(""), 2, Options{Labels: true}), taylorFO(t, unet("Sigmoid"), 2, Options{Labels: true})
	for i, e := range plain.Edges {
		for n, row := range plain.S[e] {
			if !slices.Equal(row, sig.S[sig.Edges[i]][n]) {
				t.Fatalf("%v scores differently under a Sigmoid", e)
			}
		}
	}
}

func TestStops(t *testing.T) {
	g := unet("")
	l, _ := Logits(g)
	ctx, cancel := context.WithCancel(context.Background())
	done := 0
	_, err := TaylorFO(ctx, g, size, l, examples(5), edgesOf(g), Options{Progress: func(n, total int) {
		if done = n; total != 5 {
			t.Errorf("progress is of %d, want 5", total)
		}
		if n == 2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || done != 2 {
		t.Fatalf("stopped after %d with %v, want 2 and canceled", done, err)
	}
	unlabelled := Examples{N: 1, At: func(i int) (Example, error) { ex, err := examples(1).At(i); ex.Truth = nil; return ex, err }}
	if _, err := TaylorFO(context.Background(), g, size, l, unlabelled, edgesOf(g), Options{Labels: true}); err == nil {
		t.Error("labels were asked for and are not there: no error")
	}
	relu := []grad.Edge{{Node: g.Nodes[1]}}
	if _, err := TaylorFO(context.Background(), g, size, l, examples(1), relu, Options{}); err == nil {
		t.Error("a Relu has no channels to cut: no error")
	}
}
