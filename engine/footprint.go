package engine

import (
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// Footprint gives bytes that inference of g takes, without compiling it: those of its weights, which kernels hold packed,
// too, in no less, and those of a session's values, without scratch.
func Footprint(g *graph.Graph, in []tensor.Type, float tensor.DType) (weights, values int64, err error) {
	m, err := Compile(g, in, Options{Threads: 1, Float64: float == tensor.Float64, outline: true})
	if err != nil {
		return 0, 0, err
	}
	cost, err := Count(g, in)
	if err != nil {
		return 0, 0, err
	}
	return int64(float.Size(1)) * cost.Parameters, int64(m.plan.bytes), nil
}
