package engine

import (
	"context"
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Stop is a place on the way back through a run, and what is read there.
type Stop struct {
	Node  *graph.Node
	Reads []*graph.Value
}

// Tape is the memory of runs that are gone back over. Where a Trace keeps every value, a Tape keeps those that a stop
// reads, or, where that is too much, some of them: the rest it computes again from these when a stop needs them
// (checkpoints: Griewank and Walther, ACM TOMS 2000). Values are the same to the bit. One goroutine uses it.
type Tape struct {
	model   *Model
	inputs  []*tensor.Tensor
	forward []run
	seen    Trace
	stops   []halt
	at      int // the last stop whose runs are done
	ready   bool
	pool    *kernel.Pool
	bytes   int
	again   int64
}

// halt is a Stop with its runs.
type halt struct {
	runs  []run
	reads Trace
}

// NewTape lays out memory for runs of a Verbatim model, after which the values seen are read, and then what each stop
// reads, any number of times. It aims at no more than most bytes, scratch aside, and at little work done twice.
func (m *Model) NewTape(seen []*graph.Value, stops []Stop, most int64) (t *Tape, err error) {
	if !m.keep {
		return nil, fmt.Errorf("only a model compiled with Verbatim is gone back over")
	}
	defer guard(&err)
	s, err := newScript(m, seen, stops)
	if err != nil {
		return nil, err
	}
	p := s.play(s.choose(most), true)
	spans := make([]*span, len(p.spans))
	for i := range spans {
		spans[i] = &p.spans[i]
	}
	bytes := pack(spans, false)
	t = &Tape{model: m, pool: m.pool.Session(), bytes: bytes + m.scratch, again: p.work, stops: make([]halt, len(stops))}
	arena := tensor.Bytes(bytes)
	env := &op.Env{Pool: t.pool, Scratch: tensor.Bytes(m.scratch)}
	at := make([]*tensor.Tensor, len(spans))
	for i, sp := range spans {
		ty := m.info[s.values[p.value[i]]].Type
		n := ty.DType.Size(ty.Shape.Elems())
		at[i] = &tensor.Tensor{DType: ty.DType, Shape: ty.Shape, Data: arena[sp.offset : sp.offset+n : sp.offset+n]}
		if ty.DType == tensor.String {
			at[i] = tensor.New(ty.DType, ty.Shape...)
		}
	}
	look := func(vs []*graph.Value, places []int) []*tensor.Tensor {
		ts := make([]*tensor.Tensor, len(vs))
		for i, v := range vs {
			switch {
			case places[i] >= 0:
				ts[i] = at[places[i]]
			case v != nil:
				ts[i] = m.info[v].Const
			}
		}
		return ts
	}
	trace := func(vs []*graph.Value, places []int) Trace {
		tr := Trace{}
		for i, x := range look(vs, places) {
			tr[vs[i]] = x
		}
		return tr
	}
	t.inputs = look(m.inputs, p.inputs)
	for _, mv := range p.moves {
		st := m.steps[mv.step]
		if st.kernel == nil {
			continue
		}
		r := run{st.node, st.kernel.Bind(env, look(st.node.Outputs, mv.outs), look(st.node.Inputs, mv.ins))}
		if mv.stop < 0 {
			t.forward = append(t.forward, r)
		} else {
			t.stops[mv.stop].runs = append(t.stops[mv.stop].runs, r)
		}
	}
	t.seen = trace(seen, p.seen)
	for i := range stops {
		t.stops[i].reads = trace(stops[i].Reads, p.reads[i])
	}
	return t, nil
}

// Bytes is how much memory the tape takes, beside the model.
func (t *Tape) Bytes() int { return t.bytes }

// Again is the work that all stops together do a second time, as a part of a run's: 0 where everything read is kept.
func (t *Tape) Again() float64 {
	var all int64
	for _, st := range t.model.steps {
		all += t.model.work(st)
	}
	return float64(t.again) / float64(max(all, 1))
}

// Run runs the model forwards and gives the values seen. They belong to the tape until its next run.
func (t *Tape) Run(ctx context.Context, in []*tensor.Tensor) (Trace, error) {
	t.at, t.ready = -1, false
	if err := t.model.load(t.inputs, in); err != nil {
		return nil, err
	}
	if err := execute(ctx, t.pool, t.forward); err != nil {
		return nil, err
	}
	t.ready = true
	return t.seen, nil
}

// Halt gives the values that stop i reads, which are there until another stop is. Stops are made in order; some may be
// left out, and an earlier one begins anew, with the values of the same run.
func (t *Tape) Halt(ctx context.Context, i int) (Trace, error) {
	if !t.ready {
		return nil, fmt.Errorf("the tape has no run to go back over")
	}
	if i < t.at {
		t.at = -1
	}
	for t.at < i {
		next := t.at + 1
		t.at = -1 // should a run fail
		if err := execute(ctx, t.pool, t.stops[next].runs); err != nil {
			return nil, err
		}
		t.at = next
	}
	return t.stops[i].reads, nil
}

// work is what a step costs. Memory is slow: an element written counts as many multiply-adds.
func (m *Model) work(st step) int64 {
	out := types(st.node.Outputs, m.info)
	w := macs(st.node, args(st.node.Inputs, m.info), out)
	for i, v := range st.node.Outputs {
		if v != nil {
			w += 32 * int64(out[i].Shape.Elems())
		}
	}
	return w
}
