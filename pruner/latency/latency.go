// Package latency says how long a model will take at widths that it does not have yet.
//
// [Measure] runs a model, and cuts of it to other widths, on this machine and notes what each step of each run took: the
// [Table]. For a step that reads channels by weights, with u and v the parts of its input's and its output's channels that
// are left, the time is
//
//	t(u,v) = Base + PerIn·u + PerOut·v + PerPair·u·v
//
// with coefficients of at least zero, the ones that are least wrong, relatively, on what was measured. Of other steps only
// v counts. What a whole run takes is the sum over its steps, and a factor for what lies between them.
//
// A table is of one machine, one instruction set and one number of cores. It can be kept: a choice that is made by a table
// is made again by it, to the byte.
package latency

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/tensor"
)

// Table is what was measured of a model.
type Table struct {
	Model   string  `json:"model"` // SHA-256 of the file it is of
	Input   string  `json:"input"`
	CPU     string  `json:"cpu"`
	ISA     string  `json:"isa"`
	Threads int     `json:"threads"`
	Whole   float64 `json:"whole_ms"` // the uncut model's run
	Between float64 `json:"between"`  // what a run takes over the sum of its steps
	Round   int     `json:"round"`    // kept channels are best a multiple of this: 1 if widths cost what they are worth
	Error   float64 `json:"error"`    // mean |predicted-measured|/measured over the cuts
	Steps   []Step  `json:"steps"`
}

// Step is one step of the run. Its channels are those of the value Output and, where MACs is set, those that the layer reads
// that yields the value Layer.
type Step struct {
	Output string `json:"output"`
	Op     string `json:"op"`
	Layer  string `json:"layer,omitempty"`
	// Channels is how many the uncut model has, in and out; 0 where none can go.
	Channels [2]int   `json:"channels"`
	Base     float64  `json:"base_ms"`
	PerIn    float64  `json:"per_in_ms"`
	PerOut   float64  `json:"per_out_ms"`
	PerPair  float64  `json:"per_pair_ms"`
	Samples  []Sample `json:"samples"`
}

// Sample is one measurement: the parts of the channels that were there, and the time.
type Sample struct {
	In  float64 `json:"in"`
	Out float64 `json:"out"`
	MS  float64 `json:"ms"`
}

// At is what the step takes, in milliseconds, with the parts in and out of its channels left.
func (s *Step) At(in, out float64) float64 {
	return s.Base + s.PerIn*in + s.PerOut*out + s.PerPair*in*out
}

// Options of a measurement.
type Options struct {
	Model    string       // for Table.Model
	Pool     *kernel.Pool // what the model is to run on
	Block    int          // what widths of the rounded cuts are a multiple of
	Progress func(done, total int)
}

// Layers says for the value that a step makes which layer's weights it reads: the name of the layer's own output, "" for
// none. macs are the step's multiply-adds.
type Layers func(output string, macs int64) string

// Measure makes the table of g from runs of g and of cuts of it: a dozen pairs or so, of widths as different as can be. The
// second of a pair is the first with its widths rounded up to the block; if it is mostly no slower, rounding pays. Each
// cut's values have the names that they have in g. It stops within a run when ctx ends.
func Measure(ctx context.Context, g *graph.Graph, cuts []*graph.Graph, in []tensor.Type, layers Layers, opt Options) (*Table, error) {
	t := &Table{Model: opt.Model, Input: in[0].String(), CPU: isa.Name(), ISA: isa.Best().String(), Threads: opt.Pool.Workers(), Round: 1}
	full, err := profile(ctx, g, in, opt.Pool)
	if err != nil {
		return nil, err
	}
	runs := []run{full}
	for i, cut := range cuts {
		if opt.Progress != nil {
			opt.Progress(i, len(cuts))
		}
		r, err := profile(ctx, cut, in, opt.Pool)
		if err != nil {
			return nil, fmt.Errorf("cut %d: %w", i, err)
		}
		runs = append(runs, r)
	}
	for _, p := range full.steps {
		s := Step{Output: p.output, Op: p.op}
		if p.macs > 0 {
			s.Layer = layers(p.output, p.macs)
		}
		for _, r := range runs {
			q, ok := r.byOutput[p.output]
			if !ok {
				continue // another plan, which does this elsewhere
			}
			s.Samples = append(s.Samples, s.sample(p, q))
		}
		s.fit()
		t.Steps = append(t.Steps, s)
	}
	t.Whole = full.whole
	t.scale(runs)
	slower := 0
	for i := 1; i+1 < len(runs); i += 2 {
		if runs[i+1].whole > runs[i].whole {
			slower++
		}
	}
	if 4*slower < len(cuts)/2 {
		t.Round = max(opt.Block, 1)
	}
	return t, nil
}

// sample is what a run says of the step: whole is what it was with all channels.
func (s *Step) sample(whole, now step) Sample {
	m := Sample{In: 1, Out: float64(now.out) / float64(whole.out), MS: now.ms}
	if s.Layer != "" {
		m.In = float64(now.macs) / float64(whole.macs) / m.Out
	}
	return m
}

// scale finds the factor between steps and runs, and how wrong the table is.
func (t *Table) scale(runs []run) {
	predict := func(r run) float64 {
		var sum float64
		for i := range t.Steps {
			s := &t.Steps[i]
			q, ok := r.byOutput[s.Output]
			p := runs[0].byOutput[s.Output]
			if !ok {
				continue
			}
			now := s.sample(p, q)
			sum += s.At(now.In, now.Out)
		}
		return sum
	}
	var ratios []float64
	for _, r := range runs {
		ratios = append(ratios, r.whole/predict(r))
	}
	slices.Sort(ratios)
	t.Between = ratios[len(ratios)/2]
	for _, r := range runs {
		t.Error += math.Abs(t.Between*predict(r)-r.whole) / r.whole / float64(len(runs))
	}
}

// step is what one step of a run took.
type step struct {
	output, op string
	out, macs  int64
	ms         float64
}

// run is a model's run, whole and step by step, in milliseconds.
type run struct {
	whole    float64
	steps    []step
	byOutput map[string]step
}

// How often a model is run: until it has taken so long, within bounds. The shortest of the runs counts, which nothing
// else disturbed.
const (
	patience = 150 * time.Millisecond
	leastOf  = 3
	mostOf   = 12
)

func profile(ctx context.Context, g *graph.Graph, in []tensor.Type, pool *kernel.Pool) (run, error) {
	r := run{byOutput: map[string]step{}}
	m, err := engine.Compile(g, in, engine.Options{Pool: pool})
	if err != nil {
		return r, err
	}
	s := m.NewSession()
	x := []*tensor.Tensor{tensor.New(in[0].DType, in[0].Shape...)}
	if _, err := s.Run(ctx, x); err != nil { // warms caches
		return r, err
	}
	best, begin, n := time.Duration(math.MaxInt64), time.Now(), 0
	for ; n < leastOf || n < mostOf && time.Since(begin) < patience; n++ {
		start := time.Now()
		if _, err := s.Run(ctx, x); err != nil {
			return r, err
		}
		best = min(best, time.Since(start))
	}
	r.whole = ms(best)
	nodes, err := s.Profile(ctx, x, n)
	if err != nil {
		return r, err
	}
	for _, p := range nodes {
		st := step{output: p.Node.Outputs[0].Name, op: p.Node.Op, out: int64(p.Out.Elems()), macs: p.MACs, ms: ms(p.Time)}
		r.steps = append(r.steps, st)
		r.byOutput[st.output] = st
	}
	return r, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// For refuses a table that is of another model, or of another input.
func (t *Table) For(model, input string) error {
	if t.Model != model || t.Input != input {
		return fmt.Errorf("the latency table is of model %.12s with input %s, this is %.12s with %s: measure a new one", t.Model, t.Input, model, input)
	}
	return nil
}

// maxTable bounds a file that is read as a table.
const maxTable = 64 << 20

// ReadFile reads a table that was kept. The error is fs.ErrNotExist's if there is none.
func ReadFile(name string) (*Table, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxTable {
		return nil, fmt.Errorf("read latency table %s: %d bytes", name, st.Size())
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	t, err := Read(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// Read reads what Table.JSON has written.
func Read(b []byte) (*Table, error) {
	t := &Table{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("read latency table: %w", err)
	}
	return t, t.check()
}

// check refuses numbers that no measurement gives.
func (t *Table) check() error {
	ok := func(v float64) bool { return v >= 0 && v < 1e9 }
	if !ok(t.Whole) || !ok(t.Between) || t.Whole == 0 || t.Between == 0 || t.Round < 1 || t.Round > 1<<10 {
		return fmt.Errorf("latency table: a whole run of %g ms, a factor of %g, blocks of %d", t.Whole, t.Between, t.Round)
	}
	for _, s := range t.Steps {
		if !ok(s.Base) || !ok(s.PerIn) || !ok(s.PerOut) || !ok(s.PerPair) {
			return fmt.Errorf("latency table: step %q has coefficients %g, %g, %g, %g", s.Output, s.Base, s.PerIn, s.PerOut, s.PerPair)
		}
	}
	return nil
}

// JSON is the table as one document.
func (t *Table) JSON() []byte {
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		panic(fmt.Sprintf("latency: a table does not marshal: %v", err)) // it holds finite numbers and strings
	}
	return append(b, '\n')
}
