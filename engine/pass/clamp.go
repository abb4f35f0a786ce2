package pass

import (
	"math"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
)

// FuseClamps lets a convolution apply the Relu or Clip behind it while it still holds the result in registers.
func FuseClamps(g *graph.Graph, info Info) {
	uses, outs := g.Uses(), outputs(g)
	gone := map[*graph.Node]bool{}
	for _, n := range g.Nodes {
		if !isConv(n, info) || n.Domain == op.Private {
			continue
		}
		act := soleReader(outs, uses, n.Outputs[0])
		if act == nil {
			continue
		}
		lo, hi, ok := clampOf(act, g.Opset(""), info)
		if !ok {
			continue
		}
		n.Domain = op.Private
		n.Attrs = n.Attrs.Set(graph.FloatAttr("lo", lo)).Set(graph.FloatAttr("hi", hi))
		n.Outputs[0] = act.Outputs[0]
		n.Outputs[0].Def = n
		gone[act] = true
	}
	drop(g, gone)
}

// clampOf gives the bounds of a node that clamps its input between constants.
func clampOf(n *graph.Node, opset int, info Info) (lo, hi float32, ok bool) {
	inf := float32(math.Inf(1))
	switch {
	case isONNX(n, "Relu"):
		return 0, inf, true
	case isONNX(n, "Clip"):
		if lo, hi = -inf, inf; opset < 11 {
			lo, hi = n.Attrs.Float("min", lo), n.Attrs.Float("max", hi)
		}
		for i, bound := range []*float32{&lo, &hi} {
			v := n.Input(i + 1)
			if v == nil {
				continue
			}
			c := info[v].Const
			if c == nil {
				return 0, 0, false
			}
			f, isNum := c.Float64s()
			if !isNum || len(f) != 1 || float64(float32(f[0])) != f[0] {
				return 0, 0, false // a float64 bound that float32 cannot hold
			}
			*bound = float32(f[0])
		}
		return lo, hi, lo <= hi
	}
	return 0, 0, false
}
