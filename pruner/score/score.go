// Package score says how much each channel matters.
//
// [TaylorFO] is the first-order Taylor criterion with gradient-normalised backpropagation (Sapkota et al., MIUA 2023;
// Molchanov et al., CVPR 2019), read at the edges into the nodes whose weights a cut slices: for example n and position
// c of an edge's channel axis
//
//	s_c,n = Σ_hw x · ∂<Ĝ_n, L>/∂x through that edge alone,  Ĝ = G / (‖G‖₂ + ε),  G = ∂loss/∂L at the logits L,
//
// so that -s is the first-order estimate of what masking the channel at that edge does to the normalised loss. The sum
// is signed over space and over the edges of a class, never over examples: [Scores.Importance] takes the absolute value
// of each example's sum before it averages.
package score

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/grad"
	"github.com/secateur/secateur/pruner/loss"
)

// Example is one image as the model takes it, batch 1, and its truth at any size; nil if unlabelled.
type Example struct {
	Input *tensor.Tensor
	Truth *vision.Mask
}

// Examples are read in order, each once; At may decode when it is called, which is by one goroutine at a time.
type Examples struct {
	N  int
	At func(i int) (Example, error)
}

// ahead is At for a loop over all of them, that reads the next while the caller has the last: decoding takes one core.
func (e Examples) ahead() func(i int) (Example, error) {
	type result struct {
		ex  Example
		err error
	}
	next := make(chan result, 1) // whoever reads what nobody asks for any more ends all the same
	read := func(i int) {
		var r result
		defer func() {
			if v := recover(); v != nil { // a bug, but not one to end a server
				r.err = fmt.Errorf("internal error: %v\n%s", v, debug.Stack())
			}
			next <- r
		}()
		r.ex, r.err = e.At(i)
	}
	return func(i int) (Example, error) {
		if i == 0 {
			go read(0)
		}
		r := <-next
		if r.err == nil && i+1 < e.N {
			go read(i + 1)
		}
		return r.ex, r.err
	}
}

// Options of a scoring. The zero value scores without labels.
type Options struct {
	Labels   bool         // G from the loss against the truth; else from random probes
	Loss     loss.Kind    // of several planes of logits, with Labels
	Last     bool         // the logits' classes lie along their last axis, not along axis 1
	Probes   int          // probes per example without labels; 0: 8
	Seed     uint64       // of the probes
	Float    tensor.DType // Float32 (also the zero value) or Float64
	Pool     *kernel.Pool // nil: one core
	Memory   int64        // of both passes, in bytes; see grad.Options
	Progress func(done, total int)
	// Each, if set, is given every sample in turn instead of Scores, which then keeps none. s is the caller's until Each
	// returns. Thousands of examples take gigabytes otherwise.
	Each func(s Sample, weight float64)
}

// Sample is the signed sum at each position of each edge, from one example or one probe of it.
type Sample map[grad.Edge][]float64

// Sum is that of what stands or falls together.
func (s Sample) Sum(at []At) float64 {
	var v float64
	for _, a := range at {
		v += s[a.Edge][a.Position]
	}
	return v
}

// Scores holds s for every edge, sample and channel position. A sample is an example, or one probe of it.
type Scores struct {
	Edges []grad.Edge
	// S[e][n][c] is the signed sum of sample n at position c of edge e.
	S      map[grad.Edge][][]float64
	Weight []float64 // of each sample; the weights of an example add up to 1
}

// At is one position along the channel axis of an edge.
type At struct {
	Edge     grad.Edge
	Position int
}

// Norm is how the samples' sums become one number.
type Norm int

// The two norms of the criterion.
const (
	Abs    Norm = iota // weighted mean over samples of |s|
	Square             // weighted mean over samples of s²
)

// Of is what a sample's sum adds to the mean.
func (n Norm) Of(s float64) float64 {
	if n == Square {
		return s * s
	}
	return math.Abs(s)
}

// Importance is that of what stands or falls together: the sum over its positions in each sample, signed, and the norm
// over the samples.
func (s *Scores) Importance(at []At, norm Norm) float64 {
	var sum, total float64
	for n, w := range s.Weight {
		var v float64
		for _, a := range at {
			v += s.S[a.Edge][n][a.Position]
		}
		sum += w * norm.Of(v)
		total += w
	}
	if total == 0 {
		return 0
	}
	return sum / total
}

// Axis is the channel axis of the input that the edge reads: what a cut removes positions from.
func Axis(e grad.Edge, rank int) (int, error) {
	n := e.Node
	var axis int
	switch {
	case n.Op == "Conv" && e.Input == 0, n.Op == "ConvTranspose" && e.Input == 0:
		axis = 1
	case n.Op == "Gemm" && e.Input == 0:
		axis = 1 - min(n.Attrs.Int("transA", 0), 1)
	case n.Op == "Gemm" && e.Input == 1:
		axis = min(n.Attrs.Int("transB", 0), 1)
	case n.Op == "MatMul" && e.Input == 0:
		axis = rank - 1
	case n.Op == "MatMul" && e.Input == 1:
		axis = max(rank-2, 0)
	default:
		return 0, fmt.Errorf("%v has no channels to cut", e)
	}
	if axis < 0 || axis >= rank {
		return 0, fmt.Errorf("%v is of rank %d, without a channel axis", e, rank)
	}
	return axis, nil
}

// Logits finds where to seed: the graph's first output, or what a final Sigmoid or Softmax makes it from, and that
// activation: "sigmoid", "softmax" or "" for none. A saturated activation would leave no gradient. The value is nil if
// the graph has no output.
func Logits(g *graph.Graph) (logits *graph.Value, activation string) {
	if len(g.Outputs) == 0 {
		return nil, ""
	}
	for v := g.Outputs[0]; ; v = v.Def.Inputs[0] {
		if v.Def == nil || len(v.Def.Inputs) == 0 || v.Def.Inputs[0] == nil {
			return v, ""
		}
		switch v.Def.Op {
		case "Identity":
		case "Sigmoid":
			return v.Def.Inputs[0], "sigmoid"
		case "Softmax":
			return v.Def.Inputs[0], "softmax"
		default:
			return v, ""
		}
	}
}
