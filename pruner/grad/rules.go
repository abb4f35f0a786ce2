package grad

import (
	"fmt"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// rules is the table: the reverse of each operator, computed in T.
func rules[T kernel.Float]() map[string]Rule {
	return map[string]Rule{
		// conv.go
		"Conv":          conv[T],
		"ConvTranspose": convTranspose[T],
		// As pass.FuseClamps writes them.
		op.Private + ".Conv":          clamped[T](conv[T]),
		op.Private + ".ConvTranspose": clamped[T](convTranspose[T]),
		// norm.go
		"BatchNormalization":    batchNorm[T],
		"InstanceNormalization": instanceNorm[T],
		"GroupNormalization":    groupNorm[T],
		"LayerNormalization":    layerNorm[T],
		"Softmax":               softmax[T],
		"LogSoftmax":            logSoftmax[T],
		// quantize.go
		"QuantizeLinear":   quantize[T],
		"DequantizeLinear": dequantize[T],
		// activation.go
		"Relu":        relu[T],
		"LeakyRelu":   leakyRelu[T],
		"PRelu":       pRelu[T],
		"Clip":        clip[T],
		"Sigmoid":     sigmoid[T],
		"HardSigmoid": hardSigmoid[T],
		"HardSwish":   hardSwish[T],
		"Tanh":        tanh[T],
		// curve.go
		"Exp":             curve[T](exp),
		"Log":             curve[T](log),
		"Sqrt":            curve[T](sqrt),
		"Reciprocal":      curve[T](reciprocal),
		"Neg":             curve[T](neg),
		"Abs":             curve[T](abs),
		"Erf":             curve[T](erf),
		"Softplus":        curve[T](softplus),
		"Softsign":        curve[T](softsign),
		"Mish":            curve[T](mish),
		"Elu":             elu[T],
		"Selu":            selu[T],
		"Gelu":            gelu[T],
		"Celu":            celu[T],
		"Swish":           swish[T],
		"ThresholdedRelu": thresholdedRelu[T],
		// arith.go
		"Add": add[T],
		"Sub": sub[T],
		"Mul": mul[T],
		"Div": div[T],
		// select.go
		"Sum":   sum[T],
		"Mean":  meanOf[T],
		"Min":   extreme[T],
		"Max":   extreme[T],
		"Pow":   pow[T],
		"Where": where[T],
		// pool.go
		"MaxPool":     maxPool[T],
		"AveragePool": averagePool[T],
		// reduce.go
		"GlobalAveragePool": global[T](false, evenly[T]),
		"GlobalMaxPool":     global[T](true, toEqual[T]),
		"ReduceMean":        over[T](false, evenly[T]),
		"ReduceSum":         over[T](false, whole[T]),
		"ReduceMax":         over[T](true, toEqual[T]),
		"ReduceMin":         over[T](true, toEqual[T]),
		"ReduceL2":          over[T](false, l2[T]),
		"ReduceL1":          over[T](false, l1[T]),
		"ReduceLogSum":      over[T](false, logSum[T]),
		"ReduceLogSumExp":   over[T](false, logSumExp[T]),
		"ReduceSumSquare":   over[T](false, square[T]),
		// resize.go
		"Resize":   resize[T],
		"Upsample": resize[T],
		// matmul.go
		"Gemm":   gemm[T],
		"MatMul": matMul[T],
		// move.go
		"Concat":         concat[T], // concat.go
		"Split":          move[T],
		"Slice":          move[T],
		"Pad":            move[T],
		"Transpose":      move[T],
		"Gather":         move[T],
		"GatherElements": move[T],
		"GatherND":       move[T],
		"ScatterND":      move[T],
		"Expand":         move[T],
		"Tile":           move[T],
		"DepthToSpace":   move[T],
		"SpaceToDepth":   move[T],
		// The elements of input 0, as they lie.
		"Reshape":   view,
		"Flatten":   view,
		"Squeeze":   view,
		"Unsqueeze": view,
		"Identity":  view,
		"Dropout":   view,
		"CastLike":  view,
		"Cast":      view, // between floating-point types, which all run as one
	}
}

// view is the reverse of operators whose output 0 is input 0 in another shape.
func view(s *Site) (Step, error) {
	if s.Shape(0).Elems() != s.Out[0].Shape.Elems() {
		return nil, fmt.Errorf("%v to %v is no view", s.Shape(0), s.Out[0].Shape)
	}
	shape := s.Shape(0).Clone()
	return func(_, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		if err := only(need, 0); err != nil {
			return nil, err
		}
		if dout[0] != nil {
			dout[0].Shape = shape.Clone()
			din[0] = dout[0]
		}
		return din, nil
	}, nil
}

// only refuses gradients of inputs other than the first k+1: weights and parameters that are computed by the graph.
func only(need []bool, k int) error {
	for i, n := range need {
		if n && i > k {
			return fmt.Errorf("there is no gradient of input %d, a parameter that depends on the data", i)
		}
	}
	return nil
}

// one wraps the gradient of a sole input.
func one(need []bool, f func() *tensor.Tensor) ([]*tensor.Tensor, error) {
	if err := only(need, 0); err != nil {
		return nil, err
	}
	din := make([]*tensor.Tensor, len(need))
	if need[0] {
		din[0] = f()
	}
	return din, nil
}
