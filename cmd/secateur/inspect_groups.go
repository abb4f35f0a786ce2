package main

import (
	"slices"
	"strings"

	"github.com/secateur/secateur/pruner/group"
)

// groupRow is what may be removed of one layer's channels.
type groupRow struct {
	Name     string `json:"name"`
	Op       string `json:"op"`
	Channels int    `json:"channels"`
	Prunable int    `json:"prunable"`
	Pinned   string `json:"pinned,omitempty"`
	// Follows: the channels are those that the layer reads (a depthwise convolution), and go with them.
	Follows bool `json:"follows,omitempty"`
	// Tied are the other layers that lose channels when this one does.
	Tied []string `json:"tied,omitempty"`
}

func groupRows(a *group.Analysis) []groupRow {
	layers := a.Layers()
	of := map[int][]int{} // by class: the layers with a channel of it
	for i, l := range layers {
		for _, c := range l.Class {
			if c >= 0 && !slices.Contains(of[c], i) {
				of[c] = append(of[c], i)
			}
		}
	}
	rows := make([]groupRow, len(layers))
	for i, l := range layers {
		with := map[int]bool{i: true}
		rows[i] = groupRow{Name: l.Name, Op: l.Op, Channels: l.Channels, Prunable: l.Prunable, Pinned: l.Pinned, Follows: l.Follows}
		for _, c := range l.Class {
			for _, k := range of[c] {
				if !with[k] {
					with[k] = true
					rows[i].Tied = append(rows[i].Tied, layers[k].Name)
				}
			}
		}
	}
	return rows
}

// printGroups writes what can go of each layer, what goes with it, and why the rest stays.
func (r *inspection) printGroups(row func(format string, args ...any)) {
	row("\nlayer\toperator\tchannels\tcan go\t")
	for _, l := range r.Groups {
		var notes []string
		if len(l.Tied) > 0 {
			notes = append(notes, "with "+strings.Join(l.Tied, ", "))
		}
		if l.Pinned != "" {
			notes = append(notes, "pinned: "+l.Pinned)
		}
		row("%s\t%s\t%d\t%d\t%s", l.Name, l.Op, l.Channels, l.Prunable, strings.Join(notes, "; "))
	}
}

// filters counts the channels of layers that have their own, and those of them that can go.
func (r *inspection) filters() (all, prunable int) {
	for _, l := range r.Groups {
		if !l.Follows {
			all, prunable = all+l.Channels, prunable+l.Prunable
		}
	}
	return all, prunable
}
