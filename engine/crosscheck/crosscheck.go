// Package crosscheck runs a model in two backends and says by how much they disagree, and where that begins.
//
// That takes two pairs of runs: of the model as it serves, whose outputs count; and of the model with every value that a node
// makes as an output more ([Expose]), which tells the first node that gives something else. Where the outputs differ and no
// node does, the fault is in what a backend makes of several nodes together.
package crosscheck

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
)

// Tolerance is how much of the largest number two backends may differ by where nothing else is said: some hundred layers of
// float32, summed in another order each, stay below.
const Tolerance = 1e-4

// Side is a backend: as it serves, and as it runs the nodes one by one.
type Side struct {
	Name            string
	Serve, Verbatim predict.Backend
}

// Difference is how far apart two values are.
type Difference struct {
	Value string `json:"value"`
	// Node yields the value, as errors name it; empty for outputs that no node yields.
	Node string  `json:"node,omitempty"`
	Max  float64 `json:"max"`      // max|Δ|
	Rel  float64 `json:"relative"` // max|Δ|/max|y|
	// Why says what else differs, if not numbers alone: types, or where there are NaN and infinities. Max and Rel are then
	// the largest numbers there are.
	Why string `json:"why,omitempty"`
}

// Result is what two backends make of a model.
type Result struct {
	Outputs []Difference `json:"outputs"` // in the model's order
	Nodes   int          `json:"nodes"`   // nodes whose values were compared
	// Start is the first value in the order of nodes that differs by more than the tolerance; nil if none does.
	Start *Difference `json:"start,omitempty"`
	// Unknown says why nodes were not compared, if they were not.
	Unknown string `json:"unknown,omitempty"`
}

// Worst is the largest relative difference of an output.
func (r *Result) Worst() float64 {
	var worst float64
	for _, o := range r.Outputs {
		worst = max(worst, o.Rel)
	}
	return worst
}

// Compare runs g on in, in two backends. An error says which of them cannot.
func Compare(ctx context.Context, g *graph.Graph, in []*tensor.Tensor, a, b Side, tolerance float64) (*Result, error) {
	r := &Result{}
	var outs [2][]*tensor.Tensor
	for i, s := range []Side{a, b} {
		var err error
		if outs[i], err = run(ctx, s.Serve, g, in); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	for i, v := range g.Outputs {
		r.Outputs = append(r.Outputs, difference(v, outs[0][i], outs[1][i]))
	}
	h := Expose(g)
	for i, s := range []Side{a, b} {
		var err error
		if outs[i], err = run(ctx, s.Verbatim, h, in); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			r.Unknown = fmt.Sprintf("%s, with every value an output: %v", s.Name, err)
			return r, nil
		}
	}
	at := map[*graph.Value]int{}
	for i, v := range h.Outputs {
		at[v] = i
	}
	for _, n := range h.Nodes {
		compared := false
		for _, v := range n.Outputs {
			i, ok := at[v]
			if v == nil || !ok || outs[0][i].DType == tensor.String && outs[1][i].DType == tensor.String {
				continue
			}
			compared = true
			if d := difference(v, outs[0][i], outs[1][i]); r.Start == nil && d.Rel > tolerance {
				r.Start = &d
			}
		}
		if compared {
			r.Nodes++
		}
	}
	return r, nil
}

// Expose is a copy of g whose outputs are, after its own, all other values that nodes make. Values of which g says no type
// have none as outputs either; backends infer it.
func Expose(g *graph.Graph) *graph.Graph {
	h := g.Clone()
	out := map[*graph.Value]bool{}
	for _, v := range h.Outputs {
		out[v] = true
	}
	for _, n := range h.Nodes {
		for _, v := range n.Outputs {
			if v != nil && !out[v] {
				h.Outputs = append(h.Outputs, v)
			}
		}
	}
	return h
}

func run(ctx context.Context, b predict.Backend, g *graph.Graph, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	var types []tensor.Type
	for _, t := range in {
		types = append(types, t.Type())
	}
	compiled, err := b(g, types)
	if err != nil {
		return nil, err
	}
	r, err := compiled()
	if err != nil {
		return nil, err
	}
	out, err := r.Run(ctx, in)
	if err == nil && len(out) != len(g.Outputs) {
		err = fmt.Errorf("%d outputs, the model has %d", len(out), len(g.Outputs))
	}
	return out, err
}

// difference compares what two backends say of v.
func difference(v *graph.Value, a, b *tensor.Tensor) Difference {
	d := Difference{Value: v.Name}
	if v.Def != nil {
		d.Node = v.Def.String()
	}
	beyond := func(format string, args ...any) Difference {
		d.Max, d.Rel, d.Why = math.MaxFloat64, math.MaxFloat64, fmt.Sprintf(format, args...)
		return d
	}
	if !slices.Equal(a.Shape, b.Shape) {
		return beyond("shapes %v and %v", a.Shape, b.Shape)
	}
	x, ok := a.Float64s()
	y, ok2 := b.Float64s()
	if !ok || !ok2 {
		return beyond("types %v and %v, of which not both are numbers", a.DType, b.DType)
	}
	var top float64
	for i := range x {
		if x[i] == y[i] || math.IsNaN(x[i]) && math.IsNaN(y[i]) {
			if !math.IsNaN(x[i]) && !math.IsInf(x[i], 0) {
				top = max(top, math.Abs(x[i]))
			}
			continue
		}
		delta := math.Abs(x[i] - y[i])
		if math.IsNaN(delta) || math.IsInf(delta, 0) {
			return beyond("element %d is %g and %g", i, x[i], y[i])
		}
		d.Max, top = max(d.Max, delta), max(top, math.Abs(x[i]), math.Abs(y[i]))
	}
	if d.Max > 0 {
		d.Rel = d.Max / top
	}
	return d
}
