package onnx_test

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// maker draws valid graphs of unknown operators: any shape of dependencies, any attribute, graphs in graphs.
type maker struct {
	t     *rapid.T
	names int
}

func genGraph(t *rapid.T) *graph.Graph {
	m := &maker{t: t}
	ir := rapid.IntRange(3, 13).Draw(t, "ir")
	g := m.graph(nil, 0, ir == 3)
	g.IR = ir
	g.Opsets = map[string]int{"": rapid.IntRange(6, 25).Draw(t, "opset"), "com.example": 1}
	g.Producer = graph.Producer{Name: m.str("producer"), Version: m.str("version"), Domain: m.str("domain"), Doc: m.str("doc"), ModelVersion: rapid.Int64().Draw(t, "model version")}
	g.Meta = rapid.MapOfN(rapid.StringN(0, 4, 8), rapid.StringN(0, 4, 8), 0, 3).Draw(t, "meta")
	return g
}

func (m *maker) str(label string) string { return rapid.StringN(0, 3, 12).Draw(m.t, label) }

func (m *maker) bytes(label string) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(m.t, label)
}

func (m *maker) value() *graph.Value {
	m.names++
	v := &graph.Value{Name: fmt.Sprintf("v%d %s", m.names, m.str("name"))}
	if rapid.Bool().Draw(m.t, "typed") {
		v.Doc = m.str("value doc")
		v.Type.DType = tensor.DType(rapid.IntRange(1, 30).Draw(m.t, "dtype"))
		if rapid.Bool().Draw(m.t, "ranked") {
			v.Type.Shape = tensor.Shape(rapid.SliceOfN(rapid.IntRange(-1, 5), 0, 4).Draw(m.t, "shape"))
			v.Type.Symbols = make([]string, len(v.Type.Shape))
			for i, d := range v.Type.Shape {
				if d == tensor.Unknown {
					v.Type.Symbols[i] = m.str("symbol")
				}
			}
		}
	}
	return v
}

func (m *maker) tensor() *tensor.Tensor {
	dt := tensor.DType(rapid.IntRange(1, 26).Draw(m.t, "element type"))
	shape := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 3).Draw(m.t, "dims")
	t := tensor.New(dt, shape...)
	for i := range t.Data {
		t.Data[i] = rapid.Byte().Draw(m.t, "element")
		if dt == tensor.Bool {
			t.Data[i] &= 1
		}
	}
	for i := range t.Strings {
		t.Strings[i] = m.bytes("string element")
	}
	return t
}

func (m *maker) graph(outer []*graph.Value, depth int, initsAreInputs bool) *graph.Graph {
	g := &graph.Graph{Name: m.str("graph name"), Doc: m.str("graph doc")}
	known := slices.Clone(outer)
	for range rapid.IntRange(0, 2).Draw(m.t, "inputs") {
		g.Inputs = append(g.Inputs, m.value())
	}
	for range rapid.IntRange(0, 2).Draw(m.t, "inits") {
		v := m.value()
		v.Const = m.tensor()
		g.Inits = append(g.Inits, v)
		if initsAreInputs || rapid.Bool().Draw(m.t, "default of an input") {
			g.Inputs = append(g.Inputs, v)
		}
	}
	known = append(append(known, g.Inputs...), g.Inits...)
	pick := func(label string) *graph.Value {
		if i := rapid.IntRange(-1, len(known)-1).Draw(m.t, label); i >= 0 {
			return known[i]
		}
		return nil
	}
	for range rapid.IntRange(0, 7).Draw(m.t, "nodes") {
		n := &graph.Node{Op: m.str("op"), Domain: "com.example", Overload: m.str("overload"), Name: m.str("node name"), Doc: m.str("node doc")}
		for range rapid.IntRange(0, 3).Draw(m.t, "node inputs") {
			n.Inputs = append(n.Inputs, pick("input"))
		}
		for range rapid.IntRange(0, 3).Draw(m.t, "attrs") {
			n.Attrs = append(n.Attrs, m.attr(fmt.Sprint("a", len(n.Attrs)), known, depth))
		}
		for range rapid.IntRange(0, 2).Draw(m.t, "node meta") {
			n.Meta = append(n.Meta, graph.Pair{Key: m.str("key"), Value: m.str("value")})
		}
		for range rapid.IntRange(0, 2).Draw(m.t, "node outputs") {
			if rapid.IntRange(0, 4).Draw(m.t, "omit") == 0 {
				n.Outputs = append(n.Outputs, nil)
				continue
			}
			v := m.value()
			v.Def = n
			n.Outputs = append(n.Outputs, v)
			known = append(known, v)
		}
		g.Nodes = append(g.Nodes, n)
	}
	for range rapid.IntRange(0, 2).Draw(m.t, "outputs") {
		if v := pick("output"); v != nil {
			g.Outputs = append(g.Outputs, v)
		}
	}
	return g
}

func (m *maker) attr(name string, known []*graph.Value, depth int) graph.Attr {
	a := graph.Attr{Name: name, Doc: m.str("attr doc"), Kind: graph.AttrKind(rapid.IntRange(0, 10).Draw(m.t, "kind"))}
	some := func(f func()) {
		for range rapid.IntRange(0, 2).Draw(m.t, "how many") {
			f()
		}
	}
	switch a.Kind {
	case graph.AttrFloat:
		a.Float = rapid.Float32().Draw(m.t, "float")
	case graph.AttrInt:
		a.Int = rapid.Int64().Draw(m.t, "int")
	case graph.AttrString:
		a.Str = m.bytes("str")
	case graph.AttrTensor:
		a.Tensor, a.TensorName = m.tensor(), m.str("tensor name")
	case graph.AttrFloats:
		some(func() { a.Floats = append(a.Floats, rapid.Float32().Draw(m.t, "floats")) })
	case graph.AttrInts:
		some(func() { a.Ints = append(a.Ints, rapid.Int64().Draw(m.t, "ints")) })
	case graph.AttrStrings:
		some(func() { a.Strs = append(a.Strs, m.bytes("strs")) })
	case graph.AttrTensors:
		some(func() { a.Tensors = append(a.Tensors, m.tensor()) })
	case graph.AttrGraph:
		if depth < 2 {
			a.Graph = m.graph(known, depth+1, false)
		}
	case graph.AttrGraphs:
		if depth < 2 {
			some(func() { a.Graphs = append(a.Graphs, m.graph(known, depth+1, false)) })
		}
	}
	return a
}

// tiny is a model for seeds and for tests that break it: an If whose branches read a value from outside.
func tiny() *graph.Graph {
	x := &graph.Value{Name: "x", Type: tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{-1, 3}, Symbols: []string{"batch", ""}}}
	c := &graph.Value{Name: "c", Type: tensor.Type{DType: tensor.Bool, Shape: tensor.Shape{}}}
	w := &graph.Value{Name: "w", Const: tensor.From([]float32{1, 2, 3}, 3)}
	h := &graph.Value{Name: "h"}
	y := &graph.Value{Name: "y", Type: tensor.Type{DType: tensor.Float32}}
	add := &graph.Node{Op: "Add", Name: "add", Inputs: []*graph.Value{x, w}, Outputs: []*graph.Value{h}}
	h.Def = add
	branch := func(op string) *graph.Graph {
		o := &graph.Value{Name: "o_" + op}
		n := &graph.Node{Op: op, Inputs: []*graph.Value{h}, Outputs: []*graph.Value{o}}
		o.Def = n
		return &graph.Graph{Name: op, Nodes: []*graph.Node{n}, Outputs: []*graph.Value{o}}
	}
	iff := &graph.Node{Op: "If", Inputs: []*graph.Value{c}, Outputs: []*graph.Value{y}, Attrs: graph.Attrs{
		{Name: "then_branch", Kind: graph.AttrGraph, Graph: branch("Relu")},
		{Name: "else_branch", Kind: graph.AttrGraph, Graph: branch("Neg")},
	}}
	y.Def = iff
	return &graph.Graph{
		Name: "tiny", IR: 8, Opsets: map[string]int{"": 17}, Meta: map[string]string{"k": "v"},
		Inputs: []*graph.Value{x, c}, Inits: []*graph.Value{w}, Nodes: []*graph.Node{add, iff}, Outputs: []*graph.Value{y},
	}
}
