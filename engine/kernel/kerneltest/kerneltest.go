// Package kerneltest helps to test kernels: operands between guard words, at odd alignments, compared with a tolerance
// that follows from the arithmetic.
package kerneltest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// Levels is the instruction sets this machine can run, Generic first.
func Levels() []isa.Level {
	var ls []isa.Level
	for l := isa.Generic; l <= isa.Best(); l++ {
		ls = append(ls, l)
	}
	return ls
}

// EachLevel runs a subtest at every instruction set that this machine can run.
func EachLevel(t *testing.T, test func(t *testing.T, l isa.Level)) {
	for _, l := range Levels() {
		t.Run(l.String(), func(t *testing.T) { test(t, l) })
	}
}

// guard is how many words stand before and after an operand: more than a kernel may read past its end.
const guard = 512

// Buffer is an operand between guard words. The words are finite, since a NaN copied over a NaN would go unseen, and
// differ from operand to operand, since a copy of one operand's guard over another's would too.
type Buffer[T ~float32 | ~float64] struct {
	V     []T
	all   []T
	start int
	word  T
}

// New makes an operand of n elements whose guards hold word, skew elements away from where the allocator aligned it.
func New[T ~float32 | ~float64](n, skew int, word T) *Buffer[T] {
	b := &Buffer[T]{all: make([]T, n+2*guard+skew), start: guard + skew, word: word}
	for i := range b.all {
		b.all[i] = word
	}
	b.V = b.all[b.start : b.start+n : b.start+n]
	return b
}

// Random fills the operand with values in [-1,1).
func (b *Buffer[T]) Random(r *rand.Rand) *Buffer[T] {
	for i := range b.V {
		b.V[i] = T(r.Float64()*2 - 1)
	}
	return b
}

// Check fails the test if a guard word changed.
func (b *Buffer[T]) Check(t testing.TB, name string) {
	t.Helper()
	for i, v := range b.all {
		if (i < b.start || i >= b.start+len(b.V)) && v != b.word {
			t.Fatalf("%s: element %d of %d outside the operand changed from %g to %g", name, i-b.start, len(b.V), b.word, v)
		}
	}
}

// Eps is the unit roundoff of T.
func Eps[T ~float32 | ~float64]() float64 {
	if T(1)+T(1e-12) == 1 {
		return 1.0 / (1 << 24)
	}
	return 1.0 / (1 << 53)
}

// Close fails the test unless every got[i] is within 2·(k+2)·eps·mag[i] of want[i]: a sum of k products in any order is
// off by at most k·eps·Σ|a||b| (Higham, Accuracy and Stability, section 3.1), which mag holds, bias included.
func Close[T ~float32 | ~float64](t testing.TB, got []T, want, mag []float64, k int) {
	t.Helper()
	tol := 2 * float64(k+2) * Eps[T]()
	for i := range got {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= tol*mag[i]+1e-37) {
			t.Fatalf("[%d of %d] = %g, want %g (off by %g, bound %g)", i, len(got), got[i], want[i], d, tol*mag[i])
		}
	}
}
