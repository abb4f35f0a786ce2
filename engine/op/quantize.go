package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// quantizeFamily converts between real numbers and integers by a scale and a zero point: of the whole tensor, of each
// index of an axis, or of each block of them. Numbers are divided and multiplied as Site.Float, whatever type the model
// declares for the scale.
var quantizeFamily = slices.Concat(
	since(Def{Op: "QuantizeLinear", Infer: inferQuantize, New: newQuantize}, 10, 13, 19, 21, 23, 24, 25),
	since(Def{Op: "DequantizeLinear", Infer: inferDequantize, New: newDequantize}, 10, 13, 19, 21, 23, 24, 25),
)

// quantum is an integer that numbers are quantised to.
type quantum interface{ int8 | uint8 | int16 | uint16 }

// quantizedTo is the type that QuantizeLinear makes: the zero point's, or what output_dtype says, or uint8.
func (s *Site) quantizedTo() (tensor.DType, error) {
	to := tensor.DType(s.Attrs().Int("output_dtype", 0))
	if z := s.Arg(2); z.Given() {
		if to != tensor.Undefined && to != z.Type.DType {
			return 0, fmt.Errorf("output_dtype %v, the zero point is %v", to, z.Type.DType)
		}
		to = z.Type.DType
	}
	switch to {
	case tensor.Undefined:
		return tensor.Uint8, nil
	case tensor.Int8, tensor.Uint8, tensor.Int16, tensor.Uint16:
		return to, nil
	}
	return 0, s.Unsupported("quantizing to %v", to)
}

func inferQuantize(s *Site) ([]tensor.Type, error) {
	if _, err := s.quantumSpans(); err != nil {
		return nil, err
	}
	if dt := s.DType(0); dt != s.Float && dt != tensor.Int32 {
		return nil, s.Unsupported("quantizing %v", dt)
	}
	if p := tensor.DType(s.Attrs().Int("precision", 0)); p != tensor.Undefined && p != tensor.Float32 && p != s.Float {
		return nil, s.Unsupported("dividing in %v", p)
	}
	to, err := s.quantizedTo()
	if err != nil {
		return nil, err
	}
	return s.sized(to, s.Shape(0))
}

func inferDequantize(s *Site) ([]tensor.Type, error) {
	if _, err := s.quantumSpans(); err != nil {
		return nil, err
	}
	switch dt := s.DType(0); dt {
	case tensor.Int8, tensor.Uint8, tensor.Int16, tensor.Uint16, tensor.Int32:
	default:
		return nil, s.Unsupported("dequantizing %v", dt)
	}
	if z := s.Arg(2); z.Given() && z.Type.DType != s.DType(0) {
		return nil, fmt.Errorf("the zero point is %v, the data %v", z.Type.DType, s.DType(0))
	}
	if to := tensor.DType(s.Attrs().Int("output_dtype", 0)); to != tensor.Undefined && !to.IsFloat() {
		return nil, s.Unsupported("dequantizing to %v", to)
	}
	return s.sized(s.Float, s.Shape(0))
}

// quantumSpans splits the first input into spans of neighbouring elements that have one scale and zero point, or each its
// own.
type quantumSpans struct {
	count  int // of spans
	length int // of a span, but for the last of a row
	row    int // elements of a row, which whole spans cover
	own    bool
	// first gives where the scale of a span lies, or the scales if each element has its own.
	first func(span int) int
}

// quantumSpans reads the granularity off the shape of the scale, which a zero point shares.
func (s *Site) quantumSpans() (*quantumSpans, error) {
	if err := s.require(2); err != nil {
		return nil, err
	}
	x, scale := s.Shape(0), s.Shape(1)
	if s.DType(1) != s.Float {
		return nil, s.Unsupported("a scale of type %v", s.DType(1))
	}
	single := scale.Elems() == 1 && len(scale) <= 1
	if z := s.Arg(2); z.Given() && !slices.Equal(z.Type.Shape, scale) && !(single && z.Type.Shape.Elems() == 1 && len(z.Type.Shape) <= 1) {
		return nil, fmt.Errorf("the zero point is %v, the scale %v", z.Type, s.Arg(1).Type)
	}
	if n := x.Elems(); single {
		return &quantumSpans{count: (n + piece - 1) / piece, length: piece, row: n, first: func(int) int { return 0 }}, nil
	}
	block := s.Attrs().Int("block_size", 0)
	axis, err := axisOf(s.Attrs().Int("axis", 1), len(x))
	if err != nil {
		return nil, err
	}
	outer, n, inner := x[:axis].Elems(), x[axis], x[axis+1:].Elems()
	switch {
	case block < 0:
		return nil, fmt.Errorf("block_size %d", block)
	case block > 0:
		return s.quantumBlocks(axis, block)
	case s.Opset < 13 || !slices.Equal(scale, tensor.Shape{n}):
		return nil, fmt.Errorf("the scale is %v, axis %d of the data %v", s.Arg(1).Type, axis, s.Arg(0).Type)
	case inner == 1:
		return &quantumSpans{count: outer, length: n, row: n, own: true, first: func(int) int { return 0 }}, nil
	}
	return &quantumSpans{count: outer * n, length: inner, row: inner, first: func(p int) int { return p % n }}, nil
}

// quantumBlocks is quantumSpans where as many neighbours on an axis as block says share a scale.
func (s *Site) quantumBlocks(axis, block int) (*quantumSpans, error) {
	x := s.Shape(0)
	outer, n, inner := x[:axis].Elems(), x[axis], x[axis+1:].Elems()
	block = min(block, max(n, 1))
	blocks := (n + block - 1) / block
	want := x.Clone()
	want[axis] = blocks
	if !slices.Equal(s.Shape(1), want) {
		return nil, fmt.Errorf("the scale is %v, blocks of %d on axis %d of the data %v make %v", s.Arg(1).Type, block, axis, s.Arg(0).Type, []int(want))
	}
	if inner == 1 {
		return &quantumSpans{count: outer * blocks, length: block, row: n, first: func(p int) int { return p }}, nil
	}
	return &quantumSpans{count: outer * n, length: inner, row: inner, own: true,
		first: func(p int) int { return (p/n*blocks + p%n/block) * inner }}, nil
}

// each returns what calls f for every span, elements [from, to), with where its scale lies.
func (q *quantumSpans) each(env *Env, f func(from, to, scale int)) func() {
	per := max((q.row+q.length-1)/max(q.length, 1), 1) // spans to a row
	return share(env, q.count, q.length, func(lo, hi int) {
		for p := lo; p < hi; p++ {
			at := p % per * q.length
			from := p/per*q.row + at
			f(from, from+min(q.length, q.row-at), q.first(p))
		}
	})
}

func newQuantize(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return newQuantizeIn[float32](s) }, func() (Kernel, error) { return newQuantizeIn[float64](s) })
}

// maker makes a kernel.
type maker = func(*Site) (Kernel, error)

func newQuantizeIn[T kernel.Float](s *Site) (Kernel, error) {
	f, _ := byReal[maker](s.Out[0].DType, nil, nil, quantize[T, int8], quantize[T, int16], nil, nil, quantize[T, uint8], quantize[T, uint16], nil, nil)
	return f(s) // Infer refuses the others
}

// quantize is y = saturate(round(x/scale) + zero), halves to even. ONNX leaves open what becomes of NaN: here it is the
// zero point, on every machine.
func quantize[T kernel.Float, Q quantum](s *Site) (Kernel, error) {
	spans, err := s.quantumSpans()
	if err != nil {
		return nil, err
	}
	integers := s.DType(0) == tensor.Int32
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, scale, zero := tensor.Of[Q](out[0]), tensor.Of[T](in[1]), zeroPoints[Q](in)
		var run func()
		if integers {
			x := tensor.Of[int32](in[0])
			run = spans.each(env, func(from, to, k int) { quantizeSpan(y[from:to], x[from:to], scale[k:], zero[k:], spans.own) })
		} else {
			x := tensor.Of[T](in[0])
			run = spans.each(env, func(from, to, k int) { quantizeSpan(y[from:to], x[from:to], scale[k:], zero[k:], spans.own) })
		}
		return func() error { run(); return nil }
	}), nil
}

// zeroPoints is input 2, or as many zeros as there are scales.
func zeroPoints[Q tensor.Number](in []*tensor.Tensor) []Q {
	if len(in) > 2 && in[2] != nil {
		return tensor.Of[Q](in[2])
	}
	return make([]Q, in[1].Elems())
}

// quantizeSpan quantises elements of type X, all by the first scale and zero point or each by its own.
func quantizeSpan[T kernel.Float, Q quantum, X int32 | kernel.Float](y []Q, x []X, scale []T, zero []Q, own bool) {
	least, most := quantumRange[Q]()
	if own {
		for i, v := range x {
			y[i] = quantized(T(v)/scale[i], int32(zero[i]), least, most, zero[i])
		}
		return
	}
	by, z := scale[0], int32(zero[0])
	if x := floats32(x); x != nil {
		quantizeRow32(y, x, float32(by), z, least, most)
		return
	}
	for i, v := range x {
		y[i] = quantized(T(v)/by, z, least, most, zero[0])
	}
}

// quantized is v rounded, moved by the zero point z and kept between least and most, all of which float32 holds exactly.
// Bounds are integers, so that it is the same whether numbers are clamped before they are rounded or after.
func quantized[T kernel.Float, Q quantum](v T, z, least, most int32, nan Q) Q {
	if v != v {
		return nan
	}
	return Q(int32(math.RoundToEven(float64(min(max(v, T(least-z)), T(most-z))))) + z)
}

// quantizeRow32 is quantizeSpan of one scale by loops over elements.
func quantizeRow32[Q quantum](y []Q, x []float32, scale float32, z, least, most int32) {
	// Adding 1.5·2^23 leaves the nearest integer, the even one of two, in the lowest bits.
	const shift = 12582912
	var by, q [columns]float32
	for i := range by {
		by[i] = scale
	}
	base := int32(math.Float32bits(shift)) - z
	for len(y) > 0 {
		n := min(len(y), columns)
		vec.Div(q[:n], x[:n], by[:n])
		vec.Clip(q[:n], q[:n], float32(least-z), float32(most-z))
		vec.AddNumber(q[:n], q[:n], shift)
		for i, v := range q[:n] {
			w := int32(math.Float32bits(v)) - base
			if v != v {
				w = z
			}
			y[i] = Q(w)
		}
		y, x = y[n:], x[n:]
	}
}

// quantumRange is what Q holds.
func quantumRange[Q quantum]() (least, most int32) {
	switch tensor.DTypeOf[Q]() {
	case tensor.Int8:
		return math.MinInt8, math.MaxInt8
	case tensor.Uint8:
		return 0, math.MaxUint8
	case tensor.Int16:
		return math.MinInt16, math.MaxInt16
	}
	return 0, math.MaxUint16
}

func newDequantize(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return newDequantizeIn[float32](s) }, func() (Kernel, error) { return newDequantizeIn[float64](s) })
}

func newDequantizeIn[T kernel.Float](s *Site) (Kernel, error) {
	f, _ := byReal[maker](s.DType(0), nil, nil, dequantize[T, int8], dequantize[T, int16], dequantize[T, int32], nil, dequantize[T, uint8], dequantize[T, uint16], nil, nil)
	return f(s) // Infer refuses the others
}

// dequantize is y = (x − zero)·scale. The difference is exact, and rounded once for int32, whose zero point is 0.
func dequantize[T kernel.Float, Q quantum | int32](s *Site) (Kernel, error) {
	spans, err := s.quantumSpans()
	if err != nil {
		return nil, err
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x, scale, zero := tensor.Of[T](out[0]), tensor.Of[Q](in[0]), tensor.Of[T](in[1]), zeroPoints[Q](in)
		run := spans.each(env, func(from, to, k int) {
			y, x := y[from:to], x[from:to]
			if spans.own {
				scale, zero := scale[k:], zero[k:]
				for i, v := range x {
					y[i] = T(int64(v)-int64(zero[i])) * scale[i]
				}
				return
			}
			by, z := scale[k], int64(zero[k])
			for i, v := range x {
				y[i] = T(int64(v)-z) * by
			}
		})
		return func() error { run(); return nil }
	}), nil
}
