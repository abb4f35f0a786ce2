package grad

import (
	"context"
	"fmt"
	"runtime"
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
	// way back reads takes more, some are computed twice. 0 is three times what
	// inference takes, or 64 MiB for models that are smaller.
	Memory int64
	// Once says that Backward follows each Forward once, which spares some memory.
	Once bool
}

// small is what is not worth computing anything twice for.
const small = 64 << 20

// Backprop runs a graph forwards and takes gradients back from values of it, in bounded memory. The result is that of a
// Trace and [Sweep.Walk], to the bit. One goroutine uses it at a time.
type Backprop struct {
	g     *graph.Graph
	in    []tensor.Type
	opt   Options
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
		opt.Memory = max(3*(2*weights+values), small) // weights are packed as well
	}
	b := &Backprop{g: g, in: in, opt: opt, want: want, stop: map[*graph.Node]int{}}
	if b.sweep, err = New(g, in, opt.Float, opt.Pool); err != nil {
		return nil, err
	}
	m, err := b.compile()
	if err != nil {
		return nil, err
	}
	stops := b.sweep.stops(want)
	for i, s := range stops {
		b.stop[s.Node] = i
	}
	b.room = b.sweep.room(seeds, want)
	// The weights, packed for the way forth and for the way back; what is left is for values.
	b.tape, err = m.NewTape(seeds, stops, opt.Once, opt.Memory-3*weights-b.room)
	return b, err
}

func (b *Backprop) compile() (*engine.Model, error) {
	return engine.Compile(b.g, b.in, engine.Options{Verbatim: true, Pool: b.opt.Pool, Float64: b.opt.Float == tensor.Float64})
}

// Renew is to be called when weights of the graph have changed: kernels have them packed.
func (b *Backprop) Renew() error {
	was := b.sweep
	was.steps = nil
	err := b.tape.Renew(func() (*engine.Model, error) {
		runtime.GC() // or the weights packed before would lie about beside the new ones, and those before them
		return b.compile()
	})
	if err != nil {
		return err
	}
	if b.sweep, err = New(b.g, b.in, b.opt.Float, b.opt.Pool); err != nil {
		return err
	}
	b.sweep.free, b.sweep.scratch = was.free, was.scratch
	return nil
}

// Forward runs the graph and gives the values at which gradients are to be put. They are there until the next run.
func (b *Backprop) Forward(ctx context.Context, in []*tensor.Tensor) (engine.Trace, error) {
	return b.tape.Run(ctx, in)
}

// Backward goes back from gradients at the seeds through the last run, any number of times but with Once, and calls visit for each
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

// room is how many bytes of gradients a walk takes, if no rule writes to what it is given.
func (s *Sweep) room(seeds []*graph.Value, want map[Edge]bool) int64 {
	wanted := s.wanted(want)
	var free []int // in order of size, as the walk has them
	total := 0
	size := func(v *graph.Value) int { return s.float.Size(s.info[v].Type.Shape.Elems()) }
	in := map[*graph.Value]int{} // bytes of the buffer that a gradient has
	take := func(n int) int {
		i, _ := slices.BinarySearch(free, n)
		if i == len(free) {
			total += n
			return n
		}
		n = free[i]
		free = slices.Delete(free, i, i+1)
		return n
	}
	give := func(n int) {
		i, _ := slices.BinarySearch(free, n)
		free = slices.Insert(free, i, n)
	}
	for _, v := range seeds {
		in[v] = take(size(v))
	}
	for _, n := range slices.Backward(s.g.Nodes) {
		var done []int
		for _, v := range n.Outputs {
			if b, ok := in[v]; ok {
				done = append(done, b)
				delete(in, v)
			}
		}
		need, any := wanted[n], len(done) > 0
		for i, v := range n.Inputs {
			if !any || need == nil || !need[i] {
				continue
			}
			b := take(size(v))
			if _, ok := in[v]; ok || v.Def == nil || wanted[v.Def] == nil {
				done = append(done, b)
			} else {
				in[v] = b
			}
		}
		for _, b := range done {
			give(b)
		}
	}
	return int64(total)
}
