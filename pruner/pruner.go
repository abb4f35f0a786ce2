// Package pruner makes a segmentation model smaller and says how sure it is that the smaller one is no worse.
//
// [Prune] is the pipeline: infer shapes, find which channels stand or fall together (package group), score them by
// TaylorFO on the calibration images (package score), choose the smallest cut that reaches the target (budget.go), cut
// it from the graph (package rewrite), repair the weights that read what is left (package repair), and judge the result
// on held-out images (package gate). report.go writes down what was done. RATIONALE.md says why,
// with figures.
//
// Images are split by the hash of their content: fit serves scores and repair, select the decision whether a repair
// is kept, gate the verdict alone.
package pruner

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/pruner/grad"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/repair"
	"github.com/secateur/secateur/pruner/rewrite"
	"github.com/secateur/secateur/pruner/score"
)

// Options tunes Prune. Target must be set; all else has the defaults given.
type Options struct {
	Target      Target
	Unlabelled  bool    // score and judge without masks even where the set has them
	Delta       float64 // labelled gate: how much mean Dice may be lost; 0: 0.01
	Agreement   float64 // unlabelled gate: the least mean Dice(original, pruned); 0: 0.97
	Seed        uint64
	MaxLayer    float64 // the largest part of a layer's channels that may go; 0: 0.9
	MinChannels int     // the fewest channels a layer keeps; 0: 1
	Round       int     // leave a multiple of Round channels in a layer; 0: 1
	Steps       int     // remove in so many steps, scoring and repairing anew in each; 0: 1
	NoRepair    bool
	Parent      string // SHA-256 in hex of the file that g was read from, for provenance; empty: of its encoding
	Threads     int    // cores to use; 0: all. The result does not depend on it
	Progress    func(Progress)
	Log         *slog.Logger // nil: silent
}

func (o Options) withDefaults() Options {
	if o.Delta <= 0 {
		o.Delta = 0.01
	}
	if o.Agreement <= 0 {
		o.Agreement = 0.97
	}
	if o.MaxLayer <= 0 || o.MaxLayer > 1 {
		o.MaxLayer = 0.9
	}
	o.MinChannels, o.Round, o.Steps = max(o.MinChannels, 1), max(o.Round, 1), max(o.Steps, 1)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Progress says how far a run has come. Stages come in the order analyze, then score, select and repair in each step,
// then gate and report.
type Progress struct {
	Stage       string
	Done, Total int
	Fraction    float64 // of the whole run
}

// stages says where in a run each stage begins and how long it takes, about; score, select and repair where in a step.
var stages = map[string]struct{ from, share float64 }{
	"analyze": {0, 0.01}, "gate": {0.77, 0.2}, "report": {0.97, 0.03},
	"score": {0, 0.33}, "select": {0.33, 0.01}, "repair": {0.34, 0.66},
}

// All steps begin at stepsFrom and take stepsShare.
const stepsFrom, stepsShare = 0.01, 0.76

// Result is a pruned model: as a graph, as the bytes of its file, and what is known of it.
type Result struct {
	Graph  *graph.Graph
	ONNX   []byte
	Report *Report
}

// Prune removes channels from g until the target is reached. fit are calibration images; val are held-out ones, or nil:
// then a part of fit is set apart for the verdict. It is an error if the two share an image. g is not changed. The
// result is there whatever the verdict; an error says what could not be done, and ctx's is passed on.
func Prune(ctx context.Context, g *graph.Graph, fit, val *calib.Set, opt Options) (*Result, error) {
	opt = opt.withDefaults()
	if err := opt.Target.check(); err != nil {
		return nil, err
	}
	r := &run{opt: opt, g: g, pool: kernel.NewPool(threads(opt.Threads))}
	defer r.pool.Close()
	if err := r.split(fit, val); err != nil {
		return nil, err
	}
	type stage struct {
		what string
		do   func(context.Context) error
	}
	plan := []stage{{"analyze the model", r.analyze}}
	for range r.opt.Steps {
		plan = append(plan, stage{"score channels", r.score}, stage{"select channels", r.choose}, stage{"repair the pruned model", r.repair})
	}
	plan = append(plan, stage{"judge the pruned model", r.judge}, stage{"write the report", r.finish})
	for _, s := range plan {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.do(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return &Result{Graph: r.pruned, ONNX: r.bytes, Report: r.report}, nil
}

// run is a pruning under way.
type run struct {
	opt  Options
	g    *graph.Graph
	pool *kernel.Pool

	calibration       string // hash of the set that was given
	fit, sel, val     *calib.Set
	labels, valLabels bool

	spec     vision.Spec
	in       []tensor.Type
	base     engine.Cost
	original *group.Analysis  // of g
	kept     map[string][]int // channels of g that each layer still yields, by its output

	// The step under way: what it starts from and ends with.
	step       int
	current    *graph.Graph
	cost       engine.Cost
	analysis   *group.Analysis
	importance map[int]float64
	cut        *graph.Graph // before repair
	cache      []*tensor.Tensor

	pruned      *graph.Graph
	repairs     RepairReport
	verdict     *gate.Result
	bytes       []byte
	parentBytes int64
	report      *Report
}

func (r *run) progress(stage string, done, total int) {
	if r.opt.Progress == nil {
		return
	}
	at := stages[stage]
	f := at.from + at.share*float64(done)/float64(max(total, 1))
	if stage == "score" || stage == "select" || stage == "repair" {
		f = stepsFrom + stepsShare*(float64(r.step)+f)/float64(r.opt.Steps)
	}
	r.opt.Progress(Progress{stage, done, total, min(f, 1)})
}

// split sets images apart.
func (r *run) split(fit, val *calib.Set) error {
	if fit == nil || len(fit.Items) < 2 {
		return fmt.Errorf("pruning takes at least 2 calibration images: %w", calib.ErrEmpty)
	}
	r.calibration = fit.Hash
	if val == nil {
		if len(fit.Items) < 3 {
			return fmt.Errorf("pruning without held-out images takes at least 3 calibration images, there are %d", len(fit.Items))
		}
		parts := fit.Split(0.6, 0.15, 0.25)
		r.fit, r.sel, r.val = parts[0], parts[1], parts[2]
	} else {
		if len(val.Items) == 0 {
			return fmt.Errorf("the held-out set: %w", calib.ErrEmpty)
		}
		if both := fit.Overlap(val); len(both) > 0 {
			return fmt.Errorf("%d images are both in the calibration and in the held-out set (%s): the verdict would mean nothing", len(both), strings.Join(both[:min(len(both), 3)], ", "))
		}
		parts := fit.Split(0.8, 0.2)
		r.fit, r.sel, r.val = parts[0], parts[1], val
	}
	r.labels = fit.Labelled && !r.opt.Unlabelled
	r.valLabels = r.val.Labelled && !r.opt.Unlabelled
	return nil
}

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
	return nil
}

// look finds cost and classes of the current graph.
func (r *run) look() error {
	info, err := engine.Infer(r.current, r.in, tensor.Float32)
	if err != nil {
		return err
	}
	r.cost = engine.CountInferred(r.current, info)
	r.analysis, err = group.Analyze(r.current, info)
	return err
}

// input prepares one image at the serving shape.
func (r *run) input(it *calib.Item) (*tensor.Tensor, error) {
	img, err := vision.Decode(it.Image, vision.Limits{})
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", it.Name, err)
	}
	x := tensor.New(tensor.Float32, r.in[0].Shape...)
	if err := r.spec.Prepare(x, img); err != nil {
		return nil, fmt.Errorf("image %q: %w", it.Name, err)
	}
	return x, nil
}

func (r *run) score(ctx context.Context) error {
	logits, _ := score.Logits(r.current)
	examples := score.Examples{N: len(r.fit.Items), At: func(i int) (score.Example, error) {
		it := &r.fit.Items[i]
		x, err := r.input(it)
		if err != nil || !r.labels {
			return score.Example{Input: x}, err
		}
		truth, err := vision.DecodeMask(it.Mask, vision.Limits{})
		if err != nil {
			return score.Example{}, fmt.Errorf("mask of image %q: %w", it.Name, err)
		}
		return score.Example{Input: x, Truth: truth}, nil
	}}
	r.progress("score", 0, examples.N)
	edges := r.analysis.Edges()
	s, err := score.TaylorFO(ctx, r.current, r.in, logits, examples, edges, score.Options{
		Labels: r.labels, Seed: r.opt.Seed, Pool: r.pool, Progress: func(done, total int) { r.progress("score", done, total) },
	})
	if err != nil {
		return err
	}
	r.importance = importance(r.analysis, edges, s)
	return nil
}

// importance is that of each class that can be removed: over all places where weights read it.
func importance(a *group.Analysis, edges []grad.Edge, s *score.Scores) map[int]float64 {
	at := map[int][]score.At{}
	for _, e := range edges {
		for p, id := range a.EdgeClasses(e) {
			if id >= 0 {
				at[id] = append(at[id], score.At{Edge: e, Position: p})
			}
		}
	}
	imp := map[int]float64{}
	for _, id := range a.Free() {
		imp[id] = s.Importance(at[id], score.Abs)
	}
	return imp
}

func (r *run) choose(context.Context) error {
	r.progress("select", 0, 1)
	remove, err := choose(r.analysis, r.importance, r.cost, r.budget())
	if err != nil {
		return err
	}
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
	whole := newCosts(r.original, r.base).of(r.opt.Target.Kind)
	part := r.opt.Target.Fraction * float64(r.step+1) / float64(r.opt.Steps)
	b := budget{opt: r.opt, from: whole, goal: whole - int64(math.Ceil(part*float64(whole)-1e-6)), least: map[string]int{}}
	for _, l := range r.original.Layers() {
		b.least[l.Node.Outputs[0].Name] = max(r.opt.MinChannels, l.Channels-int(r.opt.MaxLayer*float64(l.Channels)), 1)
	}
	return b
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

// repair refits the cut model, and keeps the result if it does better on the select images.
func (r *run) repair(ctx context.Context) error {
	defer func() { r.step++ }()
	if r.opt.NoRepair {
		return nil
	}
	if r.cache == nil {
		r.cache = make([]*tensor.Tensor, len(r.fit.Items))
	}
	images := repair.Images{N: len(r.cache), At: func(i int) (*tensor.Tensor, error) {
		if r.cache[i] == nil {
			var err error
			if r.cache[i], err = r.input(&r.fit.Items[i]); err != nil {
				return nil, err
			}
		}
		return r.cache[i], nil
	}}
	r.progress("repair", 0, 1)
	fixed, stats, err := repair.Ridge(ctx, r.g, r.cut, r.kept, r.in, images, repair.Options{
		Seed: r.opt.Seed, Pool: r.pool, Progress: func(done, total int) { r.progress("repair", done, total+1) },
	})
	if err != nil {
		return err
	}
	r.repairs = RepairReport{Method: "ridge least squares", Stats: stats}
	if r.repairs.Before, err = r.quality(ctx, r.cut); err != nil {
		return err
	}
	if r.repairs.After, err = r.quality(ctx, fixed); err != nil {
		return err
	}
	r.repairs.Images = len(r.sel.Items)
	r.repairs.Kept = r.repairs.After > r.repairs.Before
	r.opt.Log.Info("repaired", "step", r.step+1, "before", r.repairs.Before, "after", r.repairs.After, "kept", r.repairs.Kept)
	if !r.repairs.Kept {
		return nil
	}
	return r.next(fixed)
}

func (r *run) model(g *graph.Graph) (*predict.Model, error) {
	return predict.New(g, predict.Options{Engine: engine.Options{Pool: r.pool}, Spec: &r.spec})
}

// quality is the mean Dice of g on the select images: against the masks, or without them against the original.
func (r *run) quality(ctx context.Context, g *graph.Graph) (float64, error) {
	original, err := r.model(r.g)
	if err != nil {
		return 0, err
	}
	pruned, err := r.model(g)
	if err != nil {
		return 0, err
	}
	v, err := gate.Judge(ctx, original, pruned, r.sel, gate.Options{Unlabelled: !r.labels, Resamples: 1})
	if err != nil {
		return 0, err
	}
	if v.Labelled && v.Pruned != nil {
		return v.Pruned.Dice, nil
	}
	return v.Agreement.Mean, nil
}

func (r *run) judge(ctx context.Context) error {
	original, err := r.model(r.g)
	if err != nil {
		return err
	}
	pruned, err := r.model(r.pruned)
	if err != nil {
		return err
	}
	r.verdict, err = gate.Judge(ctx, original, pruned, r.val, gate.Options{
		Unlabelled: !r.valLabels, Delta: r.opt.Delta, Agreement: r.opt.Agreement, Seed: r.opt.Seed,
		Progress: func(done, total int) { r.progress("gate", done, total) },
	})
	return err
}
