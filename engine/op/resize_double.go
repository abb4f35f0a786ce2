package op

import "github.com/secateur/secateur/engine/kernel"

// doubling is a linear Resize of rows by two as decoders have it: but for the ends, an odd result and the even one behind it
// are between the same two elements, in weights that are the same everywhere.
type doubling[T kernel.Float] struct{ odd, even [2]T }

// doublingOf finds whether an axis of in elements is doubled so.
func doublingOf[T kernel.Float](t *taps, w []T, in int) (d doubling[T], ok bool) {
	if t.n != 2 || t.outside != nil || in < 2 || len(t.at) != 4*in {
		return d, false
	}
	d = doubling[T]{[2]T{w[2], w[3]}, [2]T{w[4], w[5]}}
	for m := range in - 1 {
		odd, even := 2*(2*m+1), 2*(2*m+2)
		for k := range 2 {
			if t.at[odd+k] != m+k || t.at[even+k] != m+k || w[odd+k] != d.odd[k] || w[even+k] != d.even[k] {
				return d, false
			}
		}
	}
	return d, true
}

// rows doubles rows of in elements.
func (d doubling[T]) rows(t *taps, w, y, x []T, in int) {
	y32, x32 := floats32(y), floats32(x)
	for n := 0; n < len(x); n += in {
		src, dst := x32[n:n+in], y32[2*n:2*(n+in)]
		var odd, even [256]float32
		for m := 0; m < in-1; m += len(odd) {
			k := min(len(odd), in-1-m)
			a, b := src[m:m+k], src[m+1:m+1+k]
			vec.Mix(odd[:k], a, b, float32(d.odd[0]), float32(d.odd[1]))
			vec.Mix(even[:k], a, b, float32(d.even[0]), float32(d.even[1]))
			vec.Interleave(dst[1+2*m:1+2*(m+k)], odd[:k], even[:k])
		}
		last := 2*in - 1
		for _, i := range [2]int{0, last} {
			dst[i] = float32(w[2*i])*src[t.at[2*i]] + float32(w[2*i+1])*src[t.at[2*i+1]]
		}
	}
}
