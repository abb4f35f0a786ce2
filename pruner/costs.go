package pruner

import (
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/group"
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
}

func newCosts(a *group.Analysis, base engine.Cost) *costs {
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
		n := map[int]int{}
		for _, id := range s.Class {
			if id >= 0 {
				n[id]++
			}
		}
		for id, k := range n {
			c.touches[id] = append(c.touches[id], touch{i, len(w.axes) - 1, k})
		}
	}
	for _, l := range a.Layers() {
		if l.Follows {
			continue
		}
		c.count += int64(l.Channels)
		for _, id := range l.Class {
			if id >= 0 {
				c.filters[id]++
			}
		}
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
}

// of is the figure that a target counts.
func (c *costs) of(kind string) int64 {
	switch kind {
	case "macs":
		return c.macs
	case "params":
		return c.params
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
