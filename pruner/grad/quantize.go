package grad

import (
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Rounding has derivative zero wherever it has one, which would end every sweep at the first QuantizeLinear. What is used
// instead is the straight-through estimator: rounding passes a gradient as it is, within the range that the integers
// cover, and clipping passes none beyond it (Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through
// Stochastic Neurons for Conditional Computation", 2013). Of a pair of QuantizeLinear and DequantizeLinear it is the
// derivative averaged over a step of the scale. Scales and zero points have no gradient.
//
// Between the two stand integers, which the sweep takes for real numbers: what QuantizeLinear made, and what other
// operators make of it in the same type.

// quantize is d/scale where x lies in the range, and 0 beyond it.
func quantize[T kernel.Float](s *Site) (Step, error) {
	limits, ok := integerRange[s.Out[0].DType]
	if !ok {
		return nil, fmt.Errorf("quantising to %v has no rule", s.Out[0].DType)
	}
	return scaled(s, func(d, x, scale, zero T) T {
		if q := math.RoundToEven(float64(x/scale)) + float64(zero); q >= limits[0] && q <= limits[1] {
			return d / scale
		}
		return 0
	})
}

var integerRange = map[tensor.DType][2]float64{
	tensor.Int8: {math.MinInt8, math.MaxInt8}, tensor.Uint8: {0, math.MaxUint8},
	tensor.Int16: {math.MinInt16, math.MaxInt16}, tensor.Uint16: {0, math.MaxUint16},
}

// dequantize is d·scale.
func dequantize[T kernel.Float](s *Site) (Step, error) {
	return scaled(s, func(d, _, scale, _ T) T { return d * scale })
}

// scaled is the reverse of an operator that treats each element by a scale and a zero point, of the whole tensor or of its
// index on an axis. f is given x where that is floating point.
func scaled[T kernel.Float](s *Site, f func(d, x, scale, zero T) T) (Step, error) {
	shape, scales := s.Shape(0), s.Shape(1)
	if s.Attrs().Int("block_size", 0) != 0 {
		return nil, fmt.Errorf("scales of blocks have no rule")
	}
	if scales.Elems() != 1 {
		axis, err := axisOf(s.Attrs().Int("axis", 1), len(shape))
		if err != nil {
			return nil, err
		}
		scales = append(scales.Clone(), make(tensor.Shape, len(shape)-axis-1)...)
		for i := range scales[1:] {
			scales[1+i] = 1
		}
	} else {
		scales = tensor.Shape{}
	}
	loop, err := newBroadcast(shape, scales, scales)
	if err != nil {
		return nil, err
	}
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			d, scale := tensor.Of[T](dout[0]), tensor.Of[T](in[1])
			x := d // a stand-in for integers, which no f looks at
			if in[0].DType == dout[0].DType {
				x = tensor.Of[T](in[0])
			}
			zero := make([]T, len(scale))
			if len(in) > 2 && in[2] != nil {
				z, _ := in[2].Ints()
				for i, v := range z {
					zero[i] = T(v)
				}
			}
			loop.run(func(o, a, _, n, sa, _ int) {
				for i := range n {
					d[o+i] = f(d[o+i], x[o+i], scale[a+i*sa], zero[a+i*sa])
				}
			})
			return dout[0]
		})
	}, nil
}

// realIntegers finds the integers that stand for real numbers.
func realIntegers(g *graph.Graph, info map[*graph.Value]op.Arg) map[*graph.Value]bool {
	m := map[*graph.Value]bool{}
	for _, n := range g.Nodes {
		from := realInputs(n, m, info)
		for _, v := range n.Outputs {
			if t := info[v].Type.DType; v != nil && t.IsInt() && (n.Op == "QuantizeLinear" || t == from) {
				m[v] = true
			}
		}
	}
	return m
}

// realInputs is the type of the integers that n reads for real numbers; Undefined if there are none.
func realInputs(n *graph.Node, reals map[*graph.Value]bool, info map[*graph.Value]op.Arg) tensor.DType {
	for _, v := range n.Inputs {
		if v != nil && reals[v] {
			return info[v].Type.DType
		}
	}
	return tensor.Undefined
}

// asReal gives what rules of other operators than the two see of integers that stand for real numbers: floating point.
func asReal(t *tensor.Tensor, float tensor.DType) (*tensor.Tensor, error) {
	v, _ := t.Float64s()
	return tensor.FromFloat64s(v, float, t.Shape...)
}
