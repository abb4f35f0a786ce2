package pass

import (
	"math"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
)

// FoldPads lets a convolution or a pool add the border itself that a Pad in front of it adds: one of zeros, or for MaxPool
// of -Inf. For MaxPool zeros do as well where nothing is less and no window lies in the border alone. Whoever else reads
// the Pad still finds it.
func FoldPads(g *graph.Graph, info Info) {
	for _, n := range g.Nodes {
		if !isONNX(n, "Conv") && !isONNX(n, "AveragePool") && !isONNX(n, "MaxPool") {
			continue
		}
		for { // one Pad may stand in front of another
			pad := n.Inputs[0].Def
			if pad == nil {
				break
			}
			s := site(g, pad, info)
			begin, end, value, ok := op.Border(s)
			if !ok || !spatial(begin, end) {
				break
			}
			own, ok := ownPads(n, len(begin)-2)
			if !ok {
				break
			}
			folded := *n
			folded.Inputs = slices.Clone(n.Inputs)
			folded.Inputs[0] = pad.Inputs[0]
			for i, p := range slices.Concat(begin[2:], end[2:]) {
				own[i] += p
			}
			folded.Attrs = n.Attrs.Set(graph.IntsAttr("pads", own...)).Set(graph.StrAttr("auto_pad", "NOTSET"))
			switch n.Op {
			case "Conv":
				ok = value == 0
			case "AveragePool": // what was input is counted
				ok = value == 0 && (n.Attrs.Int("count_include_pad", 0) != 0 || !slices.ContainsFunc(n.Attrs.Ints("pads"), notZero))
				folded.Attrs = folded.Attrs.Set(graph.IntAttr("count_include_pad", 1))
			case "MaxPool": // indices would be of what was padded
				ok = len(n.Outputs) == 1 && (math.IsInf(value, -1) || value == 0 && notNegative(g, pad.Inputs[0], info) && touches(&folded, info))
			}
			if !ok || !fits(g, &folded, info) {
				break
			}
			n.Inputs, n.Attrs = folded.Inputs, folded.Attrs
		}
	}
}

func notZero(n int) bool { return n != 0 }

// spatial reports whether pads are on the axes behind batch and channels alone, and crop nothing.
func spatial(begin, end []int) bool {
	if len(begin) < 3 || slices.ContainsFunc(slices.Concat(begin[:2], end[:2]), notZero) {
		return false
	}
	return slices.Min(begin) >= 0 && slices.Min(end) >= 0
}

// ownPads is what a convolution or pool of so many spatial axes adds itself, as far as that does not depend on the size.
func ownPads(n *graph.Node, axes int) (pads []int, ok bool) {
	switch n.Attrs.Str("auto_pad", "NOTSET") {
	case "NOTSET", "":
		if pads = n.Attrs.Ints("pads"); pads != nil {
			return pads, len(pads) == 2*axes
		}
	case "VALID":
	default:
		return nil, false
	}
	return make([]int, 2*axes), true
}

// notNegative reports whether no element of v can be less than 0.
func notNegative(g *graph.Graph, v *graph.Value, info Info) bool {
	if v.Def == nil {
		return false
	}
	_, lo, _, ok := clipOf(g, v.Def, info)
	return ok && lo >= 0
}

// touches reports whether every window of a pool lies over some of the input. Its pads are explicit.
func touches(n *graph.Node, info Info) bool {
	x, y := info[n.Inputs[0]].Type.Shape[2:], info[n.Outputs[0]].Type.Shape[2:]
	kernel, pads, strides := n.Attrs.Ints("kernel_shape"), n.Attrs.Ints("pads"), n.Attrs.Ints("strides")
	for i := range x {
		stride := 1
		if strides != nil {
			stride = strides[i]
		}
		if pads[i] >= kernel[i] || (y[i]-1)*stride-pads[i] >= x[i] {
			return false
		}
	}
	return !slices.ContainsFunc(n.Attrs.Ints("dilations"), func(d int) bool { return d != 1 })
}
