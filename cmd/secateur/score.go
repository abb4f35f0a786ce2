package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/score"
)

type scoreCmd struct {
	Model   string `required:"" help:"The ONNX file." type:"existingfile"`
	Calib   string `required:"" help:"Images to score on: a folder with images/ and perhaps masks/, or of images alone." type:"existingdir"`
	Labels  string `help:"Whether masks are used: auto (if there are any) or none." enum:"auto,none" default:"auto"`
	Probes  int    `help:"Without masks, random directions for each image." default:"8"`
	Seed    uint64 `help:"Seeds those directions." default:"1"`
	Float64 bool   `name:"float64" help:"Compute in float64: slow, for comparisons."`
	Threads int    `help:"Cores to use; 0 means all."`
	Spec    string `help:"A JSON file that overrides the model's pre- and postprocessing; by default model.json beside the model, if there." type:"existingfile"`
	Samples bool   `help:"With --json, also the signed sums of each image, at each place where channels are read."`
	Repeat  int    `help:"With --json, score so often and list the seconds that each took." default:"1"`
	JSON    bool   `help:"Print one JSON document."`
}

// scored is what score prints.
type scored struct {
	Images int  `json:"images"`
	Labels bool `json:"labels"`
	// Seconds is the time of each repetition, from the images' files in memory to importances.
	Seconds []float64    `json:"seconds"`
	Layers  []scoredRow  `json:"layers"`
	Edges   []scoredEdge `json:"edges,omitempty"`
}

// scoredRow is a layer and how much its channels matter.
type scoredRow struct {
	Name     string `json:"name"`
	Op       string `json:"op"`
	Channels int    `json:"channels"`
	Pinned   string `json:"pinned,omitempty"`
	Follows  bool   `json:"follows,omitempty"`
	// Importance is that of each channel with all that stands or falls with it; null if it cannot be removed.
	Importance []*float64 `json:"importance"`
}

// scoredEdge is where a layer's weights read channels.
type scoredEdge struct {
	Node    string         `json:"node"`
	Input   int            `json:"input"`
	Samples []scoredSample `json:"samples"`
}

// scoredSample is what one image says, or one random direction of it.
type scoredSample struct {
	Image string    `json:"image"`
	Sums  []float64 `json:"sums"`
}

// Run implements the command.
func (c *scoreCmd) Run(ctx context.Context) error {
	switch {
	case c.Probes < 1 || c.Repeat < 1:
		return usage("--probes %d, --repeat %d: want at least 1", c.Probes, c.Repeat)
	case !c.JSON && (c.Samples || c.Repeat > 1):
		return usage("--samples and --repeat are for --json")
	}
	set, err := calib.Open(c.Calib)
	if err != nil {
		return err
	}
	g, _, err := readForPruner(c.Model, c.Spec)
	if err != nil {
		return err
	}
	var r *scored
	var seconds []float64
	for range c.Repeat {
		start := time.Now()
		if r, err = c.score(ctx, g, set); err != nil {
			return err
		}
		seconds = append(seconds, time.Since(start).Seconds())
	}
	r.Seconds = seconds
	if c.JSON {
		return printJSON(r)
	}
	return r.print(os.Stdout)
}

func (c *scoreCmd) score(ctx context.Context, g *graph.Graph, set *calib.Set) (*scored, error) {
	p := newProgress()
	defer p.done()
	opt := pruner.ScoreOptions{
		Unlabelled: c.Labels == "none", Probes: c.Probes, Seed: c.Seed, Float64: c.Float64, Threads: c.Threads,
		Progress: p.pruning,
	}
	var samples []score.Sample
	if c.Samples {
		opt.Each = func(s score.Sample, _ float64) {
			k := score.Sample{}
			for e, v := range s {
				k[e] = slices.Clone(v)
			}
			samples = append(samples, k)
		}
	}
	s, err := pruner.Scores(ctx, g, set, opt)
	if err != nil {
		return nil, err
	}
	r := &scored{Images: len(set.Items), Labels: s.Labels}
	for _, l := range s.Analysis.Layers() {
		row := scoredRow{Name: l.Name, Op: l.Op, Channels: l.Channels, Pinned: l.Pinned, Follows: l.Follows, Importance: make([]*float64, l.Channels)}
		for i, id := range l.Class {
			if v, ok := s.Importance[id]; ok {
				row.Importance[i] = &v
			}
		}
		r.Layers = append(r.Layers, row)
	}
	if !c.Samples {
		return r, nil
	}
	each := len(samples) / len(set.Items)
	for _, e := range s.Edges {
		row := scoredEdge{Node: nodeName(e.Node), Input: e.Input}
		for i, k := range samples {
			row.Samples = append(row.Samples, scoredSample{set.Items[i/each].Name, k[e]})
		}
		r.Edges = append(r.Edges, row)
	}
	return r, nil
}

// print writes a table of layers.
func (r *scored) print(out io.Writer) error {
	by := "by masks"
	if !r.Labels {
		by = "without masks"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // Flush reports errors
	put("layer\toperator\tchannels\tleast\tmedian\tmost\tnot to be removed because")
	for _, l := range r.Layers {
		var v []float64
		for _, p := range l.Importance {
			if p != nil {
				v = append(v, *p)
			}
		}
		if len(v) == 0 {
			put("%s\t%s\t%d\t\t\t\t%s", l.Name, l.Op, l.Channels, l.Pinned)
			continue
		}
		slices.Sort(v)
		put("%s\t%s\t%d\t%.3g\t%.3g\t%.3g\t%s", l.Name, l.Op, l.Channels, v[0], v[len(v)/2], v[len(v)-1], l.Pinned)
	}
	put("\nimportance of a channel, mean over %d images, %s", r.Images, by)
	return w.Flush()
}
