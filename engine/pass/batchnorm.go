package pass

import (
	"math"

	"github.com/secateur/secateur/engine/graph"
)

// batchNormOf is BatchNormalization with constant parameters as what it is at inference, γ(x−μ)/√(σ²+ε)+β.
func batchNormOf(bn *graph.Node, info Info) (affine, bool) {
	if !plainBatchNorm(bn, info) {
		return affine{}, false
	}
	param := func(i int) []float64 {
		v, _ := info[bn.Inputs[i]].Const.Float64s()
		return v
	}
	gamma, beta, mean, variance := param(1), param(2), param(3), param(4)
	eps := float64(bn.Attrs.Float("epsilon", 1e-5))
	a := affine{make([]float64, len(gamma)), make([]float64, len(gamma))}
	for c := range gamma {
		a.scale[c] = gamma[c] / math.Sqrt(variance[c]+eps)
		a.shift[c] = beta[c] - mean[c]*a.scale[c]
	}
	return a, true
}

func plainBatchNorm(bn *graph.Node, info Info) bool {
	if len(bn.Inputs) != 5 || bn.Attrs.Int("training_mode", 0) != 0 || bn.Attrs.Int("spatial", 1) == 0 {
		return false
	}
	for _, v := range bn.Outputs[1:] {
		if v != nil {
			return false
		}
	}
	for _, v := range bn.Inputs[1:] {
		if v == nil || info[v].Const == nil {
			return false
		}
	}
	return true
}
