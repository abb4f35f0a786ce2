package grad

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"unsafe"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Sweep is the reverse of a graph at bound types. It owns scratch: one goroutine uses it at a time.
type Sweep struct {
	g       *graph.Graph
	info    map[*graph.Value]op.Arg
	reals   map[*graph.Value]bool // integers that stand for real numbers, see quantize.go
	float   tensor.DType
	pool    *kernel.Pool
	rules   map[string]Rule
	steps   map[*graph.Node]Step
	free    [][]byte // in order of size
	scratch *tensor.Tensor
}

// New prepares the reverse of g with inputs of types in, in float (Float32 or Float64), on pool (nil: one core). Steps
// are prepared when a sweep first needs them, so that a node off every wanted path may be of any operator.
func New(g *graph.Graph, in []tensor.Type, float tensor.DType, pool *kernel.Pool) (*Sweep, error) {
	info, err := engine.Infer(g, in, float)
	if err != nil {
		return nil, err
	}
	s := &Sweep{
		g: g, info: info, reals: realIntegers(g, info), float: float, pool: pool,
		steps: map[*graph.Node]Step{},
	}
	switch float {
	case tensor.Float32:
		s.rules = rules[float32]()
	case tensor.Float64:
		s.rules = rules[float64]()
	default:
		return nil, fmt.Errorf("gradients in %v: want float32 or float64", float)
	}
	if s.pool == nil {
		s.pool = kernel.NewPool(1) // starts no goroutine
	}
	return s, nil
}

// Walk goes back from the seeds through the run tr (an engine.Trace) and calls visit for each wanted edge that a
// gradient reaches, with that gradient, which is visit's to read until it returns; edges not visited have gradient
// zero. The order is that of the nodes, reversed. It stops between nodes when ctx ends, and when visit fails.
func (s *Sweep) Walk(ctx context.Context, tr map[*graph.Value]*tensor.Tensor, seed Gradients, want map[Edge]bool, visit func(Edge, *tensor.Tensor) error) error {
	return s.walk(ctx, all(tr), seed, want, visit, nil)
}

// all is a run of which every value is there, for walk.
func all(tr map[*graph.Value]*tensor.Tensor) func(*graph.Node) (map[*graph.Value]*tensor.Tensor, error) {
	return func(*graph.Node) (map[*graph.Value]*tensor.Tensor, error) { return tr, nil }
}

// Backward is Walk that keeps what it passes: the gradient of every value on the way, all contributions added up, and
// of every wanted edge that a gradient reaches. A nil want sweeps down to the graph's inputs. The tensors are the
// caller's.
func (s *Sweep) Backward(ctx context.Context, tr map[*graph.Value]*tensor.Tensor, seed Gradients, want map[Edge]bool) (Gradients, map[Edge]*tensor.Tensor, error) {
	values, edges := Gradients{}, map[Edge]*tensor.Tensor{}
	err := s.walk(ctx, all(tr), seed, want,
		func(e Edge, d *tensor.Tensor) error { edges[e] = d.Clone(); return nil },
		func(v *graph.Value, d *tensor.Tensor) { values[v] = d.Clone() })
	if err != nil {
		return nil, nil, err
	}
	return values, edges, nil
}

// walk is Walk that also shows keep each value's whole gradient. at gives the values that a node's reverse reads.
func (s *Sweep) walk(ctx context.Context, at func(*graph.Node) (map[*graph.Value]*tensor.Tensor, error), seed Gradients, want map[Edge]bool, visit func(Edge, *tensor.Tensor) error, keep func(*graph.Value, *tensor.Tensor)) error {
	acc := Gradients{}
	for v, d := range seed {
		a, ok := s.info[v]
		if !ok || d.DType != s.float || !slices.Equal(d.Shape, a.Type.Shape) {
			return fmt.Errorf("seed %v at %q, which is %v", d.Type(), v.Name, a.Type)
		}
		acc[v] = s.New(d.Shape)
		copy(acc[v].Data, d.Data)
	}
	wanted := s.wanted(want)
	for _, n := range slices.Backward(s.g.Nodes) {
		if err := ctx.Err(); err != nil {
			return err
		}
		dout, reached := make([]*tensor.Tensor, len(n.Outputs)), false
		for i, v := range n.Outputs {
			if d := acc[v]; v != nil && d != nil {
				dout[i], reached = d, true
				delete(acc, v)
				if keep != nil {
					keep(v, d)
				}
			}
		}
		need := wanted[n]
		if !reached || need == nil {
			s.recycle(dout, nil)
			continue
		}
		tr, err := at(n)
		if err != nil {
			return err
		}
		din, err := s.step(n, tr, dout, need)
		if err != nil {
			return fmt.Errorf("gradient of %v: %w", n, err)
		}
		for i := range din {
			if e := (Edge{n, i}); din[i] != nil && want[e] {
				if err := visit(e, din[i]); err != nil {
					return err
				}
			}
		}
		s.recycle(dout, din)
		for i, d := range din {
			v := n.Inputs[i]
			switch {
			case d == nil:
			case want != nil && (v.Def == nil || wanted[v.Def] == nil):
				s.recycle([]*tensor.Tensor{d}, nil)
			case acc[v] == nil:
				acc[v] = d
			default:
				s.add(acc[v], d)
				s.recycle([]*tensor.Tensor{d}, nil)
			}
		}
	}
	for v, d := range acc { // what has no node before it: the graph's inputs
		if keep != nil {
			keep(v, d)
		}
		s.recycle([]*tensor.Tensor{d}, nil)
	}
	return nil
}

// wanted says for each node that the sweep may have to reverse which inputs need a gradient: wanted edges, and values
// behind which there are wanted edges. With want nil it is every floating-point input that is not constant. What stands for
// real numbers counts as floating point.
func (s *Sweep) wanted(want map[Edge]bool) map[*graph.Node][]bool {
	m := map[*graph.Node][]bool{}
	for _, n := range s.g.Nodes {
		need := make([]bool, len(n.Inputs))
		// What a subgraph captures is no input: reversing such a node is an error, not a gradient of zero.
		any := len(n.Subgraphs()) > 0
		for i, v := range n.Inputs {
			if v == nil {
				continue
			}
			a := s.info[v]
			need[i] = want[Edge{n, i}] || (a.Type.DType.IsFloat() || s.reals[v]) && a.Const == nil && (want == nil || v.Def != nil && m[v.Def] != nil)
			any = any || need[i]
		}
		if any {
			m[n] = need
		}
	}
	return m
}

// step reverses one node.
func (s *Sweep) step(n *graph.Node, tr map[*graph.Value]*tensor.Tensor, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
	step := s.steps[n]
	if step == nil {
		var err error
		if step, err = s.prepare(n); err != nil {
			return nil, err
		}
		s.steps[n] = step
	}
	real := s.realType(n)
	values := func(vs []*graph.Value, reads func(i int) bool) ([]*tensor.Tensor, error) {
		ts := make([]*tensor.Tensor, len(vs))
		for i, v := range vs {
			if v == nil {
				continue
			}
			if s.info[v].Const == nil && !reads(i) {
				ts[i] = shapeOf(s.info[v])
				continue
			}
			t := tr[v]
			if t == nil {
				t = s.info[v].Const
			}
			if a := s.info[v]; t != nil && a.Type.DType != t.DType && a.Type.DType == s.float {
				var err error
				if t, err = t.Float(s.float); err != nil {
					return nil, fmt.Errorf("value %q: %w", v.Name, err)
				}
			}
			if t == nil || !slices.Equal(t.Shape, s.info[v].Type.Shape) {
				return nil, fmt.Errorf("the trace has no value %q of type %v", v.Name, s.info[v].Type)
			}
			if t.DType == real {
				var err error
				if t, err = asReal(t, s.float); err != nil {
					return nil, fmt.Errorf("value %q: %w", v.Name, err)
				}
			}
			ts[i] = t
		}
		return ts, nil
	}
	in, err := values(n.Inputs, func(i int) bool { return s.readsIn(n, i, need) })
	if err != nil {
		return nil, err
	}
	out, err := values(n.Outputs, func(int) bool { return s.readsOut(n) })
	if err != nil {
		return nil, err
	}
	din, err := step(in, out, dout, need)
	if err != nil {
		return nil, err
	}
	for i, d := range din {
		if d == nil {
			continue
		}
		if !need[i] {
			return nil, fmt.Errorf("rule gave a gradient for input %d, which needs none", i)
		}
		if !slices.Equal(d.Shape, in[i].Shape) {
			return nil, fmt.Errorf("rule gave %v for input %d, which is %v", d.Type(), i, in[i].Type())
		}
	}
	return din, nil
}

// rowOf is what a node's rule stands under in the tables.
func rowOf(n *graph.Node) string {
	if n.Domain == op.Private {
		return n.Domain + "." + n.Op
	}
	return n.Op
}

// prepare looks up the node's rule.
func (s *Sweep) prepare(n *graph.Node) (Step, error) {
	rule := s.rules[rowOf(n)]
	if rule == nil || n.Domain != "" && n.Domain != "ai.onnx" && n.Domain != op.Private {
		return nil, fmt.Errorf("operator %s has no gradient rule", n.Op)
	}
	site := &Site{Pool: s.pool, New: s.New, Scratch: s.lend}
	site.Node, site.Opset, site.Float = n, s.g.Opset(n.Domain), s.float
	real := s.realType(n)
	for _, v := range n.Inputs {
		a := s.info[v]
		if a.Given() && a.Type.DType == real {
			a.Type.DType = s.float
			if a.Const != nil {
				var err error
				if a.Const, err = asReal(a.Const, s.float); err != nil {
					return nil, fmt.Errorf("value %q: %w", v.Name, err)
				}
			}
		}
		site.In = append(site.In, a)
	}
	for _, v := range n.Outputs {
		site.Out = append(site.Out, s.info[v].Type)
	}
	return rule(site)
}

// realType is the type of integers that the node's rule is to see as floating point; Undefined if there are none.
func (s *Sweep) realType(n *graph.Node) tensor.DType {
	if n.Op == "QuantizeLinear" || n.Op == "DequantizeLinear" { // their rules know integers
		return tensor.Undefined
	}
	return realInputs(n, s.reals, s.info)
}

// New returns a tensor to write in: the smallest large enough that an earlier step is done with, if there is one.
func (s *Sweep) New(shape tensor.Shape) *tensor.Tensor {
	n := s.float.Size(shape.Elems())
	i := fit(s.free, n)
	if i == len(s.free) {
		return tensor.New(s.float, shape...)
	}
	t := &tensor.Tensor{DType: s.float, Shape: shape.Clone(), Data: s.free[i][:n]}
	s.free = slices.Delete(s.free, i, i+1)
	return t
}

// fit is the first of the buffers, which are in order of size, that has n bytes; len(free) if none has.
func fit(free [][]byte, n int) int {
	i, _ := slices.BinarySearchFunc(free, n, func(b []byte, n int) int { return cmp.Compare(cap(b), n) })
	return i
}

// lend returns the shared scratch, grown if need be.
func (s *Sweep) lend(n int) *tensor.Tensor {
	if s.scratch == nil || s.scratch.Elems() < n {
		s.scratch = tensor.New(s.float, n)
	}
	return s.scratch
}

// recycle takes back tensors that share no memory with any of keep.
func (s *Sweep) recycle(ts, keep []*tensor.Tensor) {
	for _, t := range ts {
		if t == nil || len(t.Data) == 0 || slices.ContainsFunc(keep, func(k *tensor.Tensor) bool {
			return k != nil && unsafe.SliceData(k.Data) == unsafe.SliceData(t.Data)
		}) {
			continue
		}
		s.free = slices.Insert(s.free, fit(s.free, cap(t.Data)), t.Data)
	}
}

// add adds d to a.
func (s *Sweep) add(a, d *tensor.Tensor) {
	if s.float == tensor.Float32 {
		addTo[float32](s.pool, a, d)
	} else {
		addTo[float64](s.pool, a, d)
	}
}

func addTo[T kernel.Float](p *kernel.Pool, a, d *tensor.Tensor) {
	x, y := tensor.Of[T](a), tensor.Of[T](d)
	each(p, len(x), 1<<14, func(lo, hi int) {
		y := y[lo:hi]
		for i, v := range x[lo:hi] {
			x[lo+i] = v + y[i]
		}
	})
}

// each splits [0,n) into runs of grain and spreads them over the pool. Who computes a run never changes its result.
func each(p *kernel.Pool, n, grain int, body func(lo, hi int)) {
	grain = max(grain, 1)
	if n <= grain {
		if n > 0 {
			body(0, n)
		}
		return
	}
	p.Loop((n+grain-1)/grain, func(_, i int) { body(i*grain, min((i+1)*grain, n)) }).Run()
}
