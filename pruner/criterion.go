package pruner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/score"
)

// DefaultCriterion is what channels are scored by unless Options say otherwise.
const DefaultCriterion = "taylor-abs"

// criterion is a way to say how much each class matters.
type criterion struct {
	score func(*run, context.Context) (map[int]float64, error)
	// rank, where it is set, says what goes first (the least) instead of importance for what is saved.
	rank func(*unit, *floor) float64
}

// criteria are all. The first two apart, they are there to be compared with.
var criteria = map[string]criterion{
	"taylor-abs": {score: func(r *run, ctx context.Context) (map[int]float64, error) {
		return r.taylor(ctx, score.Abs, score.Options{})
	}},
	"taylor-sq": {score: func(r *run, ctx context.Context) (map[int]float64, error) {
		return r.taylor(ctx, score.Square, score.Options{})
	}},
	"magnitude": {score: byMagnitude},
	"bn-scale":  {score: func(r *run, _ context.Context) (map[int]float64, error) { return normScale(r.analysis) }},
	"random":    {score: func(r *run, _ context.Context) (map[int]float64, error) { return random(r.analysis, r.opt.Seed), nil }},
	// What goes is of the largest layer, there by magnitude.
	"largest-layer": {score: byMagnitude, rank: func(u *unit, f *floor) float64 { return -float64(f.largest(u.ids)) }},
}

func byMagnitude(r *run, _ context.Context) (map[int]float64, error) {
	return magnitude(r.analysis), nil
}

// Criteria lists the ways to score channels by name.
func Criteria() []string { return slices.Sorted(maps.Keys(criteria)) }

// Normalisations lists what importance may be divided by before classes of different layers are compared: nothing, its
// mean over the layer, or its mean over the layers of the same scope, which is a name up to its last "/" or ".".
func Normalisations() []string { return []string{"raw", "layer-mean", "per-scope"} }

// magnitude is the Euclidean norm of all weights that yield a class, and none that read it: a channel that is summed up
// from several layers has the weights of all.
func magnitude(a *group.Analysis) map[int]float64 {
	square := map[int]float64{}
	yields := map[int]bool{}
	for _, s := range a.Slices {
		if s.Of == nil || readsAlong(s) {
			continue
		}
		w := group.Stored(s.Of.Input(1))
		v, ok := w.Float64s()
		if !ok {
			continue
		}
		n, inner := w.Shape[s.Axis], w.Shape[s.Axis+1:].Elems()
		for i, x := range v {
			if id := s.Class[i/inner%n]; id >= 0 {
				square[id] += x * x
				yields[id] = true
			}
		}
	}
	return importanceOf(a, func(id int) (float64, bool) { return math.Sqrt(square[id]), yields[id] })
}

// readsAlong reports whether weights read the channels along the axis that s slices, rather than yield them.
func readsAlong(s group.Slice) bool {
	n := s.Of
	switch n.Op {
	case "Conv":
		return s.Axis == 1
	case "ConvTranspose":
		return s.Axis == 0 && n.Attrs.Int("group", 1) != len(s.Class)
	case "Gemm":
		return s.Axis == min(n.Attrs.Int("transB", 0), 1)
	}
	return s.Axis == 0 // MatMul
}

// normScale is the mean |γ| of the BatchNormalizations that a class goes through (Liu et al., ICCV 2017). A class that goes
// through none has nothing to be compared by and is taken last. Where that is so of all that can be removed it is errNoScales.
func normScale(a *group.Analysis) (map[int]float64, error) {
	sum, n := map[int]float64{}, map[int]float64{}
	for _, s := range a.Slices {
		if s.Node.Op != "BatchNormalization" || s.Input != 1 {
			continue
		}
		v, ok := group.WeightTensor(s.Node.Input(1)).Float64s()
		if !ok {
			continue
		}
		for i, id := range s.Class {
			if id >= 0 {
				sum[id] += math.Abs(v[i])
				n[id]++
			}
		}
	}
	if !slices.ContainsFunc(a.Free(), func(id int) bool { return n[id] > 0 }) {
		return nil, errNoScales
	}
	return importanceOf(a, func(id int) (float64, bool) { return sum[id] / max(n[id], 1), n[id] > 0 }), nil
}

var errNoScales = errors.New("the model has no BatchNormalization to read scales of; choose another criterion")

// random gives every class a number between 0 and 1.
func random(a *group.Analysis, seed uint64) map[int]float64 {
	rng := rand.New(rand.NewPCG(seed, 0x5eca7e0))
	return importanceOf(a, func(int) (float64, bool) { return rng.Float64(), true })
}

// importanceOf asks for every class that can be removed. Those without an answer come after all others.
func importanceOf(a *group.Analysis, of func(id int) (float64, bool)) map[int]float64 {
	imp := map[int]float64{}
	top := 0.0
	var last []int
	for _, id := range a.Free() {
		v, ok := of(id)
		if !ok {
			last = append(last, id)
			continue
		}
		imp[id] = v
		top = max(top, v)
	}
	for _, id := range last {
		imp[id] = 1e6 * (top + 1)
	}
	return imp
}

// normalise divides importance by its mean over the layer, or the scope, that a class belongs to: the first in the graph.
func normalise(a *group.Analysis, imp map[int]float64, by string) map[int]float64 {
	if by == "" || by == "raw" {
		return imp
	}
	of := map[int]string{}
	for _, l := range a.Layers() {
		key := l.Node.Outputs[0].Name
		if by == "per-scope" {
			key = scope(l.Name)
		}
		for _, id := range l.Class {
			if _, ok := of[id]; id >= 0 && !ok {
				of[id] = key
			}
		}
	}
	sum, n := map[string]float64{}, map[string]float64{}
	for _, id := range a.Free() { // in order: sums of floats depend on it
		sum[of[id]] += imp[id]
		n[of[id]]++
	}
	out := map[int]float64{}
	for id, v := range imp {
		out[id] = v
		if mean := sum[of[id]] / n[of[id]]; mean > 0 {
			out[id] = v / mean
		}
	}
	return out
}

// scope is the part of a name that other layers of the same block share.
func scope(name string) string {
	name = strings.TrimSuffix(name, "/"+name[strings.LastIndexByte(name, '/')+1:]) // exporters put the operator last
	if i := strings.LastIndexAny(name, "/."); i > 0 {
		return name[:i]
	}
	return name
}

// Baseline is what another criterion would have left at the same target, before any repair.
type Baseline struct {
	Criterion string  `json:"criterion"`
	Agreement float64 `json:"agreement"` // on the select images, like that of repairs
	MACs      int64   `json:"macs"`      // what is left
}

// baselines cuts the original once by each criterion and looks at the select images. It needs the scores that the first
// step has made. A criterion that finds nothing in the model to go by is left out.
func (r *run) baselines(ctx context.Context) error {
	if !r.opt.Baselines || r.step > 0 {
		return nil
	}
	own := func(name string) bool { return name == r.opt.Criterion }
	names := append([]string{r.opt.Criterion}, slices.DeleteFunc(Criteria(), own)...)
	for i, name := range names {
		r.progress("compare", i, len(names))
		imp := r.importance
		if name != r.opt.Criterion {
			var err error
			if imp, err = criteria[name].score(r, ctx); errors.Is(err, errNoScales) {
				continue
			} else if err != nil {
				return fmt.Errorf("criterion %s: %w", name, err)
			}
			imp = normalise(r.analysis, imp, r.opt.Normalise)
		}
		b := r.budget()
		b.opt.Criterion = name
		left := r.costs()
		remove, err := choose(r.analysis, imp, left, b)
		if err != nil {
			return err
		}
		q, err := r.without(ctx, remove)
		if err != nil {
			return err
		}
		r.compared = append(r.compared, Baseline{name, q, left.of("macs")})
	}
	return nil
}
