package score

import (
	"math"
	"slices"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
)

// embedded is an embedded model with phantoms of n x n as it takes them.
func embedded(t testing.TB, m models.Model, n int) (*graph.Graph, []tensor.Type, Examples) {
	t.Helper()
	g, err := onnx.Decode(m.ONNX, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := vision.ReadSpec(g.Meta, g)
	if err != nil {
		t.Fatal(err)
	}
	in := tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, n, n}}
	return g, []tensor.Type{in}, Examples{N: 2, At: func(i int) (Example, error) {
		img, truth := phantom.Draw(1, i)
		x := tensor.New(in.DType, in.Shape...)
		return Example{x, truth}, spec.Prepare(x, img)
	}}
}

// Both embedded models are scored, with labels and without: every channel that is not zero all over gets a score, or the
// gradient was lost on the way.
func TestEmbeddedModels(t *testing.T) {
	pool := kernel.NewPool(2)
	for _, em := range models.All() {
		g, in, ex := embedded(t, em, 128)
		l, _ := Logits(g)
		one, err := ex.At(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, labels := range []bool{true, false} {
			tl, err := newTaylor(g, in, l, edgesOf(g), Options{Labels: labels, Probes: 2, Pool: pool})
			if err != nil {
				t.Fatalf("%s: %v", em.Name, err)
			}
			if err := tl.example(t.Context(), 0, one); err != nil {
				t.Fatalf("%s: %v", em.Name, err)
			}
			m, err := engine.Compile(g, in, engine.Options{Verbatim: true, Pool: pool})
			if err != nil {
				t.Fatal(err)
			}
			tr, err := m.NewSession().Trace(t.Context(), []*tensor.Tensor{one.Input})
			if err != nil {
				t.Fatal(err)
			}
			alive, lost := 0, 0
			for _, e := range tl.of {
				rows := tl.scores.S[e]
				if e.Node.Attrs.Int("group", 1) > 1 {
					continue // a depthwise channel has one way on, and polyp-lite0's are often shut by the Clip behind it
				}
				x := tensor.Of[float32](tr[e.Value()])
				for c, v := range rows[0] {
					n := tl.shapes[e][2]
					if slices.ContainsFunc(x[c*n:(c+1)*n], func(v float32) bool { return v != 0 }) {
						alive++
						if v == 0 {
							lost++
						}
					}
				}
			}
			// What is alive in a corner alone may lie before ReLUs that are shut there.
			if alive < 1000 || lost*100 > alive {
				t.Errorf("%s, labels %v: %d of %d channels score zero", em.Name, labels, lost, alive)
			}
		}
	}
}

// The lean graph has the logits and what edges read to rounding, and none of the BatchNormalizations.
func TestLeanKeepsWhatIsScored(t *testing.T) {
	for _, m := range models.All() {
		g, in, ex := embedded(t, m, 64)
		l, _ := Logits(g)
		c, to, seed, err := lean(g, in, tensor.Float64, edgesOf(g), l)
		if err != nil {
			t.Fatal(err)
		}
		one, err := ex.At(0)
		if err != nil {
			t.Fatal(err)
		}
		run := func(g *graph.Graph) engine.Trace {
			m, err := engine.Compile(g, in, engine.Options{Verbatim: true, Float64: true, Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			tr, err := m.NewSession().Trace(t.Context(), []*tensor.Tensor{one.Input})
			if err != nil {
				t.Fatal(err)
			}
			return tr
		}
		want, got := run(g), run(c)
		same := func(what any, a, b *tensor.Tensor) {
			x, y := tensor.Of[float64](a), tensor.Of[float64](b)
			var top float64
			for _, v := range y {
				top = max(top, math.Abs(v))
			}
			for i, v := range y {
				if !(math.Abs(x[i]-v) <= 1e-11*top) { // some dozens of layers in float64
					t.Fatalf("%s: %v: element %d is %g, want %g", m.Name, what, i, x[i], v)
				}
			}
		}
		same("logits", got[seed], want[l])
		for e, k := range to {
			same(e, got[k.Value()], want[e.Value()])
		}
		if slices.ContainsFunc(c.Nodes, func(n *graph.Node) bool { return n.Op == "BatchNormalization" }) {
			t.Errorf("%s: a BatchNormalization is left", m.Name)
		}
	}
}

// BenchmarkTaylorFO is the time of one labelled example at 256x256 on 2 threads, one forward and one backward pass.
func BenchmarkTaylorFO(b *testing.B) {
	pool := kernel.NewPool(2)
	for _, m := range models.All() {
		b.Run(m.Name, func(b *testing.B) {
			g, in, ex := embedded(b, m, 256)
			l, _ := Logits(g)
			tl, err := newTaylor(g, in, l, edgesOf(g), Options{Labels: true, Pool: pool})
			if err != nil {
				b.Fatal(err)
			}
			one, err := ex.At(0)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := tl.example(b.Context(), 0, one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkForward is the part of BenchmarkTaylorFO that is the forward pass.
func BenchmarkForward(b *testing.B) {
	pool := kernel.NewPool(2)
	for _, m := range models.All() {
		b.Run(m.Name, func(b *testing.B) {
			g, in, ex := embedded(b, m, 256)
			l, _ := Logits(g)
			tl, err := newTaylor(g, in, l, nil, Options{Pool: pool})
			if err != nil {
				b.Fatal(err)
			}
			one, err := ex.At(0)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := tl.backprop.Forward(b.Context(), []*tensor.Tensor{one.Input}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
