package op

import (
	"fmt"

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
	k, err := def.New(s)
	if err != nil {
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
		out[i] = tensor.New(s.Out[i].DType, s.Out[i].Shape...)
	}
	env := &Env{Pool: evalPool}
	if sc, ok := k.(Scratcher); ok {
		env.Scratch = tensor.Bytes(sc.Scratch(1))
	}
	return out, k.Bind(env, out, in)()
}
