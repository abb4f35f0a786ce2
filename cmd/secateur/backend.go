package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/gorgonia"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// backendFlags is how commands that run models are told in what.
type backendFlags struct {
	Backend string `help:"What computes: native, gorgonia or ort." enum:"native,gorgonia,ort" default:"native"`
	OrtLib  string `name:"ort-lib" help:"Path of libonnxruntime.so.1, for the ort backend." env:"SECATEUR_ORT_LIB"`
}

// modelFlags is how commands that run a model themselves are told which, and how.
type modelFlags struct {
	backendFlags
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
	b, err := backend(f.Backend, f.OrtLib, engine.Options{Threads: f.Threads})
	if err != nil {
		return nil, err
	}
	return predict.New(g, predict.Options{Backend: b, Spec: &spec})
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

// backends lists what can compute. gorgonia and ONNX Runtime take no more of the options than the number of threads.
var backends = map[string]func(ortLib string, opt engine.Options) (predict.Backend, error){
	"native":   func(_ string, opt engine.Options) (predict.Backend, error) { return predict.Native(opt), nil },
	"gorgonia": func(string, engine.Options) (predict.Backend, error) { return gorgoniaBackend, nil },
	"ort":      ortBackend,
}

// backend gives what a flag names.
func backend(name, ortLib string, opt engine.Options) (predict.Backend, error) {
	open, ok := backends[name]
	if !ok {
		return nil, usage("%q is no backend; there are native, gorgonia and ort", name)
	}
	b, err := open(ortLib, opt)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	return b, nil
}

// gorgoniaBackend runs models in the reference backend, which lowers a model anew for each who runs it.
func gorgoniaBackend(g *graph.Graph, in []tensor.Type) (func() (predict.Runner, error), error) {
	return func() (predict.Runner, error) { return gorgonia.Compile(g, in, tensor.Float32) }, nil
}

// ortBackend runs models in ONNX Runtime, one session for all who run it. The file is what onnx.Encode writes: whatever
// Decode accepts goes through, with operators that the engine refuses.
func ortBackend(lib string, opt engine.Options) (predict.Backend, error) {
	l, err := ort.Open(lib)
	if err != nil {
		return nil, err
	}
	return func(g *graph.Graph, _ []tensor.Type) (func() (predict.Runner, error), error) {
		b, err := onnx.Encode(g)
		if err != nil {
			return nil, err
		}
		s, err := l.NewSession(b, opt.Threads)
		return func() (predict.Runner, error) { return s, nil }, err
	}, nil
}
