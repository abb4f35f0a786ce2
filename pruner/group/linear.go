package group

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/grad"
)

// reads notes that n's weights read the channels of its first input along axis, and slices the weights so. It pins the
// channels if they lie along another axis.
func (a *analyzer) reads(n *graph.Node, axis, weightAxis int) {
	x := n.Input(0)
	c, ok := a.at[x]
	if !ok {
		return
	}
	if c.axis != axis {
		a.pin(x, fmt.Sprintf("%v reads channels along axis %d, they lie along axis %d", n, axis, c.axis))
		return
	}
	a.slice(n, 1, weightAxis, c.ids)
	a.edges = append(a.edges, grad.Edge{Node: n, Input: 0})
}

// yields mints ids for what n's weights yield along axis of its output, and slices weights and bias so.
func (a *analyzer) yields(n *graph.Node, axis, count, weightAxis int) {
	y := n.Outputs[0]
	ids := a.mint(y, axis, count)
	a.slice(n, 1, weightAxis, ids)
	if b := n.Input(2); b != nil {
		if s := a.shape(b); len(s) > 0 && s[len(s)-1] == count && (count > 1 || n.Op != "Gemm") {
			a.slice(n, 2, len(s)-1, ids)
			if Weights(b) == nil {
				a.pinIDs(ids, fmt.Sprintf("the bias of %v is computed", n))
			}
		}
		a.pin(b, fmt.Sprintf("it is the bias of %v", n))
	}
	a.layers = append(a.layers, layer{node: n, ids: ids})
	a.set(y, axis, ids)
}

func (a *analyzer) pinIDs(ids []int, reason string) {
	for _, id := range ids {
		if id != fixed {
			a.pinID(id, reason)
		}
	}
}

// conv is Conv, W[M, C/group, ...], and ConvTranspose, W[C, M/group, ...].
func (a *analyzer) conv(n *graph.Node) {
	x, w, y := n.Input(0), n.Input(1), n.Outputs[0]
	if WeightTensor(w) == nil {
		a.pinAll(n, fmt.Sprintf("the weights of %v are computed", n))
		return
	}
	in, out := 1, 0
	if n.Op == "ConvTranspose" {
		in, out = 0, 1
	}
	group := n.Attrs.Int("group", 1)
	c, m := a.shape(x)[1], a.shape(y)[1]
	if group == 1 {
		a.reads(n, 1, in)
		a.yields(n, 1, m, out)
		return
	}
	ids, tracked := a.idsAlong(x, 1)
	depthwise := group == c && (n.Op == "Conv" || a.shape(w)[1] == 1)
	if !tracked || !depthwise {
		reason := fmt.Sprintf("the grouped convolution %v needs its %d groups equal", n, group)
		a.pin(x, reason)
		fresh := a.mint(y, 1, m)
		a.pinIDs(fresh, reason)
		a.layers = append(a.layers, layer{node: n, ids: fresh})
		a.set(y, 1, fresh)
		return
	}
	// Depthwise: output j reads input j/(M/C) alone, so it stands or falls with it. For M == C both layouts keep one
	// filter a channel on axis 0; a multiplier is a matter of Conv's, whose axis 0 is M.
	mul := m / c
	follow := make([]int, m)
	for j := range follow {
		follow[j] = ids[j/mul]
	}
	a.slice(n, 1, 0, follow)
	if n.Op == "ConvTranspose" && mul != 1 {
		a.pin(x, fmt.Sprintf("the depthwise %v has a multiplier", n))
	}
	if n.Input(2) != nil {
		a.slice(n, 2, 0, follow)
		if Weights(n.Input(2)) == nil {
			a.pin(x, fmt.Sprintf("the bias of %v is computed", n))
		}
	}
	a.counts = append(a.counts, rawCount{n, 0, "group", -1, ids, len(ids)})
	a.layers = append(a.layers, layer{node: n, ids: follow, follows: true})
	a.set(y, 1, follow)
}

func (a *analyzer) gemm(n *graph.Node) {
	x, w := n.Input(0), n.Input(1)
	if WeightTensor(w) == nil {
		a.pinAll(n, fmt.Sprintf("the weights of %v are computed", n))
		return
	}
	xAxis, k, m := 1, 0, 1
	if n.Attrs.Int("transA", 0) != 0 {
		xAxis = 0
	}
	if n.Attrs.Int("transB", 0) != 0 {
		k, m = 1, 0
	}
	a.reads(n, xAxis, k)
	_ = x
	a.yields(n, 1, a.shape(w)[m], m)
}

// matmul has rules for a constant matrix on the right: its rows read the last axis of the left operand.
func (a *analyzer) matmul(n *graph.Node) {
	x, w := n.Input(0), n.Input(1)
	if WeightTensor(w) == nil || len(a.shape(w)) != 2 {
		a.pinAll(n, fmt.Sprintf("%v multiplies by something other than a constant matrix", n))
		return
	}
	rank := len(a.shape(x))
	if rank < 2 {
		a.pinAll(n, fmt.Sprintf("%v multiplies a vector", n))
		return
	}
	a.reads(n, rank-1, 0)
	a.yields(n, rank-1, a.shape(w)[1], 1)
}
