package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

// origin is where one element of a list of numbers comes from: a dimension of a value, times or by a constant or computed
// with in another way, or a number. Shape arithmetic has no channels of its own, but a number that was read from a channel
// axis shrinks with it, and whatever else reads it must know.
type origin struct {
	v          *graph.Value // nil: a number
	axis       int
	times, per int  // one of them is 1; times is 0 for what was computed in another way
	mixed      bool // other sizes may have gone into it, so its value at the bound shape says nothing of other shapes
}

// countsChannels reports whether the origin is the channel axis of a value that has one.
func (a *analyzer) countsChannels(o origin) bool {
	c, ok := a.at[o.v]
	return ok && c.axis == o.axis
}

// pinDims pins the channels that elements of v count.
func (a *analyzer) pinDims(v *graph.Value, reason string) {
	a.pinOthers(a.dims[v], -1, reason)
}

// pinOthers is pinDims but for element at of the list.
func (a *analyzer) pinOthers(os []origin, at int, reason string) {
	for i, o := range os {
		if i != at && a.countsChannels(o) {
			a.pin(o.v, reason)
		}
	}
}

// pinCounted pins what inputs of n count: n computes with the number.
func (a *analyzer) pinCounted(n *graph.Node) {
	for _, v := range n.Inputs {
		a.pinDims(v, fmt.Sprintf("%v computes with its channel count", n))
	}
}

// sameDims carries a list through an operator that changes no element; false if n's first input is none.
func (a *analyzer) sameDims(n *graph.Node) bool {
	d, ok := a.dims[n.Input(0)]
	switch {
	case ok && len(a.shape(n.Outputs[0])) <= 1:
		a.dims[n.Outputs[0]] = d
	case ok:
		a.pinCounted(n)
	}
	return ok
}

// origins of a list: those noted, or numbers for a constant. ok is false if v is no list whose elements are understood.
func (a *analyzer) origins(v *graph.Value) (os []origin, ok bool) {
	if d, ok := a.dims[v]; ok {
		return d, true
	}
	if t := a.constant(v); t != nil && len(t.Shape) <= 1 {
		return slices.Repeat([]origin{{mixed: Weights(v) == nil}}, t.Elems()), true
	}
	return nil, false
}

func (a *analyzer) constantNode(*graph.Node) {}

func (a *analyzer) shapeNode(n *graph.Node) {
	x := n.Input(0)
	rank := len(a.shape(x))
	from, to := bound(n.Attrs.Int("start", 0), rank), bound(n.Attrs.Int("end", rank), rank)
	var d []origin
	for i := from; i < to; i++ {
		d = append(d, origin{v: x, axis: i, times: 1, per: 1})
	}
	a.dims[n.Outputs[0]] = d
}

// concatDims handles Concat of lists; false if n joins tensors.
func (a *analyzer) concatDims(n *graph.Node) bool {
	noted := false
	var d []origin
	for _, v := range n.Inputs {
		if _, ok := a.dims[v]; ok {
			noted = true
		}
	}
	if !noted {
		return false
	}
	for _, v := range n.Inputs {
		o, ok := a.origins(v)
		if !ok {
			a.pinCounted(n)
			return true
		}
		d = append(d, o...)
	}
	a.dims[n.Outputs[0]] = d
	return true
}

// sliceArgs are the constant arguments of a Slice in its attribute or input form.
func (a *analyzer) sliceArgs(n *graph.Node) (starts, ends, axes, steps []int, ok bool) {
	if n.Input(1) == nil {
		starts, ends, axes = n.Attrs.Ints("starts"), n.Attrs.Ints("ends"), n.Attrs.Ints("axes")
	} else {
		var ok1, ok2 bool
		starts, ok1 = a.constInts(n.Input(1))
		ends, ok2 = a.constInts(n.Input(2))
		if !ok1 || !ok2 {
			return nil, nil, nil, nil, false
		}
		if v := n.Input(3); v != nil {
			if axes, ok = a.constInts(v); !ok {
				return nil, nil, nil, nil, false
			}
		}
		if v := n.Input(4); v != nil {
			if steps, ok = a.constInts(v); !ok {
				return nil, nil, nil, nil, false
			}
		}
	}
	if axes == nil {
		for i := range starts {
			axes = append(axes, i)
		}
	}
	if steps == nil {
		steps = slices.Repeat([]int{1}, len(starts))
	}
	ok = len(ends) == len(starts) && len(axes) == len(starts) && len(steps) == len(starts)
	return starts, ends, axes, steps, ok
}

// sliceDims handles Slice of a list; false if n slices a tensor.
func (a *analyzer) sliceDims(n *graph.Node) bool {
	d, ok := a.dims[n.Input(0)]
	if !ok {
		return false
	}
	for _, v := range n.Inputs[1:] {
		a.pinDims(v, fmt.Sprintf("%v slices by its channel count", n))
	}
	starts, ends, _, steps, ok := a.sliceArgs(n)
	if !ok || len(starts) != 1 || steps[0] != 1 {
		a.pinCounted(n)
		return true
	}
	from, to := bound(starts[0], len(d)), bound(ends[0], len(d))
	a.dims[n.Outputs[0]] = d[from:max(from, to)]
	return true
}

// gatherDims handles Gather of a list; false if n picks from a tensor.
func (a *analyzer) gatherDims(n *graph.Node) bool {
	a.pinDims(n.Input(1), fmt.Sprintf("%v picks by its channel count", n))
	d, ok := a.dims[n.Input(0)]
	if !ok {
		return false
	}
	idx, ok := a.constInts(n.Input(1))
	var out []origin
	for _, i := range idx {
		i = axisOf(i, len(d))
		if ok = ok && i >= 0 && i < len(d); !ok {
			break
		}
		out = append(out, d[i])
	}
	if !ok {
		a.pinCounted(n)
		return true
	}
	a.dims[n.Outputs[0]] = out
	return true
}

// computeDims handles arithmetic on lists of sizes, element by element; false if n reads none, or something else as well.
func (a *analyzer) computeDims(n *graph.Node) bool {
	y := n.Outputs[0]
	noted := false
	lists := make([][]origin, len(n.Inputs))
	for i, v := range n.Inputs {
		_, has := a.dims[v]
		os, ok := a.origins(v)
		if !ok || len(a.shape(y)) > 1 || len(os) != 1 && len(os) != a.shape(y).Elems() {
			return false
		}
		noted, lists[i] = noted || has, os
	}
	if !noted {
		return false
	}
	out := make([]origin, a.shape(y).Elems())
	for i := range out {
		counting := -1 // the operand that counts channels
		for k, l := range lists {
			o := l[min(i, len(l)-1)]
			switch same := o.v == out[i].v && o.axis == out[i].axis; {
			case !a.countsChannels(o):
				out[i].mixed = out[i].mixed || o.mixed || o.v != nil
			case counting < 0:
				o.mixed = o.mixed || out[i].mixed
				out[i], counting = o, k
			case same:
				out[i].times, out[i].mixed = 0, out[i].mixed || o.mixed
			default: // a number made of the channels of two values
				return false
			}
		}
		if counting >= 0 {
			a.scale(n, &out[i], counting, i)
		}
	}
	a.dims[y] = out
	return true
}

// scale has o, which is operand k of n, become element i of what n computes from it.
func (a *analyzer) scale(n *graph.Node, o *origin, k, i int) {
	by := 0
	if len(n.Inputs) == 2 {
		if c, ok := a.constInts(n.Inputs[1-k]); ok {
			by = c[min(i, len(c)-1)]
		}
	}
	switch {
	case n.Op == "Mul" && by >= 1 && o.per == 1:
		o.times *= by
	case n.Op == "Div" && by >= 1 && o.times == 1 && k == 0:
		o.per *= by
	default: // such as what was rounded multiplied, or the other way round
		o.times = 0
	}
}

// follows reports whether o, a number computed from the channels of a value, shrinks just as ids do: each class has so
// many places in the one for each in the other.
func (a *analyzer) follows(o origin, ids []int) bool {
	count := func(ids []int) map[int]int {
		m := map[int]int{}
		for _, id := range ids {
			m[a.find(id)]++
		}
		return m
	}
	from, to := count(a.at[o.v].ids), count(ids)
	if len(from) != len(to) {
		return false
	}
	for id, k := range from {
		if k*o.times != to[id]*o.per {
			return false
		}
	}
	return true
}

// counted has element i of a list (an input of n that says how many channels come out) count the channels ids from now on.
func (a *analyzer) counted(n *graph.Node, input, i int, ids []int) {
	v := n.Input(input)
	os, ok := a.origins(v)
	if !ok || i >= len(os) {
		a.pinIDs(ids, fmt.Sprintf("%v has its channel count from numbers computed in the graph", n))
		return
	}
	switch o := os[i]; {
	case o.v == nil && Weights(v) != nil:
		a.counts = append(a.counts, rawCount{n, input, "", i, ids, 0, len(ids)})
	case o.v != nil && a.countsChannels(o) && a.follows(o, ids):
	case o.v != nil && a.countsChannels(o) && len(a.at[o.v].ids) == len(ids) && o.times == 1 && o.per == 1:
		// The number follows the other value's channels: both must shrink alike.
		a.tie(a.at[o.v].ids, ids, fmt.Sprintf("%v has its channel count from channels that cannot shrink", n))
	default:
		a.pinIDs(ids, fmt.Sprintf("%v has its channel count from numbers computed in the graph", n))
		a.pinDims(v, fmt.Sprintf("%v has its channel count from it", n))
	}
}
