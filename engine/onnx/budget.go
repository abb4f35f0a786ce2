package onnx

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A repeated message costs two bytes in a file and hundreds in memory, so a size limit on the file alone would not
// bound what decoding allocates. checkBudget walks the wire format, which allocates nothing, and adds up estimates of
// what the messages and the graph made of them will take. Real models need one to three times their size; the allowance
// leaves room for ones that are all structure.
const (
	budgetBase  = 128 << 20
	budgetTimes = 8
)

// cost estimates one field or message in bytes of memory: its own struct and what the graph makes of it.
var cost = map[protoreflect.FullName]int64{
	"secateur.onnx.TensorProto":      2400, // tensor.Bytes aligns and leaves slack
	"secateur.onnx.NodeProto":        800,
	"secateur.onnx.AttributeProto":   800,
	"secateur.onnx.ValueInfoProto":   600,
	"secateur.onnx.GraphProto":       1200,
	"secateur.onnx.FunctionProto":    600,
	"secateur.onnx.NodeProto.output": 500, // each makes a Value and an entry under its name
}

const (
	costMessage = 160
	costElement = 48 // a repeated string or bytes: its header, and append's spare room
)

type budget struct {
	used, limit int64
}

// checkBudget returns what is left of the allowance for b, a serialized m.
func checkBudget(b []byte, m proto.Message) (left int64, err error) {
	s := budget{limit: budgetBase + budgetTimes*int64(len(b))}
	if err := s.message(b, m.ProtoReflect().Descriptor(), 0); err != nil {
		return 0, err
	}
	return s.limit - s.used, nil
}

func (s *budget) add(n int64) error {
	if s.used += n; s.used > s.limit {
		return fmt.Errorf("decoding needs over %d bytes of memory: %w", s.limit, ErrTooLarge)
	}
	return nil
}

func (s *budget) message(b []byte, md protoreflect.MessageDescriptor, depth int) error {
	if depth > recursionLimit {
		return fmt.Errorf("messages are nested more than %d deep", recursionLimit)
	}
	fields := md.Fields()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%s: %w", md.Name(), protowire.ParseError(n))
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(num, typ, b)
		if size < 0 {
			return fmt.Errorf("%s: field %d: %w", md.Name(), num, protowire.ParseError(size))
		}
		fd := fields.ByNumber(num)
		if err := s.add(fieldCost(fd, typ, size)); err != nil {
			return err
		}
		if fd != nil && fd.Message() != nil && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			if err := s.message(v, fd.Message(), depth+1); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}

// fieldCost is the cost of one occurrence of a field whose value takes size bytes, without the fields of a message.
func fieldCost(fd protoreflect.FieldDescriptor, typ protowire.Type, size int) int64 {
	n := int64(size)
	switch {
	case fd == nil:
		return 2 * n // unknown fields are kept as they are, and once more in Extra
	case typ != protowire.BytesType:
		return 16
	case fd.Message() != nil:
		if c, ok := cost[fd.Message().FullName()]; ok {
			return c
		}
		return costMessage
	}
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		if fd.IsList() {
			n += max(costElement, cost[fd.FullName()])
		}
		return 2 * n
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return 2 * n
	}
	return budgetTimes * n // packed varints: one byte may become an int64
}
