package op

import (
	"math"

	"github.com/secateur/secateur/engine/tensor"
)

// powDef is Pow. From opset 12 the exponent may have a type of its own; the result has the base's.
var powDef = Def{Op: "Pow", InPlace: true,
	Infer: func(s *Site) ([]tensor.Type, error) {
		if err := s.require(2); err != nil {
			return nil, err
		}
		for i := range 2 {
			if !isReal(s.DType(i)) {
				return nil, s.Unsupported("elements of type %v", s.DType(i))
			}
		}
		return s.inferBinary(s.DType(0))
	},
	New: func(s *Site) (Kernel, error) {
		f, ok := byReal(s.DType(0), powOf[float32], powOf[float64], powOf[int8], powOf[int16], powOf[int32], powOf[int64],
			powOf[uint8], powOf[uint16], powOf[uint32], powOf[uint64])
		if !ok {
			return nil, s.Unsupported("elements of type %v", s.DType(0))
		}
		return s.newBinary(f(s.DType(1)), nil)
	},
}

func powOf[T real](exponent tensor.DType) binder {
	f, _ := byReal(exponent, pow[T, float32], pow[T, float64], pow[T, int8], pow[T, int16], pow[T, int32], pow[T, int64],
		pow[T, uint8], pow[T, uint16], pow[T, uint32], pow[T, uint64])
	return f
}

func pow[T, E real](env *Env, n *nest, yt, at, bt *tensor.Tensor) func() error {
	y, a, b := tensor.Of[T](yt), tensor.Of[T](at), tensor.Of[E](bt)
	power := func(a T, b E) T { return T(math.Pow(float64(a), float64(b))) }
	if !tensor.DTypeOf[T]().IsFloat() && !tensor.DTypeOf[E]().IsFloat() {
		power = intPow[T, E]
	}
	_, step := n.inner()
	run := n.bind(env, func(o offsets, length int) {
		if step[2] == 0 && b[o[2]] == 2 { // a square, as in a written-out norm
			for i, x := range a[o[1] : o[1]+length] {
				y[o[0]+i] = x * x
			}
			return
		}
		for i := range length {
			y[o[0]+i] = power(a[o[1]+i*step[1]], b[o[2]+i*step[2]])
		}
	})
	return func() error { run(); return nil }
}

// intPow is exact where math.Pow is not, and wraps as multiplication does. A negative exponent leaves 0 but for 1 and -1.
func intPow[T, E real](a T, b E) T {
	if b < 0 {
		return T(math.Pow(float64(a), float64(b)))
	}
	r := T(1)
	for e := uint64(b); e > 0; e >>= 1 {
		if e&1 == 1 {
			r *= a
		}
		a *= a
	}
	return r
}
