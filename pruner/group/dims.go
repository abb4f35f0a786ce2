package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

// origin is where one element of a list of integers comes from: a dimension of a value, times or by a constant, or a
// number. Shape arithmetic has no channels of its own, but a number that was read from a channel axis shrinks with it, and
// whatever else reads it must know.
type origin struct {
	v          *graph.Value // nil: a number
	axis       int
	times, per int // one of them is 1
}

// counts reports whether the origin is the channel axis of a value that has one.
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

// passDims carries origins through an operator that changes no element, and pins them at any other.
func (a *analyzer) passDims(n *graph.Node) {
	if n.Op == "Cast" || n.Op == "Identity" {
		if d, ok := a.dims[n.Input(0)]; ok {
			a.dims[n.Outputs[0]] = d
		}
		return
	}
	a.pinCounted(n)
}

// origins of a list: those noted, or numbers for a constant. ok is false if v is no list whose elements are understood.
func (a *analyzer) origins(v *graph.Value) (os []origin, ok bool) {
	if d, ok := a.dims[v]; ok {
		return d, true
	}
	if t := a.constant(v); isInt(t) && len(t.Shape) <= 1 {
		return make([]origin, t.Elems()), true
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
		d = append(d, origin{x, i, 1, 1})
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

// scaleDims handles Mul and Div of a list by constants; false if n computes with tensors, or with numbers in another way.
func (a *analyzer) scaleDims(n *graph.Node) bool {
	if n.Op != "Mul" && n.Op != "Div" {
		return false
	}
	list, by := n.Input(0), n.Input(1)
	if _, ok := a.dims[list]; !ok && n.Op == "Mul" {
		list, by = by, list
	}
	d, ok := a.dims[list]
	k, isConst := a.constInts(by)
	if !ok || !isConst || slices.ContainsFunc(a.dims[by], a.countsChannels) || len(k) != 1 && len(k) != len(d) {
		return false
	}
	out := make([]origin, len(d))
	for i, o := range d {
		by := k[min(i, len(k)-1)]
		switch {
		case o.v == nil:
		case by < 1:
			return false
		case n.Op == "Mul" && o.per == 1:
			o.times *= by
		case n.Op == "Div" && o.times == 1:
			o.per *= by
		default: // what was rounded is multiplied, or the other way round
			return false
		}
		out[i] = o
	}
	a.dims[n.Outputs[0]] = out
	return true
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
		a.counts = append(a.counts, rawCount{n, input, "", i, ids, len(ids)})
	case o.v != nil && a.countsChannels(o) && a.follows(o, ids):
	case o.v != nil && a.countsChannels(o) && len(a.at[o.v].ids) == len(ids) && o.times == 1 && o.per == 1:
		// The number follows the other value's channels: both must shrink alike.
		a.tie(a.at[o.v].ids, ids, fmt.Sprintf("%v has its channel count from channels that cannot shrink", n))
	default:
		a.pinIDs(ids, fmt.Sprintf("%v has its channel count from numbers computed in the graph", n))
		a.pinDims(v, fmt.Sprintf("%v has its channel count from it", n))
	}
}

// reshapeDims lets a scalar become a list of one, as exporters do.
func (a *analyzer) reshapeDims(n *graph.Node) {
	if d, ok := a.dims[n.Input(0)]; ok {
		a.dims[n.Outputs[0]] = d
	}
}
