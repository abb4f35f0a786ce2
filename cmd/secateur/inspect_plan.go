package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// planRow is how one layer is computed, and what it takes.
type planRow struct {
	Name     string  `json:"name"`
	Op       string  `json:"op"`
	In       []int   `json:"in"`
	Out      []int   `json:"out"`
	Form     string  `json:"form,omitempty"`
	MS       float64 `json:"ms"`
	Share    float64 `json:"share"` // of the whole time
	MACs     int64   `json:"macs"`
	Products int64   `json:"products"`
	// OfPeak is Products over what the cores' multipliers could have done in the time.
	OfPeak float64 `json:"of_peak"`
	// Error is max|Δ|/max|y| against the definition in float64; absent but for convolutions.
	Error *float64 `json:"error,omitempty"`
}

// planned is what inspect --plan prints.
type planned struct {
	Input   string    `json:"input"`
	Kernels string    `json:"kernels"`
	CPU     string    `json:"cpu"`
	Threads int       `json:"threads"`
	Layers  []planRow `json:"layers"`
	MS      float64   `json:"ms"`
	// LimitMS is what the multiply-adds left would take at the measured peak of so many cores.
	LimitMS float64   `json:"limit_ms"`
	Peak    float64   `json:"peak_gmacs_per_core"`
	Errors  []float64 `json:"errors"` // of each output, max|Δ|/max|y| against Options.Float64
}

// plan measures how a model is run: on an image if one is given, on random numbers otherwise.
func plan(ctx context.Context, g *graph.Graph, image string, threads int) (planned, error) {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	spec, err := vision.ReadSpec(g.Meta, g)
	if err != nil {
		return planned{}, err
	}
	in := predict.ServingType(g, spec)
	x := randomImage(in)
	if image != "" {
		b, err := os.ReadFile(image)
		if err != nil {
			return planned{}, err
		}
		img, err := vision.Decode(b, vision.Limits{})
		if err != nil {
			return planned{}, fmt.Errorf("read %s: %w", image, err)
		}
		if err := spec.Prepare(x, img); err != nil {
			return planned{}, err
		}
	}
	r := planned{Input: in.String(), Kernels: fmt.Sprint(isa.Best()), CPU: cpuName(), Threads: threads, Peak: kernel.Peak() / 1e9}
	types, xs := []tensor.Type{in}, []*tensor.Tensor{x}
	m, err := engine.Compile(g, types, engine.Options{Threads: threads, Diagnose: true})
	if err != nil {
		return r, err
	}
	s := m.NewSession()
	const runs = 15
	nodes, err := s.Profile(ctx, xs, runs)
	if err != nil {
		return r, err
	}
	var total time.Duration
	for _, n := range nodes {
		total += n.Time
	}
	r.MS = total.Seconds() * 1e3
	var products float64
	for _, n := range nodes {
		row := planRow{Name: nodeName(n.Node), Op: n.Node.Op, In: n.In, Out: n.Out, Form: n.Form, MS: n.Time.Seconds() * 1e3,
			Share: n.Time.Seconds() / total.Seconds(), MACs: n.MACs, Products: n.Products}
		row.OfPeak = float64(n.Products) / (n.Time.Seconds() * kernel.Peak() * float64(threads))
		if !math.IsNaN(n.Error) {
			row.Error = &n.Error
		}
		products += float64(n.Products)
		r.Layers = append(r.Layers, row)
	}
	r.LimitMS = products / kernel.Peak() / float64(threads) * 1e3
	got, err := s.Run(ctx, xs)
	if err != nil {
		return r, err
	}
	exact, err := engine.Compile(g, types, engine.Options{Float64: true})
	if err != nil {
		return r, err
	}
	want, err := exact.NewSession().Run(ctx, xs)
	if err != nil {
		return r, err
	}
	for i := range want {
		r.Errors = append(r.Errors, engine.Difference(got[i], want[i]))
	}
	return r, nil
}

func (r *planned) print(out io.Writer) error {
	fmt.Fprintf(out, "%s, %d threads, kernels %s, %s\n", r.Input, r.Threads, r.Kernels, r.CPU)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "layer\toperator\tin\tout\tcomputed as\tms\tshare\tM products\tof MACs\tof peak\terror")
	for _, l := range r.Layers {
		fmt.Fprintf(w, "%s\t%s\t%v\t%v\t%s\t%.3f\t%.1f %%\t", l.Name, l.Op, l.In, l.Out, l.Form, l.MS, 100*l.Share)
		if l.MACs > 0 {
			fmt.Fprintf(w, "%.1f\t%.0f %%\t%.0f %%\t", float64(l.Products)/1e6, 100*float64(l.Products)/float64(l.MACs), 100*l.OfPeak)
		} else {
			fmt.Fprint(w, "\t\t\t")
		}
		if l.Error != nil {
			fmt.Fprintf(w, "%.1e", *l.Error)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nall layers     %.2f ms, the shortest of each\nlimit          %.2f ms for the multiply-adds left, at %.1f G a second and core; reached: %.0f %%\n",
		r.MS, r.LimitMS, r.Peak, 100*r.LimitMS/r.MS)
	for i, e := range r.Errors {
		fmt.Fprintf(out, "error          %.1e of output %d: max|Δ|/max|y| against float64\n", e, i)
	}
	return nil
}
