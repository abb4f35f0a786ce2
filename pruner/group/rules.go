package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

// rules is what each operator does to channels. An operator that is not here pins what it reads.
var rules = map[string]func(*analyzer, *graph.Node){
	"Constant": (*analyzer).constantNode,

	"Conv": (*analyzer).conv, "ConvTranspose": (*analyzer).conv,
	"Gemm": (*analyzer).gemm, "MatMul": (*analyzer).matmul,

	"BatchNormalization": perChannel(1, 2, 3, 4), "InstanceNormalization": perChannel(1, 2),
	"GroupNormalization": (*analyzer).groupNorm, "LayerNormalization": (*analyzer).layerNorm,
	"QuantizeLinear": (*analyzer).quantize, "DequantizeLinear": (*analyzer).quantize,

	"Relu": pass, "LeakyRelu": pass, "Elu": pass, "Selu": pass, "Celu": pass, "ThresholdedRelu": pass, "Sigmoid": pass,
	"HardSigmoid": pass, "HardSwish": pass, "Tanh": pass, "Softplus": pass, "Softsign": pass, "Gelu": pass, "Mish": pass,
	"Swish": pass, "Clip": pass, "Neg": pass, "Abs": pass, "Exp": pass, "Log": pass, "Sqrt": pass, "Reciprocal": pass, "Erf": pass,
	"Sin": pass, "Cos": pass, "Sign": pass, "Floor": pass, "Ceil": pass, "Round": pass, "Not": pass,
	"Cast": pass, "Identity": pass, "Dropout": (*analyzer).dropout,

	"MaxPool": pass, "AveragePool": pass, "LpPool": pass, "GlobalAveragePool": pass, "GlobalMaxPool": pass,

	"Add": elementwise, "Sub": elementwise, "Mul": elementwise, "Div": elementwise, "Pow": elementwise, "Min": elementwise,
	"Max": elementwise, "Sum": elementwise, "Mean": elementwise, "Where": elementwise, "PRelu": elementwise,
	"Greater": elementwise, "Less": elementwise, "GreaterOrEqual": elementwise, "LessOrEqual": elementwise, "Equal": elementwise,
	"And": elementwise, "Or": elementwise, "Xor": elementwise, "Mod": elementwise,

	"Concat": (*analyzer).concat, "Split": (*analyzer).split, "Slice": (*analyzer).sliceNode, "Gather": (*analyzer).gather,
	"Pad": (*analyzer).pad, "Resize": (*analyzer).resize, "Upsample": (*analyzer).resize,
	"Flatten": (*analyzer).flatten, "Reshape": (*analyzer).reshape, "Transpose": (*analyzer).transpose,
	"Squeeze": (*analyzer).squeeze, "Unsqueeze": (*analyzer).unsqueeze, "Shape": (*analyzer).shapeNode,
	"DepthToSpace": (*analyzer).depthToSpace, "SpaceToDepth": (*analyzer).spaceToDepth,
	"Expand": (*analyzer).expand, "Tile": (*analyzer).tile,

	"Softmax": (*analyzer).softmax, "LogSoftmax": (*analyzer).softmax, "Hardmax": (*analyzer).softmax,
	"ReduceMean": (*analyzer).reduce, "ReduceMax": (*analyzer).reduce, "ReduceMin": (*analyzer).reduce, "ReduceSum": (*analyzer).reduce,
	"ReduceL2": (*analyzer).reduce, "ReduceL1": (*analyzer).reduce, "ReduceProd": (*analyzer).reduce,
	"ReduceLogSum": (*analyzer).reduce, "ReduceLogSumExp": (*analyzer).reduce, "ReduceSumSquare": (*analyzer).reduce,
	"ArgMax": (*analyzer).reduce, "ArgMin": (*analyzer).reduce,
}

// pass carries the first input's channels to the first output: each channel is computed from itself alone.
func pass(a *analyzer, n *graph.Node) {
	x := n.Input(0)
	if (n.Op == "Cast" || n.Op == "Identity") && a.sameDims(n) || a.computeDims(n) {
		return
	}
	a.pinCounted(n)
	for i, v := range n.Inputs[1:] { // parameters such as Clip's bounds are scalars; what is computed is none of ours
		a.pin(v, fmt.Sprintf("input %d of %v reads it", i+1, n))
	}
	c, ok := a.at[x]
	if !ok {
		return
	}
	if len(n.Outputs) > 1 && n.Outputs[1] != nil && len(a.uses(n.Outputs[1])) > 0 {
		a.pin(x, fmt.Sprintf("the second output of %v is used", n))
	}
	if c.axis != 1 && (len(a.shape(n.Outputs[0])) > c.axis && a.shape(n.Outputs[0])[c.axis] != len(c.ids) || spatial[n.Op]) {
		a.pin(x, fmt.Sprintf("%v works along the channels", n))
		return
	}
	a.set(n.Outputs[0], c.axis, c.ids)
}

// spatial lists operators of pass that treat axes from 2 on as space, so channels must lie on axis 1.
var spatial = map[string]bool{"MaxPool": true, "AveragePool": true, "LpPool": true, "GlobalAveragePool": true, "GlobalMaxPool": true}

func (a *analyzer) uses(v *graph.Value) []*graph.Node {
	var ns []*graph.Node
	for _, n := range a.g.Nodes {
		if slices.Contains(n.Inputs, v) {
			ns = append(ns, n)
		}
	}
	if slices.Contains(a.g.Outputs, v) {
		ns = append(ns, nil)
	}
	return ns
}

func (a *analyzer) dropout(n *graph.Node) {
	// At inference Dropout is the identity; ratio and training_mode are scalars.
	a.pinCounted(n)
	if c, ok := a.at[n.Input(0)]; ok {
		a.set(n.Outputs[0], c.axis, c.ids)
		if len(n.Outputs) > 1 {
			a.set(n.Outputs[1], c.axis, c.ids)
		}
	}
}

// perChannel is pass for operators with a vector of per-channel constants at each of the inputs named.
func perChannel(params ...int) func(*analyzer, *graph.Node) {
	return func(a *analyzer, n *graph.Node) {
		a.pinCounted(n)
		x := n.Input(0)
		for _, p := range params {
			a.pin(n.Input(p), fmt.Sprintf("it is a parameter of %v", n))
		}
		c, ok := a.at[x]
		if !ok {
			return
		}
		if c.axis != 1 {
			a.pin(x, fmt.Sprintf("%v reads channels along axis 1, they lie along axis %d", n, c.axis))
			return
		}
		for _, p := range params {
			if Weights(n.Input(p)) == nil {
				a.pin(x, fmt.Sprintf("the parameters of %v are computed", n))
			}
		}
		for _, o := range n.Outputs[1:] {
			if o != nil && len(a.uses(o)) > 0 {
				a.pin(x, fmt.Sprintf("%v yields training statistics that are used", n))
			}
		}
		for _, p := range params {
			a.slice(n, p, 0, c.ids)
		}
		a.set(n.Outputs[0], 1, c.ids)
	}
}

// elementwise aligns shapes on the right, as ONNX broadcasts, and ties what meets.
func elementwise(a *analyzer, n *graph.Node) {
	if a.computeDims(n) {
		return
	}
	a.pinCounted(n)
	y := n.Outputs[0]
	out := a.shape(y)
	axis, clash := -1, false
	for _, v := range n.Inputs {
		if c, ok := a.at[v]; ok {
			at := c.axis + len(out) - len(a.shape(v))
			clash = clash || axis >= 0 && at != axis
			axis = at
		}
	}
	if axis < 0 {
		return
	}
	if clash {
		a.pinAll(n, fmt.Sprintf("%v combines channels along different axes", n))
		return
	}
	var ids []int
	why := fmt.Sprintf("%v combines it with channels that cannot shrink", n)
	for i, v := range n.Inputs {
		if v == nil {
			continue
		}
		at := axis - (len(out) - len(a.shape(v)))
		c, tracked := a.at[v]
		switch {
		case tracked && len(c.ids) != out[axis]:
			a.pin(v, fmt.Sprintf("%v broadcasts this one channel over %d", n, out[axis]))
		case tracked && ids == nil:
			ids = c.ids
		case tracked:
			a.tie(ids, c.ids, why)
			if slices.Contains(ids, fixed) {
				ids = c.ids
			}
		case at < 0 || a.shape(v)[at] == 1 && out[axis] != 1:
			// Broadcasts over the channels, and goes on doing so.
		case out[axis] == 1:
			// A single channel: removing it would leave the layer empty, which Cut refuses.
		case Weights(v) == nil:
			a.pinAll(n, fmt.Sprintf("%v combines it with input %d, %q, which cannot shrink", n, i, v.Name))
		}
	}
	if ids == nil { // one channel broadcast over more, which are nobody's
		return
	}
	for i, v := range n.Inputs {
		if v == nil || a.constant(v) == nil {
			continue
		}
		if at := axis - (len(out) - len(a.shape(v))); at >= 0 && a.shape(v)[at] == out[axis] && out[axis] > 1 {
			a.slice(n, i, at, ids)
		}
	}
	a.set(y, axis, ids)
}

// axisOf resolves a negative axis.
func axisOf(axis, rank int) int {
	if axis < 0 {
		axis += rank
	}
	return axis
}
