package pruner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
)

// Curve is how a model does at several sizes, on images that choices are made with: no point of it is a verdict.
type Curve struct {
	Kind     string       `json:"kind"`     // what the targets count
	Labelled bool         `json:"labelled"` // Dice against masks; else against the original's own
	Images   int          `json:"images"`   // with something to find
	Input    string       `json:"input"`
	Original float64      `json:"original"` // the uncut model's Dice; 1 without labels
	Line     float64      `json:"line"`     // what the gate asks of the mean
	Base     [2]int64     `json:"base"`     // the uncut model's multiply-adds and parameters
	Threads  int          `json:"threads"`
	NoRepair bool         `json:"no_repair,omitempty"` // points have neither Cut nor Repaired nor Kept
	Points   []CurvePoint `json:"points"`              // in the order that they were tried
	End      string       `json:"end,omitempty"`       // why there are no more, if more were asked for
	// Knee is the index of what is recommended; -1 if nothing is. It is the smallest model that passes the gate's rule on the
	// select images, with no larger one's mean below the line. Where these images are too few for any to pass, By is "mean",
	// else "bound", and it is the smallest whose own mean is not below the line either.
	Knee  int         `json:"knee"`
	By    string      `json:"by,omitempty"`
	Model string      `json:"model"`
	Hash  string      `json:"parent"` // SHA-256 of the original
	Seed  uint64      `json:"seed"`
	Split ImageCounts `json:"images_used"`
}

// CurvePoint is one cut and repaired model.
type CurvePoint struct {
	Target     string        `json:"target"`
	Trained    bool          `json:"trained"` // whether repairs that train were tried
	MACs       int64         `json:"macs"`
	Parameters int64         `json:"parameters"`
	Latency    Latency       `json:"latency"`
	Dice       gate.Interval `json:"dice"` // with one-sided 97.5 % bounds
	Cut        float64       `json:"cut"`  // agreement with the original before repair, and behind it
	Repaired   float64       `json:"repaired"`
	Kept       string        `json:"repair"`   // what repairs were kept
	Forecast   string        `json:"forecast"` // what the gate's rule says on these images
}

// Range is the targets of a sweep.
type Range struct {
	Kind           string
	From, To, Step float64
}

// ParseRange reads "0.1:0.8:0.1", of macs, or "params=0.2:0.6:0.2": the parts to remove, from, to, and how far apart.
func ParseRange(s string) (Range, error) {
	kind, list, ok := strings.Cut(strings.TrimSpace(s), "=")
	if !ok {
		kind, list = "macs", kind
	}
	rg := Range{Kind: strings.ToLower(strings.TrimSpace(kind))}
	fields := strings.Split(list, ":")
	bad := func(why string) (Range, error) {
		return Range{}, fmt.Errorf("sweep %q: %s; want FROM:TO:STEP, the parts to remove, as in 0.1:0.8:0.1 or params=0.2:0.6:0.2", s, why)
	}
	if len(fields) != 3 {
		return bad(fmt.Sprintf("%d numbers", len(fields)))
	}
	for i, p := range []*float64{&rg.From, &rg.To, &rg.Step} {
		v, err := strconv.ParseFloat(strings.TrimSpace(fields[i]), 64)
		if err != nil {
			return bad(fmt.Sprintf("%q is not a number", fields[i]))
		}
		*p = v
	}
	switch rg.Kind {
	case "macs", "params", "filters":
	default:
		return bad(fmt.Sprintf("%q cannot be counted; there are macs, params and filters", rg.Kind))
	}
	if !(rg.From > 0 && rg.From <= rg.To && rg.To < 1 && rg.Step > 0) || (rg.To-rg.From)/rg.Step > 100 {
		return bad("want 0 < FROM <= TO < 1 and at most 100 steps")
	}
	return rg, nil
}

// Targets lists them.
func (rg Range) Targets() []Target {
	var ts []Target
	for i := 0; ; i++ {
		v := math.Round((rg.From+float64(i)*rg.Step)*1e6) / 1e6
		if v > rg.To+1e-9 {
			return ts
		}
		ts = append(ts, Target{rg.Kind, v})
	}
}

// Sweep cuts g to each of the targets, repairs, and looks at the results on the select images. It is given no held-out
// images; of fit, those are left alone that Prune would keep for its verdict if it were given none either. Options.Target
// does not count.
func Sweep(ctx context.Context, g *graph.Graph, fit *calib.Set, rg Range, opt Options) (*Curve, error) {
	opt.Target = Target{Kind: "auto"}
	r, err := newRun(g, fit, nil, opt)
	if err != nil {
		return nil, err
	}
	plan := append(r.prelude(), stage{"score channels", r.score}, stage{"sweep", func(ctx context.Context) error {
		targets := rg.Targets()
		for i, t := range targets {
			_, err := r.try(ctx, t, i, len(targets), opt.Distil, opt.Finetune)
			if errors.Is(err, ErrUnreachable) && i > 0 {
				r.curve.End = err.Error()
				break
			}
			if err != nil {
				return err
			}
		}
		r.curve.knee(opt.Distil > 0 || opt.Finetune > 0)
		return nil
	}})
	if err := do(ctx, plan); err != nil {
		return nil, err
	}
	r.progress("report", 1, 1)
	return r.curve, nil
}

// auto tries cuts of more and more multiply-adds without training until the mean on the select images falls below the line,
// takes the one that the curve recommends, and goes on from there with all repairs as long as they are as good. What it ends
// at goes to the gate.
func (r *run) auto(ctx context.Context) error {
	const step, most = 0.1, 9
	tried := make([]*run, most+1)
	for i := 1; i <= most; i++ {
		c, err := r.try(ctx, Target{"macs", step * float64(i)}, i-1, most+4, 0, 0)
		if errors.Is(err, ErrUnreachable) && i > 1 {
			break
		}
		if err != nil {
			return err
		}
		if tried[i] = c; r.curve.below() {
			break
		}
	}
	r.curve.knee(false)
	at := r.curve.Knee + 1
	best := tried[at]
	if r.opt.Distil > 0 || r.opt.Finetune > 0 {
		for i := max(at, 1); i <= most; i++ {
			c, err := r.try(ctx, Target{"macs", step * float64(i)}, most+i-max(at, 1), most+4, r.opt.Distil, r.opt.Finetune)
			if errors.Is(err, ErrUnreachable) {
				break
			}
			if err != nil {
				return err
			}
			last := len(r.curve.Points) - 1
			if r.curve.below() || r.curve.By == "bound" && r.curve.Points[last].Forecast != gate.Pass {
				break
			}
			best, r.curve.Knee = c, last
		}
	}
	if best == nil {
		return fmt.Errorf("even with %.0f %% of the multiply-adds gone the mean on the %d select images is below %.4f; give a target if you want one nevertheless", 100*step, r.curve.Images, r.curve.Line)
	}
	r.kept, r.cut, r.pruned, r.repairs, r.step = best.kept, best.cut, best.pruned, best.repairs, best.step
	r.chosen = best.opt.Target
	return nil
}

// try cuts the original to a target and repairs it, as Prune would, and adds the result to the curve. It is the i-th of so
// many.
func (r *run) try(ctx context.Context, t Target, i, n, distil, finetune int) (*run, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := *r
	c.opt.Target, c.opt.Distil, c.opt.Finetune = t, distil, finetune
	c.opt.Progress = func(p Progress) {
		part := (p.Fraction - stepsFrom) / stepsShare
		r.progress("sweep", int(1000*(float64(i)+min(max(part, 0), 1))), 1000*n)
	}
	c.kept = maps.Clone(r.kept)
	// The first step has its scores already; what they are is the same at every target.
	plan := c.reduce()
	for range c.opt.Steps - 1 {
		plan = append(append(plan, stage{"score channels", c.score}), c.reduce()...)
	}
	if err := do(ctx, plan); err != nil {
		return nil, fmt.Errorf("target %v: %w", t, err)
	}
	return &c, r.point(ctx, &c)
}

// point adds what c has come to to the curve.
func (r *run) point(ctx context.Context, c *run) error {
	original, pruned, err := r.models(c.pruned)
	if err != nil {
		return err
	}
	v, err := gate.Measure(ctx, original, pruned, r.sel, gate.Options{
		Unlabelled: !r.labels, Delta: r.opt.Delta, Agreement: r.opt.Agreement, GroupBy: r.opt.GroupBy, Seed: r.opt.Seed,
	})
	if err != nil {
		return err
	}
	if r.curve == nil {
		r.curve = &Curve{
			Kind: c.opt.Target.counts(), Labelled: v.Labelled, Images: v.N, Input: r.in[0].String(), Original: 1, Line: r.opt.Agreement,
			Base: [2]int64{r.base.MACs, r.base.Parameters}, Threads: r.pool.Workers(), NoRepair: r.opt.NoRepair, Model: r.g.Name, Hash: r.opt.Parent, Seed: r.opt.Seed,
			Split: ImageCounts{Fit: len(r.fit.Items), Select: len(r.sel.Items), Duplicates: r.duplicates}, Knee: -1,
		}
		if v.Labelled && v.Original != nil {
			r.curve.Original, r.curve.Line = v.Original.Dice, v.Original.Dice-r.opt.Delta
		}
	}
	p := CurvePoint{
		Trained: c.opt.Distil > 0 || c.opt.Finetune > 0,
		Target:  c.opt.Target.String(), Dice: v.Agreement, Cut: c.repairs.Before, Repaired: c.repairs.After, Kept: c.repairs.Kept(), Forecast: v.Verdict,
	}
	if v.Labelled && v.Difference != nil {
		p.Dice = *v.Difference
		p.Dice.Mean, p.Dice.Lower, p.Dice.Upper = r.curve.Original+p.Dice.Mean, r.curve.Original+p.Dice.Lower, r.curve.Original+p.Dice.Upper
	}
	after, err := engine.Count(c.pruned, r.in)
	if err != nil {
		return err
	}
	p.MACs, p.Parameters = after.MACs, after.Parameters
	if p.Latency, err = r.latency(ctx, c.pruned); err != nil {
		return err
	}
	r.curve.Points = append(r.curve.Points, p)
	r.opt.Log.Info("tried", "target", p.Target, "macs", p.MACs, "dice", p.Dice.Mean, "line", r.curve.Line)
	return nil
}

// below reports whether the model tried last does worse than the gate asks for.
func (c *Curve) below() bool { return c.Points[len(c.Points)-1].Dice.Mean < c.Line }

// knee finds what to recommend of the points that were trained, or were not, which go from large models to small ones.
func (c *Curve) knee(trained bool) {
	c.Knee, c.By = -1, "mean"
	for i, p := range c.Points {
		if p.Trained != trained {
			continue
		}
		if p.Dice.Mean < c.Line {
			return
		}
		switch pass := p.Forecast == gate.Pass; {
		case pass:
			c.Knee, c.By = i, "bound"
		case c.By == "mean":
			c.Knee = i
		}
	}
}

// JSON is the curve as one document.
func (c *Curve) JSON() []byte {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("pruner: a curve does not marshal: %v", err)) // it holds finite numbers and strings
	}
	return append(b, '\n')
}
