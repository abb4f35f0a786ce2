package grad

import (
	"context"
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// Options of a [Backprop].
type Options struct {
	Float tensor.DType // Float32 (also the zero value) or Float64
	Pool  *kernel.Pool // nil: one core
	// Memory is how many bytes to aim at, of weights, values and gradients together: where keeping all values that the
	// way back reads takes more, some are computed twice. 0 is three times what inference takes.
	Memory int64
}

// Backprop runs a graph forwards and takes gradients back from values of it, in bounded memory. The result is that of a
// Trace and [Sweep.Walk], to the bit. One goroutine uses it at a time.
type Backprop struct {
	sweep *Sweep
	tape  *engine.Tape
	want  map[Edge]bool
	stop  map[*graph.Node]int
	room  int64 // gradients
}

// NewBackprop prepares g with inputs of types in for gradients of the wanted edges from those at the values seeds.
func NewBackprop(g *graph.Graph, in []tensor.Type, seeds []*graph.Value, want map[Edge]bool, opt Options) (*Backprop, error) {
	if opt.Float == tensor.Undefined {
		opt.Float = tensor.Float32
	}
	if opt.Pool == nil {
		opt.Pool = kernel.NewPool(1) // starts no goroutine
	}
	weights, values, err := engine.Footprint(g, in, opt.Float)
	if err != nil {
		return nil, err
	}
	if opt.Memory <= 0 {
		opt.Memory = 3 * (2*weights + values) // weights are packed as well
	}
	b := &Backprop{want: want, stop: map[*graph.Node]int{}}
	if b.sweep, err = New(g, in, opt.Float, opt.Pool); err != nil {
		return nil, err
	}
	m, err := engine.Compile(g, in, engine.Options{Verbatim: true, Pool: opt.Pool, Float64: opt.Float == tensor.Float64})
	if err != nil {
		return nil, err
	}
	stops := b.sweep.stops(want)
	for i, s := range stops {
		b.stop[s.Node] = i
	}
	b.room = b.sweep.room(seeds, want)
	// The weights, packed for the way forth and for the way back; what is left is for values.
	b.tape, err = m.NewTape(seeds, stops, opt.Memory-3*weights-b.room)
	return b, err
}

// Forward runs the graph and gives the values at which gradients are to be put. They are there until the next run.
func (b *Backprop) Forward(ctx context.Context, in []*tensor.Tensor) (engine.Trace, error) {
	return b.tape.Run(ctx, in)
}

// Backward goes back from gradients at the seeds through the last run, as often as one likes, and calls visit for each
// wanted edge that a gradient reaches, as [Sweep.Walk] does, with the value read there.
func (b *Backprop) Backward(ctx context.Context, seed Gradients, visit func(e Edge, x, d *tensor.Tensor) error) error {
	var now engine.Trace
	at := func(n *graph.Node) (map[*graph.Value]*tensor.Tensor, error) {
		i, ok := b.stop[n]
		if !ok {
			return nil, fmt.Errorf("gradient of %v: it was not prepared", n)
		}
		var err error
		now, err = b.tape.Halt(ctx, i)
		return now, err
	}
	return b.sweep.walk(ctx, at, seed, b.want, func(e Edge, d *tensor.Tensor) error {
		x := now[e.Value()]
		if x == nil {
			x = b.sweep.info[e.Value()].Const
		}
		return visit(e, x, d)
	}, nil)
}

// Bytes is about how much memory values and gradients take, beside weights.
func (b *Backprop) Bytes() int64 { return int64(b.tape.Bytes()) + b.room }

// Again is how much of the run forwards each way back does again: 0 where all that it reads is kept.
func (b *Backprop) Again() float64 { return b.tape.Again() }

// stops lists the nodes that a walk may reverse, in its order, and the values that it reads at each: what the reverse
// reads, and what wanted edges do.
func (s *Sweep) stops(want map[Edge]bool) []engine.Stop {
	wanted := s.wanted(want)
	var stops []engine.Stop
	for _, n := range slices.Backward(s.g.Nodes) {
		need := wanted[n]
		if need == nil {
			continue
		}
		stop := engine.Stop{Node: n}
		for i, v := range n.Inputs {
			if v != nil && s.info[v].Const == nil && (want[Edge{n, i}] || s.readsIn(n, i, need)) {
				stop.Reads = append(stop.Reads, v)
			}
		}
		for _, v := range n.Outputs {
			if v != nil && s.info[v].Const == nil && s.readsOut(n) {
				stop.Reads = append(stop.Reads, v)
			}
		}
		stops = append(stops, stop)
	}
	return stops
}

// room is how many bytes of gradients a walk takes, if no rule writes to what it is given. Like the walk it uses again
// what is of the same size.
func (s *Sweep) room(seeds []*graph.Value, want map[Edge]bool) int64 {
	wanted := s.wanted(want)
	free, total := map[int]int{}, 0
	size := func(v *graph.Value) int { return s.info[v].Type.Shape.Elems() }
	take := func(v *graph.Value) {
		if n := size(v); free[n] > 0 {
			free[n]--
		} else {
			total += n
		}
	}
	live := map[*graph.Value]bool{}
	for _, v := range seeds {
		take(v)
		live[v] = true
	}
	for _, n := range slices.Backward(s.g.Nodes) {
		var out []*graph.Value
		for _, v := range n.Outputs {
			if live[v] {
				out = append(out, v)
				delete(live, v)
			}
		}
		need := wanted[n]
		var spare []*graph.Value
		for i, v := range n.Inputs {
			if len(out) == 0 || need == nil || !need[i] {
				continue
			}
			take(v)
			if v.Def == nil || wanted[v.Def] == nil || live[v] {
				spare = append(spare, v)
			} else {
				live[v] = true
			}
		}
		for _, v := range append(out, spare...) {
			free[size(v)]++
		}
	}
	return int64(s.float.Size(total))
}
