package gorgonia

import (
	"context"
	"fmt"

	G "gorgonia.org/gorgonia"
	gt "gorgonia.org/tensor"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

// Model is a model lowered for one input type. One goroutine at a time may use it.
type Model struct {
	l       lowering
	input   *G.Node
	calls   []call
	outputs []*G.Node
	dt      tensor.DType
	run     *machine // the forward pass, made at the first Run
}

// machine is a compiled tape and where it leaves what was asked for.
type machine struct {
	vm   G.VM
	read []G.Value
}

// Compile encodes g, has onnx-go decode it, and lowers it for one input of the given type, in Float32 or Float64. The
// error names the first node that cannot be lowered. probes names the activations that Gradients will be asked for.
func Compile(g *graph.Graph, in []tensor.Type, float tensor.DType, probes ...string) (m *Model, err error) {
	defer guard("gorgonia", &err)
	var inputs []*graph.Value
	for _, v := range g.Inputs {
		if v.Const == nil {
			inputs = append(inputs, v)
		}
	}
	if len(inputs) != 1 || len(in) != 1 {
		return nil, fmt.Errorf("gorgonia: the model has %d inputs, one is lowered", len(inputs))
	}
	if !in[0].Bound() {
		return nil, fmt.Errorf("gorgonia: input type %v is not bound", in[0])
	}
	b, err := onnx.Encode(g)
	if err != nil {
		return nil, err
	}
	d, err := decode(b)
	if err != nil {
		return nil, err
	}
	m = &Model{calls: d.calls, dt: float, l: lowering{g: G.NewGraph(), dt: dtype(float), nodes: map[string]*G.Node{}, probes: map[string]*G.Node{}}}
	shape := in[0].Shape
	m.input = G.NewTensor(m.l.g, m.l.dt, len(shape), G.WithShape(shape...), G.WithName(inputs[0].Name))
	m.l.nodes[inputs[0].Name] = m.input
	for _, p := range probes {
		m.l.probes[p] = nil
	}
	for _, c := range d.calls {
		if err := m.l.apply(c); err != nil {
			return nil, fmt.Errorf("gorgonia: node %s (output %q): %w", c.op.Name, c.out[0].name, err)
		}
	}
	for _, o := range d.outputs {
		n := m.l.nodes[o.name]
		if n == nil {
			return nil, fmt.Errorf("gorgonia: output %q is not computed", o.name)
		}
		m.outputs = append(m.outputs, n)
	}
	return m, nil
}

func dtype(d tensor.DType) gt.Dtype {
	if d == tensor.Float64 {
		return gt.Float64
	}
	return gt.Float32
}

// Run computes the outputs, which are the caller's to keep. gorgonia cannot be stopped; ctx is looked at before.
func (m *Model) Run(ctx context.Context, in []*tensor.Tensor) (out []*tensor.Tensor, err error) {
	defer guard("gorgonia", &err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.run == nil {
		m.run = newMachine(m.l.g, m.outputs)
	}
	if err := m.forward(m.run, in); err != nil {
		return nil, err
	}
	return m.results(m.run)
}

// Gradients runs the model and gives the gradient of Σ seed·output at the probes, by reverse accumulation in gorgonia.
// seed has the shape of the first output. It can be asked once of a Model: gorgonia's graph holds the derivative from
// then on.
func (m *Model) Gradients(ctx context.Context, in []*tensor.Tensor, seed *tensor.Tensor) (grads map[string]*tensor.Tensor, err error) {
	defer guard("gorgonia", &err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, ok := seed.Float64s()
	if !ok {
		return nil, fmt.Errorf("gorgonia: seed is %v", seed.DType)
	}
	weighted, err := G.HadamardProd(m.outputs[0], m.l.param("seed", w, seed.Shape...))
	if err != nil {
		return nil, err
	}
	loss, err := G.Sum(weighted)
	if err != nil {
		return nil, err
	}
	var names []string
	var at G.Nodes
	for name, n := range m.l.probes {
		if n == nil {
			return nil, fmt.Errorf("gorgonia: %q is not an activation", name)
		}
		names, at = append(names, name), append(at, n)
	}
	g, err := G.Grad(loss, at...)
	if err != nil {
		return nil, fmt.Errorf("gorgonia: differentiate: %w", err)
	}
	mach := newMachine(m.l.g, g)
	if err := m.forward(mach, in); err != nil {
		return nil, err
	}
	ts, err := m.results(mach)
	if err != nil {
		return nil, err
	}
	grads = make(map[string]*tensor.Tensor, len(names))
	for i, n := range names {
		grads[n] = ts[i]
	}
	return grads, nil
}

// newMachine compiles the graph and reads the nodes where they are computed: a node's own Value may be overwritten by
// what follows it.
func newMachine(g *G.ExprGraph, nodes []*G.Node) *machine {
	mach := &machine{read: make([]G.Value, len(nodes))}
	for i, n := range nodes {
		G.Read(n, &mach.read[i])
	}
	mach.vm = G.NewTapeMachine(g)
	return mach
}

func (m *Model) forward(mach *machine, in []*tensor.Tensor) error {
	if len(in) != 1 {
		return fmt.Errorf("gorgonia: the model takes 1 input, %d given", len(in))
	}
	x, ok := in[0].Float64s()
	if !ok || !m.input.Shape().Eq(gt.Shape(in[0].Shape)) {
		return fmt.Errorf("gorgonia: input is %v, lowered for %v", in[0].Type(), m.input.Shape())
	}
	if err := G.Let(m.input, dense(m.l.dt, x, in[0].Shape...)); err != nil {
		return fmt.Errorf("gorgonia: input: %w", err)
	}
	defer mach.vm.Reset()
	if err := mach.vm.RunAll(); err != nil {
		return fmt.Errorf("gorgonia: run: %w", err)
	}
	return nil
}

// results copies what the machine read.
func (m *Model) results(mach *machine) ([]*tensor.Tensor, error) {
	out := make([]*tensor.Tensor, len(mach.read))
	for i, v := range mach.read {
		t := tensor.New(m.dt, v.Shape()...)
		switch d := v.Data().(type) {
		case []float32:
			copy(tensor.Of[float32](t), d)
		case []float64:
			copy(tensor.Of[float64](t), d)
		default:
			return nil, fmt.Errorf("gorgonia: result is %T", v.Data())
		}
		out[i] = t
	}
	return out, nil
}
