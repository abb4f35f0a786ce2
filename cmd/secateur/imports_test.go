package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/secateur/secateur/"

// layers gives, for each folder, which folders of ours it and its children may import. The longest match counts.
// Imports only go down: a package may always import its own children.
var layers = map[string][]string{
	"api":             {},
	"cmd":             {"api", "deploy", "engine", "pruner", "server"}, // wiring
	"deploy":          {},
	"server":          {"api", "deploy/models", "engine", "pruner"},
	"server/registry": {"engine", "deploy/models"},
	// admission knows neither models nor requests
	"server/admission":      {},
	"pruner":                {"engine"},
	"pruner/calib":          {"engine/vision"},
	"pruner/loss":           {"engine/tensor", "engine/vision"},
	"pruner/grad":           {"engine"},
	"pruner/group":          {"engine", "pruner/grad"},
	"pruner/score":          {"engine", "pruner/grad", "pruner/loss"},
	"pruner/rewrite":        {"engine", "pruner/group", "pruner/grad"},
	"pruner/repair":         {"engine", "pruner/group", "pruner/calib", "pruner/rewrite"},
	"pruner/train":          {"engine", "pruner/grad"},
	"pruner/gate":           {"engine", "pruner/calib"},
	"pruner/latency":        {"engine"},
	"engine":                {"engine/tensor", "engine/graph", "engine/op", "engine/pass", "engine/kernel"},
	"engine/mem":            {},
	"engine/tensor":         {"engine/mem"},
	"engine/graph":          {"engine/tensor"},
	"engine/kernel":         {"engine/mem"},
	"engine/kernel/isa":     {},
	"engine/onnx":           {"engine/graph", "engine/tensor"},
	"engine/op":             {"engine/graph", "engine/tensor", "engine/kernel"},
	"engine/pass":           {"engine/graph", "engine/tensor", "engine/op"},
	"engine/vision":         {"engine/graph", "engine/tensor"},
	"engine/vision/phantom": {"engine/vision"},
	// zoo is for tests alone
	"engine/zoo":               {"engine/graph", "engine/tensor", "engine/onnx"},
	"engine/predict":           {"engine", "engine/graph", "engine/tensor", "engine/vision", "engine/kernel"},
	"engine/conform":           {"engine"},
	"engine/crosscheck":        {"engine/graph", "engine/tensor", "engine/predict"},
	"engine/unet":              {"engine/graph", "engine/tensor"},
	"engine/gorgonia":          {"engine/graph", "engine/tensor", "engine/onnx"},
	"engine/ort":               {"engine/tensor"},
	"engine/kernel/kerneltest": {"engine/kernel/isa"},
}

// outside gives libraries that only some folders may import.
var outside = map[string][]string{
	"google.golang.org/grpc":        {"api", "cmd", "server"},
	"google.golang.org/protobuf":    {"api", "cmd", "server", "engine/onnx"},
	"github.com/prometheus":         {"cmd", "server"},
	"github.com/grpc-ecosystem":     {"server"},
	"golang.org/x/sys/cpu":          {"engine/kernel/isa"},
	"gorgonia.org":                  {"engine/gorgonia"},
	"github.com/owulveryck/onnx-go": {"engine/gorgonia"},
	"github.com/ebitengine/purego":  {"engine/ort"},
	"github.com/alecthomas/kong":    {"cmd"},
	"github.com/mmcloughlin/avo":    {"engine/kernel/_asm"},
}

// TestImportsGoDown checks every file that is not a test. Tests may import what they compare with.
func TestImportsGoDown(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, im := range f.Imports {
			p, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, filepath.ToSlash(filepath.Dir(rel)), p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImport(t *testing.T, dir, imported string) {
	t.Helper()
	for lib, where := range outside {
		if under(imported, lib) && !underAny(dir, where) {
			t.Errorf("%s imports %s, which belongs in %s", dir, imported, strings.Join(where, ", "))
		}
	}
	ours, ok := strings.CutPrefix(imported, module)
	if !ok || under(ours, dir) {
		return
	}
	layer := dir
	for layers[layer] == nil && layer != "." {
		layer = filepath.ToSlash(filepath.Dir(layer))
	}
	if layer == "." {
		if !strings.HasPrefix(dir, "scripts") {
			t.Errorf("%s has no row in the table of layers", dir)
		}
		return
	}
	if !underAny(ours, layers[layer]) {
		t.Errorf("%s imports %s; it may import %v", dir, ours, layers[layer])
	}
}

func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func underAny(p string, dirs []string) bool {
	for _, d := range dirs {
		if under(p, d) {
			return true
		}
	}
	return false
}
