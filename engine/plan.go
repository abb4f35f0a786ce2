package engine

import (
	"cmp"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// plan says where in a session's memory each value lies. Values that never live at the same time share bytes.
type plan struct {
	offset map[*graph.Value]int
	// viewed marks nodes that need not run: their outputs are bytes of their input, in another shape.
	viewed map[*graph.Node]bool
	bytes  int
}

// span is a piece of memory and the steps from whose first to whose last it is in use.
type span struct {
	size, first, last, offset int
}

// layOut assigns memory. A verbatim model keeps every value to itself.
func layOut(m *Model) plan {
	p := plan{offset: map[*graph.Value]int{}, viewed: map[*graph.Node]bool{}}
	last := m.lastUse()
	spanOf := map[*graph.Value]*span{}
	var spans []*span
	add := func(v *graph.Value, at int) {
		t := m.info[v].Type
		s := &span{size: roundUp(t.DType.Size(t.Shape.Elems())), first: at, last: max(last[v], at)}
		spanOf[v] = s
		spans = append(spans, s)
	}
	// into is how many bytes behind the beginning of its span a value lies.
	into := map[*graph.Value]int{}
	share := func(v, with *graph.Value, at, step int) {
		s := spanOf[with]
		s.last = max(s.last, last[v], step)
		spanOf[v], into[v] = s, into[with]+at
	}
	for _, v := range m.inputs {
		add(v, -1)
	}
	for i, st := range m.steps {
		if in := first(st.node); st.views != nil && spanOf[in] != nil && !m.keep {
			p.viewed[st.node] = true
			for o, v := range st.node.Outputs {
				if v != nil {
					share(v, in, st.views[o], i)
				}
			}
			continue
		}
		for o, v := range st.node.Outputs {
			if v == nil || m.info[v].Const != nil {
				continue
			}
			if o == 0 && !m.keep && m.inPlace(st, i, spanOf) {
				share(v, first(st.node), 0, i)
				continue
			}
			add(v, i)
		}
	}
	p.bytes = pack(spans, m.keep)
	for v, s := range spanOf {
		p.offset[v] = s.offset + into[v]
	}
	return p
}

// first is a node's first input, or nil.
func first(n *graph.Node) *graph.Value { return n.Input(0) }

// views says where the outputs of a node lie in its first input, in bytes, or gives nil if they have to be written.
func views(s *op.Site, def op.Def) []int {
	dt := s.DType(0)
	if def.View == nil || dt == tensor.String || dt.Bits()%8 != 0 {
		return nil
	}
	at := def.View(s)
	for i := range at {
		at[i] = dt.Size(at[i])
	}
	return at
}

// inPlace reports whether the first output may lie where the first input does: the operator allows it and nobody reads the
// input, or anything else that lies there, later.
func (m *Model) inPlace(st step, at int, spanOf map[*graph.Value]*span) bool {
	in := first(st.node)
	s := spanOf[in]
	if !st.def.InPlace || s == nil || s.last > at {
		return false
	}
	a, b := m.info[in].Type, m.info[st.node.Outputs[0]].Type
	if a.DType.Size(a.Shape.Elems()) != b.DType.Size(b.Shape.Elems()) || a.DType.Bits() != b.DType.Bits() {
		return false
	}
	for _, v := range st.node.Inputs[1:] {
		if v != nil && spanOf[v] == s {
			return false
		}
	}
	return true
}

// lastUse gives the last step that reads each value; graph outputs are read after the last.
func (m *Model) lastUse() map[*graph.Value]int {
	last := map[*graph.Value]int{}
	for i, st := range m.steps {
		for _, v := range st.node.Inputs {
			if v != nil {
				last[v] = i
			}
		}
	}
	for _, v := range m.graph.Outputs {
		last[v] = len(m.steps)
	}
	return last
}

func roundUp(n int) int { return (n + tensor.Align - 1) &^ (tensor.Align - 1) }

// maxBySize is up to how many spans pack looks at all that are placed, for each.
const maxBySize = 1 << 13

// pack places spans, largest first, each at the lowest offset where it meets no other in time. It returns the bytes
// taken. Very many are placed in order of time instead, where only those still in use have to be looked at.
func pack(spans []*span, apart bool) int {
	total := 0
	if apart {
		for _, s := range spans {
			s.offset = total
			total += s.size
		}
		return total
	}
	order := slices.Clone(spans)
	inTime := len(spans) > maxBySize
	if inTime {
		slices.SortStableFunc(order, func(a, b *span) int { return cmp.Compare(a.first, b.first) })
	} else {
		slices.SortStableFunc(order, func(a, b *span) int { return cmp.Compare(b.size, a.size) })
	}
	var placed []*span // by offset
	for _, s := range order {
		if inTime {
			placed = slices.DeleteFunc(placed, func(q *span) bool { return q.last < s.first })
		}
		at := 0
		for _, q := range placed {
			if q.first > s.last || s.first > q.last {
				continue
			}
			if at+s.size <= q.offset {
				break
			}
			at = max(at, q.offset+q.size)
		}
		s.offset = at
		i, _ := slices.BinarySearchFunc(placed, s, func(a, b *span) int { return cmp.Compare(a.offset, b.offset) })
		placed = slices.Insert(placed, i, s)
		total = max(total, at+s.size)
	}
	return total
}
