package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
)

// benchReport is what bench prints.
type benchReport struct {
	Backend    string   `json:"backend"` // what is timed
	CPU        string   `json:"cpu"`
	Kernels    string   `json:"kernels"`
	Go         string   `json:"go"`
	OrtVersion string   `json:"ort_version,omitempty"`
	Runs       int      `json:"runs"`
	Idle       bool     `json:"idle"` // timed runs follow a pause, not a run
	Rows       []timing `json:"rows,omitempty"`
	Loads      []load   `json:"loads,omitempty"`
}

// timing is a row. Ratio is ONNX Runtime's time over the backend's.
type timing struct {
	Model    string  `json:"model"`
	Input    string  `json:"input"`
	Threads  int     `json:"threads"`
	Params   int64   `json:"parameters"`
	MACs     int64   `json:"macs"`
	MS       float64 `json:"ms"`
	OrtMS    float64 `json:"ort_ms,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"`
	MaxError float64 `json:"max_error,omitempty"` // max|Δ|/max|y| against ONNX Runtime, of the output where it is largest
	// BusyMS is MS beside a busy process on every core.
	BusyMS    float64 `json:"busy_ms,omitempty"`
	BusyOrtMS float64 `json:"busy_ort_ms,omitempty"`
	// SessionBytes is the memory of one request at a time, of the native backend; weights come on top, once.
	SessionBytes int   `json:"session_bytes"`
	ResidentKiB  int64 `json:"resident_kib"`
}

func (r *benchReport) head() {
	fmt.Printf("%s, kernels %s, %s", r.CPU, r.Kernels, r.Go)
	if r.OrtVersion != "" {
		fmt.Printf(", ONNX Runtime %s", r.OrtVersion)
	}
	if r.Backend != "native" {
		fmt.Printf(", backend %s", r.Backend)
	}
	after := "an untimed one each"
	if r.Idle {
		after = "a pause each"
	}
	fmt.Printf("; medians of %d runs, in turns, after %s\n", r.Runs, after)
}

// dense is the row that a halved model is measured against, or nil.
func (r *benchReport) dense(t timing) *timing {
	if t.Model != halved {
		return nil
	}
	for i := range r.Rows {
		if d := &r.Rows[i]; d.Model+"-half" == t.Model && d.Input == t.Input && d.Threads == t.Threads {
			return d
		}
	}
	return nil
}

func benchColumns(ort, busy bool) string {
	s := "model\tinput\tthreads\tGMACs\tms\t"
	if ort {
		s += "ORT ms\tratio\tmax|Δ|/max|y|\t"
	}
	if busy {
		s += "busy ms\tgrowth\t"
		if ort {
			s += "ORT busy ms\tgrowth\t"
		}
	}
	return s + "session MB\t"
}

func (t timing) row(dense *timing) string {
	s := fmt.Sprintf("%s\t%s\t%d\t%.2f\t%.2f\t", t.Model, strings.TrimPrefix(t.Input, "float32"), t.Threads, float64(t.MACs)/1e9, t.MS)
	if t.OrtMS > 0 {
		s += fmt.Sprintf("%.2f\t%.2f\t%.1e\t", t.OrtMS, t.Ratio, t.MaxError)
	}
	if t.BusyMS > 0 {
		s += fmt.Sprintf("%.2f\t%.2fx\t", t.BusyMS, t.BusyMS/t.MS)
		if t.OrtMS > 0 {
			s += fmt.Sprintf("%.2f\t%.2fx\t", t.BusyOrtMS, t.BusyOrtMS/t.OrtMS)
		}
	}
	s += fmt.Sprintf("%.1f\t", float64(t.SessionBytes)/1e6)
	if dense != nil {
		s += fmt.Sprintf("  %.2fx its dense self", dense.MS/t.MS)
	}
	return s
}

func (c *benchCmd) measure(ctx context.Context, m benched, size, threads int, lib *ort.Library) (timing, error) {
	in, err := m.input(size)
	if err != nil {
		return timing{}, err
	}
	t := timing{Model: m.name, Input: in.String(), Threads: threads}
	cost, err := engine.Count(m.graph, []tensor.Type{in})
	if err != nil && c.Backend == "native" { // others may run what cannot be counted
		return t, err
	}
	t.Params, t.MACs = cost.Parameters, cost.MACs
	opt := engine.Options{Threads: threads}
	if c.Tune {
		opt.Tune = engine.OpenTuner(tuningFolder())
		p := newProgress()
		_, err := opt.Tune.Measure(ctx, m.graph, []tensor.Type{in}, threads, func(done, total int) { p.update("tune "+m.name, done, total) })
		if p.done(); err != nil {
			return t, err
		}
	}
	r, err := c.runner(m, in, opt, &t)
	if err != nil {
		return t, err
	}
	runners := []predict.Runner{r}
	if lib != nil {
		b, err := m.encode()
		if err != nil {
			return t, err
		}
		s, err := lib.NewSession(b, threads)
		if err != nil {
			return t, err
		}
		defer s.Close()
		runners = append(runners, s)
	}
	runtime.GC() // the file's bytes, not while we measure
	x := []*tensor.Tensor{randomImage(in)}
	ms, outs, err := takeTurns(ctx, runners, x, c.Runs, c.Idle)
	if err != nil {
		return t, err
	}
	t.MS, t.ResidentKiB = ms[0], residentKiB()
	if lib != nil {
		t.OrtMS, t.Ratio = ms[1], ms[1]/ms[0]
		for i := range outs[0] {
			t.MaxError = max(t.MaxError, relativeError(outs[0][i], outs[1][i]))
		}
	}
	if c.Busy {
		stop := keepBusy()
		defer stop()
		if ms, _, err = takeTurns(ctx, runners, x, c.Runs, c.Idle); err != nil {
			return t, err
		}
		t.BusyMS = ms[0]
		if lib != nil {
			t.BusyOrtMS = ms[1]
		}
	}
	return t, nil
}

// runner makes what is timed.
func (c *benchCmd) runner(m benched, in tensor.Type, opt engine.Options, t *timing) (predict.Runner, error) {
	if c.Backend == "native" {
		native, err := engine.Compile(m.graph, []tensor.Type{in}, opt)
		if err != nil {
			return nil, err
		}
		t.SessionBytes = native.SessionBytes()
		return native.NewSession(), nil
	}
	b, err := backend(c.Backend, c.OrtLib, opt)
	if err != nil {
		return nil, err
	}
	compiled, err := b(m.graph, []tensor.Type{in})
	if err != nil {
		return nil, err
	}
	return compiled()
}

// takeTurns runs every runner n times in alternation, after two runs to warm up, and gives the medians in milliseconds
// and the outputs of each. A pause before lets the threads of the one before go to sleep. A turn is two runs, of which
// the second is timed: the first finds its weights in no cache and its cores asleep, which a virtual machine may take
// milliseconds to share out again. If idle, it is that one alone, as if a frame came now and then.
func takeTurns(ctx context.Context, runners []predict.Runner, in []*tensor.Tensor, n int, idle bool) ([]float64, [][]*tensor.Tensor, error) {
	times := make([][]float64, len(runners))
	outs := make([][]*tensor.Tensor, len(runners))
	for i := range n + 2 {
		for k, r := range runners {
			time.Sleep(pause)
			if !idle {
				if _, err := r.Run(ctx, in); err != nil {
					return nil, nil, err
				}
			}
			t0 := time.Now()
			out, err := r.Run(ctx, in)
			d := time.Since(t0)
			if err != nil {
				return nil, nil, err
			}
			if i == 0 {
				for _, y := range out {
					outs[k] = append(outs[k], y.Clone())
				}
			}
			if i >= 2 {
				times[k] = append(times[k], float64(d)/1e6)
			}
		}
	}
	ms := make([]float64, len(runners))
	for k, t := range times {
		slices.Sort(t)
		ms[k] = t[len(t)/2]
	}
	return ms, outs, nil
}
