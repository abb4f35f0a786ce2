package tensor

import (
	"math"
	"slices"
	"testing"
	"unsafe"
)

// TestHalfPrecision: every float16 widens and rounds back to itself, and rounding takes the nearer neighbour, the even
// one when both are as near.
func TestHalfPrecision(t *testing.T) {
	for h := range 1 << 16 {
		f := Float16ToFloat32(uint16(h))
		if f != f {
			if g := Float32ToFloat16(f); g&0x7c00 != 0x7c00 || g&0x3ff == 0 {
				t.Fatalf("%#04x: NaN becomes %#04x", h, g)
			}
			continue
		}
		if g := Float32ToFloat16(f); g != uint16(h) {
			t.Fatalf("%#04x widens to %g and rounds to %#04x", h, f, g)
		}
		next := Float16ToFloat32(uint16(h) + 1)
		if h&0x7fff >= 0x7bff || math.IsInf(float64(next), 0) || next != next {
			continue
		}
		even := uint16(h) + uint16(h)&1
		if g := Float32ToFloat16((f + next) / 2); g != even {
			t.Fatalf("half way between %#04x and the next rounds to %#04x, want %#04x", h, g, even)
		}
	}
	for _, c := range []struct {
		f    float32
		want uint16
	}{{65519, 0x7bff}, {65520, 0x7c00}, {1e30, 0x7c00}, {-1e30, 0xfc00}, {1e-30, 0}, {float32(math.Copysign(0, -1)), 0x8000}} {
		if got := Float32ToFloat16(c.f); got != c.want {
			t.Errorf("%g rounds to %#04x, want %#04x", c.f, got, c.want)
		}
	}
}

func TestElems(t *testing.T) {
	for _, c := range []struct {
		shape Shape
		want  int
	}{
		{Shape{}, 1}, {Shape{2, 3}, 6}, {Shape{2, 0, 3}, 0}, {Shape{0, math.MaxInt}, 0}, {Shape{Unknown, 3}, -1},
		{Shape{1 << 31}, 1 << 31}, {Shape{1 << 31, 2}, -1}, {Shape{math.MaxInt, math.MaxInt}, -1}, {Shape{-5, 0}, 0},
	} {
		if got := c.shape.Elems(); got != c.want {
			t.Errorf("%v has %d elements, want %d", c.shape, got, c.want)
		}
	}
}

func TestBytesAreAligned(t *testing.T) {
	for n := range 200 {
		b := Bytes(n)
		if len(b) != n || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Align != 0 {
			t.Fatalf("Bytes(%d): %d bytes at %p", n, len(b), unsafe.SliceData(b))
		}
	}
}

func TestFloat(t *testing.T) {
	half := &Tensor{DType: Float16, Shape: Shape{2}, Data: []byte{0x00, 0x3c, 0x00, 0xc0}}
	brain := &Tensor{DType: BFloat16, Shape: Shape{2}, Data: []byte{0x80, 0x3f, 0x00, 0xc0}}
	for _, x := range []*Tensor{half, brain, From([]float64{1, -2}, 2), From([]float32{1, -2}, 2)} {
		for _, dt := range []DType{Float32, Float64} {
			y, err := x.Float(dt)
			if err != nil {
				t.Fatal(err)
			}
			v, _ := y.Float64s()
			if y.DType != dt || v[0] != 1 || v[1] != -2 {
				t.Errorf("%v as %v: %v %v", x.DType, dt, y.DType, v)
			}
		}
	}
	if _, err := From([]int64{1}, 1).Float(Float32); err == nil {
		t.Error("int64 runs as float32, want an error")
	}
}

// Values that a type can hold come back from it as they were, whatever the type.
func TestFromFloat64s(t *testing.T) {
	want := []float64{0, 1, -2, 0.5, 1.5, -0.0078125}
	for _, dt := range []DType{Float16, BFloat16, Float32, Float64} {
		x, err := FromFloat64s(want, dt, 2, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := x.Float64s(); x.DType != dt || !slices.Equal(x.Shape, Shape{2, 3}) || !slices.Equal(got, want) {
			t.Errorf("%v: %v of shape %v, want %v", dt, got, x.Shape, want)
		}
	}
	// 1/3 rounded to even in each.
	for dt, want := range map[DType]float64{Float16: 0x1.554p-2, BFloat16: 0x1.56p-2, Float32: 0x1.555556p-2, Float64: 1.0 / 3} {
		x, err := FromFloat64s([]float64{1.0 / 3}, dt, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := x.Float64s(); got[0] != want {
			t.Errorf("%v: %x, want %x", dt, got[0], want)
		}
	}
	if _, err := FromFloat64s(want, Int64, 6); err == nil {
		t.Error("int64 holds real numbers, want an error")
	}
}

func TestTypeString(t *testing.T) {
	typ := Type{DType: Float32, Shape: Shape{Unknown, 3, Unknown}, Symbols: []string{"batch", "", ""}}
	if got, want := typ.String(), "float32[batch,3,?]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
