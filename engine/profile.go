package engine

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// NodeProfile is how one node of a compiled model is computed and what it takes.
type NodeProfile struct {
	Node    *graph.Node // of the optimized graph
	In, Out tensor.Shape
	Time    time.Duration // the shortest of the runs, which nothing else disturbed
	Form    string        // the way chosen for it, where there is a choice
	MACs    int64         // multiply-adds of the definition
	// Products is the multiply-adds of the way chosen.
	Products int64
	// Error is max|Δ|/max|y| against the definition in float64, of the same inputs. It is NaN but for convolutions of a
	// model compiled with Diagnose.
	Error float64
}

// Profile runs the session n times, at least once, and tells of each node that computes something, in the order of the
// run.
func (s *Session) Profile(ctx context.Context, in []*tensor.Tensor, n int) ([]NodeProfile, error) {
	if err := s.run(ctx, in); err != nil {
		return nil, err
	}
	s.pool.Enter()
	defer s.pool.Leave()
	nodes := make([]NodeProfile, len(s.runs))
	for k := range max(n, 1) {
		for i, r := range s.runs {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			begin := time.Now()
			if err := r.f(); err != nil {
				return nil, fmt.Errorf("node %v: %w", r.node, err)
			}
			p, d := &nodes[i], time.Since(begin)
			if k > 0 {
				p.Time = min(p.Time, d)
				continue
			}
			c := s.model.cost.Nodes[r.node]
			*p = NodeProfile{Node: r.node, In: c.In, Out: c.Out, Time: d, MACs: c.MACs, Products: c.MACs, Error: math.NaN()}
			p.Error = s.nodeError(r.node)
		}
	}
	at := map[*graph.Node]*NodeProfile{}
	for i := range nodes {
		at[nodes[i].Node] = &nodes[i]
	}
	for _, st := range s.model.steps {
		if k, ok := st.kernel.(op.Planned); ok && at[st.node] != nil {
			at[st.node].Form, at[st.node].Products = k.Plan()
		}
	}
	return nodes, nil
}

// nodeError compares a convolution's output with the definition's of the same inputs, which are still there.
func (s *Session) nodeError(n *graph.Node) float64 {
	if n.Op != "Conv" && n.Op != "ConvTranspose" {
		return math.NaN()
	}
	in := s.lookup(n.Inputs)
	for i, v := range n.Inputs {
		if v != nil && in[i] == nil { // its weights are packed and gone
			return math.NaN()
		}
	}
	want, err := op.Apply(n, opset(s.model.graph, n), tensor.Float64, in...)
	if err != nil {
		return math.NaN()
	}
	return Difference(s.values[n.Outputs[0]], want[0])
}

// Difference is max|a-b| / max|b|, of two tensors of numbers; NaN if that is not defined.
func Difference(a, b *tensor.Tensor) float64 {
	x, okA := a.Float64s()
	y, okB := b.Float64s()
	if !okA || !okB || len(x) != len(y) {
		return math.NaN()
	}
	var d, top float64
	for i := range x {
		if e := math.Abs(x[i] - y[i]); !(e <= d) {
			d = e
		}
		top = max(top, math.Abs(y[i]))
	}
	if d == 0 {
		return 0
	}
	return d / top
}
