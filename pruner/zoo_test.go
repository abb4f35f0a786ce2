package pruner

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/zoo"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
)

// pinned are the networks that cannot lose so much, and a part of the reason.
var pinned = map[string]string{
	"shufflenet-v2": "cannot be reached", // chunk is exported as sizes computed from a channel count
}

// Every network of the zoo, but those, loses 30 % of its multiply-adds, no layer more than 90 % of its channels, and computes without
// them what it computes with them masked. What is written to a file is the same.
func TestZooLosesAThird(t *testing.T) {
	for _, name := range zoo.Names() {
		t.Run(name, func(t *testing.T) {
			g, err := zoo.Load(name, 1)
			if err != nil {
				t.Fatal(err)
			}
			_, err = loseAThird(t, g, zoo.Image(g, 2))
			if why, known := pinned[name]; known {
				if err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("it is said that it %s: %v", why, err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestExportsLoseAThird is the same for the files that $SECATEUR_ZOO lists, a JSON array of objects: the "model", the "size" of
// its image, and where the result goes, "out", which is a path without its suffix. The file that is left is written to
// out.onnx, or the reason why there is none to out.txt. scripts/zoo.py makes the list.
func TestExportsLoseAThird(t *testing.T) {
	list := os.Getenv("SECATEUR_ZOO")
	if list == "" {
		t.Skip("SECATEUR_ZOO names no list of exported networks")
	}
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	var todo []struct {
		Model, Out string
		Size       int
	}
	if err := json.Unmarshal(b, &todo); err != nil {
		t.Fatal(err)
	}
	for _, e := range todo {
		t.Run(filepath.Base(e.Out), func(t *testing.T) {
			file, text := e.Out+".onnx", e.Out+".txt"
			_, _ = os.Remove(file), os.Remove(text)
			g, err := onnx.ReadFile(e.Model)
			if err != nil {
				t.Fatal(err)
			}
			b, err := loseAThird(t, g, imageOf(t, g, e.Size))
			if err != nil {
				file, b = text, []byte(err.Error()+"\n")
			}
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// imageOf makes an input of a size for a network.
func imageOf(t *testing.T, g *graph.Graph, size int) *tensor.Tensor {
	t.Helper()
	spec, err := vision.ReadSpec(g.Meta, g)
	if err != nil {
		t.Fatal(err)
	}
	spec.Pre.Size = []int{size, size}
	x := g.Clone()
	x.Inputs[0].Type = predict.ServingType(g, spec)
	return zoo.Image(x, 2)
}

// loseAThird removes 30 % of the multiply-adds by random scores and gives the file that is left. An
// error says why so much cannot go, or that the cut has not the cost predicted or does not compute what the mask does.
func loseAThird(t *testing.T, g *graph.Graph, x *tensor.Tensor) ([]byte, error) {
	t.Helper()
	in := []tensor.Type{x.Type()}
	info, err := engine.Infer(g, in, tensor.Float32)
	if err != nil {
		return nil, err
	}
	a, err := group.Analyze(g, info)
	if err != nil {
		return nil, err
	}
	base := engine.CountInferred(g, info)
	opt := Options{Target: Target{"macs", 0.3}}.withDefaults()
	costs := newCosts(a, base, nil)
	remove, err := choose(a, random(a, 3), costs, within(a, base, opt))
	if err != nil {
		for _, l := range a.Layers() {
			t.Logf("%s: %d of %d can go; %s", l.Name, l.Prunable, l.Channels, l.Pinned)
		}
		return nil, err
	}
	cut, err := rewrite.Cut(g, a, remove)
	if err != nil {
		return nil, err
	}
	mask, err := rewrite.Mask(g, a, remove)
	if err != nil {
		return nil, err
	}
	b, err := onnx.Encode(cut)
	if err != nil {
		return nil, err
	}
	back, err := onnx.Decode(b, onnx.Options{})
	if err != nil {
		return nil, err
	}
	got, err := engine.Count(back, in)
	if err != nil {
		return nil, err
	}
	if float64(got.MACs) > 0.7*float64(base.MACs) || got.MACs != costs.macs {
		return nil, fmt.Errorf("%d multiply-adds of %d are left, predicted %d", got.MACs, base.MACs, costs.macs)
	}
	y, z := output(t, back, x), output(t, mask, x)
	top, diff := 1e-3, 0.0
	for i := range z {
		top = math.Max(top, math.Abs(float64(z[i])))
		diff = math.Max(diff, math.Abs(float64(y[i])-float64(z[i])))
	}
	if !(diff <= 1e-4*top) {
		return nil, fmt.Errorf("cut and mask differ by %g, values up to %g", diff, top)
	}
	return b, nil
}

func output(t *testing.T, g *graph.Graph, x *tensor.Tensor) []float32 {
	t.Helper()
	m, err := engine.Compile(g, []tensor.Type{x.Type()}, engine.Options{Threads: 1, Verbatim: true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{x})
	if err != nil {
		t.Fatal(err)
	}
	return append([]float32{}, tensor.Of[float32](out[0])...)
}
