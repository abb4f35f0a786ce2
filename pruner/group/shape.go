package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

// origin is where one element of a list of integers comes from: a dimension of a value, or a number. Shape arithmetic
// has no channels of its own, but a number that was read from a channel axis shrinks with it, and whatever else reads
// it must know.
type origin struct {
	v    *graph.Value // nil: a number
	axis int
}

// counts reports whether the origin is the channel axis of a value that has one.
func (a *analyzer) countsChannels(o origin) bool {
	c, ok := a.at[o.v]
	return ok && c.axis == o.axis
}

// pinDims pins the channels that elements of v count.
func (a *analyzer) pinDims(v *graph.Value, reason string) {
	for _, o := range a.dims[v] {
		if a.countsChannels(o) {
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
		d = append(d, origin{x, i})
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

// gather picks elements of a list; of a tensor's channels it has no rule.
func (a *analyzer) gather(n *graph.Node) {
	a.pinDims(n.Input(1), fmt.Sprintf("%v picks by its channel count", n))
	d, isList := a.dims[n.Input(0)]
	idx, ok := a.constInts(n.Input(1))
	if isList && ok {
		var out []origin
		for _, i := range idx {
			if i < 0 {
				i += len(d)
			}
			if i < 0 || i >= len(d) {
				a.pinCounted(n)
				return
			}
			out = append(out, d[i])
		}
		a.dims[n.Outputs[0]] = out
		return
	}
	a.pinCounted(n)
	c, tracked := a.at[n.Input(0)]
	if !tracked {
		return
	}
	ax := axisOf(n.Attrs.Int("axis", 0), len(a.shape(n.Input(0))))
	if ax == c.axis {
		a.pin(n.Input(0), fmt.Sprintf("%v picks channels by number", n))
		return
	}
	axis := c.axis
	if ax < c.axis {
		axis += len(a.shape(n.Input(1))) - 1
	}
	a.set(n.Outputs[0], axis, c.ids)
}

// counted ties element i of a list (an input of n that says how many channels come out) to the channels ids, which it has to
// count from now on. repeat is how often each channel is counted.
func (a *analyzer) counted(n *graph.Node, input, i int, ids []int) {
	v := n.Input(input)
	pinned := func() {
		a.pinIDs(ids, fmt.Sprintf("%v has its channel count from numbers computed in the graph", n))
	}
	os, ok := a.origins(v)
	if !ok || i >= len(os) {
		pinned()
		return
	}
	o := os[i]
	switch {
	case o.v == nil && Weights(v) != nil:
		a.counts = append(a.counts, rawCount{n, input, "", i, ids, len(ids)})
	case o.v != nil && a.countsChannels(o) && len(a.at[o.v].ids) == len(ids):
		// The number follows the other value's channels: both must shrink alike.
		a.tie(a.at[o.v].ids, ids, fmt.Sprintf("%v has its channel count from channels that cannot shrink", n))
	default:
		pinned()
	}
}

// resize changes space. Where it is told all sizes, that of the channel axis counts channels.
func (a *analyzer) resize(n *graph.Node) {
	x, y := n.Input(0), n.Outputs[0]
	c, ok := a.at[x]
	sizes := 0
	if n.Op == "Resize" && n.Input(3) != nil {
		sizes = 3
	}
	for i, v := range n.Inputs {
		if i != 0 && i != sizes {
			a.pinDims(v, fmt.Sprintf("%v scales by its channel count", n))
		}
	}
	if !ok {
		a.pinDims(n.Input(sizes), fmt.Sprintf("%v has its size from its channel count", n))
		return
	}
	if a.shape(y)[c.axis] != len(c.ids) || n.Attrs.Str("keep_aspect_ratio_policy", "stretch") != "stretch" {
		a.pin(x, fmt.Sprintf("%v scales the channels", n))
		return
	}
	a.set(y, c.axis, c.ids)
	if sizes == 0 {
		scales := n.Input(1)
		if n.Op == "Resize" && len(n.Inputs) > 2 {
			scales = n.Input(2)
		}
		if t := a.constant(scales); t != nil && !n.Attrs.Has("axes") {
			if s, ok := t.Float64s(); ok && c.axis < len(s) && s[c.axis] != 1 {
				a.pin(x, fmt.Sprintf("%v scales the channels", n))
			}
		}
		return
	}
	axes := n.Attrs.Ints("axes")
	if axes == nil {
		for i := range a.shape(x) {
			axes = append(axes, i)
		}
	}
	for i, v := range axes {
		if axisOf(v, len(a.shape(x))) == c.axis {
			a.counted(n, sizes, i, c.ids)
		} else if os, ok := a.dims[n.Input(sizes)]; ok && i < len(os) && a.countsChannels(os[i]) {
			a.pin(os[i].v, fmt.Sprintf("%v has its size from its channel count", n))
		}
	}
}

func (a *analyzer) flatten(n *graph.Node) {
	x := n.Input(0)
	c, ok := a.at[x]
	if !ok {
		return
	}
	s := a.shape(x)
	ax := axisOf(n.Attrs.Int("axis", 1), len(s))
	if ax != 1 || c.axis != 1 {
		a.pin(x, fmt.Sprintf("%v mixes channels with other axes", n))
		return
	}
	a.set(n.Outputs[0], 1, repeat(c.ids, s[2:].Elems()))
}

// repeat gives each id k times in a row.
func repeat(ids []int, k int) []int {
	out := make([]int, 0, len(ids)*k)
	for _, id := range ids {
		for range k {
			out = append(out, id)
		}
	}
	return out
}

// reshape has rules for two forms: axes up to and including the channels stay ([N,C,H,W] to [N,C,HW]), or all from the
// channels on become one ([N,C,H,W] to [N,CHW]).
func (a *analyzer) reshape(n *graph.Node) {
	x, y := n.Input(0), n.Outputs[0]
	list := n.Input(1)
	c, ok := a.at[x]
	if !ok {
		a.pinDims(list, fmt.Sprintf("%v has its shape from its channel count", n))
		a.reshapeDims(n)
		return
	}
	in, out := a.shape(x), a.shape(y)
	p := c.axis
	if list == nil || p >= len(out) || !slices.Equal(in[:p], out[:p]) {
		a.pinAll(n, fmt.Sprintf("%v moves channels among other axes", n))
		return
	}
	var ids []int
	switch rest := in[p+1:].Elems(); {
	case out[p] == in[p]:
		ids = c.ids
	case out[p] == in[p]*rest:
		ids = repeat(c.ids, rest)
	default:
		a.pinAll(n, fmt.Sprintf("%v moves channels among other axes", n))
		return
	}
	a.set(y, p, ids)
	os, known := a.origins(list)
	for i, o := range os {
		if i != p && a.countsChannels(o) {
			a.pin(o.v, fmt.Sprintf("%v has its shape from its channel count", n))
		}
	}
	lit, isConst := a.constInts(list)
	switch {
	case !known || !isConst || p >= len(lit):
		a.pin(x, fmt.Sprintf("%v has a computed shape", n))
	case lit[p] == -1 || lit[p] == 0 && n.Attrs.Int("allowzero", 0) == 0:
		// Follows by itself.
	default:
		a.counted(n, 1, p, ids)
	}
}

// reshapeDims lets a scalar become a list of one, as exporters do.
func (a *analyzer) reshapeDims(n *graph.Node) {
	if d, ok := a.dims[n.Input(0)]; ok {
		a.dims[n.Outputs[0]] = d
	}
}

func (a *analyzer) transpose(n *graph.Node) {
	a.pinCounted(n)
	x := n.Input(0)
	c, ok := a.at[x]
	if !ok {
		return
	}
	perm := n.Attrs.Ints("perm")
	if perm == nil {
		for i := len(a.shape(x)) - 1; i >= 0; i-- {
			perm = append(perm, i)
		}
	}
	a.set(n.Outputs[0], slices.Index(perm, c.axis), c.ids)
}

func (a *analyzer) axes(n *graph.Node) ([]int, bool) {
	if v := n.Input(1); v != nil {
		return a.constInts(v)
	}
	return n.Attrs.Ints("axes"), true
}

func (a *analyzer) squeeze(n *graph.Node) {
	x := n.Input(0)
	if d, ok := a.dims[x]; ok {
		a.dims[n.Outputs[0]] = d
		return
	}
	c, ok := a.at[x]
	if !ok {
		return
	}
	axes, ok := a.axes(n)
	if !ok || len(axes) == 0 {
		a.pin(x, fmt.Sprintf("%v drops axes that depend on the shape", n))
		return
	}
	axis := c.axis
	for _, v := range axes {
		v = axisOf(v, len(a.shape(x)))
		if v == c.axis {
			a.pin(x, fmt.Sprintf("%v drops the channel axis", n))
			return
		}
		if v < c.axis {
			axis--
		}
	}
	a.set(n.Outputs[0], axis, c.ids)
}

func (a *analyzer) unsqueeze(n *graph.Node) {
	x := n.Input(0)
	if d, ok := a.dims[x]; ok {
		a.dims[n.Outputs[0]] = d
		return
	}
	c, ok := a.at[x]
	if !ok {
		return
	}
	axes, ok := a.axes(n)
	if !ok {
		a.pin(x, fmt.Sprintf("%v adds computed axes", n))
		return
	}
	rank := len(a.shape(n.Outputs[0]))
	added := make([]bool, rank)
	for _, v := range axes {
		if v = axisOf(v, rank); v >= 0 && v < rank {
			added[v] = true
		}
	}
	old := -1
	for i, isNew := range added {
		if !isNew {
			if old++; old == c.axis {
				a.set(n.Outputs[0], i, c.ids)
				return
			}
		}
	}
}
