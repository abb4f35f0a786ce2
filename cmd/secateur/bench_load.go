package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/ort"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
)

// load is what so many clients at a time get of a model.
type load struct {
	Model   string  `json:"model"`
	Engine  string  `json:"engine"`
	Clients int     `json:"clients"`
	PerS    float64 `json:"images_per_s"`
	P50MS   float64 `json:"p50_ms"`
	P99MS   float64 `json:"p99_ms"`
}

// throughput measures clients that each ask again as soon as they are answered.
func (c *benchCmd) throughput(ctx context.Context, lib *ort.Library, r benchReport) error {
	if !c.JSON {
		r.head()
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "model\tclients\tengine\timages/s\tp50 ms\tp99 ms\t")
	for _, name := range c.Model {
		m, err := benchModel(ctx, name)
		if err != nil {
			return err
		}
		in, err := m.input(m.sizes(c.Size)[0])
		if err != nil {
			return err
		}
		names := []string{c.Backend}
		if lib != nil {
			names = append(names, c.Vs)
		}
		engines := make([]func() (predict.Runner, error), len(names))
		for i, name := range names {
			b, err := backend(name, c.OrtLib, engine.Options{})
			if err != nil {
				return err
			}
			if engines[i], err = b(m.graph, []tensor.Type{in}); err != nil {
				return err
			}
		}
		x := []*tensor.Tensor{randomImage(in)}
		for _, clients := range c.Clients {
			for i, e := range engines {
				l, err := c.run(ctx, e, x, clients)
				if err != nil {
					return err
				}
				l.Model, l.Engine = name, names[i]
				r.Loads = append(r.Loads, l)
				fmt.Fprintf(w, "%s\t%d\t%s\t%.1f\t%.1f\t%.1f\t\n", l.Model, l.Clients, l.Engine, l.PerS, l.P50MS, l.P99MS)
			}
		}
	}
	if c.JSON {
		return printJSON(r)
	}
	return w.Flush()
}

func (c *benchCmd) run(ctx context.Context, make func() (predict.Runner, error), x []*tensor.Tensor, clients int) (load, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var all []float64
	var failed error
	time.Sleep(pause)
	begin := time.Now()
	end := begin.Add(time.Duration(c.Seconds * float64(time.Second)))
	for range clients {
		s, err := make()
		if err != nil {
			return load{}, err
		}
		wg.Go(func() {
			var mine []float64
			for time.Now().Before(end) {
				t0 := time.Now()
				if _, err := s.Run(ctx, x); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				mine = append(mine, float64(time.Since(t0))/1e6)
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(begin).Seconds()
	if failed != nil || len(all) == 0 {
		return load{}, failed
	}
	slices.Sort(all)
	at := func(q float64) float64 { return all[min(int(q*float64(len(all))), len(all)-1)] }
	return load{Clients: clients, PerS: float64(len(all)) / took, P50MS: at(0.5), P99MS: at(0.99)}, nil
}

// spinCmd keeps a core busy until its standard input ends.
type spinCmd struct{}

// Run implements the command.
func (*spinCmd) Run() error {
	go func() {
		for { //nolint:revive,staticcheck // that is the point
		}
	}()
	_, err := os.Stdin.Read(make([]byte, 1))
	if err != nil {
		return nil // the parent has closed it, or is gone
	}
	return nil
}

// keepBusy starts a process on every core that does nothing but run, and returns what ends them.
func keepBusy() (stop func()) {
	var stops []func()
	exe, err := os.Executable()
	if err != nil {
		return func() {}
	}
	for range runtime.NumCPU() {
		cmd := exec.Command(exe, "spin")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		in, err := cmd.StdinPipe()
		if err != nil || cmd.Start() != nil {
			continue
		}
		stops = append(stops, func() {
			_ = in.Close()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	time.Sleep(4 * pause) // until they run
	return func() {
		for _, f := range stops {
			f()
		}
	}
}
