package group

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// reshape finds the axis along which channels lie afterwards, whatever axes were merged or divided (see regroup), and has
// the list of sizes count them.
func (a *analyzer) reshape(n *graph.Node) {
	x, y := n.Input(0), n.Outputs[0]
	list := n.Input(1)
	c, ok := a.at[x]
	if !ok {
		a.pinDims(list, fmt.Sprintf("%v has its shape from its channel count", n))
		a.sameDims(n)
		return
	}
	if list == nil {
		a.pinAll(n, fmt.Sprintf("%v has its shape as an attribute", n))
		return
	}
	q, ids := a.regrouped(n, c)
	if q < 0 {
		a.pinAll(n, fmt.Sprintf("%v moves channels among other axes", n))
		return
	}
	a.set(y, q, ids)
	os, known := a.origins(list)
	a.pinOthers(os, q, fmt.Sprintf("%v has its shape from its channel count", n))
	lit, isConst := a.constInts(list)
	if !known || !isConst || q >= len(lit) {
		a.pin(x, fmt.Sprintf("%v has a computed shape", n))
		return
	}
	copies := func(i int) bool { return lit[i] == 0 && n.Attrs.Int("allowzero", 0) == 0 }
	if c.axis != q && c.axis < len(lit) && copies(c.axis) {
		a.pin(x, fmt.Sprintf("%v copies the channel count to an axis without channels", n))
		return
	}
	if lit[q] == -1 || q == c.axis && copies(q) {
		return // follows by itself
	}
	a.counted(n, 1, q, ids)
}

// flatten is a reshape that needs no list.
func (a *analyzer) flatten(n *graph.Node) {
	a.pinCounted(n)
	c, ok := a.at[n.Input(0)]
	if !ok {
		return
	}
	q, ids := a.regrouped(n, c)
	if q < 0 {
		a.pin(n.Input(0), fmt.Sprintf("%v mixes channels with other axes", n))
		return
	}
	a.set(n.Outputs[0], q, ids)
}

// regrouped chooses the axis of n's output along which the channels of its input lie, and ties those that come to stand
// together there. It is -1 where every axis would mix all of them.
//
// [N,C,H,W] to [N,g,C/g,H,W] leaves a choice: channels may stand together by blocks of C/g, or by their place in a block.
// Before a Transpose it is a channel shuffle, and the finer way is taken; else it is a grouping for statistics, over which
// something is about to be averaged, and whole groups stand or fall.
func (a *analyzer) regrouped(n *graph.Node, c chans) (axis int, ids []int) {
	in, out := a.shape(n.Input(0)), a.shape(n.Outputs[0])
	finest := true
	for _, u := range a.uses(n.Outputs[0]) {
		finest = finest && u != nil && u.Op == "Transpose"
	}
	axis, most := -1, 1
	var best []int
	for q := range out {
		part, parts := regroup(in, c.axis, out, q)
		if parts > most {
			axis, most, best = q, parts, part
			if !finest {
				break
			}
		}
	}
	if axis < 0 {
		return -1, nil
	}
	// best gives the part of every channel, then of every place along the new axis.
	members := map[int][]int{}
	for ch, p := range best[:len(c.ids)] {
		members[p] = append(members[p], c.ids[ch])
	}
	first := map[int]int{}
	for _, p := range best[:len(c.ids)] {
		if _, ok := first[p]; !ok {
			first[p] = a.together(members[p], fmt.Sprintf("%v puts it together with channels that cannot shrink", n))
		}
	}
	ids = make([]int, out[axis])
	for r, p := range best[len(c.ids):] {
		ids[r] = first[p]
	}
	return axis, ids
}

// regroupLimit bounds the work of regroup. Where more is to be looked at, axes that have nothing to do with each other
// have been merged.
const regroupLimit = 1 << 20

// regroup says what becomes of the channels along axis p of in, if its elements, in their order, take the shape out:
// which channels have elements at which places of out's axis q. Channels and places that share elements are one part; to
// take a part away leaves the same elements in the same order on both sides, so each part can go, and nothing less. It
// returns the part of each channel followed by that of each place, and the number of parts; 1 if there is nothing to gain.
func regroup(in tensor.Shape, p int, out tensor.Shape, q int) (part []int, parts int) {
	c, inner := in[p], in[p+1:].Elems()
	n, rest := out[q], out[q+1:].Elems()
	if in.Elems() == 0 {
		return nil, 0
	}
	// Elements of a place come in runs of rest, those of a channel in runs of inner; the pattern of outer indices repeats.
	repeats := min(out[:q].Elems(), c*inner/gcd(n*rest, c*inner))
	step := gcd(rest, inner)
	if repeats > regroupLimit/n || rest/step > regroupLimit/(n*repeats) {
		return nil, 0
	}
	parent := make([]int, c+n)
	for i := range parent {
		parent[i] = i
	}
	parts = c + n
	for o := range repeats {
		for r := range n {
			for s := 0; s < rest; s += step {
				ch := ((o*n+r)*rest + s) / inner % c
				if x, y := root(parent, ch), root(parent, c+r); x != y {
					parent[max(x, y)] = min(x, y)
					if parts--; parts == 1 {
						return nil, 1
					}
				}
			}
		}
	}
	for i := range parent {
		parent[i] = root(parent, i)
	}
	return parent, parts
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
