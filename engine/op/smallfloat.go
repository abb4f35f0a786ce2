package op

import (
	"math"
	"sort"

	"github.com/secateur/secateur/engine/tensor"
)

// smallFloat is a floating-point format of 4 or 8 bits, with the sign in the highest.
type smallFloat struct {
	bits     int
	mantissa int
	bias     int
	// infinite is the code of +infinity, nan that of NaN; -1 where the format has none.
	infinite, nan int
	// unsignedZero: there is no -0, whose code is NaN's (the FNUZ formats).
	unsignedZero bool
	most         int       // the code of the largest number
	values       []float64 // of the codes 0 to most, ascending, and of the one beyond, which overflow rounds to
}

// smallFloats is the formats of FLOAT8 and FLOAT4, as IEEE-like fields; FLOAT8E8M0 has no sign or mantissa, see e8m0.
var smallFloats = map[tensor.DType]*smallFloat{
	tensor.Float8E4M3FN:   newSmallFloat(smallFloat{bits: 8, mantissa: 3, bias: 7, infinite: -1, nan: 0x7f, most: 0x7e}),
	tensor.Float8E4M3FNUZ: newSmallFloat(smallFloat{bits: 8, mantissa: 3, bias: 8, infinite: -1, nan: 0x80, unsignedZero: true, most: 0x7f}),
	tensor.Float8E5M2:     newSmallFloat(smallFloat{bits: 8, mantissa: 2, bias: 15, infinite: 0x7c, nan: 0x7e, most: 0x7b}),
	tensor.Float8E5M2FNUZ: newSmallFloat(smallFloat{bits: 8, mantissa: 2, bias: 16, infinite: -1, nan: 0x80, unsignedZero: true, most: 0x7f}),
	tensor.Float4E2M1:     newSmallFloat(smallFloat{bits: 4, mantissa: 1, bias: 1, infinite: -1, nan: -1, most: 7}),
	tensor.Float8E8M0:     {bits: 8, infinite: -1, nan: 0xff},
}

func newSmallFloat(f smallFloat) *smallFloat {
	for c := 0; c <= f.most+1; c++ {
		e, m := c>>f.mantissa, c&(1<<f.mantissa-1)
		v := math.Ldexp(float64(m), 1-f.bias-f.mantissa)
		if e > 0 {
			v = math.Ldexp(float64(1<<f.mantissa+m), e-f.bias-f.mantissa)
		}
		f.values = append(f.values, v)
	}
	return &f
}

// decode gives the number that a code stands for.
func (f *smallFloat) decode(c uint8) float64 {
	if f.mantissa == 0 { // E8M0
		if c == 0xff {
			return math.NaN()
		}
		return math.Ldexp(1, int(c)-127)
	}
	sign := uint8(1) << (f.bits - 1)
	v, code := 1.0, int(c&^sign)
	if c&sign != 0 {
		v = -1
	}
	switch {
	case f.unsignedZero && c == sign:
		return math.NaN()
	case code <= f.most:
		return math.Copysign(f.values[code], v)
	case code == f.infinite:
		return math.Inf(int(v))
	}
	return math.NaN()
}

// encode rounds to the nearest number of the format, ties to even. What is too large becomes the largest number if
// saturate is set, else infinity or NaN.
func (f *smallFloat) encode(x float64, saturate bool) uint8 {
	sign := uint8(0)
	if math.Signbit(x) {
		sign = 1 << (f.bits - 1)
	}
	switch {
	case math.IsNaN(x) && f.nan < 0:
		return 1 << (f.bits - 1) // a format without NaN: what its reference implementation gives, -0
	case math.IsNaN(x) && f.unsignedZero:
		return uint8(f.nan)
	case math.IsNaN(x):
		return sign | uint8(f.nan)
	}
	x = math.Abs(x)
	hi := sort.SearchFloat64s(f.values, x) // the least code whose value is not below x
	c := hi
	if hi == len(f.values) {
		c = f.most + 1
	} else if hi > 0 {
		down, up := x-f.values[hi-1], f.values[hi]-x
		if down < up || down == up && hi%2 == 1 {
			c = hi - 1
		}
	}
	switch {
	case c > f.most && (saturate || f.nan < 0):
		c = f.most
	case c > f.most && f.infinite >= 0:
		c = f.infinite
	case c > f.most && f.unsignedZero:
		return uint8(f.nan)
	case c > f.most:
		c = f.nan
	}
	if c == 0 && f.unsignedZero {
		return 0
	}
	return sign | uint8(c)
}

func (f *smallFloat) load(dst []float64, t *tensor.Tensor, at int) {
	if f.bits == 8 {
		for i, c := range t.Data[at : at+len(dst)] {
			dst[i] = f.decode(c)
		}
		return
	}
	for i := range dst {
		k := at + i
		dst[i] = f.decode(t.Data[k/2] >> (k % 2 * 4) & 15)
	}
}

// smallStore makes the form of a small format as the node's attributes want it.
func smallStore(s *Site, to tensor.DType) caster {
	f := smallFloats[to]
	saturate := s.Attrs().Int("saturate", 1) != 0
	encode := func(x float64) uint8 { return f.encode(x, saturate) }
	switch {
	case to == tensor.Float8E8M0:
		mode := s.Attrs().Str("round_mode", "up")
		encode = func(x float64) uint8 { return e8m0(float32(x), saturate, mode) }
	case to == tensor.Float4E2M1 && s.Opset < 24:
		// The reference implementation of opset 23 gave 6 for NaN.
		encode = func(x float64) uint8 {
			if math.IsNaN(x) {
				return 7
			}
			return f.encode(x, saturate)
		}
	}
	return caster{storeFloat: func(t *tensor.Tensor, at int, src []float64) {
		for i, x := range src {
			if f.bits == 8 {
				t.Data[at+i] = encode(x)
			} else {
				storePacked(t.Data, at+i, f.bits, encode(x))
			}
		}
	}}
}

// e8m0 is the exponent of x, rounded by mode: up, down or nearest (ties up). Numbers are positive: the format has no sign.
func e8m0(x float32, saturate bool, mode string) uint8 {
	const half = 1 << 22
	b := math.Float32bits(x)
	exponent, fraction := int(b>>23&0xff), b&0x7fffff
	switch {
	case x != x, math.IsInf(float64(x), 0) && !saturate:
		return 0xff
	case math.IsInf(float64(x), 0):
		return 0xfe
	case exponent == 0 && fraction < half && !saturate: // below the least, 2^-127
		return 0xff
	case exponent == 0 && fraction <= half:
		return 0
	}
	switch {
	case mode == "up" && fraction != 0:
		exponent++
	case mode == "nearest" && fraction >= half:
		exponent++
	}
	if exponent == 0xff && saturate {
		exponent = 0xfe
	}
	return uint8(exponent)
}
