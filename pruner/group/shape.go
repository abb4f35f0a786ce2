package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

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

// expand broadcasts. Along the channels it may only keep what is there.
func (a *analyzer) expand(n *graph.Node) {
	x, y, list := n.Input(0), n.Outputs[0], n.Input(1)
	in, out := a.shape(x), a.shape(y)
	c, ok := a.at[x]
	if !ok {
		a.pinDims(list, fmt.Sprintf("%v has its shape from its channel count", n))
		return
	}
	q := c.axis + len(out) - len(in)
	if out[q] != in[c.axis] {
		a.pinAll(n, fmt.Sprintf("%v broadcasts this one channel over %d", n, out[q]))
		return
	}
	a.set(y, q, c.ids)
	os, known := a.origins(list)
	at := q - (len(out) - len(os))
	a.pinOthers(os, at, fmt.Sprintf("%v has its shape from its channel count", n))
	lit, isConst := a.constInts(list)
	switch {
	case !known || !isConst:
		a.pin(x, fmt.Sprintf("%v has a computed shape", n))
	case at >= 0 && lit[at] != 1:
		a.counted(n, 1, at, c.ids)
	}
}

// tile repeats the channels as a whole, as often as its list says, which no removal changes.
func (a *analyzer) tile(n *graph.Node) {
	x, y := n.Input(0), n.Outputs[0]
	a.pinCounted(n)
	c, ok := a.at[x]
	if !ok {
		return
	}
	a.set(y, c.axis, slices.Repeat(c.ids, a.shape(y)[c.axis]/max(len(c.ids), 1)))
}

func (a *analyzer) axes(n *graph.Node) ([]int, bool) {
	if v := n.Input(1); v != nil {
		return a.constInts(v)
	}
	return n.Attrs.Ints("axes"), true
}

func (a *analyzer) squeeze(n *graph.Node) {
	x := n.Input(0)
	if a.sameDims(n) {
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
	if a.sameDims(n) {
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
