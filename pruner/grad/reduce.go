package grad

import (
	"math"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// part is what one element x of the n that were reduced to y gets of y's gradient d.
type part[T kernel.Float] func(x, y, d T, n int) T

// reduce is the reverse of a reduction. With first, an element that is given anything takes it all.
func reduce[T kernel.Float](s *Site, axes []int, first bool, f part[T]) (Step, error) {
	shape := s.Shape(0)
	kept, n := shape.Clone(), 1
	for _, a := range axes {
		n *= kept[a]
		kept[a] = 1
	}
	loop, err := newBroadcast(shape, kept, kept)
	if err != nil {
		return nil, err
	}
	return func(in, out, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			dx := s.New(shape)
			g, x, y, d := tensor.Of[T](dx), tensor.Of[T](in[0]), tensor.Of[T](out[0]), tensor.Of[T](dout[0])
			loop.run(func(o, a, _, m, sa, _ int) {
				for i := range m {
					v := f(x[o+i], y[a+i*sa], d[a+i*sa], n)
					g[o+i] = v
					if first && v != 0 {
						d[a+i*sa] = 0
					}
				}
			})
			return dx
		})
	}, nil
}

// global reduces over space.
func global[T kernel.Float](first bool, f part[T]) Rule {
	return func(s *Site) (Step, error) {
		var axes []int
		for a := 2; a < len(s.Shape(0)); a++ {
			axes = append(axes, a)
		}
		return reduce(s, axes, first, f)
	}
}

// over reduces over the axes of an attribute, or of an input since opset 13 or 18; none are all, or with
// noop_with_empty_axes none.
func over[T kernel.Float](first bool, f part[T]) Rule {
	return func(s *Site) (Step, error) {
		axes := s.Attrs().Ints("axes")
		if s.Arg(1).Given() {
			var err error
			if axes, err = s.ConstInts(1); err != nil {
				return nil, err
			}
		}
		rank := len(s.Shape(0))
		if len(axes) == 0 && s.Attrs().Int("noop_with_empty_axes", 0) == 0 {
			for a := range rank {
				axes = append(axes, a)
			}
		}
		for i, a := range axes {
			var err error
			if axes[i], err = axisOf(a, rank); err != nil {
				return nil, err
			}
		}
		return reduce(s, axes, first, f)
	}
}

func evenly[T kernel.Float](_, _, d T, n int) T { return d / T(n) }

func whole[T kernel.Float](_, _, d T, _ int) T { return d }

func toEqual[T kernel.Float](x, y, d T, _ int) T {
	if x == y {
		return d
	}
	return 0
}

// l2 has no derivative where the norm is 0; 0 is in its subgradient.
func l2[T kernel.Float](x, y, d T, _ int) T {
	if y == 0 {
		return 0
	}
	return d * x / y
}

func square[T kernel.Float](x, _, d T, _ int) T { return 2 * d * x }

func l1[T kernel.Float](x, _, d T, _ int) T {
	switch {
	case x > 0:
		return d
	case x < 0:
		return -d
	}
	return 0
}

func logSum[T kernel.Float](_, y, d T, _ int) T { return d * T(math.Exp(-float64(y))) }

func logSumExp[T kernel.Float](x, y, d T, _ int) T { return d * T(math.Exp(float64(x-y))) }
