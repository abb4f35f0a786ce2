package engine

import (
	"context"
	"fmt"

	"github.com/secateur/secateur/engine/graph"
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
	script  *script
	play    *play
	places  []*tensor.Tensor // of the play's spans
	env     *op.Env
	inputs  []*tensor.Tensor
	forward []run
	seen    Trace
	stops   []halt
	at      int // the last stop whose runs are done
	ready   bool
	bytes   int
}

// halt is a Stop with its runs.
type halt struct {
	runs  []run
	reads Trace
}

// NewTape lays out memory for runs of a Verbatim model, after which the values seen are read, and then what each stop
// reads, once for each run or any number of times. It aims at taking no more than most bytes, and at little work done
// twice.
func (m *Model) NewTape(seen []*graph.Value, stops []Stop, once bool, most int64) (t *Tape, err error) {
	if !m.keep {
		return nil, fmt.Errorf("only a model compiled with Verbatim is gone back over")
	}
	defer guard(&err)
	s, err := newScript(m, seen, stops, once)
	if err != nil {
		return nil, err
	}
	p := s.play(s.choose(most-int64(m.scratch)), true)
	spans := make([]*span, len(p.spans))
	for i := range spans {
		spans[i] = &p.spans[i]
	}
	bytes := pack(spans, false)
	t = &Tape{script: s, play: p, bytes: bytes + m.scratch, stops: make([]halt, len(stops))}
	t.env = &op.Env{Pool: m.pool.Session(), Scratch: tensor.Bytes(m.scratch)}
	arena := tensor.Bytes(bytes)
	for i, sp := range spans {
		ty := m.info[s.values[p.value[i]]].Type
		n := ty.DType.Size(ty.Shape.Elems())
		x := &tensor.Tensor{DType: ty.DType, Shape: ty.Shape, Data: arena[sp.offset : sp.offset+n : sp.offset+n]}
		if ty.DType == tensor.String {
			x = tensor.New(ty.DType, ty.Shape...)
		}
		t.places = append(t.places, x)
	}
	t.bind(m)
	t.seen = t.trace(seen, p.seen)
	for i := range stops {
		t.stops[i].reads = t.trace(stops[i].Reads, p.reads[i])
	}
	return t, nil
}

// bind makes the runs of m's kernels.
func (t *Tape) bind(m *Model) {
	t.model, t.ready = m, false
	t.inputs = t.look(m.inputs, t.play.inputs)
	for _, mv := range t.play.moves {
		st := m.steps[mv.step]
		if st.kernel == nil {
			continue
		}
		r := run{st.node, st.kernel.Bind(t.env, t.look(st.node.Outputs, mv.outs), t.look(st.node.Inputs, mv.ins))}
		if mv.stop < 0 {
			t.forward = append(t.forward, r)
		} else {
			t.stops[mv.stop].runs = append(t.stops[mv.stop].runs, r)
		}
	}
}

// look gives the tensors of values that lie at places, or are constant.
func (t *Tape) look(vs []*graph.Value, places []int) []*tensor.Tensor {
	ts := make([]*tensor.Tensor, len(vs))
	for i, v := range vs {
		switch {
		case places[i] >= 0:
			ts[i] = t.places[places[i]]
		case v != nil:
			ts[i] = t.model.info[v].Const
		}
	}
	return ts
}

func (t *Tape) trace(vs []*graph.Value, places []int) Trace {
	tr := Trace{}
	for i, x := range t.look(vs, places) {
		tr[vs[i]] = x
	}
	return tr
}

// Renew puts a model in the place of the tape's: of the same graph and types, with other weights. compile makes it when
// the former one's weights can be forgotten.
func (t *Tape) Renew(compile func() (*Model, error)) (err error) {
	was := t.model
	t.model, t.forward, t.ready = nil, nil, false
	for i := range t.stops {
		t.stops[i].runs = nil
	}
	steps, scratch := len(was.steps), was.scratch
	was = nil
	m, err := compile()
	if err != nil {
		return err
	}
	defer guard(&err)
	if !m.keep || len(m.steps) != steps || m.scratch != scratch {
		return fmt.Errorf("the model is not the tape's with other weights")
	}
	t.bind(m)
	return nil
}

// Bytes is how much memory the tape takes, beside the model.
func (t *Tape) Bytes() int { return t.bytes }

// Again is the work that all stops together do a second time, as a part of a run's: 0 where everything read is kept.
func (t *Tape) Again() float64 {
	var all int64
	for _, st := range t.model.steps {
		all += t.model.work(st)
	}
	return float64(t.play.work) / float64(max(all, 1))
}

// Run runs the model forwards and gives the values seen. They belong to the tape until its next run.
func (t *Tape) Run(ctx context.Context, in []*tensor.Tensor) (Trace, error) {
	t.at, t.ready = -1, false
	if err := t.model.load(t.inputs, in); err != nil {
		return nil, err
	}
	if err := execute(ctx, t.env.Pool, t.forward); err != nil {
		return nil, err
	}
	t.ready = true
	return t.seen, nil
}

// Halt gives the values that stop i reads, which are there until another stop is. Stops are made in order; some may be
// left out, and an earlier one begins anew, with the values of the same run. After an error there has to be a new run.
func (t *Tape) Halt(ctx context.Context, i int) (Trace, error) {
	if !t.ready {
		return nil, fmt.Errorf("the tape has no run to go back over")
	}
	if i < t.at {
		if t.script.once {
			return nil, fmt.Errorf("the tape was made to be gone back over once")
		}
		t.at = -1
	}
	for t.at < i {
		if err := execute(ctx, t.env.Pool, t.stops[t.at+1].runs); err != nil {
			t.ready = false
			return nil, err
		}
		t.at++
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
