package pruner

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/zoo"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
)

// third is a network of the zoo without 30 % of its multiply-adds, and without the same channels in another way.
type third struct {
	in         []tensor.Type
	cut        []byte // the file
	mask       *graph.Graph
	dense, now int64 // multiply-adds, the second as predicted
	params     int64 // as predicted
}

func loseAThird(t *testing.T, name string) third {
	t.Helper()
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
	return third{in, b, mask, base.MACs, costs.macs, costs.params}
}

// Every network of the zoo loses 30 % of its multiply-adds, no layer more than 90 % of its channels, and computes without
// them what it computes with them masked. What is written to a file is the same; the files go to the folder
// $SECATEUR_CUT_ZOO, if that is set, for others to read.
func TestZooLosesAThird(t *testing.T) {
	for _, name := range zoo.Names() {
		t.Run(name, func(t *testing.T) {
			c := loseAThird(t, name)
			if dir := os.Getenv("SECATEUR_CUT_ZOO"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, name+"-cut.onnx"), c.cut, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			back := read(t, c.cut)
			got, err := engine.Count(back, c.in)
			if err != nil || float64(got.MACs) > 0.7*float64(c.dense) || got.MACs != c.now {
				t.Errorf("%d multiply-adds of %d are left, predicted %d (%v)", got.MACs, c.dense, c.now, err)
			}
			if got.Parameters != c.params {
				t.Errorf("%d parameters are left, predicted %d", got.Parameters, c.params)
			}
			alike(t, output(t, back, c.in), output(t, c.mask, c.in), "cut and mask")
		})
	}
}

// ONNX Runtime computes of every network that was cut what the engine does.
func TestCutZooRunsInONNXRuntime(t *testing.T) {
	path := os.Getenv("SECATEUR_ORT_LIB")
	if path == "" {
		t.Skip("set SECATEUR_ORT_LIB to libonnxruntime.so.1, and test with -tags ort")
	}
	lib, err := ort.Open(path)
	if errors.Is(err, ort.ErrNotBuilt) {
		t.Skip("this test is built without ONNX Runtime; -tags ort builds it with")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range zoo.Names() {
		t.Run(name, func(t *testing.T) {
			c := loseAThird(t, name)
			s, err := lib.NewSession(c.cut, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			g := read(t, c.cut)
			out, err := s.Run(context.Background(), []*tensor.Tensor{zoo.Image(g, 2)})
			if err != nil {
				t.Fatal(err)
			}
			alike(t, output(t, g, c.in), tensor.Of[float32](out[0]), "the engine and ONNX Runtime")
		})
	}
}

func read(t *testing.T, b []byte) *graph.Graph {
	t.Helper()
	g, err := onnx.Decode(b, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// alike requires max|y-z| <= 1e-4 * max|z|.
func alike(t *testing.T, y, z []float32, who string) {
	t.Helper()
	if len(y) != len(z) {
		t.Fatalf("%s yield %d and %d numbers", who, len(y), len(z))
	}
	top, diff := 0.0, 0.0
	for i := range z {
		top = max(top, math.Abs(float64(z[i])))
		diff = max(diff, math.Abs(float64(y[i])-float64(z[i])))
	}
	t.Logf("%s: max|Δ|/max|y| = %.1e", who, diff/top)
	if !(diff <= 1e-4*top) {
		t.Errorf("%s differ by %g, values up to %g", who, diff, top)
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
