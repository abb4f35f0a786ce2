package op

import (
	"errors"
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/tensor"
)

// real is every element type that arithmetic is defined on.
type real interface {
	float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64
}

// loops is an element-wise operator on rows: both operands vary, or one of them is a single number. y may be a or b.
type loops[T, R tensor.Number] struct {
	vv func(y []R, a, b []T)
	vs func(y []R, a []T, b T)
	sv func(y []R, a T, b []T)
}

// binder is a binary operator for one element type: it returns what computes y from a (array 1 of the nest) and b (array 2).
type binder func(env *Env, n *nest, y, a, b *tensor.Tensor) func() error

// binder makes the operator that check allows to run; a nil check allows all.
func (f loops[T, R]) binder(check func(b []T) error) binder {
	return func(env *Env, n *nest, y, a, b *tensor.Tensor) func() error {
		run := f.bind(env, n, tensor.Of[R](y), tensor.Of[T](a), tensor.Of[T](b))
		if check == nil {
			return func() error { run(); return nil }
		}
		divisor := tensor.Of[T](b)
		return func() error {
			if err := check(divisor); err != nil {
				return err
			}
			run()
			return nil
		}
	}
}

func (f loops[T, R]) bind(env *Env, n *nest, y []R, a, b []T) func() {
	// In a row each operand is contiguous or a single number: the nest dropped the dimensions of 1.
	_, step := n.inner()
	switch {
	case step[1] == 0 && step[2] == 0: // of several operands, another one gave the row its length
		return n.bind(env, func(o offsets, length int) {
			row := y[o[0] : o[0]+length]
			f.vs(row[:1], a[o[1]:o[1]+1], b[o[2]])
			fill(row, row[0])
		})
	case step[2] == 0:
		return n.bind(env, func(o offsets, length int) { f.vs(y[o[0]:o[0]+length], a[o[1]:o[1]+length], b[o[2]]) })
	case step[1] == 0:
		return n.bind(env, func(o offsets, length int) { f.sv(y[o[0]:o[0]+length], a[o[1]], b[o[2]:o[2]+length]) })
	}
	return n.bind(env, func(o offsets, length int) {
		f.vv(y[o[0]:o[0]+length], a[o[1]:o[1]+length], b[o[2]:o[2]+length])
	})
}

// each makes loops of an operator on one pair of elements. It costs a call for each, so the operators of inner layers have
// loops of their own.
func each[T, R tensor.Number](f func(a, b T) R) loops[T, R] {
	return loops[T, R]{
		vv: func(y []R, a, b []T) {
			for i := range y {
				y[i] = f(a[i], b[i])
			}
		},
		vs: func(y []R, a []T, b T) {
			for i := range y {
				y[i] = f(a[i], b)
			}
		},
		sv: func(y []R, a T, b []T) {
			for i := range y {
				y[i] = f(a, b[i])
			}
		},
	}
}

func adds[T real]() loops[T, T] {
	return loops[T, T]{
		vv: func(y, a, b []T) {
			a, b = a[:len(y)], b[:len(y)]
			for i := range y {
				y[i] = a[i] + b[i]
			}
		},
		vs: func(y, a []T, b T) {
			a = a[:len(y)]
			for i := range y {
				y[i] = a[i] + b
			}
		},
		sv: func(y []T, a T, b []T) {
			b = b[:len(y)]
			for i := range y {
				y[i] = a + b[i]
			}
		},
	}
}

func subs[T real]() loops[T, T] {
	return loops[T, T]{
		vv: func(y, a, b []T) {
			a, b = a[:len(y)], b[:len(y)]
			for i := range y {
				y[i] = a[i] - b[i]
			}
		},
		vs: func(y, a []T, b T) {
			a = a[:len(y)]
			for i := range y {
				y[i] = a[i] - b
			}
		},
		sv: func(y []T, a T, b []T) {
			b = b[:len(y)]
			for i := range y {
				y[i] = a - b[i]
			}
		},
	}
}

func muls[T real]() loops[T, T] {
	return loops[T, T]{
		vv: func(y, a, b []T) {
			a, b = a[:len(y)], b[:len(y)]
			for i := range y {
				y[i] = a[i] * b[i]
			}
		},
		vs: func(y, a []T, b T) {
			a = a[:len(y)]
			for i := range y {
				y[i] = a[i] * b
			}
		},
		sv: func(y []T, a T, b []T) {
			b = b[:len(y)]
			for i := range y {
				y[i] = a * b[i]
			}
		},
	}
}

func divs[T real]() loops[T, T] {
	return loops[T, T]{
		vv: func(y, a, b []T) {
			a, b = a[:len(y)], b[:len(y)]
			for i := range y {
				y[i] = a[i] / b[i]
			}
		},
		vs: func(y, a []T, b T) {
			a = a[:len(y)]
			for i := range y {
				y[i] = a[i] / b
			}
		},
		sv: func(y []T, a T, b []T) {
			b = b[:len(y)]
			for i := range y {
				y[i] = a / b[i]
			}
		},
	}
}

var errDivision = errors.New("integer division by zero")

// noZero lets integers be divided: Go, unlike IEEE 754, has no quotient by 0.
func noZero[T real](b []T) error {
	for _, x := range b {
		if x == 0 {
			return errDivision
		}
	}
	return nil
}

// arithmetic is the binary operators whose result has the type of the operands.
func arithmetic[T real](op string, fmod bool) (binder, error) {
	isFloat := tensor.DTypeOf[T]().IsFloat()
	if f, ok := vectorLoops(op); ok {
		if f, ok := any(f).(loops[T, T]); ok {
			return f.binder(nil), nil
		}
	}
	var check func([]T) error
	if !isFloat {
		check = noZero[T]
	}
	switch op {
	case "Add", "Sum", "Mean":
		return adds[T]().binder(nil), nil
	case "Sub":
		return subs[T]().binder(nil), nil
	case "Mul":
		return muls[T]().binder(nil), nil
	case "Div":
		return divs[T]().binder(check), nil
	case "Max":
		return each(func(a, b T) T { return max(a, b) }).binder(nil), nil
	case "Min":
		return each(func(a, b T) T { return min(a, b) }).binder(nil), nil
	case "Mod":
		if isFloat {
			return each(func(a, b T) T { return floatMod(a, b, fmod) }).binder(nil), nil
		}
		// Over integers a-a/b*b is Go's and C's remainder, with the sign of a.
		return each(func(a, b T) T {
			r := a - a/b*b
			if !fmod && r != 0 && (r < 0) != (b < 0) {
				r += b
			}
			return r
		}).binder(check), nil
	}
	return nil, fmt.Errorf("no arithmetic for %s", op)
}

// floatMod is C's fmod, or else Python's remainder, which has the sign of b.
func floatMod[T real](a, b T, fmod bool) T {
	r := math.Mod(float64(a), float64(b))
	if !fmod && r != 0 && (r < 0) != (b < 0) {
		r += float64(b)
	}
	return T(r)
}

// comparisons is the binary operators on numbers whose result is Bool.
func comparisons[T real](op string) (binder, error) {
	switch op {
	case "Equal":
		return each(func(a, b T) bool { return a == b }).binder(nil), nil
	case "Greater":
		return each(func(a, b T) bool { return a > b }).binder(nil), nil
	case "GreaterOrEqual":
		return each(func(a, b T) bool { return a >= b }).binder(nil), nil
	case "Less":
		return each(func(a, b T) bool { return a < b }).binder(nil), nil
	case "LessOrEqual":
		return each(func(a, b T) bool { return a <= b }).binder(nil), nil
	}
	return nil, fmt.Errorf("no comparison for %s", op)
}

// logic is the binary operators on Bool.
func logic(op string) (binder, error) {
	switch op {
	case "And":
		return each(func(a, b bool) bool { return a && b }).binder(nil), nil
	case "Or":
		return each(func(a, b bool) bool { return a || b }).binder(nil), nil
	case "Xor":
		return each(func(a, b bool) bool { return a != b }).binder(nil), nil
	case "Equal":
		return each(func(a, b bool) bool { return a == b }).binder(nil), nil
	}
	return nil, fmt.Errorf("no logic for %s", op)
}

// byReal picks the form of an operator for an element type; nil if it is none that has arithmetic.
func byReal[F any](dt tensor.DType, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64 F) (f F, ok bool) {
	switch dt {
	case tensor.Float32:
		return f32, true
	case tensor.Float64:
		return f64, true
	case tensor.Int8:
		return i8, true
	case tensor.Int16:
		return i16, true
	case tensor.Int32:
		return i32, true
	case tensor.Int64:
		return i64, true
	case tensor.Uint8:
		return u8, true
	case tensor.Uint16:
		return u16, true
	case tensor.Uint32:
		return u32, true
	case tensor.Uint64:
		return u64, true
	}
	return f, false
}

// isReal reports whether arithmetic is defined on dt as the engine holds it.
func isReal(dt tensor.DType) bool { return dt == tensor.Float32 || dt == tensor.Float64 || dt.IsInt() }

func arithmeticOf(dt tensor.DType, op string, fmod bool) (binder, error) {
	f, ok := byReal(dt, arithmetic[float32], arithmetic[float64], arithmetic[int8], arithmetic[int16], arithmetic[int32],
		arithmetic[int64], arithmetic[uint8], arithmetic[uint16], arithmetic[uint32], arithmetic[uint64])
	if !ok {
		return nil, fmt.Errorf("no arithmetic on %v", dt)
	}
	return f(op, fmod)
}

func comparisonOf(dt tensor.DType, op string) (binder, error) {
	f, ok := byReal(dt, comparisons[float32], comparisons[float64], comparisons[int8], comparisons[int16], comparisons[int32],
		comparisons[int64], comparisons[uint8], comparisons[uint16], comparisons[uint32], comparisons[uint64])
	if !ok {
		return nil, fmt.Errorf("no comparison of %v", dt)
	}
	return f(op)
}
