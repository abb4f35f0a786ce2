// Package grad takes gradients at the logits of a model back to its activations.
//
// A [Sweep] is made once for a graph at bound input types: each operator's [Rule] prepares the reverse of its nodes,
// packed weights and index tables included. [Sweep.Walk] then goes through the nodes in reverse over the values of one
// run (engine's Trace) and hands out the gradient of each wanted [Edge]: what flows into a value through one consumer
// alone, before the contributions of its consumers are added up. Only nodes between the wanted edges and the seeds are
// visited. An edge may also be where a node reads its weights: then it is their gradient. [Backprop] does both passes in
// bounded memory.
package grad

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Gradients holds the derivative of one scalar by each value, in the value's shape.
type Gradients map[*graph.Value]*tensor.Tensor

// Edge is where a node reads a value: its input number Input.
type Edge struct {
	Node  *graph.Node
	Input int
}

// String names the edge in errors.
func (e Edge) String() string { return fmt.Sprintf("input %d of %v", e.Input, e.Node) }

// Value is what is read there, or nil.
func (e Edge) Value() *graph.Value { return e.Node.Input(e.Input) }

// Site is a node as its rule sees it: bound types and constants, and the pool to run on.
type Site struct {
	op.Site
	Pool *kernel.Pool
	// New returns a tensor of undefined content, of the sweep's float type, to write a gradient in.
	New func(shape tensor.Shape) *tensor.Tensor
	// Scratch returns at least n elements of working memory, for use until the step returns.
	Scratch func(n int) *tensor.Tensor
}

// Rule prepares the reverse of one node. An error says why its gradient cannot be taken.
type Rule func(s *Site) (Step, error)

// Step is the reverse of a node: from the values it read and made in a run and the gradients at its outputs (nil where
// none arrived, at least one did) it gives the gradient at each input for which need is true. It owns the gradients it
// is given: it may write to one and pass it on as that of one input.
type Step func(in, out, dout []*tensor.Tensor, need []bool) (din []*tensor.Tensor, err error)
