package grad

import (
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// share is the reverse of an operator of any number of operands: f gives what one output element y, of gradient d, gives
// to operand element x. With first, the first operand to be given anything takes it all.
func share[T kernel.Float](s *Site, first bool, f func(x, y, d T) T) (Step, error) {
	out := s.Out[0].Shape
	loops := make([]*broadcast, len(s.In))
	for i := range s.In {
		var err error
		if loops[i], err = newBroadcast(out, s.Shape(i), s.Shape(i)); err != nil {
			return nil, err
		}
	}
	return func(in, ys, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		y, d := tensor.Of[T](ys[0]), tensor.Of[T](dout[0])
		for i, l := range loops {
			if !need[i] && !first {
				continue
			}
			var g []T
			if need[i] {
				din[i] = s.New(s.Shape(i))
				g = tensor.Of[T](din[i])
				clear(g)
			}
			x := tensor.Of[T](in[i])
			l.run(func(o, a, _, n, sa, _ int) {
				for j := range n {
					v := f(x[a+j*sa], y[o+j], d[o+j])
					if g != nil {
						g[a+j*sa] += v
					}
					if first && v != 0 {
						d[o+j] = 0
					}
				}
			})
		}
		return din, nil
	}, nil
}

func sum[T kernel.Float](s *Site) (Step, error) {
	return share(s, false, func(_, _, d T) T { return d })
}

func meanOf[T kernel.Float](s *Site) (Step, error) {
	n := T(len(s.In))
	return share(s, false, func(_, _, d T) T { return d / n })
}

// extreme is Min and Max: the operand that the output was taken from.
func extreme[T kernel.Float](s *Site) (Step, error) {
	return share(s, true, func(x, y, d T) T {
		if x == y {
			return d
		}
		return 0
	})
}

// pow has a gradient by its base.
func pow[T kernel.Float](s *Site) (Step, error) {
	loop, err := newBroadcast(s.Out[0].Shape, s.Shape(0), s.Shape(1))
	if err != nil {
		return nil, err
	}
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		e, ok := in[1].Float64s()
		if !ok {
			return nil, fmt.Errorf("exponents are %v", in[1].DType)
		}
		return one(need, func() *tensor.Tensor {
			dx := s.New(s.Shape(0))
			g, x, d := tensor.Of[T](dx), tensor.Of[T](in[0]), tensor.Of[T](dout[0])
			clear(g)
			loop.run(func(o, a, b, n, sa, sb int) {
				for j, d := range d[o : o+n] {
					e := e[b+j*sb]
					g[a+j*sa] += d * T(e*math.Pow(float64(x[a+j*sa]), e-1))
				}
			})
			return dx
		})
	}, nil
}

// where gives the gradient to the operand that the condition chose.
func where[T kernel.Float](s *Site) (Step, error) {
	var loops [3]*broadcast
	for i := 1; i < 3; i++ {
		var err error
		if loops[i], err = newBroadcast(s.Out[0].Shape, s.Shape(i), s.Shape(0)); err != nil {
			return nil, err
		}
	}
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		c, d := tensor.Of[bool](in[0]), tensor.Of[T](dout[0])
		for i := 1; i < 3; i++ {
			if !need[i] {
				continue
			}
			din[i] = s.New(s.Shape(i))
			g := tensor.Of[T](din[i])
			clear(g)
			loops[i].run(func(o, a, b, n, sa, sb int) {
				for j, d := range d[o : o+n] {
					if c[b+j*sb] == (i == 1) {
						g[a+j*sa] += d
					}
				}
			})
		}
		return din, nil
	}, nil
}
