// Package zoo holds the topologies of real segmentation networks for tests, without their weights.
//
// Each file is a valid ONNX model of a few kilobytes as an exporter wrote it, but that its weights are inputs. [Load] makes
// them from a seed instead, so that values neither vanish nor explode on the way, and what is left is a model like any other
// that has learnt nothing. scripts/export_zoo.py makes the files.
package zoo

import (
	"embed"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

//go:embed networks/*.onnx
var files embed.FS

// Names lists the networks.
func Names() []string {
	entries, err := files.ReadDir("networks")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".onnx"))
	}
	return names
}

// Load gives a network with weights made from the seed.
func Load(name string, seed uint64) (*graph.Graph, error) {
	b, err := files.ReadFile("networks/" + name + ".onnx")
	if err != nil {
		return nil, fmt.Errorf("there is no network %q; there are %s", name, strings.Join(Names(), ", "))
	}
	g, err := onnx.Decode(b, onnx.Options{})
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", name, err)
	}
	rng := rand.New(rand.NewPCG(seed, 0x200))
	uses := g.Uses()
	var left []*graph.Value
	for i, v := range g.Inputs {
		if i == 0 || v.Const != nil {
			left = append(left, v)
			continue
		}
		u, ok := reader(uses, v)
		if !ok {
			return nil, fmt.Errorf("network %s: nothing reads %q", name, v.Name)
		}
		v.Const = tensor.New(tensor.Float32, v.Type.Shape...)
		mid, spread := like(u, v.Const.Shape)
		for j := range tensor.Of[float32](v.Const) {
			tensor.Of[float32](v.Const)[j] = float32(mid + spread*rng.NormFloat64())
		}
		if mid >= 1 { // a scale or a variance
			for j, x := range tensor.Of[float32](v.Const) {
				tensor.Of[float32](v.Const)[j] = max(x, 0.2)
			}
		}
		g.Inits = append(g.Inits, v)
	}
	g.Inputs = left
	return g, nil
}

// Image makes an input for a network: numbers around zero, from the seed.
func Image(g *graph.Graph, seed uint64) *tensor.Tensor {
	x := tensor.New(tensor.Float32, g.Inputs[0].Type.Shape...)
	rng := rand.New(rand.NewPCG(seed, 3))
	for i := range tensor.Of[float32](x) {
		tensor.Of[float32](x)[i] = float32(rng.NormFloat64())
	}
	return x
}

// reader is the first that reads v, through Identity: exporters keep one copy of weights that began alike.
func reader(uses map[*graph.Value][]graph.Use, v *graph.Value) (graph.Use, bool) {
	for _, u := range uses[v] {
		if u.Node == nil || u.Node.Op != "Identity" {
			return u, u.Node != nil
		}
		if w, ok := reader(uses, u.Node.Outputs[0]); ok {
			return w, true
		}
	}
	return graph.Use{}, false
}

// like says around what, and how far around, the numbers of a weight lie, by who reads it.
func like(u graph.Use, shape tensor.Shape) (mid, spread float64) {
	n := u.Node
	fan := func(of int) (float64, float64) { return 0, math.Sqrt(2 / float64(max(of, 1))) }
	switch {
	case n.Op == "Conv" && u.Input == 1:
		return fan(shape[1:].Elems())
	case n.Op == "ConvTranspose" && u.Input == 1: // so many inputs meet in an output
		apart := 1
		for _, s := range n.Attrs.Ints("strides") {
			apart *= s
		}
		return fan(shape[0] * shape[2:].Elems() / apart)
	case n.Op == "Gemm" && u.Input == 1:
		return fan(shape[n.Attrs.Int("transB", 0)])
	case n.Op == "MatMul" && u.Input == 1:
		return fan(shape[len(shape)-2])
	case strings.HasSuffix(n.Op, "Normalization") && u.Input == 1, n.Op == "BatchNormalization" && u.Input == 4, n.Op == "Mul":
		return 1, 0.2
	case slices.Contains([]string{"Conv", "ConvTranspose", "Gemm", "Add", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"}, n.Op):
		return 0, 0.1
	case n.Op == "PRelu":
		return 0.25, 0.05
	}
	return 0, 0.5
}
