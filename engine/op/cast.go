package op

import (
	"math"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// castFamily converts element types. Floating point of every width is held as Site.Float, so a cast to float16 or bfloat16
// rounds to what they can hold and stays in that type; the small types below 16 bits are kept as their bits.
var castFamily = slices.Concat(
	since(Def{Op: "Cast", InPlace: true, Infer: inferCast, New: newCast}, 1, 6, 9, 13, 19, 21, 23, 24, 25),
	since(Def{Op: "CastLike", InPlace: true, Infer: inferCast, New: newCast}, 15, 19, 21, 23, 24, 25),
)

// castNames is what attribute to was before opset 6: a string.
var castNames = map[string]tensor.DType{
	"FLOAT": tensor.Float32, "UINT8": tensor.Uint8, "INT8": tensor.Int8, "UINT16": tensor.Uint16, "INT16": tensor.Int16,
	"INT32": tensor.Int32, "INT64": tensor.Int64, "STRING": tensor.String, "BOOL": tensor.Bool, "FLOAT16": tensor.Float16,
	"DOUBLE": tensor.Float64, "UINT32": tensor.Uint32, "UINT64": tensor.Uint64, "COMPLEX64": tensor.Complex64,
	"COMPLEX128": tensor.Complex128,
}

// castTo is the type asked for, as the model names it.
func (s *Site) castTo() (tensor.DType, error) {
	to := s.DType(1)
	if s.Node.Op == "Cast" {
		a, _ := s.Attrs().Get("to")
		to = tensor.DType(a.Int)
		if s.Opset < 6 {
			to = castNames[string(a.Str)]
		}
	}
	for _, dt := range []tensor.DType{s.DType(0), to} {
		if _, _, ok := castForms(dt); !ok {
			return 0, s.Unsupported("casting %v to %v", s.DType(0), to)
		}
	}
	return to, nil
}

func inferCast(s *Site) ([]tensor.Type, error) {
	n := 1
	if s.Node.Op == "CastLike" {
		n = 2
	}
	if err := s.require(n); err != nil {
		return nil, err
	}
	to, err := s.castTo()
	if err != nil {
		return nil, err
	}
	if to.IsFloat() {
		to = s.Float
	}
	return s.sized(to, s.Shape(0))
}

// castChunk is how many elements are converted at once. It is even, so packed types begin at a byte.
const castChunk = 2048

// caster converts by way of one of two forms: integers of 64 bits, or float64. Each type says how to reach and leave them;
// one without storeInt is reached by way of float64 alone, one without loadInt is no integer.
type caster struct {
	loadInt    func(dst []int64, t *tensor.Tensor, at int)
	loadFloat  func(dst []float64, t *tensor.Tensor, at int)
	storeInt   func(t *tensor.Tensor, at int, src []int64)
	storeFloat func(t *tensor.Tensor, at int, src []float64)
}

func newCast(s *Site) (Kernel, error) {
	to, err := s.castTo()
	if err != nil {
		return nil, err
	}
	from, held := s.DType(0), s.Out[0].DType
	if from == held && (to == from || to == tensor.Float32 || to == tensor.Float64) {
		return Func(func(out, in []*tensor.Tensor) error { return assign(out[0], in[0]) }), nil
	}
	src, exact, _ := castForms(from)
	dst, _, _ := castForms(held)
	switch {
	case to == tensor.Float16:
		dst = rounding(dst, func(x float64) float64 { return float64(tensor.Float16ToFloat32(tensor.Float32ToFloat16(float32(x)))) })
	case to == tensor.BFloat16:
		dst = rounding(dst, func(x float64) float64 {
			return float64(math.Float32frombits(uint32(tensor.Float32ToBFloat16(float32(x))) << 16))
		})
	case smallFloats[to] != nil:
		dst = smallStore(s, to)
	}
	// Integers go by way of float64 to what rounds. One of 64 bits without sign is an int64 of the same bits, which is right
	// for integers alone.
	exact = exact && dst.storeInt != nil && (from != tensor.Uint64 || held.IsInt())
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := out[0], in[0]
		n := x.Elems()
		type buffer struct {
			ints   [castChunk]int64
			floats [castChunk]float64
		}
		buffers := make([]buffer, env.Pool.Workers())
		loop := env.Pool.Loop((n+castChunk-1)/castChunk, func(worker, i int) {
			b := &buffers[worker]
			at := i * castChunk
			k := min(castChunk, n-at)
			if exact {
				src.loadInt(b.ints[:k], x, at)
				dst.storeInt(y, at, b.ints[:k])
			} else {
				src.loadFloat(b.floats[:k], x, at)
				dst.storeFloat(y, at, b.floats[:k])
			}
		})
		return func() error { loop.Run(); return nil }
	}), nil
}

// castForms gives how a type is converted, and whether it is made of integers. ok is false for strings and complex numbers.
func castForms(dt tensor.DType) (c caster, exact, ok bool) {
	if f, ok := byReal(dt, castReal[float32], castReal[float64], castReal[int8], castReal[int16], castReal[int32], castReal[int64],
		castReal[uint8], castReal[uint16], castReal[uint32], castReal[uint64]); ok {
		return f(), dt.IsInt(), true
	}
	switch dt {
	case tensor.Bool:
		return castBool, true, true
	case tensor.Int4:
		return castPacked(4, true), true, true
	case tensor.Uint4:
		return castPacked(4, false), true, true
	case tensor.Int2:
		return castPacked(2, true), true, true
	case tensor.Uint2:
		return castPacked(2, false), true, true
	case tensor.Float16, tensor.BFloat16: // a name only: values are held as Site.Float
		return caster{}, false, true
	}
	if f := smallFloats[dt]; f != nil {
		return caster{loadFloat: f.load}, false, true
	}
	return caster{}, false, false
}

func castReal[T real]() caster {
	dt := tensor.DTypeOf[T]()
	c := caster{
		loadInt: func(dst []int64, t *tensor.Tensor, at int) {
			for i, x := range tensor.Of[T](t)[at : at+len(dst)] {
				dst[i] = int64(x)
			}
		},
		loadFloat: func(dst []float64, t *tensor.Tensor, at int) {
			for i, x := range tensor.Of[T](t)[at : at+len(dst)] {
				dst[i] = float64(x)
			}
		},
		storeInt: func(t *tensor.Tensor, at int, src []int64) {
			y := tensor.Of[T](t)[at : at+len(src)]
			for i, x := range src {
				y[i] = T(x)
			}
		},
		storeFloat: func(t *tensor.Tensor, at int, src []float64) {
			y := tensor.Of[T](t)[at : at+len(src)]
			for i, x := range src {
				y[i] = T(x)
			}
		},
	}
	if !dt.IsInt() {
		return c
	}
	// ONNX leaves open what becomes of numbers that are out of range. They are clamped here, and NaN is 0, so that the
	// result does not depend on the machine.
	bits := float64(dt.Bits())
	var zero T
	signed := zero-1 < 0
	lo, hi := 0.0, math.Exp2(bits)
	if signed {
		lo, hi = -math.Exp2(bits-1), math.Exp2(bits-1)
	}
	least, most := extremes[T](signed, dt.Bits())
	c.storeFloat = func(t *tensor.Tensor, at int, src []float64) {
		y := tensor.Of[T](t)[at : at+len(src)]
		for i, x := range src {
			switch x = math.Trunc(x); {
			case x != x:
				y[i] = 0
			case x < lo:
				y[i] = least
			case x >= hi:
				y[i] = most
			default:
				y[i] = T(x)
			}
		}
	}
	return c
}

// extremes is the least and the largest value of an integer type.
func extremes[T real](signed bool, bits int) (least, most T) {
	if !signed {
		var z T
		return 0, z - 1
	}
	least = T(-(int64(1) << (bits - 1)))
	return least, least - 1
}

// rounding puts round before every store.
func rounding(c caster, round func(float64) float64) caster {
	store := c.storeFloat
	c.storeFloat = func(t *tensor.Tensor, at int, src []float64) {
		for i, x := range src {
			src[i] = round(x)
		}
		store(t, at, src)
	}
	c.storeInt = nil
	return c
}

var castBool = caster{
	loadFloat: func(dst []float64, t *tensor.Tensor, at int) {
		for i, x := range tensor.View[uint8](t)[at : at+len(dst)] {
			dst[i] = float64(x & 1)
		}
	},
	loadInt: func(dst []int64, t *tensor.Tensor, at int) {
		for i, x := range tensor.View[uint8](t)[at : at+len(dst)] {
			dst[i] = int64(x & 1)
		}
	},
	storeInt: func(t *tensor.Tensor, at int, src []int64) {
		y := tensor.Of[bool](t)[at : at+len(src)]
		for i, x := range src {
			y[i] = x != 0
		}
	},
	storeFloat: func(t *tensor.Tensor, at int, src []float64) {
		y := tensor.Of[bool](t)[at : at+len(src)]
		for i, x := range src {
			y[i] = x != 0
		}
	},
}

// castPacked is integers of 2 or 4 bits, the first in the low bits of a byte. What is out of range loses its high bits,
// as integers do.
func castPacked(bits int, signed bool) caster {
	per := 8 / bits
	mask := uint64(1)<<bits - 1
	load := func(t *tensor.Tensor, k int) int64 {
		v := int64(t.Data[k/per]>>(k%per*bits)) & int64(mask)
		if signed && v>>(bits-1) != 0 {
			v -= 1 << bits
		}
		return v
	}
	c := caster{
		loadInt: func(dst []int64, t *tensor.Tensor, at int) {
			for i := range dst {
				dst[i] = load(t, at+i)
			}
		},
		loadFloat: func(dst []float64, t *tensor.Tensor, at int) {
			for i := range dst {
				dst[i] = float64(load(t, at+i))
			}
		},
		storeInt: func(t *tensor.Tensor, at int, src []int64) {
			for i, v := range src {
				storePacked(t.Data, at+i, bits, uint8(uint64(v)&mask))
			}
		},
	}
	c.storeFloat = func(t *tensor.Tensor, at int, src []float64) {
		for i, x := range src {
			var v int64
			if math.Abs(x) < 1<<62 {
				v = int64(x)
			}
			storePacked(t.Data, at+i, bits, uint8(uint64(v)&mask))
		}
	}
	return c
}

// storePacked puts element i of an array of elements of less than a byte in its place. Elements come in order: the first
// of a byte clears the rest of it, which nobody else may ever write.
func storePacked(data []byte, i, bits int, v uint8) {
	per := 8 / bits
	shift := i % per * bits
	mask := uint8(1<<bits - 1)
	if shift == 0 {
		data[i/per] = 0
	}
	data[i/per] = data[i/per]&^(mask<<shift) | v<<shift
}
