package tensor

import (
	"fmt"
	"math"
)

// DType is an element type, numbered as ONNX's TensorProto.DataType.
type DType int32

// The element types of ONNX.
const (
	Undefined      DType = 0
	Float32        DType = 1
	Uint8          DType = 2
	Int8           DType = 3
	Uint16         DType = 4
	Int16          DType = 5
	Int32          DType = 6
	Int64          DType = 7
	String         DType = 8
	Bool           DType = 9
	Float16        DType = 10
	Float64        DType = 11
	Uint32         DType = 12
	Uint64         DType = 13
	Complex64      DType = 14
	Complex128     DType = 15
	BFloat16       DType = 16
	Float8E4M3FN   DType = 17
	Float8E4M3FNUZ DType = 18
	Float8E5M2     DType = 19
	Float8E5M2FNUZ DType = 20
	Uint4          DType = 21
	Int4           DType = 22
	Float4E2M1     DType = 23
	Float8E8M0     DType = 24
	Uint2          DType = 25
	Int2           DType = 26
)

var dtypes = [...]struct {
	name string
	bits int
}{
	Undefined: {"undefined", 0}, Float32: {"float32", 32}, Uint8: {"uint8", 8}, Int8: {"int8", 8}, Uint16: {"uint16", 16},
	Int16: {"int16", 16}, Int32: {"int32", 32}, Int64: {"int64", 64}, String: {"string", 0}, Bool: {"bool", 8},
	Float16: {"float16", 16}, Float64: {"float64", 64}, Uint32: {"uint32", 32}, Uint64: {"uint64", 64},
	Complex64: {"complex64", 64}, Complex128: {"complex128", 128}, BFloat16: {"bfloat16", 16},
	Float8E4M3FN: {"float8e4m3fn", 8}, Float8E4M3FNUZ: {"float8e4m3fnuz", 8}, Float8E5M2: {"float8e5m2", 8},
	Float8E5M2FNUZ: {"float8e5m2fnuz", 8}, Uint4: {"uint4", 4}, Int4: {"int4", 4}, Float4E2M1: {"float4e2m1", 4},
	Float8E8M0: {"float8e8m0", 8}, Uint2: {"uint2", 2}, Int2: {"int2", 2},
}

// Valid reports whether d is an element type that ONNX defines.
func (d DType) Valid() bool { return d > Undefined && int(d) < len(dtypes) }

// String is the type's name in lower case: float32, int64.
func (d DType) String() string {
	if d < 0 || int(d) >= len(dtypes) {
		return fmt.Sprintf("element type %d", int(d))
	}
	return dtypes[d].name
}

// Bits is the size of one element in bits; 0 for String and Undefined.
func (d DType) Bits() int {
	if d < 0 || int(d) >= len(dtypes) {
		return 0
	}
	return dtypes[d].bits
}

// Size is how many bytes n elements take.
func (d DType) Size(n int) int { return (n*d.Bits() + 7) / 8 }

// IsFloat reports whether the engine runs d as float32 (or float64 with Options.Float64).
func (d DType) IsFloat() bool { return d == Float32 || d == Float64 || d == Float16 || d == BFloat16 }

// IsInt reports whether d is an integer of 8 to 64 bits.
func (d DType) IsInt() bool {
	switch d {
	case Uint8, Int8, Uint16, Int16, Int32, Int64, Uint32, Uint64:
		return true
	}
	return false
}

// DTypeOf is the element type that Go's T views.
func DTypeOf[T Number]() DType {
	var z T
	switch any(z).(type) {
	case float32:
		return Float32
	case float64:
		return Float64
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	}
	return Bool
}

// Float16ToFloat32 widens an IEEE 754 binary16.
func Float16ToFloat32(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10)&31, uint32(h)&1023
	switch {
	case exp == 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
	v := float32(frac) / (1 << 24)
	if sign != 0 {
		v = float32(math.Copysign(float64(v), -1))
	}
	return v
}

// Float32ToFloat16 rounds to the nearest binary16, ties to even; what is too large becomes an infinity.
func Float32ToFloat16(f float32) uint16 {
	b := math.Float32bits(f)
	sign, exp, frac := uint16(b>>16)&0x8000, int(b>>23)&255, b&0x7fffff
	switch {
	case exp == 255 && frac != 0:
		return sign | 0x7e00
	case exp-127 > 15:
		return sign | 0x7c00
	case exp-127 < -25:
		return sign
	}
	shift := uint(13)
	e := exp - 112
	if e <= 0 { // subnormal: the hidden bit becomes visible and moves right
		frac |= 0x800000
		shift += uint(1 - e)
		e = 0
	}
	half := uint32(1) << (shift - 1)
	r := frac >> shift
	if rem := frac & (half<<1 - 1); rem > half || rem == half && r&1 == 1 {
		r++
	}
	return sign | (uint16(e)<<10 + uint16(r)) // a carry out of the fraction rightly raises the exponent
}

// Float32ToBFloat16 rounds to the nearest bfloat16, ties to even.
func Float32ToBFloat16(f float32) uint16 {
	b := math.Float32bits(f)
	if f != f {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
