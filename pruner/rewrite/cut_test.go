package rewrite_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
	"github.com/secateur/secateur/pruner/rewrite/rewritetest"
)

// fataler is *testing.T or *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func analyze(t fataler, g *graph.Graph, in []tensor.Type) *group.Analysis {
	t.Helper()
	info, err := engine.Infer(g, in, tensor.Float32)
	if err != nil {
		t.Fatalf("infer: %v", err)
	}
	a, err := group.Analyze(g, info)
	if err != nil {
		t.Fatalf("analyze: %v", err)
	}
	return a
}

func run(t fataler, g *graph.Graph, in []tensor.Type, opt engine.Options) [][]float64 {
	t.Helper()
	m, err := engine.Compile(g, in, opt)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	x := tensor.New(tensor.Float32, in[0].Shape...)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range tensor.Of[float32](x) {
		tensor.Of[float32](x)[i] = float32(rng.NormFloat64())
	}
	out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{x})
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	var ys [][]float64
	for _, o := range out {
		y, _ := o.Float64s()
		ys = append(ys, slices.Clone(y))
	}
	return ys
}

// choose removes each free class with probability p, as long as nothing is left without channels.
func choose(a *group.Analysis, rng *rand.Rand, p float64) map[int]bool {
	remove := map[int]bool{}
	for _, id := range a.Free() {
		if rng.Float64() >= p {
			continue
		}
		remove[id] = true
		full := func(class []int) {
			stays := func(c int) bool { return c < 0 || !remove[c] }
			if len(class) > 0 && !slices.ContainsFunc(class, stays) {
				delete(remove, id)
			}
		}
		for _, s := range a.Slices {
			full(s.Class)
		}
		for _, c := range a.Counts { // a Split or a Slice may not be left empty either
			full(c.Class[c.From:c.Of])
		}
		for _, p := range a.Picks {
			full(p.Takes)
		}
	}
	return remove
}

// same requires max|a-b| <= tol * max(1, max|b|).
func same(t fataler, a, b [][]float64, tol float64, what string) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%s: %d outputs, want %d", what, len(a), len(b))
	}
	for k := range a {
		if len(a[k]) != len(b[k]) {
			t.Fatalf("%s: output %d has %d elements, want %d", what, k, len(a[k]), len(b[k]))
		}
		top, diff := 1.0, 0.0
		for i := range a[k] {
			top = math.Max(top, math.Abs(b[k][i]))
			d := math.Abs(a[k][i] - b[k][i])
			if math.IsNaN(d) {
				d = math.Inf(1)
			}
			diff = math.Max(diff, d)
		}
		if diff > tol*top {
			t.Fatalf("%s: output %d differs by %g, values up to %g", what, k, diff, top)
		}
	}
}

// counted requires that of each layer exactly those channels are gone that remove names.
func counted(t fataler, before *group.Analysis, cut *graph.Graph, in []tensor.Type, remove map[int]bool) {
	t.Helper()
	left := map[string]int{}
	for _, l := range analyze(t, cut, in).Layers() {
		left[l.Node.Outputs[0].Name] = l.Channels
	}
	for _, l := range before.Layers() {
		want := l.Channels
		for _, id := range l.Class {
			if id >= 0 && remove[id] {
				want--
			}
		}
		if got := left[l.Node.Outputs[0].Name]; got != want {
			t.Fatalf("layer %s of %d channels is left with %d, want %d", l.Name, l.Channels, got, want)
		}
	}
}

// law is Run(Cut(g,p)) == Run(Mask(g,p)) and what goes with it.
func law(t fataler, g *graph.Graph, in []tensor.Type, seed uint64, p float64, opt engine.Options) (*graph.Graph, int) {
	t.Helper()
	a := analyze(t, g, in)
	remove := choose(a, rand.New(rand.NewPCG(seed, 1)), p)
	cut, err := rewrite.Cut(g, a, remove)
	if err != nil {
		t.Fatalf("cut: %v", err)
	}
	mask, err := rewrite.Mask(g, a, remove)
	if err != nil {
		t.Fatalf("mask: %v", err)
	}
	if err := cut.Validate(); err != nil {
		t.Fatalf("cut graph: %v", err)
	}
	counted(t, a, cut, in, remove)
	tol := 1e-4
	if opt.Float64 {
		tol = 1e-9
	}
	same(t, run(t, cut, in, opt), run(t, mask, in, opt), tol, fmt.Sprintf("cut against mask, %d classes removed", len(remove)))
	return cut, len(remove)
}

// exact is for graphs that round to steps (QuantizeLinear) or choose (ArgMax): what differs in the last bit of float32 could
// come out as another step.
var exact = engine.Options{Threads: 1, Verbatim: true, Float64: true}

func TestCutEqualsMaskOnRandomGraphs(t *testing.T) {
	removed := 0
	rapid.Check(t, func(t *rapid.T) {
		g := rewritetest.Graph(t)
		seed := rapid.Uint64().Draw(t, "seed")
		cut, n := law(t, g, rewritetest.In, seed, 0.5, exact)
		removed += n
		// What was cut can be cut again.
		_, n = law(t, cut, rewritetest.In, seed+1, 0.3, exact)
		removed += n
	})
	if removed == 0 {
		t.Fatalf("no generated graph had a channel to remove")
	}
}

func decode(t *testing.T, m models.Model) *graph.Graph {
	t.Helper()
	g, err := onnx.Decode(m.ONNX, onnx.Options{})
	if err != nil {
		t.Fatalf("decode %s: %v", m.Name, err)
	}
	return g
}

func TestCutEqualsMaskOnModels(t *testing.T) {
	for _, m := range models.All() {
		t.Run(m.Name, func(t *testing.T) {
			g := decode(t, m)
			in := []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 64, 96}}}
			cut, n := law(t, g, in, 7, 0.4, engine.Options{})
			if n < 500 {
				t.Errorf("%d classes removed, want hundreds", n)
			}
			// Shapes stay free: the cut model runs at other sizes.
			if _, again := law(t, cut, []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 32, 64}}}, 8, 0.4, engine.Options{}); again < 200 {
				t.Errorf("%d classes removed the second time", again)
			}
			b, err := onnx.Encode(cut)
			if err != nil {
				t.Fatal(err)
			}
			back, err := onnx.Decode(b, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			same(t, run(t, back, in, engine.Options{}), run(t, cut, in, engine.Options{}), 0, "decoded")
		})
	}
}

func TestKeepingEverythingIsTheIdentity(t *testing.T) {
	for _, m := range models.All() {
		g := decode(t, m)
		a := analyze(t, g, []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 64, 64}}})
		for what, f := range map[string]func(*graph.Graph, *group.Analysis, map[int]bool) (*graph.Graph, error){"cut": rewrite.Cut, "mask": rewrite.Mask} {
			h, err := f(g, a, map[int]bool{0: false})
			if err != nil {
				t.Fatal(err)
			}
			want, err := onnx.Encode(g)
			if err != nil {
				t.Fatal(err)
			}
			got, err := onnx.Encode(h)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: a %s of nothing changes the file", m.Name, what)
			}
		}
	}
}

func TestCutRefuses(t *testing.T) {
	g := decode(t, models.All()[1])
	a := analyze(t, g, []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 64, 64}}})
	pinned := -1
	for _, c := range a.Classes {
		if c.Pinned != "" {
			pinned = c.ID
		}
	}
	all := map[int]bool{}
	for _, id := range a.Free() {
		all[id] = true
	}
	for name, remove := range map[string]map[int]bool{"a pinned class": {pinned: true}, "no such class": {1 << 20: true}, "all channels": all} {
		if _, err := rewrite.Cut(g, a, remove); err == nil {
			t.Errorf("cut of %s: no error", name)
		}
	}
}

// passing are the operators that channels can pass, by the forms that have rules of their own; reading are those that read
// all of them together, and pin them.
var (
	passing = strings.Fields(`Conv Conv/depthwise Conv/grouped ConvTranspose ConvTranspose/depthwise ConvTranspose/grouped Gemm MatMul
		BatchNormalization InstanceNormalization GroupNormalization LayerNormalization PRelu Relu Sigmoid Clip Cast MaxPool AveragePool
		GlobalAveragePool Identity Dropout Resize Pad Add Sub Mul Div Min Max Where Sum Concat Split Slice Slice/computed Gather Flatten Reshape
		DepthToSpace SpaceToDepth Transpose Squeeze Unsqueeze Softmax ReduceMean ReduceSum Tile Expand QuantizeLinear DequantizeLinear`)
	reading = strings.Fields("Softmax ReduceMean ReduceMax ArgMax LayerNormalization")
)

// form is an operator, and which of its rules is for n.
func form(n *graph.Node) string {
	w := group.Stored(n.Input(1))
	switch g := n.Attrs.Int("group", 1); {
	case g > 1 && (n.Op == "Conv" && w.Shape[1] == 1 || n.Op == "ConvTranspose" && w.Shape[0] == g):
		return n.Op + "/depthwise"
	case g > 1:
		return n.Op + "/grouped"
	case n.Op == "Slice" && w != nil && group.Weights(n.Input(2)) == nil:
		return "Slice/computed"
	}
	return n.Op
}

// What holds of random graphs holds of every operator: each occurs with channels that can go on both sides of it, and each that
// pins them as the reason.
func TestRandomGraphsHaveEveryOperator(t *testing.T) {
	graphs := rapid.Custom(rewritetest.Graph)
	passed, pinned := map[string]int{}, map[string]int{}
	for seed := range 500 {
		g := graphs.Example(seed)
		a := analyze(t, g, rewritetest.In)
		free := func(v *graph.Value) bool {
			return v != nil && slices.ContainsFunc(a.Channels(v.Name), func(c int) bool { return c >= 0 })
		}
		for _, n := range g.Nodes {
			if slices.ContainsFunc(n.Inputs, free) && slices.ContainsFunc(n.Outputs, free) {
				passed[form(n)]++
			}
		}
		for _, c := range a.Classes {
			if op, _, is := strings.Cut(c.Pinned, " over channels"); is {
				pinned[op]++
			}
		}
	}
	for _, f := range passing {
		if passed[f] == 0 {
			t.Errorf("no channels that can go pass %s", f)
		}
	}
	for _, f := range reading {
		if pinned[f] == 0 {
			t.Errorf("no channels are pinned by %s", f)
		}
	}
	t.Log(passed, pinned)
}
