package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

type benchCmd struct {
	Model   string `required:"" help:"The ONNX file." type:"existingfile"`
	Size    int    `help:"Height and width of the input; 0 means the model's own."`
	Threads int    `help:"Cores a run may use; 0 means all."`
	Vs      string `help:"What to time beside it: ort." enum:",ort" default:""`
	OrtLib  string `name:"ort-lib" help:"Path of libonnxruntime.so.1." env:"SECATEUR_ORT_LIB"`
	Runs    int    `help:"Timed runs of each; they take turns." default:"21"`
	JSON    bool   `help:"Print one JSON document."`
}

// timing is what bench prints. Ratio is ONNX Runtime's time over ours.
type timing struct {
	NativeMS   float64 `json:"native_ms"`
	OrtMS      float64 `json:"ort_ms,omitempty"`
	Ratio      float64 `json:"ratio,omitempty"`
	MaxError   float64 `json:"max_error,omitempty"` // max|Δ|/max|y| against ONNX Runtime
	Threads    int     `json:"threads"`
	Input      string  `json:"input"`
	MACs       int64   `json:"macs"`
	Kernels    string  `json:"kernels"`
	CPU        string  `json:"cpu"`
	Go         string  `json:"go"`
	OrtVersion string  `json:"ort_version,omitempty"`
	// SessionBytes is the memory of one request at a time; weights come on top, once.
	SessionBytes int   `json:"session_bytes"`
	ResidentKiB  int64 `json:"resident_kib"`
}

// pause lets the threads of whoever ran last go to sleep: ONNX Runtime's spin on for a while and would slow the other.
const pause = 50 * time.Millisecond

// Run implements the command.
func (c *benchCmd) Run(ctx context.Context) error {
	if c.Threads <= 0 {
		c.Threads = runtime.GOMAXPROCS(0)
	}
	g, err := onnx.ReadFile(c.Model)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.Model, err)
	}
	in, err := c.input(g)
	if err != nil {
		return err
	}
	t, err := c.measure(ctx, g, in)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t)
	}
	fmt.Printf("%s, input %s, %d threads, %s MACs, kernels %s, %s\n", c.Model, t.Input, t.Threads, millions(t.MACs), t.Kernels, t.CPU)
	fmt.Printf("native        %8.2f ms  (median of %d)\n", t.NativeMS, c.Runs)
	if c.Vs == "ort" {
		fmt.Printf("ONNX Runtime  %8.2f ms  (%s)\nratio         %8.2f      max|Δ|/max|y| %.1e\n", t.OrtMS, t.OrtVersion, t.Ratio, t.MaxError)
	}
	fmt.Printf("memory        %8.1f MB a session, %.1f MB resident\n", float64(t.SessionBytes)/1e6, float64(t.ResidentKiB)*1024/1e6)
	return nil
}

// input is the type of the model's input.
func (c *benchCmd) input(g *graph.Graph) (tensor.Type, error) {
	spec, err := vision.ReadSpec(g.Meta, g)
	if err != nil {
		return tensor.Type{}, err
	}
	if c.Size > 0 {
		spec.Pre.Size = []int{c.Size, c.Size}
	}
	return predict.ServingType(g, spec), nil
}

func (c *benchCmd) measure(ctx context.Context, g *graph.Graph, in tensor.Type) (timing, error) {
	t := timing{Threads: c.Threads, Input: in.String(), Kernels: fmt.Sprint(isa.Best()), CPU: cpuName(), Go: runtime.Version()}
	cost, err := engine.Count(g, []tensor.Type{in})
	if err != nil {
		return t, err
	}
	t.MACs = cost.MACs
	m, err := engine.Compile(g, []tensor.Type{in}, engine.Options{Threads: c.Threads})
	if err != nil {
		return t, err
	}
	t.SessionBytes = m.SessionBytes()
	runners := []predict.Runner{m.NewSession()}
	if c.Vs == "ort" {
		lib, err := ort.Open(c.OrtLib)
		if errors.Is(err, ort.ErrNotBuilt) {
			return t, fmt.Errorf("--vs ort: %w", err)
		} else if err != nil {
			return t, err
		}
		t.OrtVersion = lib.Version()
		b, err := onnx.Encode(g)
		if err != nil {
			return t, err
		}
		s, err := lib.NewSession(b, c.Threads)
		if err != nil {
			return t, err
		}
		defer s.Close()
		runners = append(runners, s)
	}
	x := tensor.New(tensor.Float32, in.Shape...)
	r := rand.New(rand.NewPCG(1, 2))
	for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
		v[i] = float32(r.NormFloat64())
	}
	ms, outs, err := takeTurns(ctx, runners, []*tensor.Tensor{x}, c.Runs)
	if err != nil {
		return t, err
	}
	t.NativeMS = ms[0]
	t.ResidentKiB = residentKiB()
	if len(ms) > 1 {
		t.OrtMS, t.Ratio = ms[1], ms[1]/ms[0]
		t.MaxError = relativeError(outs[0], outs[1])
	}
	return t, nil
}

// takeTurns runs every runner n times in alternation, after two runs to warm up, and gives the medians in milliseconds
// and the first output of each.
func takeTurns(ctx context.Context, runners []predict.Runner, in []*tensor.Tensor, n int) ([]float64, []*tensor.Tensor, error) {
	times := make([][]float64, len(runners))
	outs := make([]*tensor.Tensor, len(runners))
	for i := range n + 2 {
		for k, r := range runners {
			if len(runners) > 1 {
				time.Sleep(pause)
			}
			t0 := time.Now()
			out, err := r.Run(ctx, in)
			d := time.Since(t0)
			if err != nil {
				return nil, nil, err
			}
			if i == 0 {
				outs[k] = out[0].Clone()
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

// relativeError is max|a-b| / max|b|.
func relativeError(a, b *tensor.Tensor) float64 {
	x, _ := a.Float64s()
	y, _ := b.Float64s()
	var d, top float64
	for i := range min(len(x), len(y)) {
		d, top = max(d, abs(x[i]-y[i])), max(top, abs(y[i]))
	}
	return d / max(top, 1e-30)
}

func abs(x float64) float64 { return max(x, -x) }

// cpuName is the processor as Linux names it.
func cpuName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	return field(string(b), "model name")
}

// residentKiB is the largest resident memory of this process so far, as Linux counts it.
func residentKiB() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	var n int64
	_, _ = fmt.Sscan(field(string(b), "VmHWM"), &n) // zero where there is no such line
	return n
}
