package pruner

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/rewrite"
)

func (r *run) analyze(context.Context) error {
	r.progress("analyze", 0, 1)
	var err error
	if r.spec, err = vision.ReadSpec(r.g.Meta, r.g); err != nil {
		return err
	}
	r.in = []tensor.Type{predict.ServingType(r.g, r.spec)}
	r.current, r.kept = r.g, map[string][]int{}
	if err := r.look(); err != nil {
		return err
	}
	r.base, r.original = r.cost, r.analysis
	for _, l := range r.original.Layers() {
		all := make([]int, l.Channels)
		for i := range all {
			all[i] = i
		}
		r.kept[l.Node.Outputs[0].Name] = all
	}
	if len(r.analysis.Free()) == 0 {
		return fmt.Errorf("no channel of the model can be removed")
	}
	if err := r.opt.knows(r.original.Layers()); err != nil {
		return err
	}
	bytes, err := onnx.Encode(r.g)
	if err != nil {
		return err
	}
	if r.parentBytes = int64(len(bytes)); r.opt.Parent == "" {
		r.opt.Parent = sum(bytes)
	}
	return nil
}

// look finds cost and classes of the current graph.
func (r *run) look() error {
	info, err := engine.Infer(r.current, r.in, tensor.Float32)
	if err != nil {
		return err
	}
	if len(r.current.Outputs) > 0 {
		r.classes = r.spec.Labels(planes(info[r.current.Outputs[0]].Type.Shape, r.spec.Pre.Layout))
	}
	r.cost = engine.CountInferred(r.current, info)
	r.analysis, err = group.Analyze(r.current, info)
	return err
}

// planes is how many maps an output of this shape has.
func planes(s tensor.Shape, layout string) int {
	switch {
	case len(s) == 4 && layout == "NHWC":
		return s[3]
	case len(s) == 4:
		return s[1]
	}
	return 1
}

func (r *run) choose(context.Context) error {
	r.progress("select", 0, 1)
	left := r.costs()
	remove, err := choose(r.analysis, r.importance, left, r.budget())
	if err != nil {
		return err
	}
	r.predicted = left.ns / 1e6
	if r.cut, err = rewrite.Cut(r.current, r.analysis, remove); err != nil {
		return err
	}
	for _, l := range r.analysis.Layers() {
		name := l.Node.Outputs[0].Name
		var left []int
		for i, p := range r.kept[name] {
			if id := l.Class[i]; id < 0 || !remove[id] {
				left = append(left, p)
			}
		}
		r.kept[name] = left
	}
	r.opt.Log.Info("channels selected", "step", r.step+1, "classes", len(remove), "of", len(r.analysis.Classes))
	return r.next(r.cut)
}

// budget is what this step may leave: the target's part of the original that falls to the steps so far, with every
// layer's floor counted from the original.
func (r *run) budget() budget {
	whole := newCosts(r.original, r.base, r.table).of(r.opt.Target.counts())
	part := (float64(whole) - r.opt.Target.left(whole)) * float64(r.step+1) / float64(r.opt.Steps)
	b := budget{opt: r.opt, from: whole, goal: whole - int64(math.Ceil(part-1e-6)), least: map[string]int{}}
	for _, l := range r.original.Layers() {
		name := l.Node.Outputs[0].Name
		b.least[name] = max(r.opt.MinChannels, l.Channels-int(r.opt.MaxLayer*float64(l.Channels)), 1)
		if r.opt.keeps(l) {
			b.least[name] = l.Channels
		}
	}
	return b
}

// keeps reports whether a layer is to lose no channel.
func (o Options) keeps(l group.Layer) bool {
	return o.Keep != nil && (o.Keep.MatchString(l.Name) || o.Keep.MatchString(l.Node.Outputs[0].Name))
}

// knows refuses a Keep that keeps none of the layers: it is misspelt, and what it was to save would go.
func (o Options) knows(layers []group.Layer) error {
	if o.Keep == nil || slices.ContainsFunc(layers, o.keeps) {
		return nil
	}
	var names []string
	for _, l := range layers[:min(len(layers), 3)] {
		names = append(names, l.Name)
	}
	return fmt.Errorf("keep %q matches no layer; there are %d, such as %s, and secateur inspect --groups lists them", o.Keep, len(layers), strings.Join(names, ", "))
}

// next makes g the graph that goes on.
func (r *run) next(g *graph.Graph) error {
	r.pruned = g
	if r.step+1 == r.opt.Steps {
		return nil
	}
	r.current = g
	return r.look()
}
