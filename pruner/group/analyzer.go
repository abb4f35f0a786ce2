package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/grad"
)

// fixed is the id of positions that belong to no layer: channels of the input, constants.
const fixed = 0

const fixedReason = "its channels are those of the model's input or of a constant"

// chans is the channel axis of a value and the id of each position along it.
type chans struct {
	axis int
	ids  []int
}

// layer is a Layer before ids have become classes.
type layer struct {
	node    *graph.Node
	ids     []int
	follows bool
}

type rawSlice struct {
	node        *graph.Node
	input, axis int
	ids         []int
	of          *graph.Node
}

type rawCount struct {
	node  *graph.Node
	input int
	attr  string
	index int
	ids   []int
	from  int
	of    int
}

type rawPick struct {
	node       *graph.Node
	input      int
	ids, takes []int
}

type analyzer struct {
	g      *graph.Graph
	info   map[*graph.Value]op.Arg
	at     map[*graph.Value]chans
	dims   map[*graph.Value][]origin
	parent []int
	reason []string // by id; the class's reason is that of its smallest id that has one
	born   []Member // by id
	slices []rawSlice
	counts []rawCount
	picks  []rawPick
	layers []layer
	edges  []grad.Edge
}

func (a *analyzer) node(n *graph.Node) {
	if subs := n.Subgraphs(); len(subs) > 0 {
		a.pinAll(n, fmt.Sprintf("%v runs a subgraph, which may read any of them", n))
		for v, uses := range a.g.Uses() {
			for _, u := range uses {
				if u.Node == n && u.Input < 0 {
					a.pin(v, fmt.Sprintf("a subgraph of %v reads it", n))
					a.pinDims(v, fmt.Sprintf("a subgraph of %v reads its channel count", n))
				}
			}
		}
		return
	}
	if n.Domain == "" || n.Domain == "ai.onnx" {
		if rule, ok := rules[n.Op]; ok {
			rule(a, n)
			return
		}
	}
	a.pinAll(n, fmt.Sprintf("%v is an operator without a rule for channels", n))
}

// shape is nil for a value that Infer does not know.
func (a *analyzer) shape(v *graph.Value) tensor.Shape {
	if v.Const != nil {
		return v.Const.Shape
	}
	return a.info[v].Type.Shape
}

// constant is the value of v if it is known, nil otherwise or if v is omitted.
func (a *analyzer) constant(v *graph.Value) *tensor.Tensor {
	if v == nil {
		return nil
	}
	if v.Const != nil {
		return v.Const
	}
	return a.info[v].Const
}

// constInts is a constant list of integers.
func (a *analyzer) constInts(v *graph.Value) ([]int, bool) {
	t := a.constant(v)
	if t == nil {
		return nil, false
	}
	return t.Ints()
}

func (a *analyzer) find(i int) int { return root(a.parent, i) }

// root is what stands for i's set in a union-find forest, whose paths it halves.
func root(parent []int, i int) int {
	for parent[i] != i {
		parent[i] = parent[parent[i]]
		i = parent[i]
	}
	return i
}

// mint makes n ids for the channels that v has along axis.
func (a *analyzer) mint(v *graph.Value, axis, n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = len(a.parent)
		a.parent = append(a.parent, ids[i])
		a.reason = append(a.reason, "")
		a.born = append(a.born, Member{v, axis, i})
	}
	return ids
}

// tie joins ids pairwise. What is tied to a fixed position is pinned for the reason given.
func (a *analyzer) tie(x, y []int, reason string) {
	for i := range x {
		p, q := x[i], y[i]
		switch {
		case p == fixed && q == fixed:
		case p == fixed:
			a.pinID(q, reason)
		case q == fixed:
			a.pinID(p, reason)
		default:
			p, q = a.find(p), a.find(q)
			a.parent[max(p, q)] = min(p, q)
			if a.reason[min(p, q)] == "" {
				a.reason[min(p, q)] = a.reason[max(p, q)]
			}
		}
	}
}

// together ties all of ids to each other and gives one that stands for them; fixed if all are.
func (a *analyzer) together(ids []int, reason string) int {
	one := fixed
	for i, id := range ids {
		if id != fixed {
			one = id
		}
		if i > 0 {
			a.tie(ids[:1], ids[i:i+1], reason)
		}
	}
	return one
}

func (a *analyzer) pinID(id int, reason string) {
	if id = a.find(id); a.reason[id] == "" {
		a.reason[id] = reason
	}
}

// pin pins the channels of v, if it has any.
func (a *analyzer) pin(v *graph.Value, reason string) {
	for _, id := range a.at[v].ids {
		a.pinID(id, reason)
	}
}

// pinAll pins all that n reads, channels and numbers that count them.
func (a *analyzer) pinAll(n *graph.Node, reason string) {
	for _, v := range n.Inputs {
		a.pin(v, reason)
		a.pinDims(v, reason)
	}
}

func (a *analyzer) set(v *graph.Value, axis int, ids []int) {
	if v != nil {
		a.at[v] = chans{axis, ids}
	}
}

// idsAlong is the ids of v along axis: its channels, or fixed positions if it has none there. ok is false if its
// channels lie along another axis.
func (a *analyzer) idsAlong(v *graph.Value, axis int) (ids []int, ok bool) {
	if c, has := a.at[v]; has {
		return c.ids, c.axis == axis
	}
	return make([]int, a.shape(v)[axis]), true
}

func (a *analyzer) slice(n *graph.Node, input, axis int, ids []int) {
	if slices.ContainsFunc(ids, func(id int) bool { return id != fixed }) {
		a.slices = append(a.slices, rawSlice{node: n, input: input, axis: axis, ids: ids})
	}
}

// sliceStored is slice for weights and biases. Where they are stored quantised, what is cut is behind DequantizeLinear, which
// must have no other reader.
func (a *analyzer) sliceStored(n *graph.Node, input, axis int, ids []int) {
	if !slices.ContainsFunc(ids, func(id int) bool { return id != fixed }) {
		return
	}
	s := rawSlice{node: n, input: input, axis: axis, ids: ids}
	if q := dequantizes(n.Input(input)); q != nil {
		if len(a.uses(n.Input(input))) > 1 {
			a.pinIDs(ids, fmt.Sprintf("%v reads quantised numbers that others read as well", n))
			return
		}
		s.node, s.input = q, 0
		if axisOf(q.Attrs.Int("axis", 1), len(a.shape(n.Input(input)))) == axis {
			a.quantized(q, ids)
		}
	}
	if input == 1 {
		s.of = n
	}
	a.slices = append(a.slices, s)
}

// finish turns ids into classes.
func (a *analyzer) finish() *Analysis {
	an := &Analysis{
		class: map[grad.Edge][]int{}, axis: map[grad.Edge]int{}, edges: a.edges,
		along: map[string][]int{}, reads: map[string][]int{},
	}
	classOf := make([]int, len(a.parent))
	for id := 1; id < len(a.parent); id++ {
		root := a.find(id)
		if root == id {
			classOf[id] = len(an.Classes)
			an.Classes = append(an.Classes, Class{ID: len(an.Classes), Pinned: a.reason[id]})
		} else {
			classOf[id] = classOf[root] // a root is its class's smallest id
		}
		c := &an.Classes[classOf[id]]
		c.Members = append(c.Members, a.born[id])
	}
	free := func(ids []int) []int {
		cs := make([]int, len(ids))
		for i, id := range ids {
			cs[i] = -1
			if id != fixed && an.Classes[classOf[id]].Pinned == "" {
				cs[i] = classOf[id]
			}
		}
		return cs
	}
	for _, s := range a.slices {
		an.Slices = append(an.Slices, Slice{s.node, s.input, s.axis, free(s.ids), s.of})
	}
	for _, c := range a.counts {
		out := Count{Node: c.node, Input: c.input, Attr: c.attr, Index: c.index, Class: free(c.ids), From: c.from, Of: c.of}
		if c.attr == "" && Weights(c.node.Input(c.input)) == nil {
			out.Computed = a.constant(c.node.Input(c.input))
		}
		an.Counts = append(an.Counts, out)
	}
	for _, p := range a.picks {
		an.Picks = append(an.Picks, Pick{p.node, p.input, free(p.ids), free(p.takes)})
	}
	for _, e := range a.edges {
		c := a.at[e.Node.Inputs[e.Input]]
		an.class[e], an.axis[e] = free(c.ids), c.axis
		an.reads[e.Node.Outputs[0].Name] = an.class[e]
	}
	for v, c := range a.at {
		an.along[v.Name] = free(c.ids)
	}
	for _, l := range a.layers {
		out := Layer{Node: l.node, Name: name(l.node), Op: l.node.Op, Channels: len(l.ids), Follows: l.follows, Class: free(l.ids)}
		for i, c := range out.Class {
			if c >= 0 {
				out.Prunable++
			} else if out.Pinned == "" {
				out.Pinned = fixedReason
				if id := l.ids[i]; id != fixed {
					out.Pinned = an.Classes[classOf[id]].Pinned
				}
			}
		}
		an.layers = append(an.layers, out)
	}
	return an
}

// name is what a person finds the node by: its name, or that of its output.
func name(n *graph.Node) string {
	if n.Name != "" {
		return n.Name
	}
	for _, v := range n.Outputs {
		if v != nil {
			return v.Name
		}
	}
	return n.Op
}
