package engine

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Session is the memory of one run at a time. One goroutine uses it; make one for each that runs.
type Session struct {
	model   *Model
	inputs  []*tensor.Tensor
	outputs []*tensor.Tensor
	values  Trace
	runs    []run
	arena   []byte // where values lie, as the plan says
	scratch []byte // what kernels share
	pool    *kernel.Pool
	broken  error // why the session cannot run
}

type run struct {
	node *graph.Node
	f    func() error
}

// Trace holds every value of a run, initializers and folded constants included.
type Trace map[*graph.Value]*tensor.Tensor

// NewSession lays out memory for runs and binds every kernel to it, so that Run allocates nothing. If that fails, which
// would be a bug, every Run says so.
func (m *Model) NewSession() (s *Session) {
	s = &Session{model: m, values: make(Trace, len(m.info)), arena: tensor.Bytes(m.plan.bytes), scratch: tensor.Bytes(m.scratch)}
	for v, a := range m.info {
		if a.Const != nil {
			s.values[v] = a.Const
			continue
		}
		off, ok := m.plan.offset[v]
		if !ok {
			continue
		}
		n := a.Type.DType.Size(a.Type.Shape.Elems())
		t := &tensor.Tensor{DType: a.Type.DType, Shape: a.Type.Shape, Data: s.arena[off : off+n : off+n]}
		if a.Type.DType == tensor.String {
			t = tensor.New(a.Type.DType, a.Type.Shape...)
		}
		s.values[v] = t
	}
	s.pool = m.pool.Session()
	s.inputs = s.lookup(m.inputs)
	s.outputs = s.lookup(m.graph.Outputs)
	defer guard(&s.broken)
	env := &op.Env{Pool: s.pool, Scratch: s.scratch}
	for _, st := range m.steps {
		if m.plan.viewed[st.node] || st.kernel == nil {
			continue
		}
		s.runs = append(s.runs, run{st.node, st.kernel.Bind(env, s.lookup(st.node.Outputs), s.lookup(st.node.Inputs))})
	}
	return s
}

func (s *Session) lookup(vs []*graph.Value) []*tensor.Tensor {
	ts := make([]*tensor.Tensor, len(vs))
	for i, v := range vs {
		if v != nil {
			ts[i] = s.values[v]
		}
	}
	return ts
}

// Run computes the outputs. It copies the inputs first, converting floating point to the type the model runs in. The
// outputs belong to the session and are overwritten by its next Run. If ctx ends, Run stops before the next node.
func (s *Session) Run(ctx context.Context, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	if err := s.run(ctx, in); err != nil {
		return nil, err
	}
	return s.outputs, nil
}

// Trace is Run for Verbatim models, and gives every value. It belongs to the session until its next run.
func (s *Session) Trace(ctx context.Context, in []*tensor.Tensor) (Trace, error) {
	if !s.model.keep {
		return nil, fmt.Errorf("only a model compiled with Verbatim keeps its values")
	}
	if err := s.run(ctx, in); err != nil {
		return nil, err
	}
	return s.values, nil
}

func (s *Session) run(ctx context.Context, in []*tensor.Tensor) error {
	if s.broken != nil {
		return s.broken
	}
	if err := s.model.load(s.inputs, in); err != nil {
		return err
	}
	return execute(ctx, s.pool, s.runs)
}

// execute does the runs in order, on a view of the pool.
func execute(ctx context.Context, pool *kernel.Pool, runs []run) (err error) {
	if len(runs) == 0 {
		return nil
	}
	pool.Enter()
	defer pool.Leave()
	var at int
	// A panic is a bug here, but one request's, not the process's.
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("node %v: internal error: %v\n%s", runs[at].node, v, debug.Stack())
		}
	}()
	for at = range runs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := runs[at].f(); err != nil {
			return fmt.Errorf("node %v: %w", runs[at].node, err)
		}
	}
	return nil
}

// load copies a run's inputs to where its kernels read them.
func (m *Model) load(to, in []*tensor.Tensor) error {
	if len(in) != len(to) {
		return fmt.Errorf("the model takes %d inputs, %d given", len(to), len(in))
	}
	for i, t := range in {
		if err := load(to[i], t); err != nil {
			return fmt.Errorf("input %q: %w", m.inputs[i].Name, err)
		}
	}
	return nil
}

// load copies src into dst.
func load(dst, src *tensor.Tensor) error {
	if len(src.Shape) != len(dst.Shape) {
		return fmt.Errorf("got %v, compiled for %v", src.Type(), dst.Type())
	}
	for i, d := range dst.Shape {
		if src.Shape[i] != d {
			return fmt.Errorf("got %v, compiled for %v", src.Type(), dst.Type())
		}
	}
	if src.DType != dst.DType {
		c, err := src.Float(dst.DType)
		if err != nil {
			return fmt.Errorf("got %v, compiled for %v", src.Type(), dst.Type())
		}
		src = c
	}
	copy(dst.Data, src.Data)
	copy(dst.Strings, src.Strings)
	return nil
}
