package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

// ErrNotTensor is in DecodeTensor's error for what looks like a SequenceProto or OptionalProto, the messages that node
// tests keep in files of the same name.
var ErrNotTensor = errors.New("not a tensor but a sequence or optional")

// DecodeTensor reads a serialized TensorProto, as node tests keep their inputs and outputs in. Its elements must be in
// the message.
func DecodeTensor(b []byte) (*tensor.Tensor, error) {
	if int64(len(b)) > maxMessage {
		return nil, fmt.Errorf("decode tensor: %d bytes: %w", len(b), ErrTooLarge)
	}
	p := new(onnxpb.TensorProto)
	slack, err := checkBudget(b, p)
	if err != nil {
		return nil, fmt.Errorf("decode tensor: %w", err)
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: recursionLimit}).Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("decode tensor: %w", err)
	}
	d := &decoder{slack: slack}
	t, _, err := d.tensor(p)
	if err != nil {
		if container(b) {
			err = ErrNotTensor
		}
		return nil, fmt.Errorf("decode tensor %q: %w", p.GetName(), err)
	}
	return t, nil
}

// container reports whether b, which is no valid tensor, could be a SequenceProto or an OptionalProto. Their fields are a
// name (1), a kind (2) and messages (3 to 7), and a named tensor has its name in field 8.
func container(b []byte) bool {
	kind := false
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 || num > 7 || (typ == protowire.VarintType) != (num == 2) {
			return false
		}
		kind = kind || num == 2
		b = b[n:]
	}
	return kind
}

// tensor reads the elements and clears the fields they came in.
func (d *decoder) tensor(p *onnxpb.TensorProto) (*tensor.Tensor, *graph.External, error) {
	if p.Segment != nil {
		return nil, nil, errors.New("tensors in segments are not supported")
	}
	dt := tensor.DType(p.GetDataType())
	if !dt.Valid() {
		return nil, nil, fmt.Errorf("%v is not supported", dt)
	}
	t := &tensor.Tensor{DType: dt}
	var err error
	if t.Shape, err = shape(p.Dims); err != nil {
		return nil, nil, err
	}
	var ext *graph.External
	if p.GetDataLocation() == onnxpb.TensorProto_EXTERNAL {
		if ext, err = externalOf(p); err == nil {
			t.Data, err = d.external(t, ext)
		}
	} else {
		err = elements(t, p)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%v%v: %w", dt, []int(t.Shape), err)
	}
	if dt == tensor.Bool { // Go may not be shown a bool that is neither 0 nor 1
		for i, b := range t.Data {
			if b != 0 {
				t.Data[i] = 1
			}
		}
	}
	p.Dims, p.DataType, p.DataLocation, p.ExternalData, p.RawData, p.FloatData = nil, nil, nil, nil, nil, nil
	p.Int32Data, p.Int64Data, p.DoubleData, p.Uint64Data, p.StringData = nil, nil, nil, nil, nil
	return t, ext, nil
}

func shape(dims []int64) (tensor.Shape, error) {
	s := make(tensor.Shape, len(dims))
	for i, d := range dims {
		if d < 0 || d > tensor.MaxElements {
			return nil, fmt.Errorf("dimension %d of a tensor is %d", i, d)
		}
		s[i] = int(d)
	}
	if s.Elems() < 0 {
		return nil, fmt.Errorf("a tensor of shape %v is too large", []int(s))
	}
	return s, nil
}

// elements fills t from the message: raw_data or the typed field for its element type, and no other. Nothing is
// allocated before the number of elements has been compared with what is there.
func elements(t *tensor.Tensor, p *onnxpb.TensorProto) error {
	n := t.Elems()
	size := t.DType.Size(n)
	fields := 0
	for _, l := range []int{len(p.RawData), len(p.FloatData), len(p.Int32Data), len(p.StringData), len(p.Int64Data), len(p.DoubleData), len(p.Uint64Data)} {
		if l > 0 {
			fields++
		}
	}
	if fields > 1 {
		return errors.New("the elements are in more than one field")
	}
	need := func(what string, have, want int) error {
		if have != want {
			return fmt.Errorf("%s has %d, want %d", what, have, want)
		}
		return nil
	}
	if t.DType == tensor.String {
		if err := need("string_data", len(p.StringData), n); err != nil {
			return err
		}
		t.Strings = make([][]byte, n)
		copy(t.Strings, p.StringData)
		return nil
	}
	if len(p.RawData) > 0 || n == 0 {
		if err := need("raw_data", len(p.RawData), size); err != nil {
			return err
		}
		t.Data = tensor.Bytes(size)
		copy(t.Data, p.RawData)
		return nil
	}
	le := binary.LittleEndian
	switch t.DType {
	case tensor.Float32, tensor.Complex64:
		if err := need("float_data", 4*len(p.FloatData), size); err != nil {
			return err
		}
		t.Data = tensor.Bytes(size)
		for i, x := range p.FloatData {
			le.PutUint32(t.Data[4*i:], math.Float32bits(x))
		}
	case tensor.Float64, tensor.Complex128:
		if err := need("double_data", 8*len(p.DoubleData), size); err != nil {
			return err
		}
		t.Data = tensor.Bytes(size)
		for i, x := range p.DoubleData {
			le.PutUint64(t.Data[8*i:], math.Float64bits(x))
		}
	case tensor.Int64:
		if err := need("int64_data", 8*len(p.Int64Data), size); err != nil {
			return err
		}
		t.Data = tensor.Bytes(size)
		copy(tensor.View[int64](t), p.Int64Data)
	case tensor.Uint32, tensor.Uint64:
		return narrow(t, "uint64_data", p.Uint64Data, max(1, t.DType.Bits()/8))
	default: // what takes less than 8 bits is packed before it goes into an int32
		return narrow(t, "int32_data", p.Int32Data, max(1, t.DType.Bits()/8))
	}
	return nil
}

// narrow stores the low width bytes of each number.
func narrow[T int32 | uint64](t *tensor.Tensor, field string, xs []T, width int) error {
	size := t.DType.Size(t.Elems())
	if len(xs)*width != size {
		return fmt.Errorf("%s has %d, want %d", field, len(xs), size/width)
	}
	t.Data = tensor.Bytes(size)
	for i, x := range xs {
		u := uint64(x)
		if t.DType == tensor.Bool && u != 0 {
			u = 1
		}
		for j := range width {
			t.Data[i*width+j] = byte(u >> (8 * j))
		}
	}
	return nil
}

// sparse gives a sparse tensor's elements in full. The dense size is not covered by bytes that are there, so it is taken
// from the memory budget.
func (d *decoder) sparse(p *onnxpb.SparseTensorProto) (*tensor.Tensor, error) {
	s, err := shape(p.Dims)
	if err != nil {
		return nil, err
	}
	if p.Values == nil {
		return nil, errors.New("there are no values")
	}
	vals, _, err := d.tensor(proto.CloneOf(p.Values))
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	width := vals.DType.Bits() / 8
	if width == 0 {
		return nil, fmt.Errorf("sparse tensors of %v are not supported", vals.DType)
	}
	size := int64(vals.DType.Size(s.Elems()))
	if d.slack -= size; d.slack < 0 {
		return nil, fmt.Errorf("%v%v: %w", vals.DType, []int(s), ErrTooLarge)
	}
	t := tensor.New(vals.DType, s...)
	nnz := vals.Elems()
	if nnz == 0 {
		return t, nil
	}
	if p.Indices == nil {
		return nil, errors.New("there are no indices")
	}
	it, _, err := d.tensor(proto.CloneOf(p.Indices))
	if err != nil {
		return nil, fmt.Errorf("indices: %w", err)
	}
	if it.DType != tensor.Int64 {
		return nil, fmt.Errorf("indices are %v, want int64", it.DType)
	}
	linear := len(it.Shape) == 1
	if len(vals.Shape) != 1 || len(it.Shape) == 0 || len(it.Shape) > 2 || it.Shape[0] != nnz || !linear && it.Shape[1] != len(s) {
		return nil, fmt.Errorf("indices %v do not fit values %v and dimensions %v", []int(it.Shape), []int(vals.Shape), []int(s))
	}
	idx := tensor.Of[int64](it)
	strides := s.Strides()
	total := int64(s.Elems())
	for k := range nnz {
		var at int64
		if linear {
			at = idx[k]
		} else {
			for a, i := range idx[k*len(s) : (k+1)*len(s)] {
				if i < 0 || i >= int64(s[a]) {
					return nil, fmt.Errorf("index %d is %d on an axis of %d", k, i, s[a])
				}
				at += i * int64(strides[a])
			}
		}
		if at < 0 || at >= total {
			return nil, fmt.Errorf("index %d is %d of %d elements", k, at, total)
		}
		copy(t.Data[at*int64(width):], vals.Data[k*width:(k+1)*width])
	}
	return t, nil
}

// EncodeTensor is the inverse of DecodeTensor. It panics if the tensor's elements do not fill its shape.
func EncodeTensor(name string, t *tensor.Tensor) []byte {
	p := new(onnxpb.TensorProto)
	err := putTensor(p, t)
	if err == nil {
		p.Name = optional(name)
		var b []byte
		if b, err = marshal(p); err == nil {
			return b
		}
	}
	panic(fmt.Sprintf("onnx: encode tensor %q: %v", name, err))
}

// putTensor fills in what decoder.tensor took. The message shares the tensor's bytes.
func putTensor(p *onnxpb.TensorProto, t *tensor.Tensor) error {
	n := t.Elems()
	if !t.DType.Valid() || n < 0 {
		return fmt.Errorf("%v%v cannot be written", t.DType, []int(t.Shape))
	}
	p.Dims = make([]int64, len(t.Shape))
	for i, d := range t.Shape {
		p.Dims[i] = int64(d)
	}
	p.DataType = proto.Int32(int32(t.DType))
	if t.DType == tensor.String {
		if len(t.Strings) != n {
			return fmt.Errorf("%d strings do not fill shape %v", len(t.Strings), []int(t.Shape))
		}
		p.StringData = t.Strings
		return nil
	}
	if len(t.Data) != t.DType.Size(n) {
		return fmt.Errorf("%d bytes do not fill %v%v", len(t.Data), t.DType, []int(t.Shape))
	}
	p.RawData = t.Data
	if p.RawData == nil {
		p.RawData = []byte{} // present and empty
	}
	return nil
}
