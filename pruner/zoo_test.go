package pruner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/zoo"
	"github.com/secateur/secateur/pruner/rewrite"
)

// third is a network without 30 % of its multiply-adds, and without the same channels in another way.
type third struct {
	x          *tensor.Tensor
	cut        []byte // the file
	mask       *graph.Graph
	dense, now int64 // multiply-adds, the second as predicted
	params     int64 // as predicted
}

// loseAThird removes channels by random scores, for inputs like x. Its error says why not so many can go.
func loseAThird(t *testing.T, g *graph.Graph, x *tensor.Tensor) (third, error) {
	t.Helper()
	a, base, err := examine(g, []tensor.Type{x.Type()})
	if err != nil {
		return third{}, err
	}
	opt := Options{Target: Target{"macs", 0.3}}.withDefaults()
	costs := newCosts(a, base, nil)
	remove, err := choose(a, random(a, 3), costs, within(a, base, opt))
	if err != nil {
		for _, l := range a.Layers() {
			t.Logf("%s: %d of %d can go; %s", l.Name, l.Prunable, l.Channels, l.Pinned)
		}
		return third{}, err
	}
	cut, err := rewrite.Cut(g, a, remove)
	if err != nil {
		return third{}, err
	}
	mask, err := rewrite.Mask(g, a, remove)
	if err != nil {
		return third{}, err
	}
	b, err := onnx.Encode(cut)
	return third{x, b, mask, base.MACs, costs.macs, costs.params}, err
}

// check compares the file with what was predicted, and with the mask.
func (c third) check() error {
	back, err := onnx.Decode(c.cut, onnx.Options{})
	if err != nil {
		return err
	}
	got, err := engine.Count(back, []tensor.Type{c.x.Type()})
	if err != nil {
		return err
	}
	if float64(got.MACs) > 0.7*float64(c.dense) || got.MACs != c.now || got.Parameters != c.params {
		return fmt.Errorf("%d multiply-adds of %d and %d parameters are left, predicted %d and %d", got.MACs, c.dense, got.Parameters, c.now, c.params)
	}
	y, err := output(back, c.x)
	if err != nil {
		return err
	}
	z, err := output(c.mask, c.x)
	if err != nil {
		return err
	}
	return alike(y, z, "cut and mask")
}

func loadThird(t *testing.T, name string) third {
	t.Helper()
	g, err := zoo.Load(name, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := loseAThird(t, g, zoo.Image(g, 2))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every network of the zoo loses 30 % of its multiply-adds, no layer more than 90 % of its channels, and computes without
// them what it computes with them masked. What is written to a file is the same; the files go to the folder
// $SECATEUR_CUT_ZOO, if that is set, for others to read.
func TestZooLosesAThird(t *testing.T) {
	for _, name := range zoo.Names() {
		t.Run(name, func(t *testing.T) {
			c := loadThird(t, name)
			if dir := os.Getenv("SECATEUR_CUT_ZOO"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, name+"-cut.onnx"), c.cut, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.check(); err != nil {
				t.Error(err)
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
			c, err := loseAThird(t, g, imageOf(t, g, e.Size))
			if err == nil {
				err = c.check()
			}
			if err != nil {
				file, c.cut = text, []byte(err.Error()+"\n")
			}
			if err := os.WriteFile(file, c.cut, 0o644); err != nil {
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
			c := loadThird(t, name)
			s, err := lib.NewSession(c.cut, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			out, err := s.Run(context.Background(), []*tensor.Tensor{c.x})
			if err != nil {
				t.Fatal(err)
			}
			g, err := onnx.Decode(c.cut, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			y, err := output(g, c.x)
			if err == nil {
				err = alike(y, tensor.Of[float32](out[0]), "the engine and ONNX Runtime")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// alike requires max|y-z| <= 1e-4 * max|z|.
func alike(y, z []float32, who string) error {
	if len(y) != len(z) {
		return fmt.Errorf("%s yield %d and %d numbers", who, len(y), len(z))
	}
	top, diff := 0.0, 0.0
	for i := range z {
		top = max(top, math.Abs(float64(z[i])))
		diff = max(diff, math.Abs(float64(y[i])-float64(z[i])))
	}
	if !(diff <= 1e-4*top) {
		return fmt.Errorf("%s differ by %g, values up to %g", who, diff, top)
	}
	return nil
}

func output(g *graph.Graph, x *tensor.Tensor) ([]float32, error) {
	m, err := engine.Compile(g, []tensor.Type{x.Type()}, engine.Options{Threads: 1, Verbatim: true})
	if err != nil {
		return nil, err
	}
	out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{x})
	if err != nil {
		return nil, err
	}
	return append([]float32{}, tensor.Of[float32](out[0])...), nil
}
