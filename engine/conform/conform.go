// Package conform runs trees of ONNX node tests on the engine.
//
// A case is a folder with a model.onnx and, beside it, folders test_data_set_*, each with the inputs and the outputs
// expected as serialized tensors: input_0.pb, output_0.pb and so on. [Run] walks a tree, compiles each model for the types
// of its inputs and compares what comes out.
//
// The engine binds shapes when it compiles, so what decides them (the shape of Reshape, the scales of Resize) must be
// constant by then. Node tests give it as an input; such an input is bound as an initializer, and the case says so.
package conform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Status is how a case ended.
type Status string

// A case passes, fails, or is valid ONNX that the engine does not run.
const (
	Pass        Status = "pass"
	Fail        Status = "fail"
	Unsupported Status = "unsupported"
)

// Case is the outcome of one model.
type Case struct {
	// Name is the model's folder, relative to the tree.
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Reason says what differs or what is not supported, and for a pass which inputs were bound as constants, if any.
	Reason string `json:"reason"`
}

// Totals counts cases by their status.
type Totals struct {
	Pass        int `json:"pass"`
	Fail        int `json:"fail"`
	Unsupported int `json:"unsupported"`
}

// Report is the outcome of a tree, cases in order of their names.
type Report struct {
	Totals Totals `json:"totals"`
	Cases  []Case `json:"cases"`
}

// Run runs every case below dir and calls progress, which may be nil, after each. Its error is about the tree itself:
// it cannot be read, or holds no case. What goes wrong with a case is in the report.
func Run(dir string, progress func(done, total int)) (*Report, error) {
	var folders []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() == "model.onnx" {
			folders = append(folders, filepath.Dir(path))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read node tests: %w", err)
	}
	if len(folders) == 0 {
		return nil, fmt.Errorf("read node tests: no model.onnx below %s", dir)
	}
	slices.Sort(folders)
	r := &Report{Cases: []Case{}}
	for i, folder := range folders {
		name, err := filepath.Rel(dir, folder)
		if err != nil {
			return nil, fmt.Errorf("read node tests: %w", err)
		}
		r.add(runCase(filepath.ToSlash(name), folder))
		if progress != nil {
			progress(i+1, len(folders))
		}
	}
	return r, nil
}

func (r *Report) add(c Case) {
	r.Cases = append(r.Cases, c)
	switch c.Status {
	case Pass:
		r.Totals.Pass++
	case Unsupported:
		r.Totals.Unsupported++
	default:
		r.Totals.Fail++
	}
}

// runCase runs one model on all its data sets. A panic is a fail like any other: the report must get to its end.
func runCase(name, folder string) (c Case) {
	c.Name = name
	defer func() {
		if v := recover(); v != nil {
			c.Status, c.Reason = Fail, fmt.Sprintf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	bound, err := check(folder)
	var un *op.Unsupported
	switch {
	case errors.As(err, &un):
		c.Status, c.Reason = Unsupported, fmt.Sprintf("%v, %s", un.Node, un.Reason)
	case errors.Is(err, onnx.ErrNotTensor):
		c.Status, c.Reason = Unsupported, err.Error()
	case err != nil:
		c.Status, c.Reason = Fail, err.Error()
	default:
		c.Status = Pass
		if len(bound) > 0 {
			c.Reason = "bound as constants: " + strings.Join(bound, ", ")
		}
	}
	return c
}

// check runs one model on all its data sets. It gives the names of the inputs that had to be constant.
func check(folder string) (bound []string, err error) {
	g, err := onnx.ReadFile(filepath.Join(folder, "model.onnx"))
	if errors.Is(err, onnx.ErrVersion) {
		return nil, &op.Unsupported{Node: &graph.Node{Op: "model"}, Reason: err.Error()}
	}
	if err != nil {
		return nil, err
	}
	sets, err := filepath.Glob(filepath.Join(folder, "test_data_set_*"))
	if err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		return nil, errors.New("no test_data_set_* beside the model")
	}
	for _, v := range slices.Concat(g.Inputs, g.Outputs) {
		if v.Opaque != nil {
			return nil, &op.Unsupported{Node: holder(g, v), Reason: fmt.Sprintf("%q is not a tensor", v.Name)}
		}
	}
	slices.Sort(sets)
	for _, set := range sets {
		if bound, err = checkSet(g, set); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(set), err)
		}
	}
	return bound, nil
}

// holder is a node that v belongs to, to be named in a reason.
func holder(g *graph.Graph, v *graph.Value) *graph.Node {
	for _, n := range g.Nodes {
		if slices.Contains(n.Inputs, v) || slices.Contains(n.Outputs, v) {
			return n
		}
	}
	return &graph.Node{Op: "graph"}
}

// checkSet runs the model on one data set and compares the outputs.
func checkSet(g *graph.Graph, set string) ([]string, error) {
	in, err := tensors(set, "input")
	if err != nil {
		return nil, err
	}
	want, err := tensors(set, "output")
	if err != nil {
		return nil, err
	}
	g, feed, bound, err := bind(g, in)
	if err != nil {
		return nil, err
	}
	got, err := execute(g, feed)
	if err != nil {
		return nil, err
	}
	if len(want) > len(got) {
		return nil, fmt.Errorf("%d outputs, want %d", len(got), len(want))
	}
	steps := 1
	if len(g.Nodes) > 1 {
		steps = 2
	}
	for i, w := range want {
		declared := g.Outputs[i].Type.DType
		if err := compare(got[i], w, declared, steps); err != nil {
			return nil, fmt.Errorf("output %d, %q: %w", i, g.Outputs[i].Name, err)
		}
	}
	return bound, nil
}

// execute compiles and runs once. A model without any node that runs still yields its constants.
func execute(g *graph.Graph, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	types := make([]tensor.Type, len(in))
	for i, t := range in {
		types[i] = t.Type()
	}
	m, err := engine.Compile(g, types, engine.Options{Threads: 1, Float64: wide(g)})
	if err != nil {
		return nil, err
	}
	return m.NewSession().Run(context.Background(), in)
}

// wide reports whether an output is declared as double. Such a test may expect numbers that float32 does not reach, and
// runs in float64.
func wide(g *graph.Graph) bool {
	return slices.ContainsFunc(g.Outputs, func(v *graph.Value) bool { return v.Type.DType == tensor.Float64 })
}

// bind matches tensors with the graph's inputs, in order. An input that the engine needs as a constant, as its refusal
// says, becomes an initializer in a copy of the graph; so on until it compiles or nothing is left to bind.
func bind(g *graph.Graph, in []*tensor.Tensor) (*graph.Graph, []*tensor.Tensor, []string, error) {
	// Files of IR version 3 list initializers among the inputs; tests give those, too, or leave them out.
	free := engine.Inputs(g)
	if len(in) == len(g.Inputs) {
		free = g.Inputs
	}
	if len(in) > len(free) {
		return nil, nil, nil, fmt.Errorf("%d input files for %d inputs", len(in), len(free))
	}
	values := map[string]*tensor.Tensor{}
	for i, t := range in {
		if free[i].Const == nil {
			values[free[i].Name] = t
		}
	}
	var bound []string
	for {
		var feed []*tensor.Tensor
		var types []tensor.Type
		for _, v := range engine.Inputs(g) {
			t := values[v.Name]
			if t == nil {
				return nil, nil, nil, fmt.Errorf("no file for input %q", v.Name)
			}
			feed, types = append(feed, t), append(types, t.Type())
		}
		_, err := engine.Infer(g, types, tensor.Float32)
		var un *op.Unsupported
		if !errors.As(err, &un) {
			return g, feed, bound, nil // what else is wrong, Compile will say
		}
		names := candidates(g, un.Node)
		if len(names) == 0 {
			return nil, nil, nil, err
		}
		next := g.Clone()
		for _, v := range next.Inputs {
			if slices.Contains(names, v.Name) {
				v.Const = values[v.Name]
				next.Inits = append(next.Inits, v)
			}
		}
		g, bound = next, append(bound, names...)
	}
}

// candidates lists the inputs of the graph that a refused node reads: those behind its first operand, which is the data,
// and only once these are bound the first.
func candidates(g *graph.Graph, n *graph.Node) []string {
	reads := map[*graph.Value]bool{}
	for i, v := range n.Inputs {
		collect(v, i > 0, reads)
	}
	var first, rest []string
	for _, v := range engine.Inputs(g) {
		switch behind, ok := reads[v]; {
		case ok && behind:
			rest = append(rest, v.Name)
		case ok:
			first = append(first, v.Name)
		}
	}
	if len(rest) > 0 {
		return rest
	}
	return first
}

// collect finds what v is computed from.
func collect(v *graph.Value, behind bool, reads map[*graph.Value]bool) {
	if v == nil {
		return
	}
	if was, ok := reads[v]; ok && (was || !behind) {
		return
	}
	reads[v] = behind
	if v.Def != nil {
		for _, x := range v.Def.Inputs {
			collect(x, behind, reads)
		}
	}
}

// tensors reads kind_0.pb, kind_1.pb and so on.
func tensors(set, kind string) ([]*tensor.Tensor, error) {
	var ts []*tensor.Tensor
	for i := 0; ; i++ {
		name := kind + "_" + strconv.Itoa(i) + ".pb"
		b, err := os.ReadFile(filepath.Join(set, name))
		if errors.Is(err, fs.ErrNotExist) {
			return ts, nil
		}
		if err != nil {
			return nil, err
		}
		t, err := onnx.DecodeTensor(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ts = append(ts, t)
	}
}
