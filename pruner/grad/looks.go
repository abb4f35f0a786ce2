package grad

import (
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// look is which of a node's values its reverse reads, beside gradients.
type look int

const (
	everything look = iota // of operators that the table does not list
	nothing
	inputs
	outputs // and inputs past the first, which are parameters
	factors // each input for the gradients of the others
	clamps  // factors, and outputs, which say where bounds hold
)

// looks has the operators whose reverse does not read everything. What nobody reads, nobody has to keep.
var looks = map[string]look{
	"Conv": factors, "ConvTranspose": factors, "BatchNormalization": factors, "Gemm": factors, "MatMul": factors,
	op.Private + ".Conv": clamps, op.Private + ".ConvTranspose": clamps,
	"Relu": outputs, "Clip": outputs, "Sigmoid": outputs, "Tanh": outputs, "Softmax": outputs, "LogSoftmax": outputs,
	"LeakyRelu": inputs, "PRelu": inputs, "HardSigmoid": inputs, "HardSwish": inputs, "ThresholdedRelu": inputs,
	"InstanceNormalization": inputs, "MaxPool": inputs, "Sub": inputs, "Mul": inputs, "Div": inputs,
	"Concat": nothing, "Split": nothing, "Slice": nothing, "Pad": nothing, "Transpose": nothing, "Gather": nothing,
	"GatherElements": nothing, "GatherND": nothing, "ScatterND": nothing, "Expand": nothing, "Tile": nothing,
	"DepthToSpace": nothing, "SpaceToDepth": nothing, "Reshape": nothing, "Flatten": nothing, "Squeeze": nothing,
	"Unsqueeze": nothing, "Identity": nothing, "Dropout": nothing, "CastLike": nothing, "Cast": nothing,
	"AveragePool": nothing, "Resize": nothing, "Upsample": nothing,
}

// readsIn reports whether the reverse of n reads input i, for the gradients that are needed.
func (s *Sweep) readsIn(n *graph.Node, i int, need []bool) bool {
	switch s.look(n) {
	case nothing:
		return false
	case outputs:
		return i > 0
	case factors, clamps:
		return slices.Contains(need[:i], true) || slices.Contains(need[i+1:], true)
	}
	return true
}

// readsOut is readsIn for outputs.
func (s *Sweep) readsOut(n *graph.Node) bool {
	l := s.look(n)
	return l == everything || l == outputs || l == clamps
}

func (s *Sweep) look(n *graph.Node) look {
	if n.Op == "Add" { // without broadcasting, the gradient goes on as it is
		if out := s.info[n.Outputs[0]].Type.Shape; slices.Equal(s.info[n.Input(0)].Type.Shape, out) && slices.Equal(s.info[n.Input(1)].Type.Shape, out) {
			return nothing
		}
		return inputs
	}
	return looks[rowOf(n)]
}

// shapeOf stands in for a value that a rule does not read: its type, and no elements.
func shapeOf(a op.Arg) *tensor.Tensor {
	return &tensor.Tensor{DType: a.Type.DType, Shape: a.Type.Shape}
}
