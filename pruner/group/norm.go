package group

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
)

// groupNorm normalises the channels of a group by statistics of the group: one channel less would change those of the
// others, a whole group less changes nothing for the rest. So a group stands or falls together.
func (a *analyzer) groupNorm(n *graph.Node) {
	x, c, ok := a.channelsOf(n)
	if !ok {
		return
	}
	groups := n.Attrs.Int("num_groups", 0)
	switch {
	case c.axis != 1:
		a.pin(x, fmt.Sprintf("%v reads channels along axis 1, they lie along axis %d", n, c.axis))
		return
	case groups < 1 || len(c.ids)%groups != 0:
		a.pin(x, fmt.Sprintf("%v has %d groups for %d channels", n, groups, len(c.ids)))
		return
	case Weights(n.Input(1)) == nil || Weights(n.Input(2)) == nil:
		a.pin(x, fmt.Sprintf("the parameters of %v are computed", n))
	}
	size := len(c.ids) / groups
	of := make([]int, groups)
	for i := range of {
		of[i] = a.together(c.ids[i*size:(i+1)*size], fmt.Sprintf("%v shares statistics with channels that cannot shrink", n))
	}
	for _, p := range []int{1, 2} { // from opset 21 on one entry a channel, one a group before
		if a.shape(n.Input(p)).Elems() == len(c.ids) {
			a.slice(n, p, 0, c.ids)
		} else {
			a.slice(n, p, 0, of)
		}
	}
	a.counts = append(a.counts, rawCount{n, 0, "num_groups", -1, of, 0, groups})
	a.set(n.Outputs[0], 1, c.ids)
}

// channelsOf is the first input and its channels. Where other inputs have channels, they are parameters, and pinned.
func (a *analyzer) channelsOf(n *graph.Node) (x *graph.Value, c chans, ok bool) {
	a.pinCounted(n)
	for _, v := range n.Inputs[1:] {
		a.pin(v, fmt.Sprintf("it is a parameter of %v", n))
	}
	x = n.Input(0)
	c, ok = a.at[x]
	return x, c, ok
}

// layerNorm computes statistics over the axes from axis on. Channels before them are each for itself.
func (a *analyzer) layerNorm(n *graph.Node) {
	x, c, ok := a.channelsOf(n)
	if !ok {
		return
	}
	if axis := axisOf(n.Attrs.Int("axis", -1), len(a.shape(x))); c.axis >= axis {
		a.pin(x, fmt.Sprintf("%s over channels (%v) reads all of them together", n.Op, n))
		return
	}
	for _, y := range n.Outputs {
		a.set(y, c.axis, c.ids)
	}
}

// quantize is QuantizeLinear and DequantizeLinear: one scale and zero point for all, or one for each entry along an axis.
func (a *analyzer) quantize(n *graph.Node) {
	x, c, ok := a.channelsOf(n)
	if !ok {
		return
	}
	if n.Attrs.Int("block_size", 0) != 0 {
		a.pin(x, fmt.Sprintf("%v has a scale for each block of channels", n))
		return
	}
	if axis := axisOf(n.Attrs.Int("axis", 1), len(a.shape(x))); axis == c.axis {
		a.quantized(n, c.ids)
	}
	a.set(n.Outputs[0], c.axis, c.ids)
}

// quantized slices the scales and zero points of n, where they are one for each of ids.
func (a *analyzer) quantized(n *graph.Node, ids []int) {
	for p := 1; p < len(n.Inputs); p++ {
		v := n.Input(p)
		if v == nil || len(a.shape(v)) != 1 || a.shape(v)[0] != len(ids) || len(ids) == 1 {
			continue
		}
		if Weights(v) == nil {
			a.pinIDs(ids, fmt.Sprintf("the scale of %v is computed", n))
			continue
		}
		a.slice(n, p, 0, ids)
	}
}
