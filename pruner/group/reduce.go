package group

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
)

func (a *analyzer) softmax(n *graph.Node) {
	a.pinCounted(n)
	x := n.Input(0)
	c, ok := a.at[x]
	if !ok {
		return
	}
	rank := len(a.shape(x))
	def, coerced := -1, a.g.Opset("") < 13
	if coerced {
		def = 1
	}
	ax := axisOf(n.Attrs.Int("axis", def), rank)
	if ax == c.axis || coerced && ax < c.axis { // before opset 13 all axes from ax on are one
		a.pin(x, fmt.Sprintf("%s over channels (%v) reads all of them together", n.Op, n))
		return
	}
	a.set(n.Outputs[0], c.axis, c.ids)
}

func (a *analyzer) reduce(n *graph.Node) {
	x := n.Input(0)
	a.pinCounted(n)
	c, ok := a.at[x]
	if !ok {
		return
	}
	rank := len(a.shape(x))
	axes := n.Attrs.Ints("axes")
	if n.Op == "ArgMax" || n.Op == "ArgMin" {
		axes = []int{n.Attrs.Int("axis", 0)}
	}
	if v := n.Input(1); v != nil {
		if axes, ok = a.constInts(v); !ok {
			a.pin(x, fmt.Sprintf("%v reduces over computed axes", n))
			return
		}
	}
	if len(axes) == 0 && n.Attrs.Int("noop_with_empty_axes", 0) != 0 {
		a.set(n.Outputs[0], c.axis, c.ids)
		return
	}
	keep := n.Attrs.Int("keepdims", 1) != 0
	axis := c.axis
	for _, ax := range axes {
		switch ax = axisOf(ax, rank); {
		case ax == c.axis:
			axis = -1
		case ax < c.axis && !keep && axis > 0:
			axis--
		}
		if axis < 0 {
			break
		}
	}
	if len(axes) == 0 || axis < 0 {
		a.pin(x, fmt.Sprintf("%s over channels (%v) reads all of them together", n.Op, n))
		return
	}
	a.set(n.Outputs[0], axis, c.ids)
}
