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
	if x := floats32(x); x != nil {
		vec.Sigmoid(floats32(y)[:len(x)], x)
		return
	}
	switch x := any(x).(type) {
	case []float32:
		y := any(y).([]float32)[:len(x)]
		for i, v := range x {
			y[i] = 1 / (1 + exp32(-v))
		}
	case []float64:
		y := any(y).([]float64)[:len(x)]
		for i, v := range x {
			y[i] = sigmoid(v)
		}
	}
}

// tanhRow is y = tanh x; y may be x.
func tanhRow[T kernel.Float](y, x []T) {
	if x := floats32(x); x != nil {
		vec.Tanh(floats32(y)[:len(x)], x)
		return
	}
	switch x := any(x).(type) {
	case []float32:
		y := any(y).([]float32)[:len(x)]
		for i, v := range x {
			y[i] = tanh32(v)
		}
	case []float64:
		y := any(y).([]float64)[:len(x)]
		for i, v := range x {
			y[i] = math.Tanh(v)
		}
	}
}
