package engine

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
)

// Options say how a model runs. The zero value serves.
type Options struct {
	// Threads is how many cores a run may use; 0 means all. Models of equal Threads share one pool.
	Threads int
	// Pool, if set, is used instead of the process's own.
	Pool *kernel.Pool
	// Verbatim runs the graph as written, without passes, and keeps every value, for Session.Trace.
	Verbatim bool
	// Tune, if set, knows the fastest ways to compute layers from measurements. Without, a cost model chooses, so that the
	// same model on the same kind of processor always gives the same bytes: ways differ by rounding.
	Tune *Tuner
	// Diagnose keeps the weights that kernels have packed, so that Session.Profile can tell each layer's error.
	Diagnose bool
	// Float64 runs in float64: slow, and the yardstick for accuracy.
	Float64 bool
	// MaxBytes bounds what a compiled model and one session take beside the weights in the file; 0 is DefaultMaxBytes.
	// Compile refuses a model that needs more before the memory is asked for.
	MaxBytes int64

	outline bool // plans alone: no kernel is made
}

// Model is a compiled graph at fixed shapes. It is immutable and safe for concurrent use.
type Model struct {
	graph   *graph.Graph
	info    map[*graph.Value]op.Arg
	cost    Cost // of the optimized graph, counted while its weights were there
	inputs  []*graph.Value
	steps   []step
	plan    plan
	pool    *kernel.Pool
	float   tensor.DType
	scratch int
	packed  int64 // bytes of kernels for weights that the graph computes
	keep    bool
}

// step is one node, ready to run.
type step struct {
	node   *graph.Node
	def    op.Def
	kernel op.Kernel // nil where there is nothing to compute
	views  []int     // where in its first input the outputs' bytes lie, if they need not be copied
}

// Compile binds g to the input types, one for each of Inputs(g), and prepares every node. It does not change or keep g,
// except that a Verbatim model shares its nodes.
//
// An operator, element type or rank that the engine does not run is an *op.Unsupported that names the node.
func Compile(g *graph.Graph, in []tensor.Type, opt Options) (model *Model, err error) {
	defer guard(&err)
	m := &Model{graph: g, pool: opt.Pool, float: tensor.Float32, keep: opt.Verbatim}
	if opt.Float64 {
		m.float = tensor.Float64
	}
	if m.pool == nil {
		m.pool = poolFor(opt.Threads)
	}
	if !opt.Verbatim {
		m.graph = g.Clone()
	}
	if m.info, err = Infer(m.graph, in, m.float); err != nil {
		return nil, err
	}
	if !opt.Verbatim {
		before := types(m.graph.Outputs, m.info)
		pass.Optimize(m.graph, m.info)
		// The rewritten graph is inferred anew: a pass need not know shapes, and cannot get them wrong.
		if m.info, err = Infer(m.graph, in, m.float); err != nil {
			return nil, fmt.Errorf("after optimization: %w", err)
		}
		for i, t := range types(m.graph.Outputs, m.info) {
			if w := before[i]; w.DType != t.DType || !slices.Equal(w.Shape, t.Shape) {
				return nil, fmt.Errorf("after optimization: output %d is %v, want %v", i, t, w)
			}
		}
	}
	m.inputs = Inputs(m.graph)
	limit := opt.MaxBytes
	if limit <= 0 {
		limit = DefaultMaxBytes
	}
	if err := m.build(limit, opt); err != nil {
		return nil, err
	}
	m.cost = CountInferred(m.graph, m.info)
	if !m.keep && !opt.Diagnose {
		m.release()
	}
	m.plan = layOut(m)
	if need := m.packed + int64(m.SessionBytes()); need > limit {
		return nil, tooMuchMemory(need, limit)
	}
	return m, nil
}

// build makes the kernels.
func (m *Model) build(limit int64, opt Options) error {
	for _, n := range m.graph.Nodes {
		if m.constant(n) {
			continue
		}
		def, err := op.Lookup(n, opset(m.graph, n))
		if err != nil {
			return err
		}
		s := site(m.graph, n, m.float, m.info)
		if s.Out, err = def.Infer(s); err != nil {
			return fmt.Errorf("node %v: %w", n, err)
		}
		if w := nodeWork(s); w > maxNodeWork {
			return fmt.Errorf("node %v: about %d multiply-adds in one node, the limit is %d: %w", n, w, int64(maxNodeWork), ErrTooLarge)
		}
		if m.packed += packs(s); m.packed > limit {
			return tooMuchMemory(m.packed, limit)
		}
		if s.Empty() {
			m.steps = append(m.steps, step{n, def, nil, nil})
			continue
		}
		if opt.outline {
			m.steps = append(m.steps, step{n, def, nil, views(s, def)})
			continue
		}
		if tuner := opt.Tune; tuner != nil {
			s.Choose = func(z kernel.ConvShape) kernel.Choice { return tuner.choice(m.pool.Workers(), z) }
		}
		k, err := def.New(s)
		if err != nil {
			return fmt.Errorf("node %v: %w", n, err)
		}
		if sc, ok := k.(op.Scratcher); ok {
			m.scratch = max(m.scratch, sc.Scratch(m.pool.Workers()))
		}
		m.steps = append(m.steps, step{n, def, k, views(s, def)})
	}
	return nil
}

// release forgets weights that kernels have packed: those that convolutions alone read. The graph is our own copy, and the
// caller's keeps its tensors.
func (m *Model) release() {
	packed, other := map[*graph.Value]bool{}, map[*graph.Value]bool{}
	for _, v := range m.graph.Outputs {
		other[v] = true
	}
	for _, st := range m.steps {
		conv := st.node.Op == "Conv" || st.node.Op == "ConvTranspose"
		for i, v := range st.node.Inputs {
			if v == nil {
				continue
			}
			if conv && (i == 1 || i == 2) && m.packs(st.node) {
				packed[v] = true
			} else {
				other[v] = true
			}
		}
	}
	for v := range packed {
		if !other[v] {
			v.Const = nil
			delete(m.info, v)
		}
	}
}

// packs reports whether a convolution's weights and bias are constant, so that its kernel holds them.
func (m *Model) packs(n *graph.Node) bool {
	for _, v := range n.Inputs[1:min(len(n.Inputs), 3)] {
		if v != nil && m.info[v].Const == nil {
			return false
		}
	}
	return true
}

// constant reports whether every output of n was computed at compile time.
func (m *Model) constant(n *graph.Node) bool {
	for _, v := range n.Outputs {
		if v != nil && m.info[v].Const == nil {
			return false
		}
	}
	return true
}

// Inputs is the types a run takes, floating point as it runs.
func (m *Model) Inputs() []tensor.Type { return types(m.inputs, m.info) }

// Outputs is the types a run yields, floating point as it runs.
func (m *Model) Outputs() []tensor.Type { return types(m.graph.Outputs, m.info) }

// SessionBytes is how much memory each session takes, beside the weights that all share.
func (m *Model) SessionBytes() int { return m.plan.bytes + m.scratch }

var pools struct {
	sync.Mutex
	byThreads map[int]*kernel.Pool
}

// poolFor gives the process's pool of that many threads. Pools live as long as the process: their workers are parked.
func poolFor(threads int) *kernel.Pool {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	pools.Lock()
	defer pools.Unlock()
	if pools.byThreads == nil {
		pools.byThreads = map[int]*kernel.Pool{}
	}
	p := pools.byThreads[threads]
	if p == nil {
		p = kernel.NewPool(threads)
		pools.byThreads[threads] = p
	}
	return p
}
