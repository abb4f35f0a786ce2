package op

import (
	"fmt"

	"github.com/secateur/secateur/engine/tensor"
)

// whereFamily is Where: from input 1 where the condition holds, else from input 2, all three broadcast.
var whereFamily = since(Def{Op: "Where", Infer: inferWhere, New: newWhere}, 9, 16)

func inferWhere(s *Site) ([]tensor.Type, error) {
	if err := s.require(3); err != nil {
		return nil, err
	}
	if s.DType(0) != tensor.Bool || s.DType(1) != s.DType(2) {
		return nil, fmt.Errorf("inputs are %v, %v and %v, want bool and two of one type", s.DType(0), s.DType(1), s.DType(2))
	}
	if _, err := s.movable(1); err != nil {
		return nil, err
	}
	out, err := broadcast(s.Shape(0), s.Shape(1), s.Shape(2))
	if err != nil {
		return nil, err
	}
	return s.sized(s.DType(1), out)
}

func newWhere(s *Site) (Kernel, error) {
	out := s.Out[0].Shape
	n, err := newNest(out, offsets{}, out.Strides(), broadcastStrides(s.Shape(0), out), broadcastStrides(s.Shape(1), out),
		broadcastStrides(s.Shape(2), out))
	if err != nil {
		return nil, s.Unsupported("%v", err)
	}
	size, err := s.movable(1)
	if err != nil {
		return nil, err
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		var run func()
		switch size {
		case 1:
			run = where[uint8](env, n, out[0], in)
		case 2:
			run = where[uint16](env, n, out[0], in)
		case 4:
			run = where[uint32](env, n, out[0], in)
		default:
			run = where[uint64](env, n, out[0], in)
		}
		return func() error { run(); return nil }
	}), nil
}

func where[T word](env *Env, n *nest, out *tensor.Tensor, in []*tensor.Tensor) func() {
	y, cond, a, b := tensor.View[T](out), tensor.Of[bool](in[0]), tensor.View[T](in[1]), tensor.View[T](in[2])
	_, step := n.inner()
	return n.bind(env, func(o offsets, length int) {
		for i := range length {
			if cond[o[1]+i*step[1]] {
				y[o[0]+i] = a[o[2]+i*step[2]]
			} else {
				y[o[0]+i] = b[o[3]+i*step[3]]
			}
		}
	})
}
