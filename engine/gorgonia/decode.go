package gorgonia

import (
	"fmt"

	"github.com/owulveryck/onnx-go"
	"gonum.org/v1/gonum/graph"
	"gonum.org/v1/gonum/graph/simple"
	"gorgonia.org/tensor"
)

// carrier is a node of onnx-go's graph: a value, with its tensor if it is an initializer.
type carrier struct {
	id     int64
	name   string
	tensor tensor.Tensor
}

func (c *carrier) ID() int64                       { return c.id }
func (c *carrier) SetName(s string)                { c.name = s }
func (c *carrier) GetName() string                 { return c.name }
func (c *carrier) SetTensor(t tensor.Tensor) error { c.tensor = t; return nil }
func (c *carrier) GetTensor() tensor.Tensor        { return c.tensor }

// call is one operator as onnx-go hands it over.
type call struct {
	op      onnx.Operation
	in, out []*carrier
}

// recorder is an onnx-go backend that writes down what it is told. Edges are recorded rather than stored in the graph,
// which keeps one edge for a pair of nodes and so loses the second input of Mul(x, x).
type recorder struct {
	*simple.WeightedDirectedGraph
	edges []graph.WeightedEdge // since the last operation
	calls []call
}

// NewNode implements onnx.Backend.
func (r *recorder) NewNode() graph.Node { return &carrier{id: r.WeightedDirectedGraph.NewNode().ID()} }

// SetWeightedEdge implements onnx.Backend: From reads To, as its input number Weight.
func (r *recorder) SetWeightedEdge(e graph.WeightedEdge) { r.edges = append(r.edges, e) }

// ApplyOperation implements onnx.OperationCarrier.
func (r *recorder) ApplyOperation(op onnx.Operation, outs ...graph.Node) error {
	c := call{op: op}
	for _, n := range outs {
		c.out = append(c.out, n.(*carrier))
	}
	for _, e := range r.edges {
		if e.From() != outs[0] {
			continue
		}
		for len(c.in) <= int(e.Weight()) {
			c.in = append(c.in, nil)
		}
		c.in[int(e.Weight())] = e.To().(*carrier)
	}
	r.edges = r.edges[:0]
	r.calls = append(r.calls, c)
	return nil
}

// decoded is a model as onnx-go read it.
type decoded struct {
	calls   []call
	outputs []*carrier
}

func decode(b []byte) (d decoded, err error) {
	defer guard("onnx-go", &err)
	r := &recorder{WeightedDirectedGraph: simple.NewWeightedDirectedGraph(0, -1)}
	m := onnx.NewModel(r)
	if err := m.UnmarshalBinary(b); err != nil {
		return d, fmt.Errorf("onnx-go: %w", err)
	}
	d.calls = r.calls
	for _, id := range m.Output {
		c, ok := r.Node(id).(*carrier)
		if !ok {
			return d, fmt.Errorf("onnx-go: output %d is not a value", id)
		}
		d.outputs = append(d.outputs, c)
	}
	return d, nil
}

// guard turns a panic of a library into an error.
func guard(who string, err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%s: panic: %v", who, v)
	}
}
