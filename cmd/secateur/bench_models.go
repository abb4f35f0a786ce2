package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/unet"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
)

// benched is a model to time.
type benched struct {
	name  string
	graph *graph.Graph
}

// halved is the name of a built-in model that bench prunes by half of its multiply-adds before it times it.
const halved = "polyp-unet-half"

// benchModel finds a model by name: a built-in one, a generated one, or a file.
func benchModel(ctx context.Context, name string) (benched, error) {
	if base, ok := strings.CutPrefix(name, "unet-"); ok {
		n, err := strconv.Atoi(base)
		if err != nil || n < 1 || n > 256 {
			return benched{}, usage("%s: want unet-1 to unet-256", name)
		}
		return benched{name, unet.Classic(n, 1)}, nil
	}
	if name == halved {
		g, err := halve(ctx)
		return benched{name, g}, err
	}
	for _, m := range models.All() {
		if m.Name == name {
			g, err := onnx.Decode(m.ONNX, onnx.Options{})
			return benched{name, g}, err
		}
	}
	g, err := onnx.ReadFile(name)
	if err != nil {
		return benched{}, fmt.Errorf("read %s: %w", name, err)
	}
	return benched{filepath.Base(name), g}, nil
}

// halve prunes polyp-unet on phantoms.
func halve(ctx context.Context) (*graph.Graph, error) {
	dir, err := os.MkdirTemp("", "secateur-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := (&phantomCmd{Out: dir, N: 24, Seed: 1}).Run(ctx); err != nil {
		return nil, err
	}
	set, err := calib.Open(dir)
	if err != nil {
		return nil, err
	}
	m, err := benchModel(ctx, "polyp-unet")
	if err != nil {
		return nil, err
	}
	target, err := pruner.ParseTarget("macs=0.5")
	if err != nil {
		return nil, err
	}
	p := newProgress()
	defer p.done()
	res, err := pruner.Prune(ctx, m.graph, set, nil, pruner.Options{Target: target, Seed: 1,
		Progress: p.pruning})
	if err != nil {
		return nil, fmt.Errorf("prune polyp-unet: %w", err)
	}
	return onnx.Decode(res.ONNX, onnx.Options{})
}

func (m benched) encode() ([]byte, error) { return onnx.Encode(m.graph) }

// sizes is what is asked for, or the model's own size, and for generated models that of larger frames.
func (m benched) sizes(asked []int) []int {
	switch {
	case len(asked) > 0:
		return asked
	case strings.HasPrefix(m.name, "unet-"):
		return []int{256, 352}
	}
	return []int{0}
}

// input is the type of the model's input at a size; 0 is the model's own.
func (m benched) input(size int) (tensor.Type, error) {
	spec, err := vision.ReadSpec(m.graph.Meta, m.graph)
	if err != nil {
		return tensor.Type{}, err
	}
	if size > 0 {
		spec.Pre.Size = []int{size, size}
	}
	return predict.ServingType(m.graph, spec), nil
}

// randomImage is normal numbers, as images are after normalisation; the same for everyone.
func randomImage(in tensor.Type) *tensor.Tensor { return randomInput(in, 1) }

// randomInput is randomImage from a seed.
func randomInput(in tensor.Type, seed uint64) *tensor.Tensor {
	x := tensor.New(tensor.Float32, in.Shape...)
	r := rand.New(rand.NewPCG(seed, 2))
	for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
		v[i] = float32(r.NormFloat64())
	}
	return x
}
