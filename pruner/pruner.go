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
	"regexp"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/pruner/group"
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
	Distil      int    // epochs of self-distillation at most, behind the last step; 0: none
	Finetune    int    // epochs of training on the masks at most, behind that; 0: none
	Parent      string // SHA-256 in hex of the file that g was read from, for provenance; empty: of its encoding
	Threads     int    // cores to use; 0: all. The result does not depend on it
	Progress    func(Progress)
	Log         *slog.Logger // nil: silent

	// GroupBy finds in an image's name the patient or video that it is of; see gate.Options. nil: each is its own.
	GroupBy *regexp.Regexp
}

// DefaultDistil is how many epochs of self-distillation services run unless told otherwise.
const DefaultDistil = 5

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
	if err := r.split(fit, val); err != nil {
		return nil, err
	}
	type stage struct {
		what string
		do   func(context.Context) error
	}
	plan := []stage{{"analyze the model", r.analyze}, {"read the images", r.check}}
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
	fit, sel          *calib.Set
	val               *gate.Sealed
	labels, valLabels bool

	spec     vision.Spec
	classes  int // the largest index of a mask
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
	cache      map[int]*tensor.Tensor
	whole      *predict.Model        // the original, once it has been asked
	part       func(done, total int) // reports progress of the repair under way

	pruned      *graph.Graph
	repairs     RepairReport
	verdict     *gate.Result
	pictures    []Picture
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
