package onnx

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

// Encode writes a ModelProto with all tensors in it. The same graph gives the same bytes. In IR version 3, initializers
// that are not inputs are made inputs in the file, as that version requires.
func Encode(g *graph.Graph) ([]byte, error) {
	b, err := (&encoder{}).encode(g)
	if err != nil {
		return nil, fmt.Errorf("encode ONNX model: %w", err)
	}
	return b, nil
}

// encoder is the state of one Encode.
type encoder struct {
	// outside stores an initializer's bytes in another file and says where; nil, or where it returns nil: inline.
	outside func(b []byte) (*graph.External, error)
}

func (e *encoder) encode(g *graph.Graph) ([]byte, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if g.IR < MinIR || g.IR > MaxIR {
		return nil, fmt.Errorf("IR version %d, only %d to %d are written: %w", g.IR, MinIR, MaxIR, ErrVersion)
	}
	if err := checkOpsets(g); err != nil {
		return nil, err
	}
	m, err := e.model(g)
	if err != nil {
		return nil, err
	}
	if n := proto.Size(m); n > maxMessage {
		return nil, fmt.Errorf("the model has %d bytes, more than a protobuf message may have; write tensors to an external file: %w", n, ErrTooLarge)
	}
	return marshal(m)
}

func (e *encoder) model(g *graph.Graph) (*onnxpb.ModelProto, error) {
	m := new(onnxpb.ModelProto)
	if err := proto.Unmarshal(g.ModelExtra, m); err != nil {
		return nil, fmt.Errorf("ModelExtra: %w", err)
	}
	if g.IR < 4 {
		c := *g
		c.Inputs = slices.Concat(g.Inputs, missingInputs(g))
		g = &c
	}
	var err error
	if m.Graph, err = e.graph(g); err != nil {
		return nil, err
	}
	m.IrVersion = proto.Int64(int64(g.IR))
	for _, domain := range slices.Sorted(maps.Keys(g.Opsets)) {
		m.OpsetImport = append(m.OpsetImport, &onnxpb.OperatorSetIdProto{
			Domain: proto.String(domain), Version: proto.Int64(int64(g.Opsets[domain])),
		})
	}
	m.ProducerName, m.ProducerVersion = optional(g.Producer.Name), optional(g.Producer.Version)
	m.Domain, m.DocString = optional(g.Producer.Domain), optional(g.Producer.Doc)
	if g.Producer.ModelVersion != 0 {
		m.ModelVersion = proto.Int64(g.Producer.ModelVersion)
	}
	for _, k := range slices.Sorted(maps.Keys(g.Meta)) {
		m.MetadataProps = append(m.MetadataProps, entry(k, g.Meta[k]))
	}
	for i, b := range g.Functions {
		f := new(onnxpb.FunctionProto)
		if err := proto.Unmarshal(b, f); err != nil {
			return nil, fmt.Errorf("function %d: %w", i, err)
		}
		m.Functions = append(m.Functions, f)
	}
	return m, nil
}

func entry(k, v string) *onnxpb.StringStringEntryProto {
	return &onnxpb.StringStringEntryProto{Key: proto.String(k), Value: proto.String(v)}
}

func (e *encoder) graph(g *graph.Graph) (*onnxpb.GraphProto, error) {
	p := new(onnxpb.GraphProto)
	if err := proto.Unmarshal(g.Extra, p); err != nil {
		return nil, fmt.Errorf("graph %q: Extra: %w", g.Name, err)
	}
	p.Name, p.DocString = proto.String(g.Name), optional(g.Doc)
	told := map[*graph.Value]bool{}
	tell := func(vs []*graph.Value) (out []*onnxpb.ValueInfoProto, err error) {
		for _, v := range vs {
			vi, _, err := valueInfo(v)
			if err != nil {
				return nil, err
			}
			told[v] = true
			out = append(out, vi)
		}
		return out, nil
	}
	var err error
	if p.Input, err = tell(g.Inputs); err != nil {
		return nil, err
	}
	if p.Output, err = tell(g.Outputs); err != nil {
		return nil, err
	}
	for _, v := range g.Inits {
		if err := e.initializer(p, v); err != nil {
			return nil, fmt.Errorf("initializer %q: %w", v.Name, err)
		}
	}
	for _, n := range g.Nodes {
		k, err := e.node(n)
		if err != nil {
			return nil, fmt.Errorf("node %v: %w", n, err)
		}
		p.Node = append(p.Node, k)
	}
	for v := range g.Values() {
		if told[v] {
			continue
		}
		vi, informative, err := valueInfo(v)
		if err != nil {
			return nil, err
		}
		if informative {
			p.ValueInfo = append(p.ValueInfo, vi)
		}
	}
	return p, nil
}

func (e *encoder) initializer(p *onnxpb.GraphProto, v *graph.Value) error {
	if v.Sparse != nil {
		// Sparse is how the file wrote Const. Somebody may have put another Const in its place.
		s := new(onnxpb.SparseTensorProto)
		if err := proto.Unmarshal(v.Sparse, s); err != nil {
			return fmt.Errorf("reading Sparse: %w", err)
		}
		if s.Values != nil {
			t, err := (&decoder{slack: int64(len(v.Const.Data))}).sparse(s)
			if err == nil && tensor.Equal(t, v.Const) {
				s.Values.Name = proto.String(v.Name)
				p.SparseInitializer = append(p.SparseInitializer, s)
				return nil
			}
		}
	}
	t := new(onnxpb.TensorProto)
	if err := proto.Unmarshal(v.ConstExtra, t); err != nil {
		return fmt.Errorf("ConstExtra: %w", err)
	}
	if err := putTensor(t, v.Const); err != nil {
		return err
	}
	t.Name = proto.String(v.Name)
	p.Initializer = append(p.Initializer, t)
	if e.outside == nil || v.Const.DType == tensor.String {
		return nil
	}
	x, err := e.outside(v.Const.Data)
	if err != nil || x == nil {
		return err
	}
	t.RawData = nil
	t.DataLocation = onnxpb.TensorProto_EXTERNAL.Enum()
	t.ExternalData = []*onnxpb.StringStringEntryProto{
		entry("location", x.Location), entry("offset", fmt.Sprint(x.Offset)), entry("length", fmt.Sprint(x.Length)),
	}
	return nil
}

func (e *encoder) node(n *graph.Node) (*onnxpb.NodeProto, error) {
	p := new(onnxpb.NodeProto)
	if err := proto.Unmarshal(n.Extra, p); err != nil {
		return nil, fmt.Errorf("extra: %w", err)
	}
	p.OpType, p.Domain, p.Overload = proto.String(n.Op), optional(n.Domain), optional(n.Overload)
	p.Name, p.DocString = optional(n.Name), optional(n.Doc)
	p.Input, p.Output = names(n.Inputs), names(n.Outputs)
	for _, a := range n.Attrs {
		k, err := e.attr(a)
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", a.Name, err)
		}
		p.Attribute = append(p.Attribute, k)
	}
	for _, m := range n.Meta {
		p.MetadataProps = append(p.MetadataProps, entry(m.Key, m.Value))
	}
	return p, nil
}

func names(vs []*graph.Value) []string {
	out := make([]string, len(vs))
	for i, v := range vs {
		if v != nil {
			out[i] = v.Name
		}
	}
	return out
}

func (e *encoder) attr(a graph.Attr) (*onnxpb.AttributeProto, error) {
	p := new(onnxpb.AttributeProto)
	if err := proto.Unmarshal(a.Extra, p); err != nil {
		return nil, fmt.Errorf("extra: %w", err)
	}
	p.Name, p.DocString, p.RefAttrName = proto.String(a.Name), optional(a.Doc), optional(a.Ref)
	if a.Kind != graph.AttrUndefined {
		p.Type = onnxpb.AttributeProto_AttributeType(a.Kind).Enum()
	}
	if a.Ref != "" { // the function's attribute has the value
		return p, nil
	}
	switch a.Kind {
	case graph.AttrFloat:
		p.F = proto.Float32(a.Float)
	case graph.AttrInt:
		p.I = proto.Int64(a.Int)
	case graph.AttrString:
		p.S = a.Str
		if p.S == nil {
			p.S = []byte{} // present and empty
		}
	case graph.AttrFloats:
		p.Floats = a.Floats
	case graph.AttrInts:
		p.Ints = a.Ints
	case graph.AttrStrings:
		p.Strings = a.Strs
	case graph.AttrTensor:
		if a.Tensor == nil {
			return p, nil
		}
		if p.T == nil {
			p.T = new(onnxpb.TensorProto)
		}
		p.T.Name = optional(a.TensorName)
		return p, putTensor(p.T, a.Tensor)
	case graph.AttrTensors:
		if len(p.Tensors) != len(a.Tensors) {
			p.Tensors = make([]*onnxpb.TensorProto, len(a.Tensors))
		}
		for i, t := range a.Tensors {
			if p.Tensors[i] == nil {
				p.Tensors[i] = new(onnxpb.TensorProto)
			}
			if err := putTensor(p.Tensors[i], t); err != nil {
				return nil, fmt.Errorf("tensor %d: %w", i, err)
			}
		}
	case graph.AttrGraph:
		if a.Graph == nil {
			return p, nil
		}
		var err error
		p.G, err = e.graph(a.Graph)
		return p, err
	case graph.AttrGraphs:
		for _, g := range a.Graphs {
			sub, err := e.graph(g)
			if err != nil {
				return nil, err
			}
			p.Graphs = append(p.Graphs, sub)
		}
	}
	return p, nil
}
