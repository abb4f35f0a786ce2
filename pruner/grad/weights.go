package grad

import (
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// convolution is the reverse of Conv and ConvTranspose: dx by what data makes, dw from what was read and the gradient of
// what was made (with swapped the other way round), db by sums. What is not asked for is not made.
func convolution[T kernel.Float](s *Site, data func() linear[T], weights kernel.ConvShape, swapped bool) Step {
	var dx linear[T]
	var dw *kernel.ConvWeights[T]
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		if err := only(need, 2); err != nil {
			return nil, err
		}
		din := make([]*tensor.Tensor, len(need))
		d := tensor.Of[T](dout[0])
		if need[0] {
			if dx == nil {
				dx = data()
			}
			din[0] = s.New(s.Shape(0))
			dx.Bind(s.Pool, tensor.Of[T](s.Scratch(dx.Scratch(s.Pool.Workers()))), tensor.Of[T](din[0]), d)()
		}
		if need[1] {
			if dw == nil {
				dw = kernel.NewConvWeights[T](weights)
			}
			din[1] = s.New(s.Shape(1))
			x, dy := tensor.Of[T](in[0]), d
			if swapped {
				x, dy = dy, x
			}
			dw.Bind(s.Pool, tensor.Of[T](s.Scratch(dw.Scratch())), tensor.Of[T](din[1]), x, dy)()
		}
		if len(need) > 2 && need[2] {
			din[2] = planeSums(s, d)
		}
		return din, nil
	}
}

// planeSums is the gradient of a bias, input 2: the sums of d over the planes of each channel.
func planeSums[T kernel.Float](s *Site, d []T) *tensor.Tensor {
	y := s.New(s.Shape(2))
	perChannel(s.Pool, tensor.Of[T](y), s.Out[0].Shape, func(_, at, n int) float64 {
		var sum float64
		for _, x := range d[at : at+n] {
			sum += float64(x)
		}
		return sum
	})
	return y
}

// perChannel sets y[c] to the sum of f over the planes of channel c, axis 1 of shape: plane elements [at, at+n).
func perChannel[T kernel.Float](p *kernel.Pool, y []T, shape tensor.Shape, f func(c, at, n int) float64) {
	channels, inner := shape[1], shape[2:].Elems()
	p.Loop(channels, func(_, c int) {
		var sum float64
		for n := range shape[0] {
			sum += f(c, (n*channels+c)*inner, inner)
		}
		y[c] = T(sum)
	}).Run()
}
