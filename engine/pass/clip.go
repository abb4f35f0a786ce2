package pass

import (
	"math"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// MergeClips writes Max and Min with a constant number, which are half of a Clip each, as such, and makes one of several
// Relu and Clip in a row, of which only the last is read by others.
func MergeClips(g *graph.Graph, info Info) {
	uses, outs, fresh := g.Uses(), outputs(g), g.Namer()
	gone := map[*graph.Node]bool{}
	for _, n := range g.Nodes {
		x, lo, hi, ok := clipOf(g, n, info)
		if !ok || !info[x].Type.DType.IsFloat() {
			continue
		}
		changed := !isONNX(n, "Relu") && !isONNX(n, "Clip")
		if first := x.Def; first != nil && len(uses[x]) == 1 && !outs[x] {
			if x0, lo0, hi0, ok := clipOf(g, first, info); ok {
				x, lo, hi, changed = x0, min(max(lo0, lo), hi), min(max(hi0, lo), hi), true
				gone[first] = true
			}
		}
		if !changed {
			continue
		}
		n.Op, n.Attrs, n.Inputs = "Clip", nil, []*graph.Value{x}
		if lo == 0 && math.IsInf(float64(hi), 1) {
			n.Op = "Relu"
			continue
		}
		for i, b := range []float32{lo, hi} {
			name := []string{"min", "max"}[i]
			switch {
			case math.IsInf(float64(b), 2*i-1):
				if i == 0 {
					n.Inputs = append(n.Inputs, nil)
				}
			case g.Opset("") < 11:
				n.Attrs = n.Attrs.Set(graph.FloatAttr(name, b))
			default:
				t := floats(info[x].Type.DType, []float64{float64(b)})
				n.Inputs = append(n.Inputs, constant(g, info, fresh(n.Outputs[0].Name+"."+name), t))
			}
		}
	}
	drop(g, gone)
}

// clipOf is clampOf for Max and Min as well, whose constant may come first. x is what is clamped.
func clipOf(g *graph.Graph, n *graph.Node, info Info) (x *graph.Value, lo, hi float32, ok bool) {
	if !isONNX(n, "Max") && !isONNX(n, "Min") {
		if lo, hi, ok = clampOf(n, g.Opset(""), info); ok {
			x = n.Inputs[0]
		}
		return x, lo, hi, ok
	}
	if len(n.Inputs) != 2 {
		return nil, 0, 0, false
	}
	for i, v := range n.Inputs {
		b, isNumber := number(info[v].Const)
		x = n.Inputs[1-i]
		if !isNumber || math.IsNaN(b) || float64(float32(b)) != b || !sameType(info[x].Type, info[n.Outputs[0]].Type) {
			continue
		}
		lo, hi = float32(math.Inf(-1)), float32(math.Inf(1))
		if n.Op == "Max" {
			lo = float32(b)
		} else {
			hi = float32(b)
		}
		return x, lo, hi, true
	}
	return nil, 0, 0, false
}

// number is the value of a tensor of one floating-point number, whatever its rank.
func number(t *tensor.Tensor) (x float64, ok bool) {
	if t == nil || !t.DType.IsFloat() || t.Elems() != 1 {
		return 0, false
	}
	v, ok := t.Float64s()
	return v[0], ok
}
