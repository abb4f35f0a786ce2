package gorgonia

import (
	"fmt"
	"slices"

	"github.com/owulveryck/onnx-go"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// lowering turns calls into gorgonia nodes.
type lowering struct {
	g      *G.ExprGraph
	dt     tensor.Dtype
	opset  int
	values map[string]value // by the names of the file
	count  int              // of names given
	// probes gives, by value name, an input of zeros that is added to an activation: gorgonia differentiates by inputs
	// alone, and the derivative by what is added is the derivative by the activation.
	probes map[string]*G.Node
}

// site is a call with its inputs.
type site struct {
	*lowering
	op   onnx.Operation
	name string // of the first output
	in   []value
	outs int
}

// rule is a row of the table: how many inputs a call must have, and what makes its outputs.
type rule struct {
	inputs int
	lower  func(s *site) ([]value, error)
}

// one is a rule for operators of one output.
func one(inputs int, f func(s *site) (value, error)) rule {
	return rule{inputs, func(s *site) ([]value, error) {
		v, err := f(s)
		return []value{v}, err
	}}
}

// rules lists the operators that are lowered.
var rules = map[string]rule{
	"Conv":          one(2, (*site).conv),
	"ConvTranspose": one(2, (*site).convTranspose),
	"MatMul":        one(2, (*site).matMul),
	"Gemm":          one(2, (*site).gemm),

	"BatchNormalization":    one(5, (*site).batchNorm),
	"InstanceNormalization": one(3, (*site).instanceNorm),
	"GroupNormalization":    one(3, (*site).groupNorm),
	"LayerNormalization":    one(2, (*site).layerNorm),
	"Softmax":               one(1, softmax(false)),
	"LogSoftmax":            one(1, softmax(true)),

	"MaxPool":           one(1, (*site).maxPool),
	"AveragePool":       one(1, (*site).averagePool),
	"GlobalMaxPool":     one(1, func(s *site) (value, error) { return s.reduce(reduceMax, from(2, s.rank()), true) }),
	"GlobalAveragePool": one(1, func(s *site) (value, error) { return s.reduce(reduceMean, from(2, s.rank()), true) }),
	"Resize":            one(1, (*site).resize),
	"Upsample":          one(1, (*site).upsample),

	"Relu":      one(1, gorgonias(G.Rectify)),
	"Tanh":      one(1, gorgonias(G.Tanh)),
	"LeakyRelu": one(1, (*site).leakyRelu),
	"PRelu":     one(2, (*site).prelu),
	"Clip":      one(1, (*site).clip),
	// The rest of activations, from their formulas. gorgonia's Sigmoid is 1 from 19 on.
	"Sigmoid":         one(1, formula(sigmoid)),
	"HardSigmoid":     one(1, formula(hardSigmoid)),
	"HardSwish":       one(1, formula(hardSwish)),
	"Elu":             one(1, formula(elu)),
	"Selu":            one(1, formula(selu)),
	"Celu":            one(1, formula(celu)),
	"Softplus":        one(1, formula(softplus)),
	"Softsign":        one(1, formula(softsign)),
	"ThresholdedRelu": one(1, formula(thresholdedRelu)),
	"Gelu":            one(1, formula(gelu)),
	"Mish":            one(1, formula(mish)),
	"Erf":             one(1, formula(erf)),
	"Exp":             one(1, formula(exp)),
	"Log":             one(1, formula(log)),
	"Sqrt":            one(1, formula(sqrt)),
	"Reciprocal":      one(1, formula(reciprocal)),
	"Abs":             one(1, formula(absolute)),
	"Neg":             one(1, formula(negative)),
	"Floor":           one(1, formula(floor)),
	"Ceil":            one(1, formula(ceil)),

	"Add":  one(2, (*site).binary),
	"Sub":  one(2, (*site).binary),
	"Mul":  one(2, (*site).binary),
	"Div":  one(2, (*site).binary),
	"Max":  one(1, (*site).variadic),
	"Min":  one(1, (*site).variadic),
	"Sum":  one(1, (*site).variadic),
	"Mean": one(1, (*site).variadic),
	"Pow":  one(2, (*site).pow),

	"ReduceMean":      one(1, reduction(reduceMean, 18)),
	"ReduceSum":       one(1, reduction(reduceSum, 13)),
	"ReduceMax":       one(1, reduction(reduceMax, 18)),
	"ReduceMin":       one(1, reduction(reduceMin, 18)),
	"ReduceL1":        one(1, reduction(reduceL1, 18)),
	"ReduceL2":        one(1, reduction(reduceL2, 18)),
	"ReduceSumSquare": one(1, reduction(reduceSumSquare, 18)),

	"Constant":        one(0, (*site).constant),
	"ConstantOfShape": one(1, (*site).constantOfShape),
	"Shape":           one(1, (*site).shapeOf),
	"Size":            one(1, func(s *site) (value, error) { return whole([]int{elements(s.in[0].shape)}), nil }),
	"Identity":        one(1, func(s *site) (value, error) { return s.in[0], nil }),
	"Dropout":         one(1, func(s *site) (value, error) { return s.in[0], nil }),
	"Cast":            one(1, (*site).cast),
	"Reshape":         one(2, (*site).reshapeTo),
	"Flatten":         one(1, (*site).flatten),
	"Squeeze":         one(1, (*site).squeeze),
	"Unsqueeze":       one(1, (*site).unsqueeze),
	"Transpose":       one(1, (*site).transpose),
	"Slice":           one(1, (*site).slice),
	"Split":           {1, (*site).split},
	"Concat":          one(1, (*site).concat),
	"Gather":          one(2, (*site).gather),
	"Expand":          one(2, (*site).expandTo),
	"Tile":            one(2, (*site).tile),
	"Pad":             one(1, (*site).pad),
	"DepthToSpace":    one(1, (*site).depthToSpace),
	"SpaceToDepth":    one(1, (*site).spaceToDepth),
}

// apply lowers one call. What panics in it or in gorgonia is an error.
func (l *lowering) apply(c call) (err error) {
	defer guard(c.op.Name, &err)
	r, ok := rules[c.op.Name]
	if !ok {
		return fmt.Errorf("operator %s is not lowered to gorgonia", c.op.Name)
	}
	s := &site{lowering: l, op: c.op, name: c.out[0].name, outs: len(c.out), in: make([]value, len(c.in))}
	for i, in := range c.in {
		if s.in[i], err = l.input(in); err != nil {
			return fmt.Errorf("input %d: %w", i, err)
		}
	}
	for i := range r.inputs {
		if i >= len(s.in) || !s.in[i].given() {
			return fmt.Errorf("input %d is missing", i)
		}
	}
	vs, err := r.lower(s)
	if err != nil {
		return err
	}
	for i, o := range c.out {
		if o.name == "" {
			continue
		}
		if i >= len(vs) {
			return fmt.Errorf("output %d, %q, is not lowered", i, o.name)
		}
		if vs[i], err = l.probed(o.name, vs[i]); err != nil {
			return err
		}
		l.values[o.name] = vs[i]
	}
	return nil
}

// input is what a call reads; the zero value if it is omitted.
func (l *lowering) input(c *carrier) (value, error) {
	if c == nil || c.name == "" {
		return value{}, nil
	}
	if v, ok := l.values[c.name]; ok {
		return v, nil
	}
	if c.tensor == nil {
		return value{}, nil // onnx-go makes one up for calls without inputs
	}
	return constant(c.tensor)
}

// constant reads a tensor of onnx-go's.
func constant(t tensor.Tensor) (value, error) {
	v, whole, err := numbers(t.Data())
	return value{shape: slices.Clone([]int(t.Shape())), array: v, whole: whole}, err
}

// probed adds the probe, if the value has one.
func (l *lowering) probed(name string, v value) (value, error) {
	if _, ok := l.probes[name]; !ok || v.known() {
		return v, nil
	}
	zero := l.param(name+".probe", make([]float64, elements(v.shape)), v.node.Shape()...)
	l.probes[name] = zero
	n, err := G.Add(v.node, zero)
	return value{shape: v.shape, node: n}, err
}

// node gives a value as gorgonia takes it.
func (l *lowering) node(v value) *G.Node {
	if v.known() {
		return l.param("constant", v.array, atLeast1(v.shape)...)
	}
	return v.node
}

// atLeast1 is the shape that a scalar has in gorgonia's graph, or the shape.
func atLeast1(shape []int) []int {
	if len(shape) == 0 {
		return []int{1}
	}
	return shape
}

// param makes a constant node.
func (l *lowering) param(name string, v []float64, shape ...int) *G.Node {
	return G.NewTensor(l.g, l.dt, len(shape), G.WithShape(shape...), G.WithName(l.unique(name)), G.WithValue(dense(l.dt, v, shape...)))
}

// unique makes a name that nothing else in the graph has.
func (l *lowering) unique(name string) string {
	l.count++
	return fmt.Sprintf("%s#%d", name, l.count)
}

// gorgonias is a rule for an operator of gorgonia's own.
func gorgonias(f func(*G.Node) (*G.Node, error)) func(s *site) (value, error) {
	return func(s *site) (value, error) {
		n, err := f(s.node(s.in[0]))
		return value{shape: s.in[0].shape, node: n}, err
	}
}

// rank is that of the first input.
func (s *site) rank() int { return len(s.in[0].shape) }

// has reports whether an input is there.
func (s *site) has(i int) bool { return i < len(s.in) && s.in[i].given() }

// numbers is the value of an input that must be known.
func (s *site) numbers(i int) ([]float64, error) {
	if !s.has(i) {
		return nil, fmt.Errorf("input %d is missing", i)
	}
	if !s.in[i].known() {
		return nil, fmt.Errorf("input %d depends on the data", i)
	}
	return s.in[i].array, nil
}

// ints is numbers as integers; nil if the input is omitted.
func (s *site) ints(i int) ([]int, error) {
	if !s.has(i) {
		return nil, nil
	}
	v, err := s.numbers(i)
	return ints(v), err
}

// list is what an attribute says, or from an opset on an input; nil if neither is there.
func (s *site) list(name string, i, since int) ([]int, error) {
	if s.opset >= since {
		return s.ints(i)
	}
	return s.attrs(name), nil
}

// attrs reads an attribute of integers; nil if it is not there.
func (s *site) attrs(name string) []int {
	v, ok := s.op.Attributes[name].([]int64)
	if !ok {
		return nil
	}
	return ints(convert(v))
}

// attr reads an attribute as onnx-go gives it.
func attr[T any](s *site, name string, def T) T {
	if v, ok := s.op.Attributes[name].(T); ok {
		return v
	}
	return def
}

// integer and number read attributes that are one number.
func (s *site) integer(name string, def int) int { return int(attr(s, name, int64(def))) }

func (s *site) number(name string, def float32) float64 { return float64(attr(s, name, def)) }
