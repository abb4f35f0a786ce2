package kernel

import (
	"math"
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// vectorFunc computes n elements of y from a, perhaps b, and two numbers. y may be a or b.
type vectorFunc = func(y, a, b *float32, n int64, s, t float32)

// vectors is the loops over elements of an instruction set.
type vectors struct {
	add, sub, mul, div   vectorFunc
	max, min             vectorFunc // a NaN is both
	addNumber, mulNumber vectorFunc // a + s, a·s
	scale                vectorFunc // s·a + t
	mix                  vectorFunc // s·a + t·b
	clip                 vectorFunc // min(max(a, s), t); a NaN stays one
	leaky                vectorFunc // a, or s·a where a < 0
	hardSwish            vectorFunc // a·min(max(s·a + t, 0), 1)
	gate                 vectorFunc // a where s < b < t, else 0
	exp                  vectorFunc // e^(a-s), good to 2 ulp; 0 below the normal numbers
	sigmoid, silu        vectorFunc // 1/(1+e⁻ᵃ), good to 4 ulp; a/(1+e⁻ᵃ)
	tanh                 vectorFunc // tanh a, good to 2 ulp
	erf                  vectorFunc // erf a, good to 3 ulp
	gelu                 vectorFunc // a·(1+erf(a/√2))/2, good to 2 ulp of a

	// dot adds to sum[i%8] the products of a[i] and b[i] in float64, i < 8·blocks.
	dot func(sum *float64, a, b *float32, blocks int64)
}

// Vector is the loops over float32 elements that have assembly. Each computes as many elements as y has; y may be an
// operand.
type Vector struct {
	v    *vectors
	zip2 func(y, a, b []float32) int
}

// Vectors gives the loops of the best instruction set; ok is false where there is none, and Go code does as well.
func Vectors() (v Vector, ok bool) {
	t := vectorsFor(isa.Best())
	return Vector{t, microFor[float32](isa.Best()).zip2}, t != nil
}

func apply2(f vectorFunc, y, a, b []float32, s, t float32) {
	need("a", len(a), len(y))
	need("b", len(b), len(y))
	if len(y) > 0 {
		f(hidden(y), hidden(a), hidden(b), int64(len(y)), s, t)
	}
}

// hidden is where v begins, hidden from escape analysis, which does not see that what is called by way of a variable is
// assembly that keeps nothing: callers' arrays may stay on their stacks.
func hidden(v []float32) *float32 {
	p := uintptr(unsafe.Pointer(unsafe.SliceData(v)))
	return *(**float32)(unsafe.Pointer(&p))
}

func apply1(f vectorFunc, y, a []float32, s, t float32) { apply2(f, y, a, a, s, t) }

// Add is y = a + b.
func (v Vector) Add(y, a, b []float32) { apply2(v.v.add, y, a, b, 0, 0) }

// Sub is y = a - b.
func (v Vector) Sub(y, a, b []float32) { apply2(v.v.sub, y, a, b, 0, 0) }

// Mul is y = a·b.
func (v Vector) Mul(y, a, b []float32) { apply2(v.v.mul, y, a, b, 0, 0) }

// Div is y = a/b.
func (v Vector) Div(y, a, b []float32) { apply2(v.v.div, y, a, b, 0, 0) }

// Max is y = max(a, b), a NaN being larger than any number.
func (v Vector) Max(y, a, b []float32) { apply2(v.v.max, y, a, b, 0, 0) }

// Min is y = min(a, b), a NaN being smaller than any number.
func (v Vector) Min(y, a, b []float32) { apply2(v.v.min, y, a, b, 0, 0) }

// AddNumber is y = a + s.
func (v Vector) AddNumber(y, a []float32, s float32) { apply1(v.v.addNumber, y, a, s, 0) }

// MulNumber is y = a·s.
func (v Vector) MulNumber(y, a []float32, s float32) { apply1(v.v.mulNumber, y, a, s, 0) }

// Scale is y = s·a + t, rounded once.
func (v Vector) Scale(y, a []float32, s, t float32) { apply1(v.v.scale, y, a, s, t) }

// Mix is y = s·a + t·b.
func (v Vector) Mix(y, a, b []float32, s, t float32) { apply2(v.v.mix, y, a, b, s, t) }

// Clip is y = min(max(a, lo), hi); a NaN stays one.
func (v Vector) Clip(y, a []float32, lo, hi float32) { apply1(v.v.clip, y, a, lo, hi) }

// Relu is y = max(a, 0); a NaN stays one.
func (v Vector) Relu(y, a []float32) { apply1(v.v.clip, y, a, 0, float32(math.Inf(1))) }

// LeakyRelu is y = a, or alpha·a where a < 0.
func (v Vector) LeakyRelu(y, a []float32, alpha float32) { apply1(v.v.leaky, y, a, alpha, 0) }

// HardSwish is y = a·min(max(alpha·a + beta, 0), 1).
func (v Vector) HardSwish(y, a []float32, alpha, beta float32) {
	apply1(v.v.hardSwish, y, a, alpha, beta)
}

// Gate is y = a where lo < b < hi, else 0.
func (v Vector) Gate(y, a, b []float32, lo, hi float32) { apply2(v.v.gate, y, a, b, lo, hi) }

// Exp is y = e^(a-s), good to 2 ulp; results below the normal numbers are 0.
func (v Vector) Exp(y, a []float32, s float32) { apply1(v.v.exp, y, a, s, 0) }

// Sigmoid is y = 1/(1+e⁻ᵃ), good to 4 ulp.
func (v Vector) Sigmoid(y, a []float32) { apply1(v.v.sigmoid, y, a, 0, 0) }

// SiLU is y = a/(1+e⁻ᵃ), good to 5 ulp.
func (v Vector) SiLU(y, a []float32) { apply1(v.v.silu, y, a, 0, 0) }

// Tanh is y = tanh a, good to 2 ulp.
func (v Vector) Tanh(y, a []float32) { apply1(v.v.tanh, y, a, 0, 0) }

// Erf is y = erf a, good to 3 ulp.
func (v Vector) Erf(y, a []float32) { apply1(v.v.erf, y, a, 0, 0) }

// Gelu is y = a·(1+erf(a/√2))/2, good to 2 ulp of a.
func (v Vector) Gelu(y, a []float32) { apply1(v.v.gelu, y, a, 0, 0) }

// Interleave is y[2i], y[2i+1] = a[i], b[i]; y has as many elements as a and b together.
func (v Vector) Interleave(y, a, b []float32) {
	need("b", len(b), len(a))
	need("y", len(y), 2*len(a))
	i := 0
	if len(a) > 0 {
		n := len(a)
		i = v.zip2(unsafe.Slice(hidden(y), len(y)), unsafe.Slice(hidden(a), n), unsafe.Slice(hidden(b), n))
	}
	for ; i < len(a); i++ {
		y[2*i], y[2*i+1] = a[i], b[i]
	}
}
