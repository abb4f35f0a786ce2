package gorgonia

import (
	"fmt"
	"math"
	"slices"
)

// batchNorm is scale and shift: gorgonia's own BatchNorm differentiates as if it were training.
func (s *site) batchNorm() (value, error) {
	if s.integer("training_mode", 0) != 0 {
		return value{}, fmt.Errorf("BatchNormalization in training is not lowered")
	}
	var p [5][]float64
	for i := 1; i < 5; i++ {
		var err error
		if p[i], err = s.numbers(i); err != nil {
			return value{}, err
		}
	}
	eps := s.number("epsilon", 1e-5)
	scale, shift := make([]float64, len(p[1])), make([]float64, len(p[1]))
	for i := range scale {
		scale[i] = p[1][i] / math.Sqrt(p[4][i]+eps)
		shift[i] = p[2][i] - p[3][i]*scale[i]
	}
	return s.affine(s.name, s.in[0], 1, scale, shift)
}

// standardised is (x - mean) / √(variance + ε) over axes.
func (s *site) standardised(x value, axes []int) (value, error) {
	// spread is the mean over axes, in the shape of x.
	spread := func(v value) (value, error) {
		v, err := s.reduced(v, reduceMean, axes, true)
		if err != nil {
			return value{}, err
		}
		return s.expand(s.name, v, x.shape)
	}
	mean, err := spread(x)
	if err != nil {
		return value{}, err
	}
	x, err = s.arith("Sub", x, mean)
	if err != nil {
		return value{}, err
	}
	square, err := s.squared(x)
	if err != nil {
		return value{}, err
	}
	variance, err := spread(square)
	if err != nil {
		return value{}, err
	}
	eps := s.number("epsilon", 1e-5)
	scale, err := s.each(s.name, variance,
		func(v float64) float64 { return 1 / math.Sqrt(v+eps) },
		func(v float64) float64 { return -0.5 / ((v + eps) * math.Sqrt(v+eps)) })
	if err != nil {
		return value{}, err
	}
	return s.arith("Mul", x, scale)
}

// channelwise scales and shifts by inputs 1 and 2.
func (s *site) channelwise(x value) (value, error) {
	scale, err := s.numbers(1)
	if err != nil {
		return value{}, err
	}
	shift, err := s.numbers(2)
	if err != nil {
		return value{}, err
	}
	return s.affine(s.name, x, 1, scale, shift)
}

func (s *site) instanceNorm() (value, error) {
	x, err := s.standardised(s.in[0], from(2, s.rank()))
	if err != nil {
		return value{}, err
	}
	return s.channelwise(x)
}

// groupNorm has numbers for each group before opset 21, and for each channel from then on.
func (s *site) groupNorm() (value, error) {
	x, n := s.in[0], s.integer("num_groups", 1)
	if s.rank() < 2 || n < 1 || x.shape[1]%n != 0 {
		return value{}, fmt.Errorf("%d groups of %v", n, x.shape)
	}
	y, err := s.reshape(s.name, x, []int{x.shape[0], n, elements(x.shape[1:]) / n})
	if err != nil {
		return value{}, err
	}
	if y, err = s.standardised(y, []int{2}); err != nil {
		return value{}, err
	}
	if s.opset < 21 {
		if y, err = s.channelwise(y); err != nil {
			return value{}, err
		}
		return s.reshape(s.name, y, x.shape)
	}
	if y, err = s.reshape(s.name, y, x.shape); err != nil {
		return value{}, err
	}
	return s.channelwise(y)
}

func (s *site) layerNorm() (value, error) {
	a, err := axis(s.integer("axis", -1), s.rank())
	if err != nil {
		return value{}, err
	}
	x, err := s.standardised(s.in[0], from(a, s.rank()))
	if err != nil {
		return value{}, err
	}
	if x, err = s.arith("Mul", x, s.in[1]); err != nil || !s.has(2) {
		return x, err
	}
	if !slices.Equal(x.shape, s.in[0].shape) {
		return value{}, fmt.Errorf("scale %v of %v", s.in[1].shape, s.in[0].shape)
	}
	return s.arith("Add", x, s.in[2])
}
