package op_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// example is a node as models have it: the first input comes from other nodes, the rest are constants.
type example struct {
	op    string
	opset int
	attrs graph.Attrs
	in    []*tensor.Tensor
}

func (e example) String() string { return fmt.Sprintf("%s %v", e.op, e.in[0].Shape) }

// examples are large enough that their loops are shared among workers.
func examples() []example {
	r := rand.New(rand.NewPCG(1, 1))
	x := float32s(normal(r, 1, 16, 64, 64))
	c := func() *tensor.Tensor { return float32s(normal(r, 16)) }
	positive := c()
	for i, v := range tensor.Of[float32](positive) {
		tensor.Of[float32](positive)[i] = v*v + 0.1
	}
	quanta := tensor.New(tensor.Int8, x.Shape...)
	for i := range quanta.Data {
		quanta.Data[i] = byte(i * 37)
	}
	ints := func(v ...int64) *tensor.Tensor { return tensor.From(v, len(v)) }
	pads, stride2 := graph.IntsAttr("pads", 1, 1, 1, 1), graph.IntsAttr("strides", 2, 2)
	k2, k3 := graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("kernel_shape", 3, 3)
	up := tensor.From([]float32{1, 1, 2, 2}, 4)
	mode := func(m string) graph.Attrs { return graph.Attrs{graph.StrAttr("mode", m)} }
	return []example{
		{"Conv", 17, graph.Attrs{pads}, []*tensor.Tensor{x, float32s(normal(r, 16, 16, 3, 3)), c()}},
		{"ConvTranspose", 17, graph.Attrs{stride2}, []*tensor.Tensor{x, float32s(normal(r, 16, 8, 2, 2))}},
		{"MaxPool", 17, graph.Attrs{k2, stride2}, []*tensor.Tensor{x}},
		{"MaxPool", 17, graph.Attrs{k3, stride2, pads}, []*tensor.Tensor{x}},
		{"AveragePool", 17, graph.Attrs{k3, pads}, []*tensor.Tensor{x}},
		{"GlobalAveragePool", 17, nil, []*tensor.Tensor{x}},
		{"BatchNormalization", 17, nil, []*tensor.Tensor{x, c(), c(), c(), positive}},
		{"InstanceNormalization", 17, nil, []*tensor.Tensor{x, c(), c()}},
		{"GroupNormalization", 21, graph.Attrs{graph.IntAttr("num_groups", 4)}, []*tensor.Tensor{x, c(), c()}},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{x, float32s(normal(r, 64)), float32s(normal(r, 64))}},
		{"LayerNormalization", 17, graph.Attrs{graph.IntAttr("axis", 2)}, []*tensor.Tensor{x, float32s(normal(r, 64, 64))}},
		{"QuantizeLinear", 21, nil, []*tensor.Tensor{x, tensor.Scalar[float32](0.01), tensor.Scalar(int8(3))}},
		{"QuantizeLinear", 21, nil, []*tensor.Tensor{x, positive}},
		{"DequantizeLinear", 21, nil, []*tensor.Tensor{quanta, tensor.Scalar[float32](0.01)}},
		{"DequantizeLinear", 21, graph.Attrs{graph.IntAttr("axis", -1), graph.IntAttr("block_size", 32)}, []*tensor.Tensor{quanta, float32s(normal(r, 1, 16, 64, 2))}},
		{"Resize", 17, mode("nearest"), []*tensor.Tensor{x, nil, up}},
		{"Resize", 17, mode("linear"), []*tensor.Tensor{x, nil, up}},
		{"Resize", 17, mode("cubic"), []*tensor.Tensor{x, nil, up}},
		{"Relu", 17, nil, []*tensor.Tensor{x}},
		{"Clip", 17, nil, []*tensor.Tensor{x, tensor.Scalar[float32](0), tensor.Scalar[float32](6)}},
		{"LeakyRelu", 17, nil, []*tensor.Tensor{x}},
		{"PRelu", 17, nil, []*tensor.Tensor{x, float32s(normal(r, 16, 1, 1))}},
		{"Sigmoid", 17, nil, []*tensor.Tensor{x}},
		{"Tanh", 17, nil, []*tensor.Tensor{x}},
		{"HardSwish", 17, nil, []*tensor.Tensor{x}},
		{"Softmax", 17, graph.Attrs{graph.IntAttr("axis", 1)}, []*tensor.Tensor{x}},
		{"Softmax", 17, graph.Attrs{graph.IntAttr("axis", -1)}, []*tensor.Tensor{x}},
		{"LogSoftmax", 17, graph.Attrs{graph.IntAttr("axis", 1)}, []*tensor.Tensor{x}},
		{"Gemm", 17, graph.Attrs{graph.IntAttr("transB", 1)}, []*tensor.Tensor{float32s(normal(r, 64, 64)), float32s(normal(r, 80, 64)), float32s(normal(r, 80))}},
		{"MatMul", 17, nil, []*tensor.Tensor{x, float32s(normal(r, 64, 48))}},
		{"ReduceMean", 18, nil, []*tensor.Tensor{x, ints(2, 3)}},
		{"ReduceMean", 18, nil, []*tensor.Tensor{x, ints(1)}},
		{"ArgMax", 17, graph.Attrs{graph.IntAttr("axis", 1)}, []*tensor.Tensor{x}},
	}
}

func float32s(x *tensor.Tensor) *tensor.Tensor {
	y, err := x.Float(tensor.Float32)
	if err != nil {
		panic(err)
	}
	return y
}

// bind compiles the example and returns its run and its output. In place, if that is asked for, the output lies in a copy
// of the first input, which each run begins with.
func (e example) bind(t testing.TB, pool *kernel.Pool, inPlace bool) (run func(), y *tensor.Tensor) {
	n := node(e.op, len(e.in), e.attrs)
	s := &op.Site{Node: n, Opset: e.opset, Float: tensor.Float32}
	for i, x := range e.in {
		a := op.Arg{}
		if x != nil {
			a.Type = x.Type()
			if i > 0 {
				a.Const = x
			}
		}
		s.In = append(s.In, a)
	}
	d, err := op.Lookup(n, e.opset)
	if err != nil {
		t.Fatal(err)
	}
	if s.Out, err = d.Infer(s); err != nil {
		t.Fatal(err)
	}
	k, err := d.New(s)
	if err != nil {
		t.Fatal(err)
	}
	env := &op.Env{Pool: pool}
	if sc, ok := k.(op.Scratcher); ok {
		env.Scratch = tensor.Bytes(sc.Scratch(pool.Workers()))
	}
	in := append([]*tensor.Tensor{}, e.in...)
	y = tensor.New(s.Out[0].DType, s.Out[0].Shape...)
	if inPlace {
		if !d.InPlace {
			return nil, nil
		}
		in[0] = &tensor.Tensor{DType: e.in[0].DType, Shape: e.in[0].Shape, Data: y.Data}
	}
	f := k.Bind(env, []*tensor.Tensor{y}, in)
	return func() {
		if inPlace {
			copy(in[0].Data, e.in[0].Data)
		}
		if err := f(); err != nil {
			t.Fatalf("%v: %v", e, err)
		}
	}, y
}

// TestRuns: a run allocates nothing, and its result depends neither on the number of workers, nor on what the output held
// before, nor on whether it lies where the input was.
func TestRuns(t *testing.T) {
	one, many := kernel.NewPool(1), kernel.NewPool(3)
	for _, e := range examples() {
		run, want := e.bind(t, one, false)
		run()
		run, got := e.bind(t, many, false)
		for i := range got.Data {
			got.Data[i] = 0xff
		}
		if n := testing.AllocsPerRun(3, run); n != 0 {
			t.Errorf("%v: a run allocates %g times", e, n)
		}
		if !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%v: 3 workers and 1 disagree", e)
		}
		run, got = e.bind(t, many, true)
		if run == nil {
			continue
		}
		run()
		if !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%v: in place it gives another result", e)
		}
	}
}

// BenchmarkOps gives the time of one run on one core.
func BenchmarkOps(b *testing.B) {
	pool := kernel.NewPool(1)
	for _, e := range examples() {
		name := e.op
		if len(e.attrs) > 0 {
			name += "/" + string(e.attrs[0].Str)
		}
		b.Run(name, func(b *testing.B) {
			run, y := e.bind(b, pool, false)
			b.SetBytes(int64(len(e.in[0].Data) + len(y.Data)))
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}
