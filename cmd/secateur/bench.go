package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/tensor"
)

type benchCmd struct {
	backendFlags
	Model   []string `help:"What to time: ONNX files, polyp-lite0 or polyp-unet (built in), polyp-unet-half (pruned by half first), unet-64 and the like (random weights). By default a set of these."`
	Size    []int    `help:"Heights and widths of the input; by default the model's own, and 352 as well for unet-N."`
	Threads []int    `help:"Cores a run may use; by default one and all."`
	Vs      string   `help:"What to time beside it: ort." enum:",ort" default:""`
	Runs    int      `help:"Timed runs of each; they take turns." default:"11"`
	Clients []int    `help:"Measure throughput instead, with so many clients at a time: 1,2,4,16."`
	Seconds float64  `help:"How long --clients measures each." default:"3"`
	Tune    bool     `help:"Measure first how each layer runs fastest here; what was measured before is in the user's cache folder."`
	Idle    bool     `help:"Time the run after a pause, as of a frame now and then, not the one behind another."`
	Busy    bool     `help:"Time everything a second time beside a busy process on every core."`
	Stdio   bool     `help:"Answer each line 'run' on standard input with the milliseconds of a run; 'output FILE' and 'reference FILE' write the first output, of a run and of one in float64, as raw float32."`
	Input   string   `help:"A file of raw float32 to run on instead of random numbers." type:"existingfile"`
	Export  string   `help:"Write the model as ONNX and time nothing."`
	JSON    bool     `help:"Print one JSON document."`
}

// Run implements the command.
func (c *benchCmd) Run(ctx context.Context) error {
	if len(c.Threads) == 0 {
		c.Threads = []int{1, runtime.GOMAXPROCS(0)}
		if c.Threads[1] == 1 {
			c.Threads = c.Threads[:1]
		}
	}
	if c.Runs < 1 {
		return usage("--runs must be at least 1")
	}
	if c.Backend != "native" && (c.Stdio || c.Tune) {
		return usage("--stdio and --tune are of the native backend")
	}
	if c.Stdio || c.Export != "" {
		if len(c.Model) != 1 {
			return usage("--stdio and --export take one --model")
		}
		if c.Export != "" {
			return c.export(ctx)
		}
		return c.stdio(ctx, os.Stdin, os.Stdout)
	}
	if len(c.Model) == 0 {
		c.Model = []string{"unet-64", "unet-32", "unet-16", "polyp-unet", "polyp-lite0", "polyp-unet-half"}
	}
	var lib *ort.Library
	if c.Vs == "ort" {
		var err error
		if lib, err = ort.Open(c.OrtLib); err != nil {
			return fmt.Errorf("--vs ort: %w", err)
		}
	}
	r := benchReport{Backend: c.Backend, CPU: cpuName(), Kernels: fmt.Sprint(isa.Best()), Go: runtime.Version(), Runs: c.Runs, Idle: c.Idle}
	if lib != nil {
		r.OrtVersion = lib.Version()
	}
	if len(c.Clients) > 0 {
		return c.throughput(ctx, lib, r)
	}
	if !c.JSON {
		r.head()
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	if !c.JSON {
		fmt.Fprintln(w, benchColumns(lib != nil, c.Busy))
	}
	for _, name := range c.Model {
		m, err := benchModel(ctx, name)
		if err != nil {
			return err
		}
		for _, size := range m.sizes(c.Size) {
			for _, threads := range c.Threads {
				t, err := c.measure(ctx, m, size, threads, lib)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				r.Rows = append(r.Rows, t)
				if !c.JSON {
					fmt.Fprintln(w, t.row(r.dense(t)))
				}
			}
		}
	}
	if c.JSON {
		return printJSON(r)
	}
	return w.Flush()
}

// export writes the model.
func (c *benchCmd) export(ctx context.Context) error {
	m, err := benchModel(ctx, c.Model[0])
	if err != nil {
		return err
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	return replaceBytes(c.Export, b)
}

// pause lets the threads of whoever ran last go to sleep: ONNX Runtime's spin on for a while and would slow the other.
const pause = 50 * time.Millisecond

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
