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

// weight is a constant as a node reads it, which a cut makes smaller. Its elements after a cut are the product of what stays
// of each axis.
type weight struct {
	value  *graph.Value
	rest   int64 // product of the axes that no class slices
	axes   []axis
	macs   int64   // multiply-adds for each element
	source *source // nil: it counts as no parameters
	gone   uint64  // what is cut, as touch.gone; 0: nothing
}

// source is a constant of the file and all that read it, directly or through Identity, as exporters write what is shared.
// It is cut as rewrite.Cut does it: those that read one value and lose the same share a copy, and the whole goes when none
// reads it any longer.
type source struct {
	whole  int64 // elements that count as parameters
	intact int   // readers that lose nothing
	copies map[lost]int
	// attribute is the value of a Constant node with so many readers; nil for initializers. Its attribute counts as no
	// parameters, and stays one if all its readers lose the same.
	attribute *graph.Value
	readers   int
}

// lost is a value and what its readers lose of it.
type lost struct {
	of   *graph.Value
	gone uint64
}

// worth is what the readers of l read of so many elements, once for all.
func (s *source) worth(l lost, elems int64) int64 {
	if n := s.copies[l]; n == 0 || l.of == s.attribute && n == s.readers {
		return 0
	}
	return elems
}

// count changes by n how many lose l, of which elems are left, and says by how much parameters change.
func (s *source) count(l lost, elems int64, n int) int64 {
	before := int64(0)
	if l.gone == 0 {
		if s.intact > 0 {
			before = s.whole
		}
		if s.intact += n; s.intact > 0 {
			return s.whole - before
		}
		return -before
	}
	before = s.worth(l, elems)
	if s.copies[l] += n; s.copies[l] == 0 {
		delete(s.copies, l)
	}
	return s.worth(l, elems) - before
}

func (w *weight) elems() int64 {
	n := w.rest
	for _, a := range w.axes {
		n *= int64(a.kept)
	}
	return n
}

// touch is what removing a class does to an axis of a weight.
type touch struct {
	weight, axis, count int
	gone                uint64 // of the positions that go; those of several classes are combined by exclusive or
}

// mark tells a position of an axis from all others, in 64 bits of which none has a meaning (Steele, Lea and Flood, OOPSLA
// 2014: the finaliser of SplitMix).
func mark(axis, position int) uint64 {
	z := (uint64(axis)<<48 + uint64(position) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// costs follows parameters, multiply-adds and filters through a series of removals, exactly; the multiply-adds of a node are
// those for each element of its weights times their number, which slicing leaves as it is.
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
				c.times[id] = append(c.times[id], touch{weight: len(c.timed), axis: side, count: k})
			}
		}
		c.timed = append(c.timed, t)
		c.ns += t.ns()
	}
}

// newCosts counts what the graph of a takes. table is nil unless time matters.
func newCosts(a *group.Analysis, base engine.Cost, table *latency.Table) *costs {
	c := &costs{touches: map[int][]touch{}, filters: map[int]int64{}, params: base.Parameters, macs: base.MACs}
	at := map[graph.Use]int{}
	for _, s := range a.Slices {
		v := s.Node.Inputs[s.Input]
		t := group.WeightTensor(v) // quantised weights are sliced behind their DequantizeLinear
		if t == nil {
			continue
		}
		p := graph.Use{Node: s.Node, Input: s.Input}
		i, ok := at[p]
		if !ok {
			i = len(c.weights)
			at[p] = i
			w := weight{value: v, rest: int64(t.Elems())}
			if s.Of != nil && w.rest > 0 {
				w.macs = base.Nodes[s.Of].MACs / w.rest
			}
			c.weights = append(c.weights, w)
		}
		w := &c.weights[i]
		w.rest /= int64(len(s.Class))
		w.axes = append(w.axes, axis{len(s.Class)})
		gone := map[int]uint64{}
		for p, id := range s.Class {
			gone[id] ^= mark(s.Axis, p)
		}
		for id, k := range tally(s.Class) {
			c.touches[id] = append(c.touches[id], touch{i, len(w.axes) - 1, k, gone[id]})
		}
	}
	c.share(at, base)
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

// share finds what constant each weight is of, and who else reads that. at says which weight a node's input is.
func (c *costs) share(at map[graph.Use]int, base engine.Cost) {
	readers := map[*graph.Value][]graph.Use{}
	for n := range base.Nodes {
		for i, v := range n.Inputs {
			readers[v] = append(readers[v], graph.Use{Node: n, Input: i})
		}
	}
	// others is how many read v of which nothing is ever cut.
	var others func(v *graph.Value) int
	others = func(v *graph.Value) (n int) {
		for _, u := range readers[v] {
			_, cut := at[u]
			switch out := u.Node.Outputs[0]; {
			case cut:
			case u.Node.Op == "Identity" && len(readers[out]) > 0:
				n += others(out)
			default:
				n++
			}
		}
		return n
	}
	sources := map[*graph.Value]*source{}
	for i := range c.weights {
		w := &c.weights[i]
		root := group.Weights(w.value)
		if !group.WeightTensor(root).DType.IsFloat() {
			continue
		}
		s := sources[root]
		if s == nil {
			s = &source{intact: others(root), copies: map[lost]int{}}
			if root.Const != nil {
				s.whole = int64(root.Const.Elems())
			} else {
				s.attribute, s.readers = root, len(readers[root])
			}
			sources[root] = s
		}
		s.intact++
		w.source = s
	}
}

// remove takes class id away (sign 1), or puts it back (sign -1).
func (c *costs) remove(id int, sign int) {
	for _, t := range c.touches[id] {
		w := &c.weights[t.weight]
		before := w.elems()
		w.axes[t.axis].kept -= sign * t.count
		after := w.elems()
		c.macs += (after - before) * w.macs
		was := lost{w.value, w.gone}
		if w.gone ^= t.gone; w.source != nil {
			c.params += w.source.count(was, before, -1) + w.source.count(lost{w.value, w.gone}, after, 1)
		}
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
