package op

import (
	"unsafe"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// vec is the loops over float32 that have assembly, if fast.
var vec, fast = kernel.Vectors()

// row gives the loop of a function over T: f where T is float32 and there is assembly, else slow.
func row[T kernel.Float](slow func(y, x []T), f func(y, x []float32)) func(y, x []T) {
	if !fast {
		return slow
	}
	if f, ok := any(f).(func(y, x []T)); ok {
		return f
	}
	return slow
}

// floats32 is v where T is float32 and there are loops for it; nil otherwise. Unlike a conversion by way of an interface, it
// never allocates.
func floats32[T tensor.Number](v []T) []float32 {
	if !fast || len(v) == 0 || tensor.DTypeOf[T]() != tensor.Float32 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&v[0])), len(v))
}

// vectorLoops gives the loops of an operator on float32; those that are nil there are none of.
func vectorLoops(op string) (f loops[float32, float32], ok bool) {
	if !fast {
		return f, false
	}
	switch op {
	case "Add", "Sum", "Mean":
		f.vv = vec.Add
		f.vs = vec.AddNumber
		f.sv = func(y []float32, a float32, b []float32) { vec.AddNumber(y, b, a) }
	case "Sub":
		f.vv = vec.Sub
		f.vs = func(y, a []float32, b float32) { vec.AddNumber(y, a, -b) }
		f.sv = func(y []float32, a float32, b []float32) { vec.Scale(y, b, -1, a) } // rounded once, as a difference is
	case "Mul":
		f.vv = vec.Mul
		f.vs = vec.MulNumber
		f.sv = func(y []float32, a float32, b []float32) { vec.MulNumber(y, b, a) }
	case "Max":
		f = each(func(a, b float32) float32 { return max(a, b) })
		f.vv = vec.Max
	case "Min":
		f = each(func(a, b float32) float32 { return min(a, b) })
		f.vv = vec.Min
	case "Div":
		f = divs[float32]()
		f.vv = vec.Div
	default:
		return f, false
	}
	return f, true
}
