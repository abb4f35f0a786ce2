package pruner

import (
	"math"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/group"
	"github.com/secateur/secateur/pruner/latency"
)

// axis is one sliced axis of a weight tensor.
type axis struct {
	kept int
}

// weight is a constant that a cut makes smaller. Its elements after a cut are the product of what stays of each axis.
type weight struct {
	rest   int64 // product of the axes that no class slices
	axes   []axis
	params int64 // 1 if it counts as parameters, 0 if it was counted before
	macs   int64 // multiply-adds for each element
}

func (w *weight) elems() int64 {
	n := w.rest
	for _, a := range w.axes {
		n *= int64(a.kept)
	}
	return n
}

// touch is what removing a class does to an axis of a weight.
type touch struct{ weight, axis, count int }

// costs follows parameters, multiply-adds and filters through a series of removals. The figures are exact for graphs
// whose shared constants are cut alike; the multiply-adds of a node are those for each element of its weights times
// their number, which slicing leaves as it is.
type costs struct {
	weights []weight
	touches map[int][]touch // by class
	filters map[int]int64   // by class: channels of layers that go with it
	params  int64
	macs    int64
	count   int64 // filters that are there

	timed []timed
	times map[int][]touch // by class: of the steps' inputs (axis 0) and outputs (axis 1)
	ns    float64
}

// timed is a step of the run: what of its channels is left, in and out, and how many the original has.
type timed struct {
	step  *latency.Step
	scale float64
	kept  [2]int
	of    [2]int
}

func (t *timed) ns() float64 {
	var part [2]float64
	for i := range part {
		part[i] = float64(t.kept[i]) / float64(t.of[i])
	}
	return 1e6 * t.scale * t.step.At(part[0], part[1])
}

// tally counts the channels of each class.
func tally(class []int) map[int]int {
	n := map[int]int{}
	for _, id := range class {
		if id >= 0 {
			n[id]++
		}
	}
	return n
}

// time has c follow the time that table predicts as well.
func (c *costs) time(a *group.Analysis, table *latency.Table) {
	c.times = map[int][]touch{}
	for i := range table.Steps {
		s := &table.Steps[i]
		t := timed{step: s, scale: table.Between, kept: [2]int{1, 1}, of: [2]int{1, 1}}
		in, out := []int(nil), a.Channels(s.Output)
		if s.Layer != "" {
			in = a.Reads(s.Layer)
		}
		for side, class := range [][]int{in, out} {
			if len(class) == 0 {
				continue
			}
			t.kept[side], t.of[side] = len(class), len(class)
			if whole := s.Channels[side]; whole > 0 {
				t.of[side] = whole
			}
			for id, k := range tally(class) {
				c.times[id] = append(c.times[id], touch{len(c.timed), side, k})
			}
		}
		c.timed = append(c.timed, t)
		c.ns += t.ns()
	}
}

// newCosts counts what the graph of a takes. table is nil unless time matters.
func newCosts(a *group.Analysis, base engine.Cost, table *latency.Table) *costs {
	c := &costs{touches: map[int][]touch{}, filters: map[int]int64{}, params: base.Parameters, macs: base.MACs}
	type place struct {
		n     *graph.Node
		input int
	}
	at := map[place]int{}
	counted := map[*graph.Value]bool{}
	for _, s := range a.Slices {
		v := s.Node.Inputs[s.Input]
		t := group.WeightTensor(v) // quantised weights are sliced behind their DequantizeLinear
		if t == nil {
			continue
		}
		p := place{s.Node, s.Input}
		i, ok := at[p]
		if !ok {
			i = len(c.weights)
			at[p] = i
			w := weight{rest: int64(t.Elems())}
			if v.Const != nil && v.Const.DType.IsFloat() && !counted[v] {
				w.params, counted[v] = 1, true
			}
			if s.Of != nil && w.rest > 0 {
				w.macs = base.Nodes[s.Of].MACs / w.rest
			}
			c.weights = append(c.weights, w)
		}
		w := &c.weights[i]
		w.rest /= int64(len(s.Class))
		w.axes = append(w.axes, axis{len(s.Class)})
		for id, k := range tally(s.Class) {
			c.touches[id] = append(c.touches[id], touch{i, len(w.axes) - 1, k})
		}
	}
	for _, l := range a.Layers() {
		if l.Follows {
			continue
		}
		c.count += int64(l.Channels)
		for id, k := range tally(l.Class) {
			c.filters[id] += int64(k)
		}
	}
	if table != nil {
		c.time(a, table)
	}
	return c
}

// remove takes class id away (sign 1), or puts it back (sign -1).
func (c *costs) remove(id int, sign int) {
	for _, t := range c.touches[id] {
		w := &c.weights[t.weight]
		before := w.elems()
		w.axes[t.axis].kept -= sign * t.count
		less := before - w.elems()
		c.params -= less * w.params
		c.macs -= less * w.macs
	}
	c.count -= int64(sign) * c.filters[id]
	for _, t := range c.times[id] {
		s := &c.timed[t.weight]
		before := s.ns()
		s.kept[t.axis] -= sign * t.count
		c.ns += s.ns() - before
	}
}

// of is the figure that a target counts.
func (c *costs) of(kind string) int64 {
	switch kind {
	case "macs":
		return c.macs
	case "params":
		return c.params
	case "latency":
		return int64(math.Round(c.ns))
	}
	return c.count
}

// saved is by how much the figure would fall without these classes.
func (c *costs) saved(ids []int, kind string) int64 {
	before := c.of(kind)
	for _, id := range ids {
		c.remove(id, 1)
	}
	after := c.of(kind)
	for _, id := range ids {
		c.remove(id, -1)
	}
	return before - after
}

// back is by how much the figure would rise with these classes put back.
func (c *costs) back(ids []int, kind string) int64 {
	before := c.of(kind)
	for _, id := range ids {
		c.remove(id, -1)
	}
	after := c.of(kind)
	for _, id := range ids {
		c.remove(id, 1)
	}
	return after - before
}
