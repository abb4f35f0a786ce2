package repair

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
)

var inType = []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 2, 12, 12}}}

// redundant is conv -> relu -> layer -> conv in which channel 3 of the first is twice channel 1, so that a layer that
// reads the others can make up for it exactly.
func redundant(op string, norm bool) *graph.Graph {
	rng := rand.New(rand.NewPCG(3, 4))
	x := &graph.Value{Name: "x"}
	g := &graph.Graph{IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{x}}
	weights := func(name string, positive bool, shape ...int) *graph.Value {
		t := tensor.New(tensor.Float32, shape...)
		for i := range tensor.Of[float32](t) {
			tensor.Of[float32](t)[i] = float32(rng.NormFloat64())
			if positive {
				tensor.Of[float32](t)[i] = 0.5 + rng.Float32()
			}
		}
		v := &graph.Value{Name: name, Const: t}
		g.Inits = append(g.Inits, v)
		return v
	}
	node := func(op, out string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
		n := &graph.Node{Op: op, Name: out, Inputs: in, Attrs: attrs}
		y := &graph.Value{Name: out, Def: n}
		n.Outputs = []*graph.Value{y}
		g.Nodes = append(g.Nodes, n)
		return y
	}
	pads := graph.IntsAttr("pads", 1, 1, 1, 1)
	w := weights("w1", false, 4, 2, 3, 3)
	d := tensor.Of[float32](w.Const)
	for i := range 18 {
		d[3*18+i] = 2 * d[1*18+i]
	}
	y := node("Relu", "r1", nil, node("Conv", "c1", graph.Attrs{pads}, x, w))
	if op == "ConvTranspose" {
		y = node(op, "c2", graph.Attrs{graph.IntsAttr("strides", 2, 2)}, y, weights("w2", false, 4, 3, 2, 2), weights("b2", false, 3))
	} else {
		y = node(op, "c2", graph.Attrs{pads}, y, weights("w2", false, 3, 4, 3, 3))
	}
	if norm {
		y = node("BatchNormalization", "n2", nil, y, weights("s", true, 3), weights("b", false, 3), weights("m", false, 3), weights("v", true, 3))
	}
	y = node("Conv", "head", nil, node("Relu", "r2", nil, y), weights("w3", false, 1, 3, 1, 1))
	g.Outputs = []*graph.Value{y}
	return g
}

func images(n int) Images {
	return Images{N: n, At: func(i int) (*tensor.Tensor, error) {
		rng := rand.New(rand.NewPCG(uint64(i), 9))
		x := tensor.New(tensor.Float32, inType[0].Shape...)
		for j := range tensor.Of[float32](x) {
			tensor.Of[float32](x)[j] = float32(rng.NormFloat64())
		}
		return x, nil
	}}
}

func output(t *testing.T, g *graph.Graph, x *tensor.Tensor) []float32 {
	t.Helper()
	m, err := engine.Compile(g, inType, engine.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{x})
	if err != nil {
		t.Fatal(err)
	}
	return append([]float32{}, tensor.Of[float32](out[0])...)
}

func distance(a, b []float32) float64 {
	d, n := 0.0, 0.0
	for i := range a {
		d += math.Pow(float64(a[i]-b[i]), 2)
		n += math.Pow(float64(b[i]), 2)
	}
	return math.Sqrt(d / n)
}

// cutChannel removes channel 3 of the first layer.
func cutChannel(t *testing.T, g *graph.Graph) (*graph.Graph, map[string][]int) {
	t.Helper()
	info, err := engine.Infer(g, inType, tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	a, err := group.Analyze(g, info)
	if err != nil {
		t.Fatal(err)
	}
	remove := map[int]bool{a.Layers()[0].Class[3]: true}
	cut, err := rewrite.Cut(g, a, remove)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string][]int{}
	for _, l := range a.Layers() {
		for p, id := range l.Class {
			if id < 0 || !remove[id] {
				kept[l.Node.Outputs[0].Name] = append(kept[l.Node.Outputs[0].Name], p)
			}
		}
	}
	return cut, kept
}

// A channel that is twice another can be made up for: Ridge must find the weights, up to λ.
// ridge samples and solves once.
func ridge(t *testing.T, g, cut *graph.Graph, kept map[string][]int, images Images, lambda float64, opt Options) (*graph.Graph, *Stats, error) {
	s, err := Sample(t.Context(), g, cut, kept, inType, images, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s.Ridge(t.Context(), lambda, nil)
}

// Samples serve one strength after the other: none leaves a trace in them.
func TestSamplesServeAnyStrength(t *testing.T) {
	g := redundant("Conv", true)
	cut, kept := cutChannel(t, g)
	for _, block := range []int{0, 15} {
		s, err := Sample(t.Context(), g, cut, kept, inType, images(10), Options{Block: block})
		if err != nil {
			t.Fatal(err)
		}
		for _, lambda := range []float64{0.1, 1e-6, 0.1} {
			got, _, err := s.Ridge(t.Context(), lambda, nil)
			if err != nil {
				t.Fatal(err)
			}
			want, _, err := ridge(t, g, cut, kept, images(10), lambda, Options{Block: block})
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range want.Inits {
				if !bytes.Equal(got.Inits[i].Const.Data, v.Const.Data) {
					t.Errorf("block %d, strength %g: %q differs from that of samples of its own", block, lambda, v.Name)
				}
			}
		}
	}
}

func TestRidgeRecoversRedundantChannels(t *testing.T) {
	for _, c := range []struct {
		op   string
		norm bool
	}{{"Conv", false}, {"Conv", true}, {"ConvTranspose", false}, {"ConvTranspose", true}} {
		g := redundant(c.op, c.norm)
		cut, kept := cutChannel(t, g)
		fixed, stats, err := ridge(t, g, cut, kept, images(30), 1e-6, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(stats.Solved) != 2 {
			t.Errorf("%s norm=%v: %d layers refitted (%v), want 2", c.op, c.norm, len(stats.Solved), stats.Skipped)
		}
		x, err := images(100).At(77)
		if err != nil {
			t.Fatal(err)
		}
		want := output(t, g, x)
		before, after := distance(output(t, cut, x), want), distance(output(t, fixed, x), want)
		if before < 0.1 || after > 1e-3 {
			t.Errorf("%s norm=%v: distance %g before, %g after", c.op, c.norm, before, after)
		}
		if err := fixed.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// Nothing removed, nothing refitted; and threads do not change a bit.
func TestRidgeIsDeterministic(t *testing.T) {
	g := redundant("Conv", true)
	cut, kept := cutChannel(t, g)
	two := kernel.NewPool(2)
	a, _, err := ridge(t, g, cut, kept, images(10), 0.01, Options{Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := ridge(t, g, cut, kept, images(10), 0.01, Options{Seed: 5, Pool: two})
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.Inits {
		if !tensor.Equal(a.Inits[i].Const, b.Inits[i].Const) {
			t.Errorf("%s differs between one thread and two", a.Inits[i].Name)
		}
	}
	same, stats, err := ridge(t, g, g, kept, images(10), 0.01, Options{})
	if err != nil || len(stats.Solved) != 0 {
		t.Fatalf("refitted %v of an uncut model (%v)", stats.Solved, err)
	}
	for i := range same.Inits {
		if same.Inits[i].Const != g.Inits[i].Const {
			t.Errorf("%s of an uncut model changed", same.Inits[i].Name)
		}
	}
}

// Solved in blocks, it comes most of the way.
func TestRidgeInBlocks(t *testing.T) {
	g := redundant("Conv", true)
	cut, kept := cutChannel(t, g)
	x, err := images(100).At(77)
	if err != nil {
		t.Fatal(err)
	}
	want := output(t, g, x)
	fixed, _, err := ridge(t, g, cut, kept, images(30), 1e-6, Options{Block: 15})
	if err != nil {
		t.Fatal(err)
	}
	if before, after := distance(output(t, cut, x), want), distance(output(t, fixed, x), want); after > 0.2*before {
		t.Errorf("distance %g before, %g after", before, after)
	}
}

// A matrix product and a grouped convolution behind a cut are refitted as well, and what they yield comes nearer.
func TestRidgeOfOtherLayers(t *testing.T) {
	for _, c := range []string{"MatMul", "Grouped"} {
		rng := rand.New(rand.NewPCG(3, 4))
		g := &graph.Graph{IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{{Name: "x"}}}
		node := func(op, out string, attrs graph.Attrs, x *graph.Value, shape ...int) *graph.Value {
			n := &graph.Node{Op: op, Name: out, Inputs: []*graph.Value{x}, Attrs: attrs}
			if len(shape) > 0 {
				w := tensor.New(tensor.Float32, shape...)
				for i := range tensor.Of[float32](w) {
					tensor.Of[float32](w)[i] = float32(rng.NormFloat64())
				}
				v := &graph.Value{Name: "w_" + out, Const: w}
				g.Inits, n.Inputs = append(g.Inits, v), append(n.Inputs, v)
			}
			y := &graph.Value{Name: out, Def: n}
			n.Outputs, g.Nodes = []*graph.Value{y}, append(g.Nodes, n)
			return y
		}
		y := node("Conv", "c1", nil, g.Inputs[0], 8, 2, 1, 1)
		if c == "MatMul" {
			y = node("MatMul", "m", nil, node("Transpose", "t1", graph.Attrs{graph.IntsAttr("perm", 0, 2, 3, 1)}, y), 8, 4)
			y = node("Transpose", "t2", graph.Attrs{graph.IntsAttr("perm", 0, 3, 1, 2)}, y)
		} else {
			y = node("Conv", "c2", graph.Attrs{graph.IntAttr("group", 2), graph.IntsAttr("pads", 1, 1, 1, 1)}, y, 4, 4, 3, 3)
		}
		g.Outputs = []*graph.Value{node("Conv", "head", nil, y, 1, 4, 1, 1)}
		cut, kept := cutChannel(t, g)
		fixed, stats, err := ridge(t, g, cut, kept, images(30), 1e-6, Options{})
		if err != nil {
			t.Fatal(err)
		}
		x, err := images(100).At(77)
		if err != nil {
			t.Fatal(err)
		}
		// Two inputs make eight channels, so those that are left know all.
		want := output(t, g, x)
		if before, after := distance(output(t, cut, x), want), distance(output(t, fixed, x), want); before < 0.05 || after > 1e-3 || len(stats.Solved) != 2 {
			t.Errorf("%s: distance %g before, %g after; refitted %v, not %v", c, before, after, stats.Solved, stats.Skipped)
		}
	}
}
