package grad

import (
	"math"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// pointwise is the reverse of a function of single elements: f turns d, the gradient at the output, into that at the
// input, given input x and output y, each if it is read.
func pointwise[T kernel.Float](s *Site, f func(d, x, y []T)) (Step, error) {
	return func(in, out, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			d, x, y := tensor.Of[T](dout[0]), tensor.Of[T](in[0]), tensor.Of[T](out[0])
			each(s.Pool, len(d), 1<<14, func(lo, hi int) { f(d[lo:hi:hi], piece(x, lo, hi), piece(y, lo, hi)) })
			return dout[0]
		})
	}, nil
}

func piece[T kernel.Float](x []T, lo, hi int) []T {
	if x == nil {
		return nil
	}
	return x[lo:hi:hi]
}

// gate clears d where x is not strictly between lo and hi. Comparing by the signs of differences has no branch for the
// signs of activations to mispredict.
func gate[T kernel.Float](d, x []T, lo, hi T) {
	switch d := any(d).(type) {
	case []float32:
		lo, hi := float32(lo), float32(hi)
		if v, ok := kernel.Vectors(); ok {
			v.Gate(d, d, any(x).([]float32), lo, hi)
			return
		}
		for i, v := range any(x).([]float32) {
			m := uint32(int32(math.Float32bits(lo-v)&math.Float32bits(v-hi)) >> 31)
			d[i] = math.Float32frombits(math.Float32bits(d[i]) & m)
		}
	case []float64:
		lo, hi := float64(lo), float64(hi)
		for i, v := range any(x).([]float64) {
			m := uint64(int64(math.Float64bits(lo-v)&math.Float64bits(v-hi)) >> 63)
			d[i] = math.Float64frombits(math.Float64bits(d[i]) & m)
		}
	}
}

// relu goes by the output, which is within the bounds where the input is, and which the next layer keeps anyway.
func relu[T kernel.Float](s *Site) (Step, error) {
	inf := T(math.Inf(1))
	return pointwise(s, func(d, _, y []T) { gate(d, y, 0, inf) })
}

// clip goes by the output, as relu does. It reads its bounds from the run: since opset 11 they are inputs.
func clip[T kernel.Float](s *Site) (Step, error) {
	attr := [2]T{T(s.Attrs().Float("min", float32(math.Inf(-1)))), T(s.Attrs().Float("max", float32(math.Inf(1))))}
	return func(in, out, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			b := attr
			for i := range b {
				if i+1 < len(in) && in[i+1] != nil {
					b[i] = tensor.Of[T](in[i+1])[0]
				}
			}
			d, y := tensor.Of[T](dout[0]), tensor.Of[T](out[0])
			each(s.Pool, len(d), 1<<14, func(lo, hi int) { gate(d[lo:hi:hi], y[lo:hi:hi], b[0], b[1]) })
			return dout[0]
		})
	}, nil
}

func leakyRelu[T kernel.Float](s *Site) (Step, error) {
	alpha := T(s.Attrs().Float("alpha", 0.01))
	return pointwise(s, func(d, x, _ []T) {
		for i, v := range x {
			if !(v > 0) {
				d[i] *= alpha
			}
		}
	})
}

// pRelu is max(x, 0) + slope·min(x, 0), where the slope broadcasts to x.
func pRelu[T kernel.Float](s *Site) (Step, error) {
	return arith(s, func(x, slope, d T) T {
		if x > 0 {
			return d
		}
		return d * slope
	}, func(x, _, d T) T {
		if x > 0 {
			return 0
		}
		return d * x
	})
}

func sigmoid[T kernel.Float](s *Site) (Step, error) {
	return pointwise(s, func(d, _, y []T) {
		for i, v := range y {
			d[i] *= v * (1 - v)
		}
	})
}

func tanh[T kernel.Float](s *Site) (Step, error) {
	return pointwise(s, func(d, _, y []T) {
		for i, v := range y {
			d[i] *= 1 - v*v
		}
	})
}

// hardSigmoid is max(0, min(1, alpha x + beta)).
func hardSigmoid[T kernel.Float](s *Site) (Step, error) {
	alpha, beta := T(s.Attrs().Float("alpha", 0.2)), T(s.Attrs().Float("beta", 0.5))
	return pointwise(s, func(d, x, _ []T) {
		for i, v := range x {
			if y := alpha*v + beta; y > 0 && y < 1 {
				d[i] *= alpha
			} else {
				d[i] = 0
			}
		}
	})
}

// hardSwish is x max(0, min(1, x/6 + 1/2)).
func hardSwish[T kernel.Float](s *Site) (Step, error) {
	return pointwise(s, func(d, x, _ []T) {
		for i, v := range x {
			switch {
			case v <= -3:
				d[i] = 0
			case v < 3:
				d[i] *= v/3 + 0.5
			}
		}
	})
}
