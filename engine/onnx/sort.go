package onnx

import (
	"container/heap"
	"fmt"

	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
)

// order gives the nodes' indices such that each node follows those it reads from: file order where that will do, else
// as close to it as the dependencies allow. producer tells which node yields a name. Names that the graphs inside a
// node's attributes read from outside count as read by the node.
func order(nodes []*onnxpb.NodeProto, producer map[string]int, free freeNames) ([]int, error) {
	deps := make([][]int, len(nodes)) // what each node waits for, possibly with repetitions
	sorted := true
	for i, n := range nodes {
		read := func(name string) {
			if p, ok := producer[name]; ok {
				deps[i] = append(deps[i], p)
				sorted = sorted && p < i
			}
		}
		free.node(n, read)
	}
	idx := make([]int, 0, len(nodes))
	if sorted {
		for i := range nodes {
			idx = append(idx, i)
		}
		return idx, nil
	}
	waits := make([]int, len(nodes))
	next := make([][]int, len(nodes))
	var ready ints
	for i, ds := range deps {
		waits[i] = len(ds)
		for _, p := range ds {
			next[p] = append(next[p], i)
		}
		if len(ds) == 0 {
			ready = append(ready, i)
		}
	}
	heap.Init(&ready)
	for len(ready) > 0 {
		i := heap.Pop(&ready).(int)
		idx = append(idx, i)
		for _, j := range next[i] {
			if waits[j]--; waits[j] == 0 {
				heap.Push(&ready, j)
			}
		}
	}
	if len(idx) < len(nodes) {
		for i, w := range waits {
			if w > 0 {
				return nil, fmt.Errorf("node %d, %s %q, waits for itself: the graph has a cycle", i, nodes[i].GetOpType(), nodes[i].GetName())
			}
		}
	}
	return idx, nil
}

// freeNames remembers which names a graph reads from the graphs around it.
type freeNames map[*onnxpb.GraphProto][]string

// node calls read for each name that the node reads, in its attributes' graphs too.
func (f freeNames) node(n *onnxpb.NodeProto, read func(string)) {
	for _, name := range n.Input {
		if name != "" {
			read(name)
		}
	}
	for _, a := range n.Attribute {
		if a.G != nil {
			f.graph(a.G, read)
		}
		for _, g := range a.Graphs {
			f.graph(g, read)
		}
	}
}

func (f freeNames) graph(g *onnxpb.GraphProto, read func(string)) {
	names, ok := f[g]
	if !ok {
		own, seen := map[string]bool{}, map[string]bool{}
		for _, v := range g.Input {
			own[v.GetName()] = true
		}
		for _, t := range g.Initializer {
			own[t.GetName()] = true
		}
		for _, s := range g.SparseInitializer {
			own[s.GetValues().GetName()] = true
		}
		for _, n := range g.Node {
			for _, o := range n.Output {
				own[o] = true
			}
		}
		note := func(name string) {
			if !own[name] && !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
		for _, n := range g.Node {
			f.node(n, note)
		}
		for _, v := range g.Output {
			note(v.GetName())
		}
		f[g] = names
	}
	for _, name := range names {
		read(name)
	}
}

// ints is a heap that gives the smallest number first.
type ints []int

func (h ints) Len() int           { return len(h) }
func (h ints) Less(i, j int) bool { return h[i] < h[j] }
func (h ints) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ints) Push(x any)        { *h = append(*h, x.(int)) }
func (h *ints) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}
