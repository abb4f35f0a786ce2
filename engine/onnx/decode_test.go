package onnx_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

func nodeOf(op string, in, out string) *onnxpb.NodeProto {
	return &onnxpb.NodeProto{OpType: proto.String(op), Input: strings.Fields(in), Output: strings.Fields(out)}
}

func graphOf(in, out string, nodes ...*onnxpb.NodeProto) *onnxpb.GraphProto {
	g := &onnxpb.GraphProto{Name: proto.String("g"), Node: nodes}
	for _, s := range strings.Fields(in) {
		g.Input = append(g.Input, &onnxpb.ValueInfoProto{Name: proto.String(s)})
	}
	for _, s := range strings.Fields(out) {
		g.Output = append(g.Output, &onnxpb.ValueInfoProto{Name: proto.String(s)})
	}
	return g
}

func modelOf(g *onnxpb.GraphProto) *onnxpb.ModelProto {
	return &onnxpb.ModelProto{IrVersion: proto.Int64(8), Graph: g, OpsetImport: []*onnxpb.OperatorSetIdProto{
		{Domain: proto.String(""), Version: proto.Int64(17)},
	}}
}

func withGraph(n *onnxpb.NodeProto, g *onnxpb.GraphProto) *onnxpb.NodeProto {
	n.Attribute = append(n.Attribute, &onnxpb.AttributeProto{Name: proto.String("body"), Type: onnxpb.AttributeProto_GRAPH.Enum(), G: g})
	return n
}

func ops(g *graph.Graph) string {
	var s []string
	for _, n := range g.Nodes {
		s = append(s, n.Op)
	}
	return strings.Join(s, " ")
}

func TestNodesAreSorted(t *testing.T) {
	for name, c := range map[string]struct {
		g    *onnxpb.GraphProto
		want string // "" is an error
	}{
		"in order":              {graphOf("x", "b", nodeOf("A", "x", "a"), nodeOf("B", "a", "b")), "A B"},
		"backwards":             {graphOf("x", "c", nodeOf("C", "b", "c"), nodeOf("B", "a", "b"), nodeOf("A", "x", "a")), "A B C"},
		"file order among free": {graphOf("x", "c", nodeOf("D", "a", "d"), nodeOf("A", "x", "a"), nodeOf("B", "x", "b"), nodeOf("C", "a a b", "c")), "A D B C"},
		"read by a body":        {graphOf("x", "b", withGraph(nodeOf("If", "x", "b"), graphOf("", "i", nodeOf("I", "a", "i"))), nodeOf("A", "x", "a")), "A If"},
		"yielded by a body":     {graphOf("x", "b", withGraph(nodeOf("If", "x", "b"), graphOf("", "a")), nodeOf("A", "x", "a")), "A If"},
		"cycle":                 {graphOf("x", "b", nodeOf("A", "b", "a"), nodeOf("B", "a", "b")), ""},
		"itself":                {graphOf("x", "a", nodeOf("A", "a", "a")), ""},
		"itself, from its body": {graphOf("x", "a", withGraph(nodeOf("If", "x", "a"), graphOf("", "a"))), ""},
	} {
		g, err := onnx.Decode(encode(t, modelOf(c.g)), onnx.Options{})
		switch {
		case (err == nil) != (c.want != ""):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case err == nil && ops(g) != c.want:
			t.Errorf("%s: %s, want %s", name, ops(g), c.want)
		}
	}
}

// A name inside a body that the body defines is the body's; any other is the very value of the graph around it.
func TestCapturedValues(t *testing.T) {
	body := graphOf("h", "i j", nodeOf("I", "h", "i"), nodeOf("J", "x a", "j"))
	g, err := onnx.Decode(encode(t, modelOf(graphOf("x h", "b", nodeOf("A", "x", "a"), withGraph(nodeOf("Loop", "x", "b"), body)))), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sub := g.Nodes[1].Attrs[0].Graph
	if got := sub.Nodes[1].Inputs; got[0] != g.Inputs[0] || got[1] != g.Nodes[0].Outputs[0] {
		t.Error("captured values are not the outer graph's")
	}
	if sub.Nodes[0].Inputs[0] != sub.Inputs[0] {
		t.Error("the body's own h is not what it reads")
	}
	if err := roundTrip(g); err != nil {
		t.Error(err)
	}
	sub.Nodes[0].Inputs[0] = g.Inputs[1] // the outer h, whose name now means another
	if _, err := onnx.Encode(g); err == nil {
		t.Error("a hidden value is read: no error")
	}
}

func TestBadModels(t *testing.T) {
	w := func(name string) *onnxpb.TensorProto {
		return &onnxpb.TensorProto{Name: proto.String(name), DataType: proto.Int32(1), RawData: make([]byte, 4)}
	}
	good := func() *onnxpb.ModelProto { return modelOf(graphOf("x", "a", nodeOf("A", "x", "a"))) }
	for name, change := range map[string]func(*onnxpb.ModelProto){
		"no IR version":        func(m *onnxpb.ModelProto) { m.IrVersion = nil },
		"IR version 2":         func(m *onnxpb.ModelProto) { m.IrVersion = proto.Int64(2) },
		"IR version 14":        func(m *onnxpb.ModelProto) { m.IrVersion = proto.Int64(14) },
		"opset 5":              func(m *onnxpb.ModelProto) { m.OpsetImport[0].Version = proto.Int64(5) },
		"opset 26":             func(m *onnxpb.ModelProto) { m.OpsetImport[0].Version = proto.Int64(26) },
		"no opset":             func(m *onnxpb.ModelProto) { m.OpsetImport = nil },
		"two opsets":           func(m *onnxpb.ModelProto) { m.OpsetImport = append(m.OpsetImport, &onnxpb.OperatorSetIdProto{}) },
		"no graph":             func(m *onnxpb.ModelProto) { m.Graph = nil },
		"undefined input":      func(m *onnxpb.ModelProto) { m.Graph.Node[0].Input[0] = "y" },
		"undefined output":     func(m *onnxpb.ModelProto) { *m.Graph.Output[0].Name = "y" },
		"input without name":   func(m *onnxpb.ModelProto) { m.Graph.Input[0].Name = nil },
		"output without name":  func(m *onnxpb.ModelProto) { m.Graph.Output[0].Name = nil },
		"two inputs x":         func(m *onnxpb.ModelProto) { m.Graph.Input = append(m.Graph.Input, m.Graph.Input[0]) },
		"two outputs a":        func(m *onnxpb.ModelProto) { m.Graph.Node = append(m.Graph.Node, nodeOf("B", "x", "a")) },
		"one node, twice a":    func(m *onnxpb.ModelProto) { m.Graph.Node[0].Output = []string{"a", "a"} },
		"node yields an input": func(m *onnxpb.ModelProto) { m.Graph.Node[0].Output = []string{"a", "x"} },
		"two initializers w":   func(m *onnxpb.ModelProto) { m.Graph.Initializer = []*onnxpb.TensorProto{w("w"), w("w")} },
		"nameless initializer": func(m *onnxpb.ModelProto) { m.Graph.Initializer = []*onnxpb.TensorProto{w("")} },
		"node yields a weight": func(m *onnxpb.ModelProto) { m.Graph.Initializer = []*onnxpb.TensorProto{w("a")} },
		"domain of passes":     func(m *onnxpb.ModelProto) { m.Graph.Node[0].Domain = proto.String("secateur") },
		"bad tensor in a node": func(m *onnxpb.ModelProto) {
			m.Graph.Node[0].Attribute = []*onnxpb.AttributeProto{{T: &onnxpb.TensorProto{}}}
		},
		"sparse without values": func(m *onnxpb.ModelProto) { m.Graph.SparseInitializer = []*onnxpb.SparseTensorProto{{}} },
		"sparse and huge": func(m *onnxpb.ModelProto) {
			m.Graph.SparseInitializer = []*onnxpb.SparseTensorProto{{
				Values: &onnxpb.TensorProto{Name: proto.String("s"), DataType: proto.Int32(1), Dims: []int64{0}}, Dims: []int64{1 << 30},
			}}
		},
	} {
		m := good()
		if _, err := onnx.Decode(encode(t, m), onnx.Options{}); err != nil {
			t.Fatal(err)
		}
		change(m)
		if g, err := onnx.Decode(encode(t, m), onnx.Options{}); err == nil {
			t.Errorf("%s: no error, %+v", name, g)
		}
	}
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("not a model"), "PNG": []byte("\x89PNG\r\n\x1a\n")} {
		if _, err := onnx.Decode(b, onnx.Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	b := encode(t, good())
	if _, err := onnx.Decode(b, onnx.Options{MaxBytes: int64(len(b)) - 1}); !errors.Is(err, onnx.ErrTooLarge) {
		t.Errorf("a byte over MaxBytes: %v, want ErrTooLarge", err)
	}
}

// Small files that would become large in memory, or deep.
func TestHostileModels(t *testing.T) {
	wrap := func(b []byte, fields ...protowire.Number) []byte {
		for _, f := range fields {
			b = protowire.AppendBytes(protowire.AppendTag(nil, f, protowire.BytesType), b)
		}
		return b
	}
	many := func(field protowire.Number) []byte {
		one := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), nil)
		return []byte(strings.Repeat(string(one), 1<<19))
	}
	const graphF, nodeF, attrF = 7, 1, 5
	var deep []byte
	for range 2000 {
		deep = wrap(deep, 6, attrF, nodeF)
	}
	for name, b := range map[string][]byte{
		"a million nodes":     wrap(many(nodeF), graphF),
		"a million inputs":    wrap(many(11), graphF),
		"a million tensors":   wrap(many(5), graphF),
		"a million graphs":    wrap(many(11), attrF, nodeF, graphF),
		"a million strings":   wrap(many(9), attrF, nodeF, graphF),
		"a million outputs":   wrap(many(2), nodeF, graphF),
		"a million functions": many(25),
		"graphs too deep":     wrap(deep, graphF),
	} {
		var err error
		n := allocated(func() { _, err = onnx.Decode(b, onnx.Options{}) })
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if limit := uint64(128<<20 + 8*len(b)); n > limit {
			t.Errorf("%s: %d bytes allocated for a file of %d", name, n, len(b))
		}
	}
}

// everything is a model with every message that the graph has no field for, in the form in which Encode writes it.
func everything(t testing.TB) []byte { return encode(t, everythingProto()) }

func everythingProto() *onnxpb.ModelProto {
	s, i := proto.String, proto.Int64
	kv := func(k, v string) []*onnxpb.StringStringEntryProto {
		return []*onnxpb.StringStringEntryProto{{Key: s(k), Value: s(v)}}
	}
	dim := func(n int64) *onnxpb.TensorShapeProto_Dimension {
		return &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: n}}
	}
	sym := func(n, denotes string) *onnxpb.TensorShapeProto_Dimension {
		return &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: n}, Denotation: s(denotes)}
	}
	ten := func(dt int32, dims ...*onnxpb.TensorShapeProto_Dimension) *onnxpb.TypeProto {
		return &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: &onnxpb.TypeProto_Tensor{ElemType: proto.Int32(dt), Shape: &onnxpb.TensorShapeProto{Dim: dims}}}}
	}
	seq := &onnxpb.TypeProto{Denotation: s("LIST"), Value: &onnxpb.TypeProto_SequenceType{SequenceType: &onnxpb.TypeProto_Sequence{ElemType: ten(1)}}}
	sparse := func(name string) *onnxpb.SparseTensorProto {
		return &onnxpb.SparseTensorProto{
			Dims:    []int64{2, 3},
			Values:  &onnxpb.TensorProto{Name: s(name), Dims: []int64{2}, DataType: proto.Int32(1), FloatData: []float32{5, 7}},
			Indices: &onnxpb.TensorProto{Dims: []int64{2, 2}, DataType: proto.Int32(7), Int64Data: []int64{0, 1, 1, 2}},
		}
	}
	x := ten(1, sym("batch", "DATA_BATCH"), dim(3))
	x.Denotation = s("IMAGE")
	a := func(name string, k onnxpb.AttributeProto_AttributeType) *onnxpb.AttributeProto {
		return &onnxpb.AttributeProto{Name: s(name), Type: k.Enum(), DocString: s("doc of " + name)}
	}
	tensorAttr := a("t", onnxpb.AttributeProto_TENSOR)
	tensorAttr.T = &onnxpb.TensorProto{Name: s("tn"), DocString: s("td"), DataType: proto.Int32(2), RawData: []byte{9}, MetadataProps: kv("a", "b")}
	tensorsAttr := a("ts", onnxpb.AttributeProto_TENSORS)
	tensorsAttr.Tensors = []*onnxpb.TensorProto{{Name: s("t0"), DataType: proto.Int32(2), RawData: []byte{9}}, {DataType: proto.Int32(3), RawData: []byte{8}}}
	typeAttr := a("tp", onnxpb.AttributeProto_TYPE_PROTO)
	typeAttr.Tp = seq
	typesAttr := a("tps", onnxpb.AttributeProto_TYPE_PROTOS)
	typesAttr.TypeProtos = []*onnxpb.TypeProto{seq, ten(7)}
	sparseAttr := a("st", onnxpb.AttributeProto_SPARSE_TENSOR)
	sparseAttr.SparseTensor = sparse("v")
	zero := a("zero", onnxpb.AttributeProto_INT)
	zero.I = i(0)
	n := nodeOf("Op", "x x w sp", "y z")
	n.Input = append(n.Input, "", "x")
	n.Domain, n.Overload, n.Name, n.DocString, n.MetadataProps = s("d"), s("o"), s("n"), s("nd"), kv("mk", "mv")
	n.Attribute = []*onnxpb.AttributeProto{tensorAttr, tensorsAttr, typeAttr, typesAttr, sparseAttr, zero}
	n.DeviceConfigurations = []*onnxpb.NodeDeviceConfigurationProto{{ConfigurationId: s("c"), PipelineStage: proto.Int32(1), ShardingSpec: []*onnxpb.ShardingSpecProto{{
		TensorName: s("x"), Device: []int64{0, 1}, IndexToDeviceGroupMap: []*onnxpb.IntIntListEntryProto{{Key: i(1), Value: []int64{2}}},
		ShardedDim: []*onnxpb.ShardedDimProto{{Axis: i(0), SimpleSharding: []*onnxpb.SimpleShardedDimProto{{NumShards: i(2)}}}},
	}}}}
	unknown := protowire.AppendString(protowire.AppendTag(nil, 999, protowire.BytesType), "from the future")
	n.ProtoReflect().SetUnknown(unknown)
	g := &onnxpb.GraphProto{
		Name: s("g"), DocString: s("gd"), Node: []*onnxpb.NodeProto{n}, MetadataProps: kv("gk", "gv"),
		Initializer:            []*onnxpb.TensorProto{{Name: s("w"), DocString: s("wd"), Dims: []int64{1}, DataType: proto.Int32(1), RawData: make([]byte, 4), MetadataProps: kv("wk", "wv")}},
		SparseInitializer:      []*onnxpb.SparseTensorProto{sparse("sp")},
		Input:                  []*onnxpb.ValueInfoProto{{Name: s("x"), Type: x, DocString: s("xd"), MetadataProps: kv("xk", "xv")}, {Name: s("q"), Type: seq}},
		Output:                 []*onnxpb.ValueInfoProto{{Name: s("y")}},
		ValueInfo:              []*onnxpb.ValueInfoProto{{Name: s("nowhere"), Type: ten(1)}, {Name: s("z"), Type: ten(1, dim(0))}},
		QuantizationAnnotation: []*onnxpb.TensorAnnotation{{TensorName: s("x"), QuantParameterTensorNames: kv("SCALE_TENSOR", "w")}},
	}
	f := &onnxpb.FunctionProto{
		Name: s("Op"), Domain: s("d"), Overload: s("o"), Input: []string{"a"}, Output: []string{"b"}, Attribute: []string{"k"}, DocString: s("fd"),
		Node: []*onnxpb.NodeProto{nodeOf("Relu", "a", "b")}, OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: i(17)}},
		AttributeProto: []*onnxpb.AttributeProto{zero}, ValueInfo: []*onnxpb.ValueInfoProto{{Name: s("a")}}, MetadataProps: kv("fk", "fv"),
	}
	m := modelOf(g)
	m.OpsetImport = append(m.OpsetImport, &onnxpb.OperatorSetIdProto{Domain: s("d"), Version: i(2)})
	m.ProducerName, m.ProducerVersion, m.Domain, m.ModelVersion, m.DocString = s("p"), s("pv"), s("pd"), i(-3), s("md")
	m.MetadataProps, m.Functions = append(kv("a", "1"), kv("b", "")...), []*onnxpb.FunctionProto{f}
	m.TrainingInfo = []*onnxpb.TrainingInfoProto{{Algorithm: graphOf("", "", nodeOf("A", "x", "q")), UpdateBinding: kv("w", "q")}}
	m.Configuration = []*onnxpb.DeviceConfigurationProto{{Name: s("c"), NumDevices: proto.Int32(2), Device: []string{"0", "1"}}}
	m.ProtoReflect().SetUnknown(unknown)
	return m
}

// The file that Encode writes says everything that the file read said, message by message.
func TestNothingIsLost(t *testing.T) {
	want := everythingProto()
	g, err := onnx.Decode(encode(t, want), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(g); err != nil {
		t.Fatal(err)
	}
	b, err := onnx.Encode(g)
	if err != nil {
		t.Fatal(err)
	}
	got := new(onnxpb.ModelProto)
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	i := g.Inits[1]
	if want := tensor.From([]float32{0, 5, 0, 0, 0, 7}, 2, 3); i.Name != "sp" || !tensor.Equal(i.Const, want) {
		t.Errorf("sparse initializer %q is %+v, want %+v", i.Name, i.Const, want)
	}
	i.Const = tensor.From([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	if b, err = onnx.Encode(g); err != nil {
		t.Fatal(err)
	}
	h, err := onnx.Decode(b, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !tensor.Equal(h.Inits[1].Const, i.Const) {
		t.Error("a new value in place of a sparse one was not written")
	}
}

// Attributes of old writers that do not state their type; dimensions that say unknown with a negative number.
func TestOldHabits(t *testing.T) {
	n := nodeOf("A", "x", "a")
	n.Attribute = []*onnxpb.AttributeProto{{Name: proto.String("i"), I: proto.Int64(4)}, {Name: proto.String("fs"), Floats: []float32{1}}}
	p := graphOf("x", "a", n)
	p.Input[0].Type = &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: &onnxpb.TypeProto_Tensor{
		ElemType: proto.Int32(1), Shape: &onnxpb.TensorShapeProto{Dim: []*onnxpb.TensorShapeProto_Dimension{
			{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: -1}}, {},
		}}}}}
	p.Initializer = []*onnxpb.TensorProto{{Name: proto.String("w"), DataType: proto.Int32(1), RawData: make([]byte, 4)}}
	m := modelOf(p)
	m.IrVersion = proto.Int64(3)
	g, err := onnx.Decode(encode(t, m), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if as := g.Nodes[0].Attrs; as[0].Kind != graph.AttrInt || as.Int("i", 0) != 4 || as[1].Kind != graph.AttrFloats {
		t.Errorf("attributes %+v", as)
	}
	if s := g.Inputs[0].Type.String(); s != "float32[?,?]" {
		t.Errorf("input is %s, want float32[?,?]", s)
	}
	if len(g.Inputs) != 2 || g.Inputs[1] != g.Inits[0] {
		t.Error("in IR version 3 an initializer is an input")
	}
	if err := roundTrip(g); err != nil {
		t.Error(err)
	}
}

// A file cut short anywhere, or with a byte changed anywhere, gives an error or a graph that survives the round trip.
func TestDamagedModels(t *testing.T) {
	whole := everything(t)
	try := func(what string, i int, b []byte) {
		g, err := onnx.Decode(b, onnx.Options{MaxBytes: 1 << 20})
		if err != nil {
			return
		}
		if err := roundTrip(g); err != nil {
			t.Errorf("%s %d: %v", what, i, err)
		}
	}
	for i := range whole {
		try("cut at", i, whole[:i])
		for _, x := range []byte{1, 0x80, 0xff} {
			b := append([]byte{}, whole...)
			b[i] ^= x
			try("changed", i, b)
		}
	}
}
