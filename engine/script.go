package engine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

// script is a run and the way back over it, in numbers: values that need memory, the steps that make them, and the stops.
type script struct {
	values    []*graph.Value
	size      []int
	maker     []int   // of each value: the step, -1 for inputs
	ins, outs [][]int // of each step, by place at the node; -1: omitted or constant
	cost      []int64 // of each step
	inputs    []int
	seen      []int
	reads     [][]int // of each stop
	last      []int   // the last stop that reads a value, or -1
	once      bool    // the way back is gone once
}

func newScript(m *Model, seen []*graph.Value, stops []Stop, once bool) (*script, error) {
	s := &script{once: once}
	ids := map[*graph.Value]int{}
	number := func(vs []*graph.Value, step int) []int {
		for _, v := range vs {
			if v == nil || m.info[v].Const != nil {
				continue
			}
			t := m.info[v].Type
			ids[v] = len(s.values)
			s.values = append(s.values, v)
			s.size = append(s.size, roundUp(t.DType.Size(t.Shape.Elems())))
			s.maker = append(s.maker, step)
			s.last = append(s.last, -1)
		}
		return lookup(ids, vs)
	}
	s.inputs = number(m.inputs, -1)
	for i, st := range m.steps {
		s.ins = append(s.ins, lookup(ids, st.node.Inputs))
		s.outs = append(s.outs, number(st.node.Outputs, i))
		s.cost = append(s.cost, m.work(st))
	}
	known := func(vs []*graph.Value) ([]int, error) {
		for _, v := range vs {
			if _, ok := ids[v]; !ok && m.info[v].Const == nil {
				return nil, fmt.Errorf("a run has no value %q", v.Name)
			}
		}
		return lookup(ids, vs), nil
	}
	var err error
	if s.seen, err = known(seen); err != nil {
		return nil, err
	}
	for i, stop := range stops {
		r, err := known(stop.Reads)
		if err != nil {
			return nil, err
		}
		s.reads = append(s.reads, r)
		for _, v := range r {
			if v >= 0 {
				s.last[v] = i
			}
		}
	}
	return s, nil
}

// lookup gives the numbers of values, -1 for those without one.
func lookup(ids map[*graph.Value]int, vs []*graph.Value) []int {
	r := make([]int, len(vs))
	for i, v := range vs {
		var ok bool
		if r[i], ok = ids[v]; !ok {
			r[i] = -1
		}
	}
	return r
}

// play is a script played with some values kept. A value that is made again has a place for each time.
type play struct {
	spans  []span
	value  []int // which each span holds
	work   int64 // of what is done again
	peak   int   // bytes in use at the worst moment
	inputs []int // spans
	seen   []int
	reads  [][]int
	moves  []move
}

// move is the run of a step, forwards (stop -1) or before a stop.
type move struct {
	step, stop int
	ins, outs  []int // spans
}

// play goes forwards through all steps, then to each stop in turn. What the stop reads and nobody has kept is made again
// from what is there, and stays until the last stop that reads it. Kept values stay for good if the way back may
// be gone again, else until nobody needs them. In full, it says what is where.
func (s *script) play(keep []bool, full bool) *play {
	p := &play{spans: make([]span, 0, 2*len(s.values)), value: make([]int, 0, 2*len(s.values))}
	cur := make([]int, len(s.values))   // the span that has a value
	until := make([]int, len(s.values)) // the stop up to which it may be read there
	at := -1
	begin := func(v int) int {
		p.spans = append(p.spans, span{size: s.size[v], first: at, last: at})
		p.value = append(p.value, v)
		return len(p.spans) - 1
	}
	use := func(vs []int) {
		for _, v := range vs {
			if v >= 0 {
				p.spans[cur[v]].last = at
			}
		}
	}
	where := func(vs []int) []int {
		if !full {
			return nil
		}
		r := make([]int, len(vs))
		for i, v := range vs {
			if r[i] = -1; v >= 0 {
				r[i] = cur[v]
			}
		}
		return r
	}
	for _, v := range s.inputs {
		cur[v], until[v] = begin(v), len(s.reads)
	}
	p.inputs = where(s.inputs)
	for step := range s.ins {
		at++
		use(s.ins[step])
		for _, v := range s.outs[step] {
			if v >= 0 {
				cur[v], until[v] = begin(v), -1
				if keep[v] {
					until[v] = len(s.reads)
				}
			}
		}
		if full {
			p.moves = append(p.moves, move{step, -1, where(s.ins[step]), where(s.outs[step])})
		}
	}
	at++
	seen := make([]int, len(s.seen))
	for i, v := range s.seen {
		if seen[i] = -1; v >= 0 {
			seen[i] = cur[v]
		}
	}
	p.seen = seen
	var stop int
	var need func(v int)
	need = func(v int) {
		if v < 0 || until[v] >= stop {
			return
		}
		step := s.maker[v]
		for _, u := range s.ins[step] {
			need(u)
		}
		at++
		use(s.ins[step])
		in := where(s.ins[step])
		var outs []int
		for _, u := range s.outs[step] {
			to := -1
			if u >= 0 {
				to = begin(u) // also of an output that is there already: that one stays as it is
				if until[u] < stop {
					cur[u], until[u] = to, max(stop, s.last[u])
				}
			}
			outs = append(outs, to)
		}
		p.work += s.cost[step]
		if full {
			p.moves = append(p.moves, move{step, stop, in, outs})
		}
	}
	for stop = range s.reads {
		for _, v := range s.reads[stop] {
			need(v)
		}
		at++
		use(s.reads[stop])
		if full {
			p.reads = append(p.reads, where(s.reads[stop]))
		}
	}
	for i, v := range s.seen {
		if v >= 0 {
			p.spans[seen[i]].last = at
		}
	}
	for i, v := range p.value {
		if !s.once && p.spans[i].first < len(s.ins) && (keep[v] || s.maker[v] < 0) {
			p.spans[i].last = at
		}
	}
	change := make([]int, at+3) // of bytes in use, from the inputs on
	for _, sp := range p.spans {
		change[sp.first+1] += sp.size
		change[sp.last+2] -= sp.size
	}
	in := 0
	for _, d := range change {
		in += d
		p.peak = max(p.peak, in)
	}
	return p
}

// maxTrials bounds the steps that choose goes through.
const maxTrials = 1 << 26

// choose says which values to keep so that no more than most bytes are in use, if that can be: all that are read, less
// those that spare the most bytes for the work of making them again, until it is enough.
func (s *script) choose(most int64) []bool {
	keep := make([]bool, len(s.values))
	for v, stop := range s.last {
		keep[v] = stop >= 0
	}
	now, trials := s.play(keep, false), 0
	// drop gives the work for each byte spared if v is not kept; negative if nothing is spared.
	drop := func(v int) (*play, float64) {
		trials += len(s.ins) + len(s.reads)
		keep[v] = false
		p := s.play(keep, false)
		keep[v] = true
		if p.peak >= now.peak {
			return nil, -1
		}
		return p, max(0, float64(p.work-now.work)/float64(now.peak-p.peak))
	}
	type candidate struct {
		v     int
		price float64
	}
	for enough := func() bool { return int64(now.peak) <= most || trials > maxTrials }; !enough(); {
		var cs []candidate
		for v := range keep {
			if !keep[v] || s.maker[v] < 0 {
				continue
			}
			if _, price := drop(v); price >= 0 {
				cs = append(cs, candidate{v, price})
			}
		}
		if len(cs) == 0 {
			break
		}
		slices.SortStableFunc(cs, func(a, b candidate) int { return cmp.Compare(a.price, b.price) })
		for i, c := range cs {
			if enough() {
				break
			}
			// Those dropped before it have changed its price: if by much, it waits for another round.
			if p, price := drop(c.v); p != nil && (i == 0 || price <= 2*c.price) {
				keep[c.v], now = false, p
			}
		}
	}
	return keep
}
