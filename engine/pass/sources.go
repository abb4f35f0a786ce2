package pass

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
)

// FuseSources lets a convolution read the tensors that a Concat along channels joins where they lie, and a tensor that a
// Resize makes twice as large as it was before: neither needs to exist. A 3x3 convolution of an upsampled tensor also
// takes fewer products than one of the large tensor. Whoever else reads the Concat or the Resize still finds it.
func FuseSources(g *graph.Graph, info Info) {
	def := map[*graph.Value]*graph.Node{}
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			if v != nil {
				def[v] = n
			}
		}
	}
	budget := 1024 // of inputs more; every convolution that reads a Concat gets all of its inputs
	for _, n := range g.Nodes {
		budget += 4 * len(n.Inputs)
	}
	for _, n := range g.Nodes {
		if !isConv(n, info) || n.Op != "Conv" || n.Attrs.Int("group", 1) != 1 || n.Attrs.Has("up") || len(info[n.Inputs[0]].Type.Shape) != 4 {
			continue
		}
		small := upsamples(n, info)
		from := []*graph.Value{n.Inputs[0]}
		if c := def[n.Inputs[0]]; c != nil && joinsChannels(c) && len(c.Inputs) <= budget {
			from = c.Inputs
		}
		var up []int
		fused := len(from) > 1
		xs := append([]*graph.Value(nil), from...)
		for i, v := range xs {
			up = append(up, 0)
			if r := def[v]; small && r != nil && isResize(r) && op.Doubles(site(g, r, info)) {
				xs[i], up[i], fused = r.Inputs[0], 1, true
			}
		}
		if !fused {
			continue
		}
		budget -= len(xs)
		n.Domain = op.Private
		n.Inputs = append([]*graph.Value{xs[0], n.Inputs[1], n.Input(2)}, xs[1:]...)
		n.Attrs = n.Attrs.Set(graph.IntsAttr("up", up...))
	}
}

// joinsChannels reports whether n is a Concat along axis 1.
func joinsChannels(n *graph.Node) bool {
	axis := n.Attrs.Int("axis", 1)
	return isONNX(n, "Concat") && (axis == 1 || axis == -3)
}

func isResize(n *graph.Node) bool { return isONNX(n, "Resize") || isONNX(n, "Upsample") }

// upsamples reports whether the convolution is of the form that gains from a small input: 3x3, padded by one.
func upsamples(n *graph.Node, info Info) bool {
	w := info[n.Inputs[1]].Type.Shape
	if len(w) != 4 || w[2] != 3 || w[3] != 3 || n.Attrs.Str("auto_pad", "NOTSET") != "NOTSET" {
		return false
	}
	for name, want := range map[string]int{"strides": 1, "dilations": 1, "pads": 1} {
		v := n.Attrs.Ints(name)
		if v == nil && name == "pads" {
			return false
		}
		for _, x := range v {
			if x != want {
				return false
			}
		}
	}
	return true
}
