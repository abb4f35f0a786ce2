package pruner

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/latency"
	"github.com/secateur/secateur/pruner/rewrite"
)

const (
	// widthPairs is how many pairs of cuts a latency table is measured from.
	widthPairs = 12
	// block is the number of float32 that the widest vector registers hold.
	block = 16
)

// times has the latency table ready, if the target takes one: the one that was given, or a new one.
func (r *run) times(ctx context.Context) error {
	if r.opt.Target.counts() != "latency" {
		return nil
	}
	var err error
	if r.table = r.opt.Latency; r.table == nil {
		if r.table, err = r.measured(); err != nil {
			return err
		}
	}
	if r.table == nil {
		cuts, err := r.widths()
		if err != nil {
			return err
		}
		r.table, err = latency.Measure(ctx, r.g, cuts, r.in, r.layersOf(), latency.Options{
			Model: r.opt.Parent, Pool: r.pool, Block: block,
			Progress: func(done, total int) { r.progress("measure", done, total) },
		})
		if err != nil {
			return err
		}
		for i := range r.table.Steps {
			s := &r.table.Steps[i]
			s.Channels = [2]int{len(r.analysis.Reads(s.Layer)), len(r.analysis.Channels(s.Output))}
		}
		if err := r.save(tableKey, r.table.JSON()); err != nil {
			return err
		}
	}
	if err := r.table.For(r.opt.Parent, r.in[0].String()); err != nil {
		return err
	}
	// A model that is as fast as asked for would come back as it went in.
	if whole := r.costs().of("latency"); r.opt.Target.left(whole) >= float64(whole) {
		return fmt.Errorf("target %v is reached already: by the latency table the model takes %.3g ms as it is; ask for less than that, for a speedup, as in speedup=1.5x, or for a part to remove, as in macs=0.3", r.opt.Target, float64(whole)/1e6)
	}
	if r.opt.Round == 0 {
		r.opt.Round = r.table.Round
	}
	r.opt.Log.Info("latency table", "whole_ms", r.table.Whole, "steps", len(r.table.Steps), "error", r.table.Error, "round", r.table.Round)
	return nil
}

// widths cuts the model to other widths: each layer to a part of its own, around one that differs from cut to cut. Every
// second one is the one before it with widths rounded up to a block.
func (r *run) widths() ([]*graph.Graph, error) {
	rng := rand.New(rand.NewPCG(r.opt.Seed, 7))
	byFamily := map[int][]int{}
	families := 0
	for _, u := range units(r.analysis, nil, newFloor(r.analysis, nil), 1) {
		byFamily[u.family] = append(byFamily[u.family], u.ids...)
		families = max(families, u.family+1)
	}
	var cuts []*graph.Graph
	for k := range widthPairs {
		level := 0.1 + 0.85*(float64(k)+rng.Float64())/widthPairs
		keep := make([]int, families)
		for fam := range keep {
			part := min(max(level*(0.5+rng.Float64()), 0.05), 1)
			keep[fam] = max(int(part*float64(len(byFamily[fam]))), 1)
		}
		for _, rounded := range []bool{false, true} {
			f := newFloor(r.analysis, nil)
			remove := map[int]bool{}
			for fam, n := range keep {
				ids := byFamily[fam]
				if rounded {
					n = min((n+block-1)/block*block, len(ids))
				}
				for _, id := range ids[:len(ids)-n] {
					if one := []int{id}; f.allows(one) {
						f.add(one, -1)
						remove[id] = true
					}
				}
			}
			g, err := rewrite.Cut(r.g, r.analysis, remove)
			if err != nil {
				return nil, fmt.Errorf("cut %d: %w", len(cuts), err)
			}
			cuts = append(cuts, g)
		}
	}
	return cuts, nil
}

// layersOf goes back from the value that a fused step makes to the layer whose weights it has: of those that may be meant,
// the one with its multiply-adds.
func (r *run) layersOf() latency.Layers {
	byName, layers := map[string]*graph.Value{}, map[*graph.Node]bool{}
	for v := range r.g.Values() {
		byName[v.Name] = v
	}
	for _, l := range r.original.Layers() {
		layers[l.Node] = true
	}
	return func(output string, macs int64) string {
		seen := map[*graph.Value]bool{}
		var find func(v *graph.Value) string
		find = func(v *graph.Value) string {
			if v == nil || v.Def == nil || seen[v] {
				return ""
			}
			seen[v] = true
			if layers[v.Def] {
				if r.base.Nodes[v.Def].MACs == macs {
					return v.Name
				}
				return ""
			}
			for _, in := range v.Def.Inputs {
				if name := find(in); name != "" {
					return name
				}
			}
			return ""
		}
		return find(byName[output])
	}
}

// costs counts what the current graph takes.
func (r *run) costs() *costs { return newCosts(r.analysis, r.cost, r.table) }
