package engine

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
)

// A few bytes of model can ask for any amount of memory and time: ConstantOfShape makes gigabytes from one number, and
// each further node may ask again. So every total is bounded before it is spent.
const (
	// DefaultMaxBytes is Options.MaxBytes where that is 0: many times what a segmentation model takes.
	DefaultMaxBytes = 8 << 30
	// maxNodes bounds what compiling costs; the largest networks published have some ten thousand.
	maxNodes = 1 << 16
	// maxNodeWork bounds one node of a run, which cannot be stopped inside a node: multiply-adds, about a minute's worth.
	maxNodeWork = 1 << 42
	// maxFolded bounds, in elements, what a constant may grow to when it is computed at compile time; larger ones are
	// computed in each run. The other two bound all of them together, in bytes and in elements read and written, but for
	// those of at most smallFold, which shape arithmetic needs.
	maxFolded      = 1 << 24
	maxFoldedBytes = 1 << 30
	maxFoldWork    = 1 << 31
	smallFold      = 1 << 10
)

// ErrTooLarge is in the error for a model that would need more memory, time or nodes than the limits allow.
var ErrTooLarge = op.ErrTooLarge

func tooMuchMemory(bytes, limit int64) error {
	return fmt.Errorf("the model needs %.1f GiB beside its weights, the limit is %.1f: %w",
		float64(bytes)/(1<<30), float64(limit)/(1<<30), ErrTooLarge)
}

// foldBudget is what constants computed at compile time may still cost.
type foldBudget struct{ bytes, work int64 }

func newFoldBudget() *foldBudget { return &foldBudget{maxFoldedBytes, maxFoldWork} }

// take reports whether the node may be computed at compile time, and if so charges for it.
func (b *foldBudget) take(s *op.Site) bool {
	var bytes int64
	work := nodeWork(s)
	for _, t := range s.Out {
		n := t.Shape.Elems()
		if n > maxFolded {
			return false
		}
		bytes += int64(t.DType.Size(n))
	}
	if work <= smallFold {
		return true
	}
	if bytes > b.bytes || work > b.work {
		return false
	}
	b.bytes, b.work = b.bytes-bytes, b.work-work
	return true
}

// nodeWork estimates what a node costs from its shapes: elements read and written, and multiply-adds. A tap of a pool's
// window counts as 16, for it is generic code.
func nodeWork(s *op.Site) int64 {
	var w float64
	for _, a := range s.In {
		if a.Given() {
			w += float64(a.Type.Shape.Elems())
		}
	}
	var out float64
	for _, t := range s.Out {
		out += float64(t.Shape.Elems())
	}
	w += out + float64(macs(s.Node, s.In, s.Out))
	if k := s.Attrs().Ints("kernel_shape"); k != nil && len(s.In) == 1 {
		taps := 16.0
		for i, n := range k { // padding is not visited
			if x := s.Shape(0); i+2 < len(x) {
				n = min(n, x[i+2])
			}
			taps *= float64(max(n, 1))
		}
		w += out * taps
	}
	return int64(min(w, math.MaxInt64/2))
}

// packs gives the bytes of kernel weights that a node computes in the graph: their kernels keep a buffer of that size.
func packs(s *op.Site) int64 {
	w := s.Arg(1)
	if !w.Given() || w.Const != nil || !w.Type.DType.IsFloat() {
		return 0
	}
	switch s.Node.Op {
	case "Conv", "ConvTranspose":
		return 2 * int64(w.Type.DType.Size(w.Type.Shape.Elems()))
	}
	return 0
}

// guard turns a panic into an error: it is a bug here, but one model's, not the process's.
func guard(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("internal error: %v\n%s", v, debug.Stack())
	}
}

// checkNodes refuses graphs that would take too long to compile.
func checkNodes(g *graph.Graph) error {
	if n := len(g.Nodes); n > maxNodes {
		return fmt.Errorf("the model has %d nodes, the limit is %d: %w", n, maxNodes, ErrTooLarge)
	}
	return nil
}
