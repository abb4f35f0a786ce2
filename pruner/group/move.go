package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

func (a *analyzer) concat(n *graph.Node) {
	if a.concatDims(n) {
		return
	}
	y := n.Outputs[0]
	rank := len(a.shape(y))
	cat := axisOf(n.Attrs.Int("axis", 1), rank)
	axis := -1
	for _, v := range n.Inputs {
		if c, ok := a.at[v]; ok {
			if axis >= 0 && c.axis != axis {
				a.pinAll(n, fmt.Sprintf("%v joins tensors whose channels lie along different axes", n))
				return
			}
			axis = c.axis
		}
	}
	if axis < 0 {
		return
	}
	var ids []int
	for i, v := range n.Inputs {
		in, _ := a.idsAlong(v, axis)
		switch {
		case cat == axis:
			ids = append(ids, in...)
		case i == 0:
			ids = in
		default:
			a.tie(ids, in, fmt.Sprintf("%v joins it to channels that cannot shrink", n))
		}
	}
	a.set(y, axis, ids)
}

func (a *analyzer) split(n *graph.Node) {
	a.pinCounted(n)
	x := n.Input(0)
	sizes, isConst := n.Attrs.Ints("split"), true
	if v := n.Input(1); v != nil {
		sizes, isConst = a.constInts(v)
		isConst = isConst && Weights(v) != nil
	}
	c, ok := a.at[x]
	if !ok {
		return
	}
	if axisOf(n.Attrs.Int("axis", 0), len(a.shape(x))) != c.axis {
		for _, o := range n.Outputs {
			a.set(o, c.axis, c.ids)
		}
		return
	}
	if !isConst {
		a.pin(x, fmt.Sprintf("%v splits at computed places", n))
		return
	}
	from := 0
	var first []int
	for i, o := range n.Outputs {
		if o == nil {
			a.pin(x, fmt.Sprintf("%v leaves out a part", n))
			return
		}
		part := c.ids[from : from+a.shape(o)[c.axis]]
		from += len(part)
		switch {
		case sizes != nil && n.Input(1) != nil:
			a.counts = append(a.counts, rawCount{n, 1, "", i, part, 0, len(part)})
		case sizes != nil:
			a.counts = append(a.counts, rawCount{n, 0, "split", i, part, 0, len(part)})
		case i == 0:
			first = part
		case len(part) == len(first): // equal parts without sizes must stay equal
			a.tie(first, part, fmt.Sprintf("%v splits it into equal parts, one of which cannot shrink", n))
		default:
			a.pin(x, fmt.Sprintf("%v splits it into unequal parts without saying their sizes", n))
		}
		a.set(o, c.axis, part)
	}
}

func (a *analyzer) sliceNode(n *graph.Node) {
	if a.sliceDims(n) {
		return
	}
	x, y := n.Input(0), n.Outputs[0]
	for i := 3; i < len(n.Inputs); i++ {
		a.pinDims(n.Input(i), fmt.Sprintf("%v slices by its channel count", n))
	}
	c, ok := a.at[x]
	if !ok {
		a.pinCounted(n)
		return
	}
	fixedSlice := func() {
		a.pin(x, fmt.Sprintf("%v takes channels in a way that has no rule", n))
		a.pinCounted(n)
	}
	starts, ends, axes, steps, ok := a.sliceArgs(n)
	if !ok {
		// Unknown axes might be the channels'.
		fixedSlice()
		return
	}
	at := -1
	for i, ax := range axes {
		if axisOf(ax, len(a.shape(x))) == c.axis {
			at = i
		}
	}
	if at < 0 {
		a.pinCounted(n)
		a.set(y, c.axis, c.ids)
		return
	}
	if steps[at] != 1 {
		fixedSlice()
		return
	}
	from, to := bound(starts[at], len(c.ids)), bound(ends[at], len(c.ids))
	if from >= to {
		fixedSlice()
		return
	}
	if n.Input(1) == nil {
		a.counts = append(a.counts, rawCount{n, 0, "starts", at, c.ids, from, from}, rawCount{n, 0, "ends", at, c.ids, from, to})
	} else if !a.limit(n, 1, at, c.ids, from, from) || !a.limit(n, 2, at, c.ids, from, to) {
		fixedSlice()
		return
	}
	a.set(y, c.axis, c.ids[from:to])
}

// limit has element at of an input of the Slice n, which is the position of in the channels ids, go on to be it; what is
// sliced begins at from. The number may be computed from a channel count, as torch exports chunk: once channels go, it is a constant. false if there is no
// rule for it.
func (a *analyzer) limit(n *graph.Node, input, at int, ids []int, from, of int) bool {
	v := n.Input(input)
	if Weights(v) == nil {
		os := a.dims[v]
		if len(os) != 1 || os[0].mixed || !a.countsChannels(os[0]) {
			return false
		}
		ids = slices.Concat(ids, a.at[os[0].v].ids) // whichever of the two shrinks
	}
	a.counts = append(a.counts, rawCount{n, input, "", at, ids, from, of})
	return true
}

// bound turns a start or an end of Slice into a position in [0,n].
func bound(i, n int) int {
	if i < 0 {
		i += n
	}
	return min(max(i, 0), n)
}

func (a *analyzer) pad(n *graph.Node) {
	a.pinCounted(n)
	x := n.Input(0)
	c, ok := a.at[x]
	if !ok {
		return
	}
	if same := a.shape(x)[c.axis] == a.shape(n.Outputs[0])[c.axis]; !same {
		a.pin(x, fmt.Sprintf("%v adds channels", n))
		return
	}
	pads, known := n.Attrs.Ints("pads"), true
	if v := n.Input(1); v != nil {
		pads, known = a.constInts(v)
	}
	// A crop on one side and a pad on the other would keep the count and move the channels.
	rank := len(a.shape(x))
	if axesIn := n.Input(3); axesIn == nil && (!known || len(pads) != 2*rank || pads[c.axis] != 0) {
		a.pin(x, fmt.Sprintf("%v may move channels", n))
		return
	} else if axesIn != nil {
		axes, ok := a.constInts(axesIn)
		if !ok || slices.ContainsFunc(axes, func(ax int) bool { return axisOf(ax, rank) == c.axis }) {
			a.pin(x, fmt.Sprintf("%v may move channels", n))
			return
		}
	}
	a.set(n.Outputs[0], c.axis, c.ids)
}

func (a *analyzer) depthToSpace(n *graph.Node) {
	x := n.Input(0)
	c, ok := a.at[x]
	if !ok {
		return
	}
	b := n.Attrs.Int("blocksize", 1)
	r2 := b * b
	co := len(c.ids) / max(r2, 1)
	if c.axis != 1 || co == 0 {
		a.pin(x, fmt.Sprintf("%v moves channels into space", n))
		return
	}
	ids := make([]int, co)
	for o := range ids {
		for k := range r2 {
			p := k*co + o // DCR: depth, column, row
			if n.Attrs.Str("mode", "DCR") == "CRD" {
				p = o*r2 + k
			}
			if k == 0 {
				ids[o] = c.ids[p]
			} else {
				a.tie(ids[o:o+1], c.ids[p:p+1], fmt.Sprintf("%v makes one channel of it and one that cannot shrink", n))
			}
		}
	}
	a.set(n.Outputs[0], 1, ids)
}

// spaceToDepth is depthToSpace backwards: output k·C + c holds what input c has at place k of each block.
func (a *analyzer) spaceToDepth(n *graph.Node) {
	x := n.Input(0)
	c, ok := a.at[x]
	if !ok {
		return
	}
	if c.axis != 1 {
		a.pin(x, fmt.Sprintf("%v moves space into channels", n))
		return
	}
	a.set(n.Outputs[0], 1, slices.Repeat(c.ids, a.shape(n.Outputs[0])[1]/max(len(c.ids), 1)))
}

// gather picks elements of a list of sizes, or channels by number; what stays of these is renumbered.
func (a *analyzer) gather(n *graph.Node) {
	if a.gatherDims(n) {
		return
	}
	a.pinCounted(n)
	x, idx, y := n.Input(0), n.Input(1), n.Outputs[0]
	a.pin(idx, fmt.Sprintf("%v picks by it", n))
	c, ok := a.at[x]
	if !ok {
		return
	}
	rank := len(a.shape(idx))
	if ax := axisOf(n.Attrs.Int("axis", 0), len(a.shape(x))); ax != c.axis {
		axis := c.axis
		if ax < c.axis {
			axis += rank - 1
		}
		a.set(y, axis, c.ids)
		return
	}
	at, ok := a.constInts(idx)
	if !ok || WeightTensor(idx) == nil {
		a.pin(x, fmt.Sprintf("%v picks channels by computed numbers", n))
		return
	}
	if rank != 1 {
		a.pin(x, fmt.Sprintf("%v picks channels into %d axes", n, rank))
		return
	}
	ids := make([]int, len(at))
	for i, p := range at {
		if p = axisOf(p, len(c.ids)); p < 0 || p >= len(c.ids) {
			a.pin(x, fmt.Sprintf("%v picks a channel that is not there", n))
			return
		}
		ids[i] = c.ids[p]
	}
	a.picks = append(a.picks, rawPick{n, 1, c.ids, ids})
	a.set(y, c.axis, ids)
}
