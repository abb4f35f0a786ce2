package onnx_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

func sameTensor(t *testing.T, what string, want *tensor.Tensor, b []byte) {
	t.Helper()
	got, err := onnx.DecodeTensor(b)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	} else if !tensor.Equal(got, want) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

// Every element type, in its typed field, in the layout that the comments of the ONNX specification give.
func TestTypedFields(t *testing.T) {
	i32 := func(v ...int32) *onnxpb.TensorProto { return &onnxpb.TensorProto{Int32Data: v} }
	for _, c := range []struct {
		dt   tensor.DType
		n    int64
		p    *onnxpb.TensorProto
		want []byte
	}{
		{tensor.Float32, 2, &onnxpb.TensorProto{FloatData: []float32{1, -2}}, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}},
		{tensor.Float64, 1, &onnxpb.TensorProto{DoubleData: []float64{1}}, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}},
		{tensor.Complex64, 1, &onnxpb.TensorProto{FloatData: []float32{1, 2}}, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}},
		{tensor.Complex128, 1, &onnxpb.TensorProto{DoubleData: []float64{1, 2}}, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0x40}},
		{tensor.Int64, 1, &onnxpb.TensorProto{Int64Data: []int64{-2}}, []byte{0xfe, 255, 255, 255, 255, 255, 255, 255}},
		{tensor.Uint64, 1, &onnxpb.TensorProto{Uint64Data: []uint64{math.MaxUint64}}, bytes.Repeat([]byte{255}, 8)},
		{tensor.Uint32, 2, &onnxpb.TensorProto{Uint64Data: []uint64{1, math.MaxUint32}}, []byte{1, 0, 0, 0, 255, 255, 255, 255}},
		{tensor.Int32, 2, i32(-1, 258), []byte{255, 255, 255, 255, 2, 1, 0, 0}},
		{tensor.Int16, 2, i32(-1, 258), []byte{255, 255, 2, 1}},
		{tensor.Uint16, 2, i32(65535, 258), []byte{255, 255, 2, 1}},
		{tensor.Int8, 2, i32(-1, 7), []byte{255, 7}},
		{tensor.Uint8, 2, i32(255, 7), []byte{255, 7}},
		{tensor.Bool, 3, i32(0, 1, 256), []byte{0, 1, 1}},
		{tensor.Float16, 2, i32(0x3c00, 0xc000), []byte{0, 0x3c, 0, 0xc0}},
		{tensor.BFloat16, 1, i32(0x3f80), []byte{0x80, 0x3f}},
		{tensor.Float8E4M3FN, 2, i32(0x38, 0xb8), []byte{0x38, 0xb8}},
		{tensor.Float8E4M3FNUZ, 1, i32(0x40), []byte{0x40}},
		{tensor.Float8E5M2, 1, i32(0x3c), []byte{0x3c}},
		{tensor.Float8E5M2FNUZ, 1, i32(0x40), []byte{0x40}},
		{tensor.Float8E8M0, 1, i32(127), []byte{127}},
		{tensor.Uint4, 3, i32(0x21, 0x03), []byte{0x21, 0x03}},
		{tensor.Int4, 2, i32(0xf1), []byte{0xf1}},
		{tensor.Float4E2M1, 3, i32(0x21, 0x03), []byte{0x21, 0x03}},
		{tensor.Uint2, 5, i32(0xe4, 1), []byte{0xe4, 1}},
		{tensor.Int2, 4, i32(0xe4), []byte{0xe4}},
	} {
		c.p.Dims, c.p.DataType = []int64{c.n}, proto.Int32(int32(c.dt))
		want := &tensor.Tensor{DType: c.dt, Shape: tensor.Shape{int(c.n)}, Data: c.want}
		sameTensor(t, c.dt.String(), want, encode(t, c.p))
		sameTensor(t, "raw "+c.dt.String(), want, onnx.EncodeTensor("x", want))

		c.p.Dims[0] += 8
		if x, err := onnx.DecodeTensor(encode(t, c.p)); err == nil {
			t.Errorf("%v: %d elements where %d are said to be: no error, %+v", c.dt, c.n, c.n+8, x)
		}
	}
	s := &onnxpb.TensorProto{Dims: []int64{2}, DataType: proto.Int32(8), StringData: [][]byte{[]byte("a"), {0xff}}}
	want := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{2}, Strings: s.StringData}
	sameTensor(t, "string", want, encode(t, s))
	sameTensor(t, "raw string", want, onnx.EncodeTensor("x", want))
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBadTensors(t *testing.T) {
	f := proto.Int32(int32(tensor.Float32))
	for name, p := range map[string]*onnxpb.TensorProto{
		"no type":              {Dims: []int64{1}, RawData: make([]byte, 4)},
		"unknown type":         {DataType: proto.Int32(99), RawData: make([]byte, 4)},
		"negative type":        {DataType: proto.Int32(-1), RawData: make([]byte, 4)},
		"negative dimension":   {DataType: f, Dims: []int64{-1}, RawData: make([]byte, 4)},
		"two negatives":        {DataType: f, Dims: []int64{-1, -1}, RawData: make([]byte, 4)},
		"dimension overflows":  {DataType: f, Dims: []int64{math.MaxInt64}},
		"product overflows":    {DataType: f, Dims: []int64{1 << 31, 1 << 31, 4}},
		"product wraps to 1":   {DataType: f, Dims: []int64{1<<31 - 1, 1<<31 + 1}, RawData: make([]byte, 4)},
		"huge, with no data":   {DataType: f, Dims: []int64{1 << 30}},
		"huge strings":         {DataType: proto.Int32(8), Dims: []int64{1 << 30}},
		"short raw data":       {DataType: f, Dims: []int64{2}, RawData: make([]byte, 7)},
		"long raw data":        {DataType: f, Dims: []int64{2}, RawData: make([]byte, 9)},
		"wrong typed field":    {DataType: f, Dims: []int64{1}, Int32Data: []int32{1}},
		"two fields":           {DataType: f, Dims: []int64{1}, FloatData: []float32{1}, RawData: make([]byte, 4)},
		"string in raw data":   {DataType: proto.Int32(8), Dims: []int64{1}, RawData: []byte("a")},
		"external":             {DataType: f, DataLocation: onnxpb.TensorProto_EXTERNAL.Enum()},
		"data of a zero shape": {DataType: f, Dims: []int64{0}, FloatData: []float32{1}},
	} {
		if x, err := onnx.DecodeTensor(encode(t, p)); err == nil {
			if name == "data of a zero shape" && x.Elems() == 0 {
				continue // harmless, and some writers do it
			}
			t.Errorf("%s: no error, %+v", name, x)
		}
	}
}

// A SequenceProto has its tensors in field 3, where a TensorProto has its segment.
func TestSequenceIsNoTensor(t *testing.T) {
	el := onnx.EncodeTensor("", tensor.Scalar[float32](1))
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, "seq")
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, 1)
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendBytes(b, el)
	if _, err := onnx.DecodeTensor(b); !errors.Is(err, onnx.ErrNotTensor) {
		t.Fatalf("got %v, want ErrNotTensor", err)
	}
}

// FuzzDecodeTensor: any bytes give an error or a tensor, and a tensor survives the round trip.
func FuzzDecodeTensor(f *testing.F) {
	f.Add(onnx.EncodeTensor("x", tensor.From([]float32{1, 2, 3}, 3)))
	f.Add(onnx.EncodeTensor("", tensor.New(tensor.Int4, 3)))
	f.Add(onnx.EncodeTensor("s", &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{1}, Strings: [][]byte{[]byte("a")}}))
	f.Add(encode(f, &onnxpb.TensorProto{Dims: []int64{2}, DataType: proto.Int32(10), Int32Data: []int32{1, 2}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := onnx.DecodeTensor(b)
		if err == nil {
			sameTensor(t, "again", x, onnx.EncodeTensor("x", x))
		}
	})
}
