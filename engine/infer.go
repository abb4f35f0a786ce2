package engine

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Inputs lists the inputs that a caller must give: those that are not initializers.
func Inputs(g *graph.Graph) []*graph.Value {
	var in []*graph.Value
	for _, v := range g.Inputs {
		if v.Const == nil {
			in = append(in, v)
		}
	}
	return in
}

// Infer binds the shapes of g to those of in, one type for each of Inputs(g). It gives the type of every value of the
// graph and, for those that follow from constants and shapes alone, the value. Floating point of any width reads as
// float, Float32 or Float64, constants included.
//
// The error names the first node that is invalid or, as *op.Unsupported, outside of what the engine runs.
func Infer(g *graph.Graph, in []tensor.Type, float tensor.DType) (_ map[*graph.Value]op.Arg, err error) {
	defer guard(&err)
	if err := checkNodes(g); err != nil {
		return nil, err
	}
	info := make(map[*graph.Value]op.Arg, len(g.Inits)+2*len(g.Nodes))
	if err := bindInputs(g, in, float, info); err != nil {
		return nil, err
	}
	for _, v := range g.Inits {
		c := v.Const
		if c.DType.IsFloat() {
			var err error
			if c, err = c.Float(float); err != nil {
				return nil, fmt.Errorf("initializer %q: %w", v.Name, err)
			}
		}
		info[v] = op.Arg{Type: c.Type(), Const: c}
	}
	budget := newFoldBudget()
	for _, n := range g.Nodes {
		if err := inferNode(g, n, float, info, budget); err != nil {
			return nil, err
		}
	}
	return info, nil
}

// bindInputs checks the caller's types against what the model declares and records them.
func bindInputs(g *graph.Graph, in []tensor.Type, float tensor.DType, info map[*graph.Value]op.Arg) error {
	want := Inputs(g)
	if len(in) != len(want) {
		return fmt.Errorf("the model takes %d inputs, %d given", len(want), len(in))
	}
	symbols := map[string]int{}
	for i, v := range want {
		t := in[i]
		if v.Opaque != nil {
			return fmt.Errorf("input %q is not a tensor", v.Name)
		}
		if !t.Bound() || t.Shape.Elems() < 0 {
			return fmt.Errorf("input %q: shape %v is not bound, or too large", v.Name, t)
		}
		if d := v.Type.DType; d != tensor.Undefined && d != t.DType && !(d.IsFloat() && t.DType.IsFloat()) {
			return fmt.Errorf("input %q is %v, the model takes %v", v.Name, t, v.Type)
		}
		if s := v.Type.Shape; s != nil {
			if len(s) != len(t.Shape) {
				return fmt.Errorf("input %q is %v, the model takes %v", v.Name, t, v.Type)
			}
			for a, d := range s {
				if d != tensor.Unknown && d != t.Shape[a] {
					return fmt.Errorf("input %q is %v, the model takes %v", v.Name, t, v.Type)
				}
				if d != tensor.Unknown || a >= len(v.Type.Symbols) || v.Type.Symbols[a] == "" {
					continue
				}
				name := v.Type.Symbols[a]
				if was, ok := symbols[name]; ok && was != t.Shape[a] {
					return fmt.Errorf("input %q: dimension %q is %d here and %d before", v.Name, name, t.Shape[a], was)
				}
				symbols[name] = t.Shape[a]
			}
		}
		if t.DType.IsFloat() {
			t.DType = float
		}
		info[v] = op.Arg{Type: tensor.Type{DType: t.DType, Shape: t.Shape.Clone()}}
	}
	return nil
}

// site gathers what is known of a node's inputs.
func site(g *graph.Graph, n *graph.Node, float tensor.DType, info map[*graph.Value]op.Arg) *op.Site {
	s := &op.Site{Node: n, Opset: opset(g, n), In: make([]op.Arg, len(n.Inputs)), Float: float}
	for i, v := range n.Inputs {
		if v != nil {
			s.In[i] = info[v]
		}
	}
	return s
}

// opset is the version of the operator set that the node's operator is from. Operators of our own passes need no
// import.
func opset(g *graph.Graph, n *graph.Node) int {
	if n.Domain == op.Private {
		return 1
	}
	return g.Opset(n.Domain)
}

func inferNode(g *graph.Graph, n *graph.Node, float tensor.DType, info map[*graph.Value]op.Arg, budget *foldBudget) error {
	def, err := op.Lookup(n, opset(g, n))
	if err != nil {
		return err
	}
	s := site(g, n, float, info)
	out, err := def.Infer(s)
	if err != nil {
		return fmt.Errorf("node %v: %w", n, err)
	}
	if len(n.Outputs) > len(out) {
		return fmt.Errorf("node %v has %d outputs, %s defines %d", n, len(n.Outputs), n.Op, len(out))
	}
	for i, t := range out {
		if t.Shape == nil { // Infer knows every rank: an absent shape is a scalar's
			t.Shape = tensor.Shape{}
			out[i] = t
		}
		if !t.Bound() || t.Shape.Elems() < 0 {
			return fmt.Errorf("node %v: output %d would be %v, which is too large", n, i, t)
		}
	}
	s.Out = out
	vals, err := fold(def, s, budget)
	if err != nil {
		return fmt.Errorf("node %v: computing it from constants: %w", n, err)
	}
	for i, v := range n.Outputs {
		if v == nil {
			continue
		}
		a := op.Arg{Type: out[i]}
		if vals != nil {
			a.Const = vals[i]
		}
		info[v] = a
	}
	return nil
}

// fold computes the outputs that are known at compile time; nil if they are not.
func fold(def op.Def, s *op.Site, budget *foldBudget) ([]*tensor.Tensor, error) {
	if def.Fold != nil {
		return def.Fold(s)
	}
	in := make([]*tensor.Tensor, len(s.In))
	for i, a := range s.In {
		if a.Given() && a.Const == nil {
			return nil, nil
		}
		in[i] = a.Const
	}
	if !budget.take(s) {
		return nil, nil
	}
	return op.Eval(s, in)
}
