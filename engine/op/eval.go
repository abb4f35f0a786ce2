package op

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// evalPool runs single nodes on the caller's core alone.
var evalPool = kernel.NewPool(1)

// Eval runs one node once: for constants, for conformance, for tests. Infer need not have been called. in are the
// inputs, nil where omitted, floating point as s.Float.
func Eval(s *Site, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	def, err := Lookup(s.Node, s.Opset)
	if err != nil {
		return nil, err
	}
	if s.Out, err = def.Infer(s); err != nil {
		return nil, err
	}
	out := make([]*tensor.Tensor, len(s.Node.Outputs))
	for i, v := range s.Node.Outputs {
		if v == nil {
			continue
		}
		if i >= len(s.Out) {
			return nil, fmt.Errorf("output %d of %v is not defined", i, s.Node)
		}
		t := s.Out[i]
		if n := t.Shape.Elems(); t.Shape == nil || n < 0 || n > maxElems {
			return nil, s.tooLarge("output %d would be %v, more than %d elements", i, t, maxElems)
		}
		out[i] = tensor.New(t.DType, t.Shape...)
	}
	if s.Empty() {
		return out, nil
	}
	k, err := def.New(s)
	if err != nil {
		return nil, err
	}
	env := &Env{Pool: evalPool}
	if sc, ok := k.(Scratcher); ok {
		env.Scratch = tensor.Bytes(sc.Scratch(1))
	}
	return out, k.Bind(env, out, in)()
}

// Apply is Eval for inputs of any element type: a site where all of them are constant, float16, bfloat16 and float64
// converted to float, is made on the way.
func Apply(n *graph.Node, opset int, float tensor.DType, in ...*tensor.Tensor) ([]*tensor.Tensor, error) {
	in, err := Floats(float, in)
	if err != nil {
		return nil, err
	}
	s := &Site{Node: n, Opset: opset, In: make([]Arg, len(in)), Float: float}
	for i, t := range in {
		if t != nil {
			s.In[i] = Arg{Type: t.Type(), Const: t}
		}
	}
	return Eval(s, in)
}

// Floats gives in with every floating-point tensor as float, Float32 or Float64, as a Site has them. It does not change
// in; nil tensors stay.
func Floats(float tensor.DType, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	out := make([]*tensor.Tensor, len(in))
	for i, t := range in {
		if t != nil && t.DType.IsFloat() {
			var err error
			if t, err = t.Float(float); err != nil {
				return nil, fmt.Errorf("input %d: %w", i, err)
			}
		}
		out[i] = t
	}
	return out, nil
}
