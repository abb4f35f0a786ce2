package op

import (
	"math"

	"github.com/secateur/secateur/engine/kernel"
)

// exp32 is eˣ in float32, good to 2 ulp: x = n·ln 2 + r with |r| ≤ ln 2/2, a polynomial for eʳ, and n put into the
// exponent. Results below the normal numbers are 0. math.Exp takes several times as long, for digits that float32 has not.
func exp32(x float32) float32 {
	const (
		log2e = 1.44269504088896341
		// ln 2 in two parts, the first so short that its product with n is exact.
		ln2Hi = 0.693359375
		ln2Lo = -2.12194440e-4
		// Adding 1.5·2^23 leaves the nearest integer in the lowest bits.
		shift = 12582912
	)
	if x < -87.33654 {
		return 0
	}
	if x > 88.72283 {
		return float32(math.Inf(1))
	}
	t := x*log2e + shift
	n := t - shift
	r := x - n*ln2Hi - n*ln2Lo
	p := float32(1.9875691500e-4)
	p = p*r + 1.3981999507e-3
	p = p*r + 8.3334519073e-3
	p = p*r + 4.1665795894e-2
	p = p*r + 1.6666665459e-1
	p = p*r + 5.0000001201e-1
	p = p*r*r + r + 1
	// n runs to 128, whose power of two is no float32, so it comes in two factors.
	e := int32(math.Float32bits(t)) - int32(math.Float32bits(shift))
	h := e >> 1
	return p * math.Float32frombits(uint32(h+127)<<23) * math.Float32frombits(uint32(e-h+127)<<23)
}

// tanh32 is tanh x in float32, good to 2 ulp: a polynomial near 0, where the exponentials would cancel.
func tanh32(x float32) float32 {
	a := max(x, -x)
	if a < 0.625 {
		z := x * x
		p := float32(-5.70498872745e-3)
		p = p*z + 2.06390887954e-2
		p = p*z - 5.37397155531e-2
		p = p*z + 1.33314422036e-1
		p = p*z - 3.33332819422e-1
		return p*z*x + x
	}
	y := 1 - 2/(exp32(2*a)+1)
	if x < 0 {
		return -y
	}
	return y
}

// erf32 is erf x in float32, good to 3 ulp: near 0 a polynomial of x², as tanh32 has it, elsewhere 1 - erfc32.
func erf32(x float32) float32 {
	a := max(x, -x)
	if a < erfEdge {
		return erfNear(x)
	}
	y := 1 - erfc32(a)
	if x < 0 {
		return -y
	}
	return y
}

// geluOf is x·(1+erf(x/√2))/2 in float32, good to 2 ulp of x. Where erf is near -1 it is erfc32 alone, so that nothing cancels.
func geluOf(x float32) float32 {
	z := x * (math.Sqrt2 / 2)
	switch {
	case max(z, -z) < erfEdge:
		return x * 0.5 * (1 + erfNear(z))
	case z < 0:
		return x * 0.5 * erfc32(-z)
	}
	return x * 0.5 * (2 - erfc32(z))
}

// erfEdge is where erf32 goes from one form to the other; from erfFlat on the polynomial of erfc32 is taken as constant, and at
// erfEnd nothing is left.
const erfEdge, erfFlat, erfEnd = 0.95, 4.2, 10

// erfNear is erf x below erfEdge: x + x·p(x²), with p fitted to 2.4e-8 of it.
func erfNear(x float32) float32 {
	z := x * x
	p := float32(-5.863064434379339e-4)
	p = p*z + 4.9682906828820705e-3
	p = p*z - 2.674994058907032e-2
	p = p*z + 1.1281371116638184e-1
	p = p*z - 3.761245310306549e-1
	p = p*z + 1.2837915122509003e-1
	return p*x + x
}

// erfc32 is 1 - erf a from erfEdge on: e^(q(a)-a²), with q fitted to 4e-8 of the result at erfEdge and 2e-6 at erfFlat.
func erfc32(a float32) float32 {
	c, t := min(a, erfFlat), min(a, erfEnd)
	q := float32(-1.495848937338451e-5)
	q = q*c + 3.4772377694025636e-4
	q = q*c - 3.66393756121397e-3
	q = q*c + 2.3532062768936157e-2
	q = q*c - 1.0540927946567535e-1
	q = q*c + 3.636523187160492e-1
	q = q*c - 1.1278343200683594
	q = q*c - 2.1506017947103828e-4
	return exp32(q - t*t)
}

// erfRow is y = erf x; y may be x.
func erfRow[T kernel.Float](y, x []T) { rowOf(y, x, vec.Erf, erf32, math.Erf) }

// geluRow is y = x·(1+erf(x/√2))/2; y may be x.
func geluRow[T kernel.Float](y, x []T) {
	rowOf(y, x, vec.Gelu, geluOf, func(x float64) float64 { return 0.5 * x * (1 + math.Erf(x/math.Sqrt2)) })
}

// rowOf is y = f(x) for an f that has assembly, a form in float32 and one in float64.
func rowOf[T kernel.Float](y, x []T, fast func(y, x []float32), f32 func(float32) float32, f64 func(float64) float64) {
	if x := floats32(x); x != nil {
		fast(floats32(y)[:len(x)], x)
		return
	}
	switch x := any(x).(type) {
	case []float32:
		y := any(y).([]float32)[:len(x)]
		for i, v := range x {
			y[i] = f32(v)
		}
	case []float64:
		y := any(y).([]float64)[:len(x)]
		for i, v := range x {
			y[i] = f64(v)
		}
	}
}

// expRow is y = e^(x-shift); y may be x.
func expRow[T kernel.Float](y, x []T, shift T) {
	if x := floats32(x); x != nil {
		vec.Exp(floats32(y)[:len(x)], x, float32(shift))
		return
	}
	switch x := any(x).(type) {
	case []float32:
		y, s := any(y).([]float32)[:len(x)], float32(shift)
		for i, v := range x {
			y[i] = exp32(v - s)
		}
	case []float64:
		y, s := any(y).([]float64)[:len(x)], float64(shift)
		for i, v := range x {
			y[i] = math.Exp(v - s)
		}
	}
}

// sigmoidRow is y = 1/(1+e^-x); y may be x.
func sigmoidRow[T kernel.Float](y, x []T) {
	rowOf(y, x, vec.Sigmoid, func(x float32) float32 { return 1 / (1 + exp32(-x)) }, sigmoid)
}

// tanhRow is y = tanh x; y may be x.
func tanhRow[T kernel.Float](y, x []T) { rowOf(y, x, vec.Tanh, tanh32, math.Tanh) }
