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
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/latency"
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
	Round       int     // leave a multiple of Round channels in a layer; 0: 1, or with a target of time what its table says
	// Keep names layers, by their own name or their output's, that lose no channel.
	Keep *regexp.Regexp
	// Criterion says how channels are scored, one of Criteria; empty: DefaultCriterion. Normalise, one of Normalisations, says
	// what makes scores of different layers comparable; empty: raw.
	Criterion, Normalise string
	// Latency is a table measured before, for targets of time; nil: a new one is measured.
	Latency *latency.Table
	// Baselines has the report say what the other criteria would have left, before any repair. Sensitivity has it say what
	// each layer's loss does alone.
	Baselines, Sensitivity bool
	Steps                  int // remove in so many steps, scoring and repairing anew in each; 0: 1
	NoRepair               bool
	Distil                 int    // epochs of self-distillation at most, behind the last step; 0: none
	Finetune               int    // epochs of training on the masks at most, behind that; 0: none
	Parent                 string // SHA-256 in hex of the file that g was read from; empty: of its encoding
	Threads                int    // cores to use; 0: all. The result does not depend on it
	// Save, if set, is given all that it takes to go on if the run is broken off: after each epoch of training, and once a
	// latency table is measured. Its error ends the run. With what it was given last as Resume the same run goes on from there and
	// gives the same bytes; see ErrResume.
	Save     func([]byte) error
	Resume   []byte // nil: begin
	Progress func(Progress)
	Log      *slog.Logger // nil: silent

	// GroupBy finds in an image's name the patient or video that it is of; see gate.Options. nil: each is its own.
	GroupBy *regexp.Regexp
}

// check says what of the options cannot be. They have their defaults already: what is out of range was given.
func (o Options) check() error {
	if err := o.Target.check(); err != nil {
		return err
	}
	for _, v := range []struct {
		name string
		is   float64
	}{{"delta", o.Delta}, {"agreement", o.Agreement}, {"max layer", o.MaxLayer}} {
		if !(v.is > 0 && v.is <= 1) {
			return fmt.Errorf("%s %g: want more than 0 and at most 1", v.name, v.is)
		}
	}
	for _, v := range []struct {
		name string
		is   int
	}{{"steps", o.Steps}, {"round", o.Round}, {"min channels", o.MinChannels}, {"distil", o.Distil}, {"finetune", o.Finetune}} {
		if v.is < 0 {
			return fmt.Errorf("%s %d: want 0 or more", v.name, v.is)
		}
	}
	if criteria[o.Criterion].score == nil {
		return fmt.Errorf("criterion %q: there are %s", o.Criterion, strings.Join(Criteria(), ", "))
	}
	if !slices.Contains(Normalisations(), o.Normalise) {
		return fmt.Errorf("normalisation %q: there are %s", o.Normalise, strings.Join(Normalisations(), ", "))
	}
	if o.Target.Kind == "auto" && o.Steps > 1 {
		return fmt.Errorf("target auto and sweeps try cuts of one step; leave out steps, or give one target")
	}
	if o.Target.Kind == "auto" && (o.Baselines || o.Sensitivity) { // a sweep's too
		return fmt.Errorf("baselines and sensitivity are looked at for one target; leave them out of a sweep or of target auto, or give a target")
	}
	return nil
}

// DefaultDistil is how many epochs of self-distillation services run unless told otherwise.
const DefaultDistil = 10

func (o Options) withDefaults() Options {
	o.Delta, o.Agreement, o.MaxLayer = cmp.Or(o.Delta, 0.01), cmp.Or(o.Agreement, 0.97), cmp.Or(o.MaxLayer, 0.9)
	o.MinChannels, o.Steps = cmp.Or(o.MinChannels, 1), cmp.Or(o.Steps, 1)
	o.Criterion, o.Normalise = cmp.Or(o.Criterion, DefaultCriterion), cmp.Or(o.Normalise, "raw")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Progress says how far a run has come. Stages come in the order analyze, measure (targets of time), then score, sensitivity
// and compare (if asked for), select and repair in each step, then gate and report. A sweep has one stage of that name in
// place of the steps after score.
type Progress struct {
	Stage       string
	Done, Total int
	Fraction    float64 // of the whole run
}

// stages says where in a run each stage begins and how long it takes, about; score, select and repair where in a step.
var stages = map[string]struct{ from, share float64 }{
	"analyze": {0, 0.01}, "gate": {0.77, 0.2}, "report": {0.97, 0.03},
	"score": {0, 0.28}, "sensitivity": {0.28, 0.03}, "compare": {0.31, 0.02}, "select": {0.33, 0.01}, "repair": {0.34, 0.66},
	"measure": {0.01, 0}, "sweep": {0.2, 0.57},
}

// All steps begin at stepsFrom and take stepsShare.
const stepsFrom, stepsShare = 0.01, 0.76

// Result is a pruned model: as a graph, as the bytes of its file, and what is known of it.
type Result struct {
	Graph  *graph.Graph
	ONNX   []byte
	Report *Report
	// Latency is the table that a target of time was reached by; with it in Options the same run gives the same bytes.
	Latency *latency.Table
}

// Prune removes channels from g until the target is reached. fit are calibration images; val are held-out ones, or nil:
// then a part of fit is set apart for the verdict. It is an error if the two share an image. g is not changed. The
// result is there whatever the verdict; an error says what could not be done, and ctx's is passed on.
func Prune(ctx context.Context, g *graph.Graph, fit, val *calib.Set, opt Options) (*Result, error) {
	r, err := newRun(g, fit, val, opt)
	if err != nil {
		return nil, err
	}
	plan := r.prelude()
	if opt.Target.Kind == "auto" {
		plan = append(plan, stage{"score channels", r.score}, stage{"find the smallest model", r.auto})
	} else {
		plan = append(plan, r.steps()...)
	}
	if err := do(ctx, append(plan, stage{"judge the pruned model", r.judge}, stage{"write the report", r.finish})); err != nil {
		return nil, err
	}
	return &Result{Graph: r.pruned, ONNX: r.bytes, Report: r.report, Latency: r.table}, nil
}

// newRun checks what is asked for. What the images show is not known yet.
func newRun(g *graph.Graph, fit, val *calib.Set, opt Options) (*run, error) {
	opt = opt.withDefaults()
	if err := opt.check(); err != nil {
		return nil, err
	}
	r := &run{opt: opt, g: g, pool: kernel.NewPool(threads(opt.Threads)), once: newOnce()}
	return r, r.take(fit, val)
}

// stage is a part of a run.
type stage struct {
	what string
	do   func(context.Context) error
}

func do(ctx context.Context, plan []stage) error {
	for _, s := range plan {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

func (r *run) prelude() []stage {
	return []stage{{"analyze the model", r.analyze}, {"read the images", r.read}, {"take up the run that was broken off", r.resume}, {"measure the model", r.times}}
}

// steps cuts towards the target and repairs, as often as Options.Steps says.
func (r *run) steps() []stage {
	var plan []stage
	for range r.opt.Steps {
		plan = append(plan, stage{"score channels", r.score}, stage{"look at each layer", r.sensitivity}, stage{"compare criteria", r.baselines})
		plan = append(plan, r.reduce()...)
	}
	return plan
}

// reduce is the part of a step that comes after scores.
func (r *run) reduce() []stage {
	return []stage{{"select channels", r.choose}, {"repair the pruned model", r.repair}}
}

// run is a pruning under way.
type run struct {
	opt  Options
	g    *graph.Graph
	pool *kernel.Pool

	calibration       string     // hash of the set that was given
	fit, sel          *calib.Set // until they are split, fit is all that are not held out
	val               *gate.Sealed
	labels, valLabels bool
	parts             []float64 // that the calibration images were split into
	duplicates        int       // calibration images left out because another is the same picture

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
	cut        *graph.Graph   // before repair
	table      *latency.Table // nil but for targets of time
	once       *once
	saved      *saved
	known      map[judged]float64    // what the repair under way knows of the select images
	part       func(done, total int) // reports progress of the repair under way

	chosen      Target  // by auto
	predicted   float64 // milliseconds, by the latency table
	pruned      *graph.Graph
	repairs     RepairReport
	compared    []Baseline
	sensitive   []Sensitivity
	curve       *Curve
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
	switch stage {
	case "score", "sensitivity", "compare", "select", "repair":
		f = stepsFrom + stepsShare*(float64(r.step)+f)/float64(r.opt.Steps)
	}
	r.opt.Progress(Progress{stage, done, total, min(f, 1)})
}
