package onnx

import (
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

// decoder is the state of one Decode. It takes messages apart: what it has read it clears, so that what is left of a
// message is what the graph has no place for, and goes into an Extra field.
type decoder struct {
	dir      string // of external data
	root     *os.Root
	file     *os.File // the external file read last
	location string
	left     int64 // bytes that Options.MaxBytes still allows
	slack    int64 // bytes of memory that the budget still allows
	informed map[*graph.Value]bool
}

// scope holds the values that a graph defines, inside the scope of the graph around it.
type scope struct {
	outer *scope
	names map[string]*graph.Value
}

func (s *scope) find(name string) *graph.Value {
	for ; s != nil; s = s.outer {
		if v, ok := s.names[name]; ok {
			return v
		}
	}
	return nil
}

func (s *scope) define(name string) (*graph.Value, error) {
	if name == "" {
		return nil, fmt.Errorf("a value has no name")
	}
	if s.names[name] != nil {
		return nil, fmt.Errorf("%q is defined twice", name)
	}
	v := &graph.Value{Name: name}
	s.names[name] = v
	return v, nil
}

func (d *decoder) model(m *onnxpb.ModelProto) (*graph.Graph, error) {
	ir := m.GetIrVersion()
	switch {
	case m.Graph == nil:
		return nil, fmt.Errorf("there is no graph in it: not an ONNX model")
	case ir < MinIR || ir > MaxIR:
		return nil, fmt.Errorf("IR version %d, only %d to %d are read: %w", ir, MinIR, MaxIR, ErrVersion)
	}
	opsets := map[string]int{}
	for _, o := range m.OpsetImport {
		v := int(o.GetVersion())
		if was, ok := opsets[o.GetDomain()]; ok && was != v {
			return nil, fmt.Errorf("operator set %q is imported in versions %d and %d", o.GetDomain(), was, v)
		}
		opsets[o.GetDomain()] = v
	}
	g, err := d.graph(m.Graph, nil)
	if err != nil {
		return nil, err
	}
	g.IR, g.Opsets = int(ir), opsets
	if err := checkOpsets(g); err != nil {
		return nil, err
	}
	if g.IR < 4 {
		g.Inputs = append(g.Inputs, missingInputs(g)...)
	}
	g.Producer = graph.Producer{
		Name: m.GetProducerName(), Version: m.GetProducerVersion(), Domain: m.GetDomain(),
		ModelVersion: m.GetModelVersion(), Doc: m.GetDocString(),
	}
	for _, p := range m.MetadataProps {
		if g.Meta == nil {
			g.Meta = map[string]string{}
		}
		g.Meta[p.GetKey()] = p.GetValue()
	}
	for _, f := range m.Functions {
		b, err := marshal(f)
		if err != nil {
			return nil, err
		}
		g.Functions = append(g.Functions, b)
	}
	m.IrVersion, m.OpsetImport, m.ProducerName, m.ProducerVersion, m.Domain = nil, nil, nil, nil, nil
	m.ModelVersion, m.DocString, m.Graph, m.MetadataProps, m.Functions = nil, nil, nil, nil, nil
	g.ModelExtra, err = leftover(m)
	return g, err
}

// checkOpsets requires ONNX's own operator set in a version we know. Only a model without any of its operators may do
// without.
func checkOpsets(g *graph.Graph) error {
	v := g.Opset("")
	_, a := g.Opsets[""]
	_, b := g.Opsets["ai.onnx"]
	if a && b && g.Opsets[""] != g.Opsets["ai.onnx"] {
		return fmt.Errorf("the ONNX operator set is imported in versions %d and %d", g.Opsets[""], g.Opsets["ai.onnx"])
	}
	if !a && !b {
		for _, n := range g.Nodes {
			if n.Domain == "" || n.Domain == "ai.onnx" {
				return fmt.Errorf("node %v: the model imports no ONNX operator set", n)
			}
		}
		return nil
	}
	if v < MinOpset || v > MaxOpset {
		return fmt.Errorf("operator set %d, only %d to %d are read: %w", v, MinOpset, MaxOpset, ErrVersion)
	}
	return nil
}

// missingInputs lists initializers that are no inputs. In IR version 3 each initializer is an input, the default value
// of one; some writers leave that out.
func missingInputs(g *graph.Graph) []*graph.Value {
	in := map[*graph.Value]bool{}
	for _, v := range g.Inputs {
		in[v] = true
	}
	var vs []*graph.Value
	for _, v := range g.Inits {
		if !in[v] {
			vs = append(vs, v)
		}
	}
	return vs
}

func (d *decoder) graph(p *onnxpb.GraphProto, outer *scope) (*graph.Graph, error) {
	g := &graph.Graph{Name: p.GetName(), Doc: p.GetDocString()}
	s := &scope{outer: outer, names: make(map[string]*graph.Value, len(p.Input)+len(p.Initializer)+len(p.Node))}
	for _, vi := range p.Input {
		v, err := s.define(vi.GetName())
		if err != nil {
			return nil, fmt.Errorf("graph input: %w", err)
		}
		if err := d.inform(v, vi); err != nil {
			return nil, err
		}
		g.Inputs = append(g.Inputs, v)
	}
	if err := d.initializers(g, p, s); err != nil {
		return nil, err
	}
	producer := map[string]int{}
	for i, n := range p.Node {
		for _, name := range n.Output {
			if name == "" {
				continue
			}
			if _, err := s.define(name); err != nil {
				return nil, fmt.Errorf("node %d, %s %q: output: %w", i, n.GetOpType(), n.GetName(), err)
			}
			producer[name] = i
		}
	}
	for _, vi := range p.Output {
		v := s.find(vi.GetName())
		if v == nil {
			return nil, fmt.Errorf("graph output %q is not defined", vi.GetName())
		}
		if err := d.inform(v, vi); err != nil {
			return nil, err
		}
		g.Outputs = append(g.Outputs, v)
	}
	var stray []*onnxpb.ValueInfoProto
	for _, vi := range p.ValueInfo {
		v := s.names[vi.GetName()]
		if v == nil {
			stray = append(stray, vi)
			continue
		}
		if err := d.inform(v, vi); err != nil {
			return nil, err
		}
	}
	idx, err := order(p.Node, producer, freeNames{})
	if err != nil {
		return nil, err
	}
	g.Nodes = make([]*graph.Node, 0, len(idx))
	for _, i := range idx {
		n := p.Node[i]
		what := fmt.Sprintf("node %d, %s %q", i, n.GetOpType(), n.GetName())
		k, err := d.node(n, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		g.Nodes = append(g.Nodes, k)
		p.Node[i] = nil // lets go of the tensors in its attributes
	}
	p.Name, p.DocString, p.Input, p.Output, p.Initializer, p.SparseInitializer, p.Node = nil, nil, nil, nil, nil, nil, nil
	p.ValueInfo = stray
	g.Extra, err = leftover(p)
	return g, err
}

func (d *decoder) initializers(g *graph.Graph, p *onnxpb.GraphProto, s *scope) error {
	add := func(name string) (*graph.Value, error) {
		v := s.names[name] // an input so far; an initializer gives it a default value
		var err error
		if v == nil {
			v, err = s.define(name)
		} else if v.Const != nil {
			err = fmt.Errorf("%q is defined twice", name)
		}
		if err != nil {
			return nil, fmt.Errorf("initializer: %w", err)
		}
		g.Inits = append(g.Inits, v)
		return v, nil
	}
	for i, t := range p.Initializer {
		v, err := add(t.GetName())
		if err != nil {
			return err
		}
		if v.Const, v.External, err = d.tensor(t); err == nil {
			t.Name = nil
			v.ConstExtra, err = leftover(t)
		}
		if err != nil {
			return fmt.Errorf("initializer %q: %w", v.Name, err)
		}
		p.Initializer[i] = nil
	}
	for _, sp := range p.SparseInitializer {
		v, err := add(sp.GetValues().GetName())
		if err != nil {
			return err
		}
		if v.Sparse, err = marshal(sp); err == nil {
			v.Const, err = d.sparse(sp)
		}
		if err != nil {
			return fmt.Errorf("sparse initializer %q: %w", v.Name, err)
		}
	}
	return nil
}

func (d *decoder) node(p *onnxpb.NodeProto, s *scope) (*graph.Node, error) {
	n := &graph.Node{
		Op: p.GetOpType(), Domain: p.GetDomain(), Overload: p.GetOverload(), Name: p.GetName(), Doc: p.GetDocString(),
		Inputs: make([]*graph.Value, len(p.Input)), Outputs: make([]*graph.Value, len(p.Output)),
	}
	if n.Domain == graph.Private {
		return nil, fmt.Errorf("operator %s is of domain %q, which is not for files", n.Op, n.Domain)
	}
	for i, name := range p.Input {
		if name == "" {
			continue
		}
		if n.Inputs[i] = s.find(name); n.Inputs[i] == nil {
			return nil, fmt.Errorf("input %d, %q, is not defined", i, name)
		}
	}
	for i, name := range p.Output {
		if name != "" {
			n.Outputs[i] = s.names[name]
			n.Outputs[i].Def = n
		}
	}
	for _, a := range p.Attribute {
		name := a.GetName()
		k, err := d.attr(a, s)
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", name, err)
		}
		n.Attrs = append(n.Attrs, k)
	}
	for _, m := range p.MetadataProps {
		n.Meta = append(n.Meta, graph.Pair{Key: m.GetKey(), Value: m.GetValue()})
	}
	p.OpType, p.Domain, p.Overload, p.Name, p.DocString = nil, nil, nil, nil, nil
	p.Input, p.Output, p.Attribute, p.MetadataProps = nil, nil, nil, nil
	var err error
	n.Extra, err = leftover(p)
	return n, err
}

func (d *decoder) attr(p *onnxpb.AttributeProto, s *scope) (graph.Attr, error) {
	a := graph.Attr{Name: p.GetName(), Doc: p.GetDocString(), Ref: p.GetRefAttrName(), Kind: attrKind(p)}
	if a.Ref != "" { // a value beside it would be invalid, and is left in Extra
		err := rest(&a, p)
		return a, err
	}
	var err error
	switch a.Kind {
	case graph.AttrFloat:
		a.Float, p.F = p.GetF(), nil
	case graph.AttrInt:
		a.Int, p.I = p.GetI(), nil
	case graph.AttrString:
		a.Str, p.S = p.S, nil
	case graph.AttrFloats:
		a.Floats, p.Floats = p.Floats, nil
	case graph.AttrInts:
		a.Ints, p.Ints = p.Ints, nil
	case graph.AttrStrings:
		a.Strs, p.Strings = p.Strings, nil
	case graph.AttrTensor:
		if p.T != nil {
			a.TensorName = p.T.GetName()
			p.T.Name = nil
			a.Tensor, _, err = d.tensor(p.T)
			if proto.Size(p.T) == 0 {
				p.T = nil
			}
		}
	case graph.AttrTensors:
		a.Tensors, err = d.tensors(p)
	case graph.AttrGraph:
		if p.G != nil {
			a.Graph, err = d.graph(p.G, s)
			p.G = nil
		}
	case graph.AttrGraphs:
		for _, g := range p.Graphs {
			sub, err := d.graph(g, s)
			if err != nil {
				return a, err
			}
			a.Graphs = append(a.Graphs, sub)
		}
		p.Graphs = nil
	}
	if err != nil {
		return a, err
	}
	err = rest(&a, p)
	return a, err
}

// rest keeps what attr has not read.
func rest(a *graph.Attr, p *onnxpb.AttributeProto) (err error) {
	p.Name, p.Type, p.DocString, p.RefAttrName = nil, nil, nil, nil
	a.Extra, err = leftover(p)
	return err
}

// tensors reads a list of tensors, and leaves their names and the like in p if there are any.
func (d *decoder) tensors(p *onnxpb.AttributeProto) ([]*tensor.Tensor, error) {
	var ts []*tensor.Tensor
	rest := 0
	for i, t := range p.Tensors {
		v, _, err := d.tensor(t)
		if err != nil {
			return nil, fmt.Errorf("tensor %d: %w", i, err)
		}
		ts = append(ts, v)
		rest += proto.Size(t)
	}
	if rest == 0 {
		p.Tensors = nil
	}
	return ts, nil
}

// attrKind is the kind that the attribute states, or else the one of the value that is there: old writers leave the
// statement out.
func attrKind(p *onnxpb.AttributeProto) graph.AttrKind {
	if k := p.GetType(); k != onnxpb.AttributeProto_UNDEFINED {
		return graph.AttrKind(k)
	}
	switch {
	case p.F != nil:
		return graph.AttrFloat
	case p.I != nil:
		return graph.AttrInt
	case p.S != nil:
		return graph.AttrString
	case p.T != nil:
		return graph.AttrTensor
	case p.G != nil:
		return graph.AttrGraph
	case p.Floats != nil:
		return graph.AttrFloats
	case p.Ints != nil:
		return graph.AttrInts
	case p.Strings != nil:
		return graph.AttrStrings
	case p.Tensors != nil:
		return graph.AttrTensors
	case p.Graphs != nil:
		return graph.AttrGraphs
	}
	return graph.AttrUndefined
}

// marshal gives the same bytes for the same message each time.
func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// leftover serializes what nobody has read of a message; nil if nothing is left.
func leftover(m proto.Message) ([]byte, error) {
	b, err := marshal(m)
	if len(b) == 0 {
		return nil, err
	}
	return b, err
}
