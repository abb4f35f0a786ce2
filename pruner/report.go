package pruner

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/pruner/repair"
	"github.com/secateur/secateur/pruner/score"
	"github.com/secateur/secateur/pruner/train"
)

// Report is what a run did and found.
type Report struct {
	Verdict  string `json:"verdict"`  // pass, fail or cannot tell
	Sentence string `json:"sentence"` // the verdict with its reason
	Model    string `json:"model"`    // the graph's name
	Target   string `json:"target"`
	Input    string `json:"input"` // the input type that figures are given at

	Parameters Change `json:"parameters"`
	MACs       Change `json:"macs"`
	Filters    Change `json:"filters"` // channels of all layers that have their own
	Bytes      Change `json:"bytes"`
	// Latency is the median of interleaved runs of the network alone, in milliseconds, on this machine.
	Latency Latency `json:"latency"`

	// Curve is what target auto chose from. Baselines and Sensitivity are there if they were asked for.
	Curve       *Curve        `json:"curve,omitempty"`
	Baselines   []Baseline    `json:"baselines,omitempty"`
	Sensitivity []Sensitivity `json:"sensitivity,omitempty"`

	Layers []LayerReport `json:"layers"`
	Repair RepairReport  `json:"repair"`
	Gate   *gate.Result  `json:"gate"`
	// Pictures are of the worst held-out images, the worst first. Only the page has them.
	Pictures []Picture `json:"-"`

	Images ImageCounts `json:"images"`
	Hashes Hashes      `json:"hashes"`
	Repeat Repeat      `json:"repeat"`
}

// Change is a figure before and after.
type Change struct {
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// Removed is the part that went, in percent.
func (c Change) Removed() float64 {
	if c.Before == 0 {
		return 0
	}
	return 100 * (1 - float64(c.After)/float64(c.Before))
}

// Latency in milliseconds.
type Latency struct {
	Before  float64 `json:"before_ms"`
	After   float64 `json:"after_ms"`
	Threads int     `json:"threads"`
	Runs    int     `json:"runs"`
	// Table says what a target of time was reached by; nil without one.
	Table *LatencyForecast `json:"table,omitempty"`
}

// LatencyForecast is what a latency table predicted.
type LatencyForecast struct {
	CPU     string `json:"cpu"` // that the table is of
	ISA     string `json:"isa"`
	Threads int    `json:"threads"`
	// Asked is what the target asks of what was measured, in milliseconds. Before and After are of the table. Off is by what
	// part After, brought to the speed at which the original ran just now, differs from what was measured.
	Asked  float64 `json:"asked_ms"`
	Before float64 `json:"before_ms"`
	After  float64 `json:"after_ms"`
	Off    float64 `json:"off"`
	Error  float64 `json:"error"` // the table's own, over the cuts that it was made from
	Round  int     `json:"round"`
}

// Outcome says whether what was measured is what the target asked for.
func (l Latency) Outcome() string {
	asked := l.Table.Asked
	s := fmt.Sprintf("the target, %.1f ms here, is reached: %.1f ms", asked, l.After)
	if l.After > asked {
		s = fmt.Sprintf("the target, %.1f ms here, is missed by %.1f %%: %.1f ms. Ask for less time, or measure the table anew on a quiet machine", asked, 100*(l.After/asked-1), l.After)
	}
	if l.Table.Threads != l.Threads {
		s += fmt.Sprintf(". The table is of %d threads, this is measured with %d", l.Table.Threads, l.Threads)
	}
	return s
}

// LayerReport is one layer's channels before and after.
type LayerReport struct {
	Name     string `json:"name"`
	Op       string `json:"op"`
	Before   int    `json:"before"`
	After    int    `json:"after"`
	Prunable int    `json:"prunable"`
	Pinned   string `json:"pinned,omitempty"` // why the others cannot go
	Follows  bool   `json:"follows,omitempty"`
}

// RepairReport says what repairs were tried, in order, and what each gave.
type RepairReport struct {
	Steps  []RepairStep `json:"steps,omitempty"`
	Before float64      `json:"before"` // mean Dice against the original on the select images
	After  float64      `json:"after"`
	Images int          `json:"images"` // select images
}

// RepairStep is one repair, whose result is kept only if it does better on the select images than what was there.
type RepairStep struct {
	Method string        `json:"method"`
	Kept   bool          `json:"kept"`
	Before float64       `json:"before"` // mean Dice against the original, or for fine-tuning against the masks
	After  float64       `json:"after"`
	Ridge  *repair.Stats `json:"ridge,omitempty"`
	Tried  []Tried       `json:"tried,omitempty"` // by ridge least squares
	Norms  int           `json:"norms,omitempty"` // BatchNormalizations recalibrated
	Train  *train.Stats  `json:"train,omitempty"`
}

// Tried is a strength of the regularisation and what it gave on the select images.
type Tried struct {
	Lambda float64 `json:"lambda"`
	After  float64 `json:"after"`
}

// Kept names the methods whose result was kept, or says "none".
func (r RepairReport) Kept() string {
	var names []string
	for _, s := range r.Steps {
		if s.Kept {
			names = append(names, s.Method)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

// ImageCounts says how many images served what.
type ImageCounts struct {
	Fit    int `json:"fit"`
	Select int `json:"select"`
	Gate   int `json:"gate"`
	// Duplicates is how many calibration images were left out because another is the same picture. Those of the held-out
	// images are counted by the gate.
	Duplicates int `json:"duplicates,omitempty"`
}

// Hashes are SHA-256 sums in hex of the original and the pruned file and of the image sets.
type Hashes struct {
	Parent      string `json:"parent"`
	Child       string `json:"child"`
	Calibration string `json:"calibration"`
	Gate        string `json:"gate"`
}

// Repeat is what it takes to do the run again.
type Repeat struct {
	Target      string  `json:"target"`
	Labels      bool    `json:"labels"`
	Seed        uint64  `json:"seed"`
	Delta       float64 `json:"delta"`
	Agreement   float64 `json:"agreement"`
	MaxLayer    float64 `json:"max_layer"`
	MinChannels int     `json:"min_channels"`
	Round       int     `json:"round"`
	Steps       int     `json:"steps"`
	Keep        string  `json:"keep,omitempty"`
	Repair      bool    `json:"repair"`
	Distil      int     `json:"distil"`
	Finetune    int     `json:"finetune"`
	GroupBy     string  `json:"group_by,omitempty"`
	Criterion   string  `json:"criterion"`
	// Probes is how many random probes an image was scored with; 0 with labels.
	Probes int `json:"probes,omitempty"`
	// ISA is the instruction set of the kernels, the one thing of the machine that bytes depend on.
	ISA string `json:"isa"`
	// Table is the SHA-256 of the latency table, for targets of time.
	Table string `json:"latency_table,omitempty"`
}

// Overshoot is how many points more went than the target asked for, where it asks for a part.
func (r *Report) Overshoot() float64 {
	t, err := ParseTarget(r.Repeat.Target)
	c, ok := map[string]Change{"macs": r.MACs, "params": r.Parameters, "filters": r.Filters}[t.Kind]
	if err != nil || !ok {
		return 0
	}
	return max(c.Removed()-100*t.Value, 0)
}

// JSON is the report as one document.
func (r *Report) JSON() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("pruner: a report does not marshal: %v", err)) // it holds finite numbers and strings
	}
	return append(b, '\n')
}

func (r *run) write(ctx context.Context, p provenance, after engine.Cost) error {
	v := r.verdict
	rep := &Report{
		Verdict: v.Verdict, Sentence: v.Sentence, Model: r.g.Name, Target: p.Target, Input: r.in[0].String(),
		Parameters: Change{r.base.Parameters, after.Parameters}, MACs: Change{r.base.MACs, after.MACs},
		Bytes:  Change{After: int64(len(r.bytes))},
		Repair: r.repairs, Gate: v, Pictures: r.pictures, Curve: r.curve, Baselines: r.compared, Sensitivity: r.sensitive,
		Images: ImageCounts{len(r.fit.Items), len(r.sel.Items), len(v.Images), r.duplicates},
		Hashes: Hashes{p.Parent, sum(r.bytes), p.Calibration, r.val.Hash()},
		Repeat: Repeat{r.opt.Target.String(), p.Labels, p.Seed, r.opt.Delta, r.opt.Agreement, p.MaxLayer, p.MinChannels, p.Round, p.Steps, p.Keep, !r.opt.NoRepair, r.opt.Distil, r.opt.Finetune, v.GroupBy, p.Criterion, 0, isa.Best().String(), p.Table},
	}
	if !p.Labels {
		rep.Repeat.Probes = score.Probes
	}
	for _, l := range r.original.Layers() {
		out := LayerReport{Name: l.Name, Op: l.Op, Before: l.Channels, After: len(r.kept[l.Node.Outputs[0].Name]), Prunable: l.Prunable, Pinned: l.Pinned, Follows: l.Follows}
		if !l.Follows {
			rep.Filters.Before += int64(out.Before)
			rep.Filters.After += int64(out.After)
		}
		rep.Layers = append(rep.Layers, out)
	}
	var err error
	if rep.Latency, err = r.latency(ctx, r.pruned); err != nil {
		return err
	}
	if t := r.table; t != nil {
		f := &LatencyForecast{CPU: t.CPU, ISA: t.ISA, Threads: t.Threads, Before: newCosts(r.original, r.base, t).ns / 1e6, After: r.predicted, Error: t.Error, Round: t.Round}
		if f.Asked = r.opt.Target.Value; r.opt.Target.Kind == "speedup" {
			f.Asked = rep.Latency.Before / r.opt.Target.Value
		}
		f.Off = f.After*rep.Latency.Before/f.Before/rep.Latency.After - 1
		rep.Latency.Table = f
	}
	rep.Bytes.Before = r.parentBytes
	r.report = rep
	return nil
}

// latency measures both models in turn, so that whatever else the machine does meets both.
func (r *run) latency(ctx context.Context, pruned *graph.Graph) (Latency, error) {
	const runs = 9
	l := Latency{Threads: r.pool.Workers(), Runs: runs}
	x := tensor.New(tensor.Float32, r.in[0].Shape...)
	var sessions []*engine.Session
	for _, g := range []*graph.Graph{r.g, pruned} {
		m, err := engine.Compile(g, r.in, engine.Options{Pool: r.pool})
		if err != nil {
			return l, err
		}
		sessions = append(sessions, m.NewSession())
	}
	times := make([][]float64, len(sessions))
	for i := range runs + 1 {
		for j, s := range sessions {
			start := time.Now()
			if _, err := s.Run(ctx, []*tensor.Tensor{x}); err != nil {
				return l, err
			}
			if i > 0 { // the first run warms caches
				times[j] = append(times[j], float64(time.Since(start))/float64(time.Millisecond))
			}
		}
	}
	for _, t := range times {
		slices.Sort(t)
	}
	l.Before, l.After = times[0][runs/2], times[1][runs/2]
	return l, nil
}

func threads(n int) int {
	if n <= 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}
