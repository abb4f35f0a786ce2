package pruner

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/secateur/secateur/pruner/rewrite"
)

// Sensitivity is what it does to the model if one layer alone loses its least important channels, with nothing repaired.
type Sensitivity struct {
	Layer string `json:"layer"`
	// Removed and Agreement go together: the part of the layer's channels that went, and the mean Dice against the original
	// on the select images.
	Removed   []float64 `json:"removed"`
	Agreement []float64 `json:"agreement"`
}

// sensitivityParts are the parts of a layer that are tried.
var sensitivityParts = []float64{0.25, 0.5, 0.75}

// sensitivity tries each layer of the original alone.
func (r *run) sensitivity(ctx context.Context) error {
	if !r.opt.Sensitivity || r.step > 0 {
		return nil
	}
	layers := r.analysis.Layers()
	for i, l := range layers {
		if l.Follows || l.Prunable == 0 {
			continue
		}
		var ids []int // of the layer, the least important first
		for _, id := range l.Class {
			if id >= 0 && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(r.importance[a], r.importance[b]) })
		s := Sensitivity{Layer: l.Name}
		for k, part := range sensitivityParts {
			r.progress("sensitivity", i*len(sensitivityParts)+k, len(layers)*len(sensitivityParts))
			f, remove, gone := newFloor(r.analysis, nil), map[int]bool{}, 0
			for _, id := range ids {
				if one := []int{id}; gone < int(math.Round(part*float64(l.Channels))) && f.allows(one) {
					f.add(one, -1)
					remove[id] = true
					gone = countIn(l.Class, remove)
				}
			}
			if gone == 0 {
				continue
			}
			q, err := r.without(ctx, remove)
			if err != nil {
				return err
			}
			s.Removed = append(s.Removed, float64(gone)/float64(l.Channels))
			s.Agreement = append(s.Agreement, q)
		}
		if len(s.Removed) > 0 {
			r.sensitive = append(r.sensitive, s)
		}
	}
	return nil
}

// without is the agreement on the select images that is left without some classes, with nothing repaired.
func (r *run) without(ctx context.Context, remove map[int]bool) (float64, error) {
	g, err := rewrite.Cut(r.current, r.analysis, remove)
	if err != nil {
		return 0, err
	}
	return r.quality(ctx, g, byAgreement)
}

// countIn is how many channels are of the classes in set.
func countIn(class []int, set map[int]bool) int {
	n := 0
	for _, id := range class {
		if id >= 0 && set[id] {
			n++
		}
	}
	return n
}
