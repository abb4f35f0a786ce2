// Package tensor holds dense n-dimensional arrays in the element types of ONNX.
//
// A [Type] says what a tensor is, element type and shape, before there is one; a [Tensor] adds the elements. Elements
// are kept as the little-endian bytes that ONNX calls raw_data, so a tensor read from a model is written back bit for
// bit, and [Of] views them as a Go slice without a copy.
package tensor

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/secateur/secateur/engine/mem"
)

// Type is what is known of a tensor before it exists.
type Type struct {
	DType DType
	Shape Shape // nil: not even the rank is known
	// Symbols names unknown dimensions ("batch"); it is nil, or as long as Shape. A name counts where Shape is Unknown.
	Symbols []string
}

// Bound reports whether every dimension is known.
func (t Type) Bound() bool { return t.Shape != nil && !slices.Contains(t.Shape, Unknown) }

// String gives the type as people write it: float32[1,3,height,width].
func (t Type) String() string {
	if t.Shape == nil {
		return t.DType.String() + "[?]"
	}
	s := t.DType.String() + "["
	for i, d := range t.Shape {
		if i > 0 {
			s += ","
		}
		switch {
		case d != Unknown:
			s += fmt.Sprint(d)
		case i < len(t.Symbols) && t.Symbols[i] != "":
			s += t.Symbols[i]
		default:
			s += "?"
		}
	}
	return s + "]"
}

// Unknown is a dimension that is bound only at Compile.
const Unknown = -1

// Shape lists dimensions, outermost first. An empty, non-nil shape is a scalar's.
type Shape []int

// MaxElements bounds what anything from outside may ask us to allocate: 2^31 elements.
const MaxElements = 1 << 31

// Elems is the number of elements, or -1 where a dimension is unknown or the product exceeds MaxElements.
func (s Shape) Elems() int {
	if slices.Contains(s, 0) {
		return 0
	}
	n := 1
	for _, d := range s {
		if d < 0 || n > MaxElements/d {
			return -1
		}
		n *= d
	}
	return n
}

// Strides gives the row-major strides in elements.
func (s Shape) Strides() []int {
	st := make([]int, len(s))
	n := 1
	for i := len(s) - 1; i >= 0; i-- {
		st[i] = n
		n *= s[i]
	}
	return st
}

// Clone copies the shape; a nil shape stays nil.
func (s Shape) Clone() Shape { return slices.Clone(s) }

// Tensor is a dense row-major array.
type Tensor struct {
	DType DType
	Shape Shape
	// Data is the elements in little-endian order, as in ONNX raw_data; 4-bit types are packed two to a byte, low half
	// first. It is nil for String.
	Data []byte
	// Strings holds the elements of a String tensor.
	Strings [][]byte
}

// New returns a zeroed tensor. The shape must be bound and within MaxElements: callers check what comes from outside.
func New(dt DType, shape ...int) *Tensor {
	n := Shape(shape).Elems()
	if n < 0 {
		panic(fmt.Sprintf("tensor: shape %v is unknown or too large", shape))
	}
	t := &Tensor{DType: dt, Shape: append(Shape{}, shape...)}
	if dt == String {
		t.Strings = make([][]byte, n)
		return t
	}
	t.Data = Bytes(dt.Size(n))
	return t
}

// From wraps values in a tensor, copying them.
func From[T Number](values []T, shape ...int) *Tensor {
	t := New(DTypeOf[T](), shape...)
	if len(values) != t.Elems() {
		panic(fmt.Sprintf("tensor: %d values do not fill shape %v", len(values), shape))
	}
	copy(Of[T](t), values)
	return t
}

// Scalar wraps one value in a tensor of rank 0.
func Scalar[T Number](v T) *Tensor { return From([]T{v}) }

// Elems is the number of elements.
func (t *Tensor) Elems() int { return t.Shape.Elems() }

// Type is the tensor's type, all dimensions known.
func (t *Tensor) Type() Type { return Type{DType: t.DType, Shape: t.Shape} }

// Clone copies the elements as well.
func (t *Tensor) Clone() *Tensor {
	c := &Tensor{DType: t.DType, Shape: append(Shape{}, t.Shape...)}
	if t.Data != nil {
		c.Data = Bytes(len(t.Data))
		copy(c.Data, t.Data)
	}
	for _, s := range t.Strings {
		c.Strings = append(c.Strings, slices.Clone(s))
	}
	return c
}

// Number is every Go type whose slices can view a tensor's elements. float16 and bfloat16 are viewed as uint16 by
// [View] and converted by [Tensor.Float64s] and [Tensor.Convert].
type Number interface {
	float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | bool
}

// Of views the elements of t as []T. It panics if T is not t's element type: that is a bug, not bad input.
func Of[T Number](t *Tensor) []T {
	if DTypeOf[T]() != t.DType {
		panic(fmt.Sprintf("tensor: %v viewed as %v", t.DType, DTypeOf[T]()))
	}
	return View[T](t)
}

// View views the bytes of t as []T, whatever its element type; the sizes must agree.
func View[T Number](t *Tensor) []T {
	var z T
	if len(t.Data) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.Data))), len(t.Data)/int(unsafe.Sizeof(z)))
}

// Align is the alignment of every buffer that Bytes returns.
const Align = mem.Align

// Slack is how many bytes past its length a buffer from Bytes may be read, never written.
const Slack = mem.Slack

// Bytes returns n zeroed bytes, aligned to Align, with Slack readable bytes behind them.
func Bytes(n int) []byte { return mem.Bytes(n) }

// Ints gives the elements of an integer tensor of any width as []int. ok is false for any other element type.
func (t *Tensor) Ints() (v []int, ok bool) {
	switch t.DType {
	case Int64:
		return ints(Of[int64](t)), true
	case Int32:
		return ints(Of[int32](t)), true
	case Int16:
		return ints(Of[int16](t)), true
	case Int8:
		return ints(Of[int8](t)), true
	case Uint8:
		return ints(Of[uint8](t)), true
	case Uint16:
		return ints(Of[uint16](t)), true
	case Uint32:
		return ints(Of[uint32](t)), true
	case Uint64:
		return ints(Of[uint64](t)), true
	}
	return nil, false
}

func ints[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](s []T) []int {
	v := make([]int, len(s))
	for i, x := range s {
		v[i] = int(x)
	}
	return v
}

// Float64s gives the elements of any numeric tensor as float64. ok is false for strings, complex and 4-bit types.
func (t *Tensor) Float64s() (v []float64, ok bool) {
	v = make([]float64, t.Elems())
	switch t.DType {
	case Float32:
		for i, x := range Of[float32](t) {
			v[i] = float64(x)
		}
	case Float64:
		copy(v, Of[float64](t))
	case Float16:
		for i, x := range View[uint16](t) {
			v[i] = float64(Float16ToFloat32(x))
		}
	case BFloat16:
		for i, x := range View[uint16](t) {
			v[i] = float64(math.Float32frombits(uint32(x) << 16))
		}
	case Bool:
		for i, x := range View[uint8](t) {
			if x != 0 {
				v[i] = 1
			}
		}
	default:
		n, isInt := t.Ints()
		if !isInt {
			return nil, false
		}
		for i, x := range n {
			v[i] = float64(x)
		}
	}
	return v, true
}

// Float returns t converted to float32 or float64, or t itself if it is that already. It takes Float16, BFloat16,
// Float32 and Float64.
func (t *Tensor) Float(dt DType) (*Tensor, error) {
	if t.DType == dt {
		return t, nil
	}
	if !t.DType.IsFloat() || dt != Float32 && dt != Float64 {
		return nil, fmt.Errorf("cannot run %v as %v", t.DType, dt)
	}
	v, ok := t.Float64s()
	if !ok {
		return nil, fmt.Errorf("cannot run %v as %v", t.DType, dt)
	}
	return FromFloat64s(v, dt, t.Shape...)
}

// FromFloat64s rounds values to an element type: Float16, BFloat16 (both by way of float32), Float32 or Float64.
func FromFloat64s(values []float64, dt DType, shape ...int) (*Tensor, error) {
	t := New(dt, shape...)
	switch dt {
	case Float64:
		copy(Of[float64](t), values)
	case Float32:
		y := Of[float32](t)
		for i, x := range values {
			y[i] = float32(x)
		}
	case Float16, BFloat16:
		narrow := Float32ToFloat16
		if dt == BFloat16 {
			narrow = Float32ToBFloat16
		}
		y := View[uint16](t)
		for i, x := range values {
			y[i] = narrow(float32(x))
		}
	default:
		return nil, fmt.Errorf("%v cannot hold real numbers", dt)
	}
	return t, nil
}

// Equal reports whether two tensors have the same type and the same bits.
func Equal(a, b *Tensor) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.DType == b.DType && slices.Equal(a.Shape, b.Shape) && slices.Equal(a.Data, b.Data) &&
		slices.EqualFunc(a.Strings, b.Strings, func(x, y []byte) bool { return string(x) == string(y) })
}
