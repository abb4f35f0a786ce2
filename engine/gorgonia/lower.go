package gorgonia

import (
	"fmt"
	"math"

	"github.com/owulveryck/onnx-go"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// lowering turns calls into gorgonia nodes.
type lowering struct {
	g     *G.ExprGraph
	dt    tensor.Dtype
	nodes map[string]*G.Node // activations by value name
	// probes gives, by value name, an input of zeros that is added to an activation: gorgonia differentiates by inputs
	// alone, and the derivative by what is added is the derivative by the activation.
	probes map[string]*G.Node
}

// rules lists the operators that are lowered. A rule makes the node for the first output.
var rules = map[string]func(l *lowering, c call) (*G.Node, error){
	"Conv":               (*lowering).conv,
	"ConvTranspose":      (*lowering).convTranspose,
	"BatchNormalization": (*lowering).batchNorm,
	"MaxPool":            (*lowering).maxPool,
	"Concat":             (*lowering).concat,
	"Relu":               unary(G.Rectify),
	"Sigmoid":            unary(G.Sigmoid),
	"Tanh":               unary(G.Tanh),
	"Identity":           unary(func(x *G.Node) (*G.Node, error) { return x, nil }),
	"Dropout":            unary(func(x *G.Node) (*G.Node, error) { return x, nil }),
	"LeakyRelu": func(l *lowering, c call) (*G.Node, error) {
		return onFirst(l, c, func(x *G.Node) (*G.Node, error) { return G.LeakyRelu(x, attr(c.op, "alpha", 0.01)) })
	},
	"Add": binary(G.Add),
	"Mul": binary(G.HadamardProd),
}

func unary(f func(*G.Node) (*G.Node, error)) func(*lowering, call) (*G.Node, error) {
	return func(l *lowering, c call) (*G.Node, error) { return onFirst(l, c, f) }
}

func onFirst(l *lowering, c call, f func(*G.Node) (*G.Node, error)) (*G.Node, error) {
	x, err := l.activation(c, 0)
	if err != nil {
		return nil, err
	}
	return f(x)
}

func binary(f func(a, b *G.Node) (*G.Node, error)) func(*lowering, call) (*G.Node, error) {
	return func(l *lowering, c call) (*G.Node, error) {
		a, err := l.activation(c, 0)
		if err != nil {
			return nil, err
		}
		b, err := l.activation(c, 1)
		if err != nil {
			return nil, err
		}
		if !a.Shape().Eq(b.Shape()) {
			return nil, fmt.Errorf("shapes %v and %v would have to be broadcast", a.Shape(), b.Shape())
		}
		return f(a, b)
	}
}

// apply lowers one call.
func (l *lowering) apply(c call) error {
	rule, ok := rules[c.op.Name]
	if !ok {
		return fmt.Errorf("operator %s is not lowered to gorgonia", c.op.Name)
	}
	n, err := rule(l, c)
	if err != nil {
		return err
	}
	name := c.out[0].name
	if _, ok := l.probes[name]; ok {
		zero := l.param(name+".probe", make([]float64, n.Shape().TotalSize()), n.Shape()...)
		l.probes[name] = zero
		if n, err = G.Add(n, zero); err != nil {
			return err
		}
	}
	l.nodes[name] = n
	return nil
}

// activation is an input that is computed or given.
func (l *lowering) activation(c call, i int) (*G.Node, error) {
	if i >= len(c.in) || c.in[i] == nil {
		return nil, fmt.Errorf("input %d is missing", i)
	}
	n := l.nodes[c.in[i].name]
	if n == nil {
		return nil, fmt.Errorf("input %d, %q, is not an activation", i, c.in[i].name)
	}
	return n, nil
}

// constant is an input that must be an initializer, in float64.
func (l *lowering) constant(c call, i int) (shape []int, v []float64, err error) {
	if i >= len(c.in) || c.in[i] == nil || c.in[i].tensor == nil {
		return nil, nil, fmt.Errorf("input %d must be an initializer", i)
	}
	t := c.in[i].tensor
	switch d := t.Data().(type) {
	case []float32:
		v = make([]float64, len(d))
		for k, x := range d {
			v[k] = float64(x)
		}
	case []float64:
		v = d
	default:
		return nil, nil, fmt.Errorf("input %d is %T", i, t.Data())
	}
	return t.Shape(), v, nil
}

// param makes a constant node.
func (l *lowering) param(name string, v []float64, shape ...int) *G.Node {
	return G.NewTensor(l.g, l.dt, len(shape), G.WithShape(shape...), G.WithName(name), G.WithValue(dense(l.dt, v, shape...)))
}

// perChannel makes a constant of shape [1,C,1,1].
func (l *lowering) perChannel(name string, v []float64) *G.Node {
	return l.param(name, v, 1, len(v), 1, 1)
}

// spread is how gorgonia is told that a [1,C,1,1] operand repeats over batch, height and width.
var spread = []byte{0, 2, 3}

func (l *lowering) conv(c call) (*G.Node, error) {
	x, err := l.activation(c, 0)
	if err != nil {
		return nil, err
	}
	ws, w, err := l.constant(c, 1)
	if err != nil {
		return nil, err
	}
	if len(ws) != 4 || attr(c.op, "group", int64(1)) != 1 || attr(c.op, "auto_pad", "NOTSET") != "NOTSET" {
		return nil, fmt.Errorf("only 2-D Conv of one group with explicit padding is lowered")
	}
	pads := ints(c.op, "pads", 0, 0, 0, 0)
	if pads[0] != pads[2] || pads[1] != pads[3] {
		return nil, fmt.Errorf("asymmetric padding %v is not lowered", pads)
	}
	name := c.out[0].name
	y, err := G.Conv2d(x, l.param(name+".W", w, ws...), tensor.Shape{ws[2], ws[3]}, pads[:2], ints(c.op, "strides", 1, 1), ints(c.op, "dilations", 1, 1))
	if err != nil {
		return nil, err
	}
	return l.addBias(c, y)
}

// addBias adds input 2, one number for each channel, if the convolution c has it.
func (l *lowering) addBias(c call, y *G.Node) (*G.Node, error) {
	if len(c.in) < 3 || c.in[2] == nil {
		return y, nil
	}
	_, b, err := l.constant(c, 2)
	if err != nil {
		return nil, err
	}
	return G.BroadcastAdd(y, l.perChannel(c.out[0].name+".B", b), nil, spread)
}

func (l *lowering) convTranspose(c call) (*G.Node, error) {
	x, err := l.activation(c, 0)
	if err != nil {
		return nil, err
	}
	ws, w, err := l.constant(c, 1)
	if err != nil {
		return nil, err
	}
	one := ints(c.op, "dilations", 1, 1)
	if len(ws) != 4 || x.Shape()[0] != 1 || attr(c.op, "group", int64(1)) != 1 || one[0] != 1 || one[1] != 1 ||
		attr(c.op, "auto_pad", "NOTSET") != "NOTSET" || c.op.Attributes["output_shape"] != nil {
		return nil, fmt.Errorf("only 2-D ConvTranspose of one image and one group, without dilation, with explicit padding is lowered")
	}
	s, p, extra := ints(c.op, "strides", 1, 1), ints(c.op, "pads", 0, 0, 0, 0), ints(c.op, "output_padding", 0, 0)
	win := window{C: ws[0], M: ws[1], KH: ws[2], KW: ws[3], SH: s[0], SW: s[1], PH: p[0], PW: p[1], H: x.Shape()[2], W: x.Shape()[3]}
	win.OH = (win.H-1)*s[0] + ws[2] - p[0] - p[2] + extra[0]
	win.OW = (win.W-1)*s[1] + ws[3] - p[1] - p[3] + extra[1]
	name := c.out[0].name
	y, err := G.ApplyOp(convTranspose{window: win, weights: w, name: name}, x)
	if err != nil {
		return nil, err
	}
	return l.addBias(c, y)
}

// batchNorm lowers to scale and shift: gorgonia's own BatchNorm differentiates as if it were training.
func (l *lowering) batchNorm(c call) (*G.Node, error) {
	x, err := l.activation(c, 0)
	if err != nil {
		return nil, err
	}
	var p [5][]float64
	for i := 1; i < 5; i++ {
		if _, p[i], err = l.constant(c, i); err != nil {
			return nil, err
		}
	}
	eps := float64(attr(c.op, "epsilon", float32(1e-5)))
	scale, shift := make([]float64, len(p[1])), make([]float64, len(p[1]))
	for i := range scale {
		scale[i] = p[1][i] / math.Sqrt(p[4][i]+eps)
		shift[i] = p[2][i] - p[3][i]*scale[i]
	}
	name := c.out[0].name
	y, err := G.BroadcastHadamardProd(x, l.perChannel(name+".scale", scale), nil, spread)
	if err != nil {
		return nil, err
	}
	return G.BroadcastAdd(y, l.perChannel(name+".shift", shift), nil, spread)
}

func (l *lowering) maxPool(c call) (*G.Node, error) {
	x, err := l.activation(c, 0)
	if err != nil {
		return nil, err
	}
	k, pads, d := ints(c.op, "kernel_shape", 1, 1), ints(c.op, "pads", 0, 0, 0, 0), ints(c.op, "dilations", 1, 1)
	if pads[0] != pads[2] || pads[1] != pads[3] || d[0] != 1 || d[1] != 1 || attr(c.op, "ceil_mode", int64(0)) != 0 ||
		attr(c.op, "auto_pad", "NOTSET") != "NOTSET" {
		return nil, fmt.Errorf("only MaxPool with symmetric explicit padding, without dilation or ceil_mode is lowered")
	}
	return G.MaxPool2D(x, tensor.Shape{k[0], k[1]}, pads[:2], ints(c.op, "strides", 1, 1))
}

func (l *lowering) concat(c call) (*G.Node, error) {
	axis := int(attr(c.op, "axis", int64(1)))
	xs := make(G.Nodes, len(c.in))
	for i := range xs {
		var err error
		if xs[i], err = l.activation(c, i); err != nil {
			return nil, err
		}
	}
	if axis < 0 {
		axis += xs[0].Dims()
	}
	return G.Concat(axis, xs...)
}

// attr reads an attribute as onnx-go gives it.
func attr[T any](op onnx.Operation, name string, def T) T {
	if v, ok := op.Attributes[name].(T); ok {
		return v
	}
	return def
}

func ints(op onnx.Operation, name string, def ...int) []int {
	v, ok := op.Attributes[name].([]int64)
	if !ok || len(v) != len(def) {
		return def
	}
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(x)
	}
	return out
}

// dense copies values into a tensor of gorgonia's.
func dense(dt tensor.Dtype, v []float64, shape ...int) *tensor.Dense {
	if dt == tensor.Float64 {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(append([]float64{}, v...)))
	}
	f := make([]float32, len(v))
	for i, x := range v {
		f[i] = float32(x)
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(f))
}
