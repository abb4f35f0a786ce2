package grad

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// broadcast walks an output whose two operands broadcast to it, row by row.
type broadcast struct {
	dims   tensor.Shape // of the output, with neighbours joined where all strides allow it; never empty
	sa, sb []int        // strides of the operands over dims, 0 where they repeat
}

func newBroadcast(out, a, b tensor.Shape) (*broadcast, error) {
	l := &broadcast{}
	ra, err := stretch(out, a)
	if err != nil {
		return nil, err
	}
	rb, err := stretch(out, b)
	if err != nil {
		return nil, err
	}
	for i, n := range out {
		if n == 1 {
			continue
		}
		if k := len(l.dims) - 1; k >= 0 && l.sa[k] == ra[i]*n && l.sb[k] == rb[i]*n {
			l.dims[k] *= n
			l.sa[k], l.sb[k] = ra[i], rb[i]
			continue
		}
		l.dims, l.sa, l.sb = append(l.dims, n), append(l.sa, ra[i]), append(l.sb, rb[i])
	}
	if len(l.dims) == 0 {
		l.dims, l.sa, l.sb = tensor.Shape{1}, []int{0}, []int{0}
	}
	return l, nil
}

// stretch gives s the strides with which it reads as out, aligned right.
func stretch(out, s tensor.Shape) ([]int, error) {
	st, own := make([]int, len(out)), s.Strides()
	if len(s) > len(out) {
		return nil, fmt.Errorf("%v does not broadcast to %v", s, out)
	}
	for i, n := range s {
		o := len(out) - len(s) + i
		if n != 1 {
			if n != out[o] {
				return nil, fmt.Errorf("%v does not broadcast to %v", s, out)
			}
			st[o] = own[i]
		}
	}
	return st, nil
}

// run calls f for each row: where it begins in the output and the operands, its length, and the operands' strides.
func (l *broadcast) run(f func(o, a, b, n, sa, sb int)) {
	if l.dims.Elems() == 0 {
		return
	}
	last := len(l.dims) - 1
	n := l.dims[last]
	at := make([]int, last)
	for o, a, b := 0, 0, 0; ; o += n {
		f(o, a, b, n, l.sa[last], l.sb[last])
		k := last - 1
		for ; k >= 0; k-- {
			at[k]++
			a += l.sa[k]
			b += l.sb[k]
			if at[k] < l.dims[k] {
				break
			}
			a -= at[k] * l.sa[k]
			b -= at[k] * l.sb[k]
			at[k] = 0
		}
		if k < 0 {
			return
		}
	}
}

// arith is the reverse of a broadcast binary operator: da and db give, for operands a and b and gradient d at the
// output, what one output element gives to each.
func arith[T kernel.Float](s *Site, da, db func(a, b, d T) T) (Step, error) {
	second := s.Shape(1)
	if axis, ok := s.Attrs().Get("axis"); ok && s.Opset < 7 {
		// Then the second operand was aligned at an axis of the first; ones on its right align it from the right.
		for k := len(s.Shape(0)) - int(axis.Int) - len(second); axis.Int >= 0 && k > 0; k-- {
			second = append(second[:len(second):len(second)], 1)
		}
	}
	loop, err := newBroadcast(s.Out[0].Shape, s.Shape(0), second)
	if err != nil {
		return nil, err
	}
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		a, b, d := tensor.Of[T](in[0]), tensor.Of[T](in[1]), tensor.Of[T](dout[0])
		if need[0] {
			din[0] = s.New(s.Shape(0))
			g := tensor.Of[T](din[0])
			clear(g)
			loop.run(func(o, ia, ib, n, sa, sb int) {
				for i, d := range d[o : o+n] {
					g[ia+i*sa] += da(a[ia+i*sa], b[ib+i*sb], d)
				}
			})
		}
		if need[1] {
			din[1] = s.New(s.Shape(1))
			g := tensor.Of[T](din[1])
			clear(g)
			loop.run(func(o, ia, ib, n, sa, sb int) {
				for i, d := range d[o : o+n] {
					g[ib+i*sb] += db(a[ia+i*sa], b[ib+i*sb], d)
				}
			})
		}
		return din, nil
	}, nil
}

// add passes the gradient on to an operand of the output's shape, which is every residual connection.
func add[T kernel.Float](s *Site) (Step, error) {
	general, err := arith(s, func(_, _, d T) T { return d }, func(_, _, d T) T { return d })
	if err != nil {
		return nil, err
	}
	out := s.Out[0].Shape
	if !slices.Equal(s.Shape(0), out) || !slices.Equal(s.Shape(1), out) {
		return general, nil
	}
	return func(_, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		for i := range din {
			switch {
			case !need[i]:
			case i == 1 && din[0] != nil:
				din[1] = s.New(out)
				copy(din[1].Data, dout[0].Data)
			default:
				din[i] = dout[0]
			}
		}
		return din, nil
	}, nil
}

func sub[T kernel.Float](s *Site) (Step, error) {
	return arith(s, func(_, _, d T) T { return d }, func(_, _, d T) T { return -d })
}

func mul[T kernel.Float](s *Site) (Step, error) {
	return arith(s, func(_, b, d T) T { return d * b }, func(a, _, d T) T { return d * a })
}

func div[T kernel.Float](s *Site) (Step, error) {
	return arith(s, func(_, b, d T) T { return d / b }, func(a, b, d T) T { return -d * a / (b * b) })
}
