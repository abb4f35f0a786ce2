// Package rewrite turns a choice of channel classes into a graph. [Cut] makes the smaller graph; [Mask] keeps the size
// and multiplies by zero what weights read of the removed channels. The two compute the same, which is how Cut is
// tested: Mask needs none of the notes on slices and counts that Cut lives by.
package rewrite

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
)

// Cut returns g without the classes in remove. It changes weights, per-channel constants, and numbers and attributes
// that count channels; it drops what the file declares of inner types. All else is as it was, and if nothing is
// removed the result is a copy. A constant that is to be cut in two ways becomes two.
//
// It is an error to remove a pinned class, or all channels of anything.
func Cut(g *graph.Graph, a *group.Analysis, remove map[int]bool) (*graph.Graph, error) {
	if err := check(a, remove); err != nil {
		return nil, fmt.Errorf("cut: %w", err)
	}
	if !any(remove) {
		return g.Clone(), nil
	}
	c := &cutter{remove: remove, edits: map[place]*edit{}, made: map[made]*graph.Value{}}
	c.h, _ = g.CloneMap()
	c.node = make(map[*graph.Node]*graph.Node, len(g.Nodes))
	for i, n := range g.Nodes {
		c.node[n] = c.h.Nodes[i]
	}
	before := c.h.Uses()
	if err := c.collect(a); err != nil {
		return nil, fmt.Errorf("cut: %w", err)
	}
	if err := c.apply(before); err != nil {
		return nil, fmt.Errorf("cut: %w", err)
	}
	for _, n := range c.h.Nodes {
		for _, v := range n.Outputs {
			if v != nil && !slices.Contains(c.h.Outputs, v) {
				v.Type = tensor.Type{}
			}
		}
	}
	c.sweep(before)
	if err := c.h.Validate(); err != nil {
		return nil, fmt.Errorf("cut: %w", err)
	}
	return c.h, nil
}

func any(remove map[int]bool) bool {
	for _, r := range remove {
		if r {
			return true
		}
	}
	return false
}

func check(a *group.Analysis, remove map[int]bool) error {
	for id, r := range remove {
		if !r {
			continue
		}
		if id < 0 || id >= len(a.Classes) {
			return fmt.Errorf("there is no channel class %d", id)
		}
		if c := a.Classes[id]; c.Pinned != "" {
			return fmt.Errorf("channel class %d of %q cannot be removed: %s", id, c.Members[0].Value.Name, c.Pinned)
		}
	}
	return nil
}

// place is a constant input of a node.
type place struct {
	node  *graph.Node
	input int
}

// edit is all that happens to a constant at one place, in terms that can be compared.
type edit struct {
	computed *tensor.Tensor // what the graph computes at the place; nil where it reads a constant
	slices   []axisKeep
	counts   []count
	picks    [][]int // by channel: its number afterwards, -1 if it goes
}

type axisKeep struct {
	axis int
	keep []int
}

type count struct{ index, value int }

func (e *edit) key() string {
	var b strings.Builder
	fmt.Fprint(&b, e.slices, e.counts, e.picks)
	return b.String()
}

func (e *edit) do(t *tensor.Tensor) (*tensor.Tensor, error) {
	var err error
	for _, s := range e.slices {
		if t, err = Take(t, s.axis, s.keep); err != nil {
			return nil, err
		}
	}
	for _, p := range e.picks {
		if t, err = renumber(t, p); err != nil {
			return nil, err
		}
	}
	if len(e.counts) > 0 {
		t = t.Clone()
	}
	for _, c := range e.counts {
		switch {
		case c.index >= t.Elems():
			return nil, fmt.Errorf("element %d of a list of %d", c.index, t.Elems())
		case t.DType == tensor.Int64:
			tensor.Of[int64](t)[c.index] = int64(c.value)
		case t.DType == tensor.Int32:
			tensor.Of[int32](t)[c.index] = int32(c.value)
		default:
			return nil, fmt.Errorf("a list of %v cannot count channels", t.DType)
		}
	}
	return t, nil
}

// renumber gives a list of channels their numbers afterwards, without those that go.
func renumber(t *tensor.Tensor, to []int) (*tensor.Tensor, error) {
	list, ok := t.Ints()
	if !ok {
		return nil, fmt.Errorf("a list of %v cannot number channels", t.DType)
	}
	out := make([]int64, 0, len(list))
	for _, p := range list {
		if p < 0 {
			p += len(to)
		}
		if p < 0 || p >= len(to) {
			return nil, fmt.Errorf("channel %d of %d", p, len(to))
		}
		if to[p] >= 0 {
			out = append(out, int64(to[p]))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no channel of the list would be left")
	}
	if t.DType == tensor.Int32 {
		short := make([]int32, len(out))
		for i, p := range out {
			short[i] = int32(p)
		}
		return tensor.From(short, len(short)), nil
	}
	return tensor.From(out, len(out)), nil
}

// made names a constant that was cut apart from its source.
type made struct {
	source *graph.Value
	key    string
}

type cutter struct {
	h      *graph.Graph
	node   map[*graph.Node]*graph.Node // of g to of h
	remove map[int]bool
	order  []place
	edits  map[place]*edit
	made   map[made]*graph.Value
}

// keep lists the positions that stay; cut says whether any goes.
func (c *cutter) keep(class []int) (keep []int, cut bool) {
	keep = make([]int, 0, len(class))
	for i, id := range class {
		if id < 0 || !c.remove[id] {
			keep = append(keep, i)
		}
	}
	return keep, len(keep) < len(class)
}

func (c *cutter) edit(n *graph.Node, input int) *edit {
	p := place{n, input}
	if c.edits[p] == nil {
		c.edits[p] = &edit{}
		c.order = append(c.order, p)
	}
	return c.edits[p]
}

func (c *cutter) collect(a *group.Analysis) error {
	for _, s := range a.Slices {
		keep, cut := c.keep(s.Class)
		if !cut {
			continue
		}
		n := c.node[s.Node]
		if len(keep) == 0 {
			return fmt.Errorf("node %v would be left without channels", n)
		}
		e := c.edit(n, s.Input)
		e.slices = append(e.slices, axisKeep{s.Axis, keep})
	}
	for _, p := range a.Picks {
		kept, cut := c.keep(p.Class)
		if !cut {
			continue
		}
		to := slices.Repeat([]int{-1}, len(p.Class))
		for i, k := range kept {
			to[k] = i
		}
		e := c.edit(c.node[p.Node], p.Input)
		e.picks = append(e.picks, to)
	}
	for _, s := range a.Counts {
		if _, cut := c.keep(s.Class); !cut {
			continue
		}
		keep, _ := c.keep(s.Class[:s.Of])
		n := c.node[s.Node]
		if some, cut := c.keep(s.Class[s.From:s.Of]); cut && len(some) == 0 {
			return fmt.Errorf("node %v would be left without channels", n)
		}
		switch {
		case s.Attr == "":
			e := c.edit(n, s.Input)
			e.computed = s.Computed
			e.counts = append(e.counts, count{s.Index, len(keep)})
		case s.Index < 0:
			n.Attrs = n.Attrs.Set(graph.IntAttr(s.Attr, len(keep)))
		default:
			at, _ := n.Attrs.Get(s.Attr)
			at.Ints = slices.Clone(at.Ints)
			at.Ints[s.Index] = int64(len(keep))
			n.Attrs = n.Attrs.Set(at)
		}
	}
	return nil
}

// apply edits every constant: in its place if all who read it want the same, else as a new initializer.
func (c *cutter) apply(uses map[*graph.Value][]graph.Use) error {
	agreed := map[*graph.Value]bool{}
	for _, p := range c.order {
		v := p.node.Inputs[p.input]
		if _, ok := agreed[v]; ok {
			continue
		}
		same := !slices.Contains(c.h.Outputs, v)
		for _, u := range uses[v] {
			e := c.edits[place{u.Node, u.Input}]
			same = same && e != nil && e.key() == c.edits[p].key()
		}
		agreed[v] = same
	}
	done := map[*graph.Value]bool{}
	for _, p := range c.order {
		v, e := p.node.Inputs[p.input], c.edits[p]
		if done[v] {
			continue
		}
		t := cmp.Or(e.computed, group.WeightTensor(v))
		if t == nil {
			return fmt.Errorf("node %v: input %q is not a constant of the file", p.node, v.Name)
		}
		key := made{v, e.key()}
		if w, ok := c.made[key]; ok {
			p.node.Inputs[p.input] = w
			continue
		}
		cut, err := e.do(t)
		if err != nil {
			return fmt.Errorf("node %v: input %q: %w", p.node, v.Name, err)
		}
		switch {
		case agreed[v] && v.Const != nil:
			v.Const, v.External = cut, nil
			if v.Type.Shape != nil {
				v.Type = cut.Type()
			}
			done[v] = true
		case agreed[v] && v.Def.Op == "Constant":
			at, _ := v.Def.Attrs.Get("value")
			at.Tensor = cut
			v.Def.Attrs = v.Def.Attrs.Set(at)
			done[v] = true
		default:
			w := AddConst(c.h, v.Name+"_cut", cut)
			c.made[key] = w
			p.node.Inputs[p.input] = w
		}
	}
	return nil
}

// AddConst adds an initializer under a fresh name that begins with base. Up to IR version 3 an initializer is declared
// as an input as well.
func AddConst(g *graph.Graph, base string, t *tensor.Tensor) *graph.Value {
	w := &graph.Value{Name: g.Fresh(base), Const: t}
	if g.IR < 4 {
		w.Type = t.Type()
		g.Inputs = append(g.Inputs, w)
	}
	g.Inits = append(g.Inits, w)
	return w
}

// sweep removes nodes and initializers that the cut has left without a reader.
func (c *cutter) sweep(before map[*graph.Value][]graph.Use) {
	for again := true; again; {
		uses := c.h.Uses()
		dead := func(v *graph.Value) bool {
			return v == nil || len(uses[v]) == 0 && !slices.Contains(c.h.Outputs, v)
		}
		lost := func(v *graph.Value) bool { return dead(v) && len(before[v]) > 0 }
		nodes := len(c.h.Nodes)
		c.h.Nodes = slices.DeleteFunc(c.h.Nodes, func(n *graph.Node) bool {
			return slices.ContainsFunc(n.Outputs, func(v *graph.Value) bool { return v != nil && lost(v) }) && !slices.ContainsFunc(n.Outputs, func(v *graph.Value) bool { return !dead(v) })
		})
		gone := map[*graph.Value]bool{}
		for _, v := range c.h.Inits {
			gone[v] = lost(v)
		}
		c.h.Inits = slices.DeleteFunc(c.h.Inits, func(v *graph.Value) bool { return gone[v] })
		c.h.Inputs = slices.DeleteFunc(c.h.Inputs, func(v *graph.Value) bool { return gone[v] })
		again = len(c.h.Nodes) < nodes
	}
}

// Take returns the entries of t at the positions keep along axis.
func Take(t *tensor.Tensor, axis int, keep []int) (*tensor.Tensor, error) {
	if axis < 0 || axis >= len(t.Shape) {
		return nil, fmt.Errorf("axis %d of shape %v", axis, t.Shape)
	}
	if t.DType.Bits()%8 != 0 || t.DType.Bits() == 0 {
		return nil, fmt.Errorf("%v cannot be cut", t.DType)
	}
	shape := t.Shape.Clone()
	shape[axis] = len(keep)
	out := tensor.New(t.DType, shape...)
	inner := t.DType.Size(t.Shape[axis+1:].Elems())
	outer := t.Shape[:axis].Elems()
	for o := range outer {
		for i, k := range keep {
			if k >= t.Shape[axis] {
				return nil, fmt.Errorf("position %d along axis %d of shape %v", k, axis, t.Shape)
			}
			copy(out.Data[(o*len(keep)+i)*inner:][:inner], t.Data[(o*t.Shape[axis]+k)*inner:])
		}
	}
	return out, nil
}
