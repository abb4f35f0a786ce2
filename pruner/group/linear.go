package group

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
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
	a.sliceStored(n, 1, weightAxis, c.ids)
	a.edges = append(a.edges, grad.Edge{Node: n, Input: 0})
}

// yields mints ids for what n's weights yield along axis of its output, and slices weights and bias so.
func (a *analyzer) yields(n *graph.Node, axis, count, weightAxis int) {
	y := n.Outputs[0]
	ids := a.mint(y, axis, count)
	a.sliceStored(n, 1, weightAxis, ids)
	a.bias(n, ids)
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
	if WeightType(w) == tensor.Undefined {
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
	switch {
	case !tracked || c%group != 0 || m%group != 0:
		a.pinAll(n, fmt.Sprintf("%v reads channels along axis 1, they lie along another", n))
		a.set(y, 1, a.mint(y, 1, m))
		a.pin(y, fmt.Sprintf("the grouped convolution %v cannot shrink", n))
	case group == c:
		a.depthwise(n, ids, m)
	default:
		a.grouped(n, ids, m, group)
	}
}

// depthwise: output j reads input j/(M/C) alone, so it stands or falls with it.
func (a *analyzer) depthwise(n *graph.Node, ids []int, m int) {
	follow := make([]int, m)
	for j := range follow {
		follow[j] = ids[j/(m/len(ids))]
	}
	if n.Op == "Conv" { // W[M,1,...]
		a.sliceStored(n, 1, 0, follow)
	} else { // W[C,M/C,...]
		a.sliceStored(n, 1, 0, ids)
	}
	a.bias(n, follow)
	a.counts = append(a.counts, rawCount{n, 0, "group", -1, ids, 0, len(ids)})
	a.layers = append(a.layers, layer{node: n, ids: follow, follows: true})
	a.set(n.Outputs[0], 1, follow)
}

// grouped: the groups stay equal if each loses the channels at the same places, in and out.
func (a *analyzer) grouped(n *graph.Node, ids []int, m, group int) {
	why := fmt.Sprintf("the grouped convolution %v needs its %d groups equal, and one reads channels that cannot shrink", n, group)
	byPlace := func(ids []int) []int {
		size := len(ids) / group
		places := make([]int, size)
		for p := range places {
			var same []int
			for g := range group {
				same = append(same, ids[g*size+p])
			}
			places[p] = a.together(same, why)
		}
		return places
	}
	fresh := a.mint(n.Outputs[0], 1, m)
	in, out := byPlace(ids), byPlace(fresh)
	if n.Op == "Conv" { // W[M,C/g,...]
		a.sliceStored(n, 1, 1, in)
		a.sliceStored(n, 1, 0, fresh)
	} else { // W[C,M/g,...]
		a.sliceStored(n, 1, 0, ids)
		a.sliceStored(n, 1, 1, out)
	}
	a.bias(n, fresh)
	if _, ok := a.at[n.Input(0)]; ok {
		a.edges = append(a.edges, grad.Edge{Node: n, Input: 0})
	}
	a.layers = append(a.layers, layer{node: n, ids: fresh})
	a.set(n.Outputs[0], 1, fresh)
}

// bias slices what is added to each of ids. Gemm's may be one number for all.
func (a *analyzer) bias(n *graph.Node, ids []int) {
	b := n.Input(2)
	if b == nil {
		return
	}
	a.pin(b, fmt.Sprintf("it is the bias of %v", n))
	a.pinDims(b, fmt.Sprintf("%v adds its channel count", n))
	s := a.shape(b)
	if len(s) == 0 || s[len(s)-1] != len(ids) || len(ids) == 1 && n.Op == "Gemm" {
		return
	}
	a.sliceStored(n, 2, len(s)-1, ids)
	if WeightType(b) == tensor.Undefined {
		a.pinIDs(ids, fmt.Sprintf("the bias of %v is computed", n))
	}
}

func (a *analyzer) gemm(n *graph.Node) {
	x, w := n.Input(0), n.Input(1)
	if WeightType(w) == tensor.Undefined {
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
	if WeightType(w) == tensor.Undefined || len(a.shape(w)) != 2 {
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
