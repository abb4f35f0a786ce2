package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// modelFlags is how commands that run a model themselves are told which, and how.
type modelFlags struct {
	Backend string `help:"What computes: native, gorgonia or ort." enum:"native,gorgonia,ort" default:"native"`
	OrtLib  string `name:"ort-lib" help:"Path of libonnxruntime.so.1, for the ort backend." env:"SECATEUR_ORT_LIB"`
	Threads int    `help:"Cores a run may use; 0 means all."`
	Spec    string `help:"A JSON file that overrides the model's pre- and postprocessing; by default model.json beside the model, if there." type:"existingfile"`
}

// open reads a model file and makes it ready for images.
func (f *modelFlags) open(path string) (*predict.Model, error) {
	g, err := onnx.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	spec, err := f.spec(path, g)
	if err != nil {
		return nil, err
	}
	opt := predict.Options{Engine: engine.Options{Threads: f.Threads}, Spec: &spec}
	if opt.Backend, err = f.backend(); err != nil {
		return nil, err
	}
	return predict.New(g, opt)
}

// spec is the model's own, with what --spec or model.json override.
func (f *modelFlags) spec(path string, g *graph.Graph) (vision.Spec, error) {
	s, _, err := readSpec(f.Spec, path, g)
	return s, err
}

// readSpec reads what images need for the model in file path. Settings in the file override, or else those in model.json
// beside the model, if it is there; overridden says whether any did.
func readSpec(file, path string, g *graph.Graph) (spec vision.Spec, overridden bool, err error) {
	if spec, err = vision.ReadSpec(g.Meta, g); err != nil {
		return spec, false, fmt.Errorf("%s: %w", path, err)
	}
	if file == "" {
		file = filepath.Join(filepath.Dir(path), "model.json")
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return spec, false, nil
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return spec, false, err
	}
	if spec, err = spec.Override(b); err != nil {
		return spec, false, fmt.Errorf("%s: %w", file, err)
	}
	return spec, true, nil
}

// backend gives what --backend asks for; nil is native.
func (f *modelFlags) backend() (predict.Backend, error) {
	switch f.Backend {
	case "ort":
		return ortBackend(f.OrtLib, f.Threads)
	case "gorgonia":
		return gorgoniaBackend()
	}
	return nil, nil
}

func ortBackend(lib string, threads int) (predict.Backend, error) {
	l, err := ort.Open(lib)
	if err != nil {
		return nil, err
	}
	return func(g *graph.Graph, _ []tensor.Type) (func() (predict.Runner, error), error) {
		b, err := onnx.Encode(g)
		if err != nil {
			return nil, err
		}
		return func() (predict.Runner, error) { return l.NewSession(b, threads) }, nil
	}, nil
}

var _ predict.Runner = (*ort.Session)(nil)
