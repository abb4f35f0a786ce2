package grad

import (
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// layer is a convolution's reverse: dx by data, dw from what it read and the gradient of what it made, db by sums.
type layer[T kernel.Float] struct {
	site    *Site
	data    func() linear[T] // made when it is first needed
	weights func() *kernel.ConvWeights[T]
	x, dy   int // of the two operands of weights, which comes from in[0]; the other is dout[0]
}

// step is the reverse of Conv and ConvTranspose.
func (l *layer[T]) step() Step {
	var data linear[T]
	var weights *kernel.ConvWeights[T]
	s := l.site
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		if err := only(need, 2); err != nil {
			return nil, err
		}
		din := make([]*tensor.Tensor, len(need))
		d := tensor.Of[T](dout[0])
		if need[0] {
			if data == nil {
				data = l.data()
			}
			din[0] = s.New(s.Shape(0))
			data.Bind(s.Pool, tensor.Of[T](s.Scratch(data.Scratch(s.Pool.Workers()))), tensor.Of[T](din[0]), d)()
		}
		if need[1] {
			if weights == nil {
				weights = l.weights()
			}
			din[1] = s.New(s.Shape(1))
			of := [2][]T{tensor.Of[T](in[0]), d}
			weights.Bind(s.Pool, tensor.Of[T](s.Scratch(weights.Scratch())), tensor.Of[T](din[1]), of[l.x], of[l.dy])()
		}
		if len(need) > 2 && need[2] {
			din[2] = s.New(s.Shape(2))
			perChannel(s.Pool, tensor.Of[T](din[2]), s.Out[0].Shape, func(_, at, n int) float64 { return total(d[at : at+n]) })
		}
		return din, nil
	}
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

func total[T kernel.Float](v []T) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	return sum
}
