package kernel

import (
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// Dot is Σ a[i]·b[i] in float64. Products go to eight sums in turn, which are added up in pairs: in this order at every
// instruction set, and so to the same bits.
func Dot[T Float](a, b []T) float64 {
	need("b", len(b), len(a))
	return dot(vectorsFor(isa.Best()), a, b)
}

func dot[T Float](v *vectors, a, b []T) float64 {
	var s [8]float64
	i := 0
	if x, ok := any(a).([]float32); ok && v != nil && len(a) >= 8 {
		n := len(a) / 8
		v.dot(&s[0], unsafe.SliceData(x), unsafe.SliceData(any(b).([]float32)), int64(n))
		i = 8 * n
	}
	for ; i < len(a); i++ {
		s[i%8] += float64(float64(a[i]) * float64(b[i])) // converted, so that no compiler fuses what float64 rounds
	}
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}
