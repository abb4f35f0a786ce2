package engine

import (
	"context"
	"time"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// NodeTime is what one node of a compiled model took.
type NodeTime struct {
	Node *graph.Node // of the optimized graph
	Time time.Duration
}

// Profile runs the session n times and gives for each node that computes something its shortest time, in the order of
// the run. The shortest is what the node takes when nothing else disturbs it.
func (s *Session) Profile(ctx context.Context, in []*tensor.Tensor, n int) ([]NodeTime, error) {
	if err := s.run(ctx, in); err != nil {
		return nil, err
	}
	s.pool.Enter()
	defer s.pool.Leave()
	times := make([]NodeTime, len(s.runs))
	for k := range n {
		for i := range s.runs {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			begin := time.Now()
			if err := s.runs[i].f(); err != nil {
				return nil, err
			}
			if d := time.Since(begin); k == 0 || d < times[i].Time {
				times[i] = NodeTime{s.runs[i].node, d}
			}
		}
	}
	return times, nil
}
