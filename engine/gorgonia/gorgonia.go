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

// Model is a model lowered for the types of its inputs. One goroutine at a time may use it.
type Model struct {
	l       *lowering
	inputs  []*G.Node
	outputs []value
	dt      tensor.DType
	run     *machine // the forward pass, made at the first Run
}

// machine is a compiled tape and where it leaves what was asked for.
type machine struct {
	vm   G.VM
	read []G.Value
}

// Compile encodes g, has onnx-go decode it, and lowers it for inputs of the given types, in Float32 or Float64. The
// error names the first node that cannot be lowered. probes names the activations that Gradients will be asked for.
func Compile(g *graph.Graph, in []tensor.Type, float tensor.DType, probes ...string) (m *Model, err error) {
	defer guard("gorgonia", &err)
	var inputs []*graph.Value
	for _, v := range g.Inputs {
		if v.Const == nil {
			inputs = append(inputs, v)
		}
	}
	if len(in) != len(inputs) {
		return nil, fmt.Errorf("gorgonia: the model takes %d inputs, %d types given", len(inputs), len(in))
	}
	h, err := plain(g)
	if err != nil {
		return nil, err
	}
	b, err := onnx.Encode(h)
	if err != nil {
		return nil, err
	}
	d, err := decode(b)
	if err != nil {
		return nil, err
	}
	m = &Model{dt: float, l: &lowering{
		g: G.NewGraph(), dt: dtype(float), opset: g.Opset(""), values: map[string]value{}, probes: map[string]*G.Node{},
	}}
	for i, v := range inputs {
		if !in[i].Bound() || !in[i].DType.IsFloat() || in[i].Shape.Elems() < 1 {
			return nil, fmt.Errorf("gorgonia: input %q of type %v: want numbers in floating point", v.Name, in[i])
		}
		x := value{shape: in[i].Shape}
		x.node = G.NewTensor(m.l.g, m.l.dt, max(1, len(x.shape)), G.WithShape(atLeast1(x.shape)...), G.WithName(v.Name))
		m.inputs, m.l.values[v.Name] = append(m.inputs, x.node), x
	}
	for _, p := range probes {
		m.l.probes[p] = nil
	}
	named := map[string]*graph.Node{}
	for _, n := range g.Nodes {
		for _, v := range n.Outputs {
			if v != nil {
				named[v.Name] = n
			}
		}
	}
	for _, c := range d.calls {
		if err := m.l.apply(c); err != nil {
			return nil, fmt.Errorf("gorgonia: node %v: %w", named[c.out[0].name], err)
		}
	}
	for _, o := range d.outputs {
		v, err := m.l.input(o)
		if err != nil || !v.given() {
			return nil, fmt.Errorf("gorgonia: output %q is not computed", o.name)
		}
		if elements(v.shape) == 0 {
			return nil, fmt.Errorf("gorgonia: output %q has no elements", o.name)
		}
		m.outputs = append(m.outputs, value{shape: v.shape, node: m.l.node(v)})
	}
	return m, nil
}

// plain is g as onnx-go can read it: half weights in float32, and no types declared, for which it would ask for memory.
func plain(g *graph.Graph) (*graph.Graph, error) {
	g = g.Clone()
	for v := range g.Values() {
		v.Type = tensor.Type{}
		if v.Const == nil || !v.Const.DType.IsFloat() || v.Const.DType.Bits() >= 32 {
			continue
		}
		c, err := v.Const.Float(tensor.Float32)
		if err != nil {
			return nil, fmt.Errorf("gorgonia: initializer %q: %w", v.Name, err)
		}
		v.Const, v.Sparse, v.External = c, nil, nil
	}
	return g, nil
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
	return m.results(m.run, m.outputs)
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
	weighted, err := G.HadamardProd(m.outputs[0].node, m.l.param("seed", w, atLeast1(seed.Shape)...))
	if err != nil {
		return nil, err
	}
	loss, err := G.Sum(weighted)
	if err != nil {
		return nil, err
	}
	var names []string
	var at G.Nodes
	var wanted []value
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
	for i, n := range g {
		wanted = append(wanted, value{shape: m.l.values[names[i]].shape, node: n})
	}
	mach := newMachine(m.l.g, wanted)
	if err := m.forward(mach, in); err != nil {
		return nil, err
	}
	ts, err := m.results(mach, wanted)
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
func newMachine(g *G.ExprGraph, vs []value) *machine {
	mach := &machine{read: make([]G.Value, len(vs))}
	for i, v := range vs {
		G.Read(v.node, &mach.read[i])
	}
	mach.vm = G.NewTapeMachine(g)
	return mach
}

func (m *Model) forward(mach *machine, in []*tensor.Tensor) error {
	if len(in) != len(m.inputs) {
		return fmt.Errorf("gorgonia: the model takes %d inputs, %d given", len(m.inputs), len(in))
	}
	for i, n := range m.inputs {
		x, ok := in[i].Float64s()
		if !ok || !n.Shape().Eq(atLeast1(in[i].Shape)) {
			return fmt.Errorf("gorgonia: input %d is %v, lowered for %v", i, in[i].Type(), n.Shape())
		}
		if err := G.Let(n, dense(m.l.dt, x, atLeast1(in[i].Shape)...)); err != nil {
			return fmt.Errorf("gorgonia: input %d: %w", i, err)
		}
	}
	defer mach.vm.Reset()
	if err := mach.vm.RunAll(); err != nil {
		return fmt.Errorf("gorgonia: run: %w", err)
	}
	return nil
}

// results copies what the machine read, in the shapes of vs.
func (m *Model) results(mach *machine, vs []value) ([]*tensor.Tensor, error) {
	out := make([]*tensor.Tensor, len(vs))
	for i, v := range mach.read {
		x, err := read(v)
		if err != nil {
			return nil, fmt.Errorf("gorgonia: output %d: %w", i, err)
		}
		if len(x) != elements(vs[i].shape) {
			return nil, fmt.Errorf("gorgonia: output %d has %d elements, not %v", i, len(x), vs[i].shape)
		}
		if out[i], err = tensor.From(x, vs[i].shape...).Float(m.dt); err != nil {
			return nil, err
		}
	}
	return out, nil
}
