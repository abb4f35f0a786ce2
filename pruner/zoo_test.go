package pruner

import (
	"context"
	"math"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/zoo"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
)

// Every network of the zoo loses 30 % of its multiply-adds, no layer more than 90 % of its channels, and computes without
// them what it computes with them masked. What is written to a file is the same.
func TestZooLosesAThird(t *testing.T) {
	for _, name := range zoo.Names() {
		t.Run(name, func(t *testing.T) {
			g, err := zoo.Load(name, 1)
			if err != nil {
				t.Fatal(err)
			}
			in := []tensor.Type{g.Inputs[0].Type}
			info, err := engine.Infer(g, in, tensor.Float32)
			if err != nil {
				t.Fatal(err)
			}
			a, err := group.Analyze(g, info)
			if err != nil {
				t.Fatal(err)
			}
			base := engine.CountInferred(g, info)
			opt := Options{Target: Target{"macs", 0.3}}.withDefaults()
			costs := newCosts(a, base, nil)
			remove, err := choose(a, random(a, 3), costs, within(a, base, opt))
			if err != nil {
				for _, l := range a.Layers() {
					t.Logf("%s: %d of %d can go; %s", l.Name, l.Prunable, l.Channels, l.Pinned)
				}
				t.Fatal(err)
			}
			cut, err := rewrite.Cut(g, a, remove)
			if err != nil {
				t.Fatal(err)
			}
			mask, err := rewrite.Mask(g, a, remove)
			if err != nil {
				t.Fatal(err)
			}
			b, err := onnx.Encode(cut)
			if err != nil {
				t.Fatal(err)
			}
			back, err := onnx.Decode(b, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := engine.Count(back, in)
			if err != nil || float64(got.MACs) > 0.7*float64(base.MACs) || got.MACs != costs.macs {
				t.Errorf("%d multiply-adds of %d are left, predicted %d (%v)", got.MACs, base.MACs, costs.macs, err)
			}
			y, z := output(t, back, in), output(t, mask, in)
			top, diff := 1e-3, 0.0
			for i := range z {
				top = math.Max(top, math.Abs(float64(z[i])))
				diff = math.Max(diff, math.Abs(float64(y[i])-float64(z[i])))
			}
			if !(diff <= 1e-4*top) {
				t.Errorf("cut and mask differ by %g, values up to %g", diff, top)
			}
		})
	}
}

func output(t *testing.T, g *graph.Graph, in []tensor.Type) []float32 {
	t.Helper()
	m, err := engine.Compile(g, in, engine.Options{Threads: 1, Verbatim: true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{zoo.Image(g, 2)})
	if err != nil {
		t.Fatal(err)
	}
	return append([]float32{}, tensor.Of[float32](out[0])...)
}
