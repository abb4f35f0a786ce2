package onnx

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

// inform records what vi says of v. A value may be described more than once, as an input that is an output too: the
// first description counts, and inputs come before outputs before value_info.
func (d *decoder) inform(v *graph.Value, vi *onnxpb.ValueInfoProto) error {
	if d.informed[v] {
		return nil
	}
	d.informed[v] = true
	v.Doc = vi.GetDocString()
	vi.Name, vi.DocString = nil, nil
	var err error
	if t := vi.Type; t != nil {
		switch {
		case t.GetTensorType() != nil:
			v.Type = takeType(t.GetTensorType())
			if proto.Size(t.GetTensorType()) == 0 {
				t.Value = nil
			}
			if proto.Size(t) == 0 {
				vi.Type = nil
			}
		case t.Value != nil:
			if v.Opaque, err = marshal(t); err != nil {
				return fmt.Errorf("type of %q: %w", v.Name, err)
			}
			vi.Type = nil
		}
	}
	v.Extra, err = leftover(vi)
	return err
}

// takeType reads element type and shape and clears them. Denotations stay.
func takeType(t *onnxpb.TypeProto_Tensor) tensor.Type {
	ty := tensor.Type{DType: tensor.DType(t.GetElemType())}
	t.ElemType = nil
	if t.Shape == nil {
		return ty
	}
	ty.Shape = make(tensor.Shape, len(t.Shape.Dim))
	rest := 0
	for i, dim := range t.Shape.Dim {
		ty.Shape[i] = tensor.Unknown
		if v, ok := dim.Value.(*onnxpb.TensorShapeProto_Dimension_DimValue); ok && v.DimValue >= 0 {
			ty.Shape[i] = int(v.DimValue) // negative: some writers' way to say unknown
		}
		if name := dim.GetDimParam(); name != "" {
			if ty.Symbols == nil {
				ty.Symbols = make([]string, len(ty.Shape))
			}
			ty.Symbols[i] = name
		}
		dim.Value = nil
		rest += proto.Size(dim)
	}
	if rest == 0 {
		t.Shape.Dim = nil
	}
	if proto.Size(t.Shape) == 0 {
		t.Shape = nil
	}
	return ty
}

// valueInfo is the inverse of inform. It also says whether there is anything to tell but the name.
func valueInfo(v *graph.Value) (vi *onnxpb.ValueInfoProto, informative bool, err error) {
	vi = new(onnxpb.ValueInfoProto)
	if err := proto.Unmarshal(v.Extra, vi); err != nil {
		return nil, false, fmt.Errorf("value %q: Extra: %w", v.Name, err)
	}
	vi.Name = proto.String(v.Name)
	vi.DocString = optional(v.Doc)
	informative = v.Doc != "" || len(v.Extra) > 0
	switch {
	case v.Opaque != nil:
		vi.Type = new(onnxpb.TypeProto)
		if err := proto.Unmarshal(v.Opaque, vi.Type); err != nil {
			return nil, false, fmt.Errorf("value %q: Opaque: %w", v.Name, err)
		}
		informative = true
	case v.Type.DType != tensor.Undefined || v.Type.Shape != nil:
		if vi.Type == nil {
			vi.Type = new(onnxpb.TypeProto)
		}
		t := vi.Type.GetTensorType()
		if t == nil {
			t = new(onnxpb.TypeProto_Tensor)
			vi.Type.Value = &onnxpb.TypeProto_TensorType{TensorType: t}
		}
		putType(t, v.Type)
		informative = true
	}
	return vi, informative, nil
}

// putType fills in what takeType took. Denotations that are there stay if the rank is still theirs.
func putType(t *onnxpb.TypeProto_Tensor, ty tensor.Type) {
	if ty.DType != tensor.Undefined {
		t.ElemType = proto.Int32(int32(ty.DType))
	}
	if ty.Shape == nil {
		t.Shape = nil
		return
	}
	if t.Shape == nil {
		t.Shape = new(onnxpb.TensorShapeProto)
	}
	if len(t.Shape.Dim) != len(ty.Shape) {
		t.Shape.Dim = make([]*onnxpb.TensorShapeProto_Dimension, len(ty.Shape))
	}
	for i, n := range ty.Shape {
		if t.Shape.Dim[i] == nil {
			t.Shape.Dim[i] = new(onnxpb.TensorShapeProto_Dimension)
		}
		dim := t.Shape.Dim[i]
		switch {
		case n >= 0:
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: int64(n)}
		case i < len(ty.Symbols) && ty.Symbols[i] != "":
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: ty.Symbols[i]}
		}
	}
}

// optional is a field that is absent when empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
