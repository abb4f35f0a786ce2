package op_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// outputs runs one node with several outputs.
func outputs(t *rapid.T, opset int, name string, outs int, attrs graph.Attrs, in ...*tensor.Tensor) []*tensor.Tensor {
	t.Helper()
	n := node(name, len(in), attrs)
	n.Outputs = nil
	for i := range outs {
		n.Outputs = append(n.Outputs, &graph.Value{Name: fmt.Sprint("y", i), Def: n})
	}
	out, err := op.Apply(n, opset, tensor.Float32, in...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func single(t *rapid.T, opset int, name string, attrs graph.Attrs, in ...*tensor.Tensor) *tensor.Tensor {
	t.Helper()
	return outputs(t, opset, name, 1, attrs, in...)[0]
}

// wholeBytes is the element types that data movement runs on.
var wholeBytes = []tensor.DType{tensor.Float32, tensor.Uint8, tensor.Int16, tensor.Int64, tensor.Bool, tensor.Float8E5M2}

// drawTensor gives a tensor of any type and shape whose elements differ as far as its type allows.
func drawTensor(t *rapid.T, ranks ...int) *tensor.Tensor {
	dt := rapid.SampledFrom(wholeBytes).Draw(t, "type")
	rank := rapid.SampledFrom(ranks).Draw(t, "rank")
	x := tensor.New(dt, rapid.SliceOfN(rapid.IntRange(0, 5), rank, rank).Draw(t, "shape")...)
	for i := range x.Data {
		x.Data[i] = byte(i*37 + i>>8)
		if dt == tensor.Bool {
			x.Data[i] &= 1
		}
	}
	return x
}

func int64s(v ...int) *tensor.Tensor {
	w := make([]int64, len(v))
	for i, x := range v {
		w[i] = int64(x)
	}
	return tensor.From(w, len(w))
}

func same(t *rapid.T, what string, got, want *tensor.Tensor) {
	t.Helper()
	if !tensor.Equal(got, want) {
		t.Fatalf("%s: %v %x, want %v %x", what, got.Type(), got.Data, want.Type(), want.Data)
	}
}

// TestTransposeTwice: a permutation and its inverse are the identity, and the elements are where the definition says.
func TestTransposeTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t, 0, 1, 2, 3, 4, 5)
		axes := make([]int, len(x.Shape))
		for i := range axes {
			axes[i] = i
		}
		perm := axes
		if len(axes) > 0 {
			perm = rapid.Permutation(axes).Draw(t, "perm")
		}
		inverse := make([]int, len(perm))
		for i, p := range perm {
			inverse[p] = i
		}
		y := single(t, 13, "Transpose", graph.Attrs{graph.IntsAttr("perm", perm...)}, x)
		same(t, "back", single(t, 13, "Transpose", graph.Attrs{graph.IntsAttr("perm", inverse...)}, y), x)
		size, from, to := x.DType.Size(1), x.Shape.Strides(), y.Shape.Strides()
		for i := range x.Elems() {
			p, rest := 0, i
			for a, st := range from {
				p += rest / st * to[inverse[a]]
				rest %= st
			}
			if !slices.Equal(x.Data[i*size:(i+1)*size], y.Data[p*size:(p+1)*size]) {
				t.Fatalf("element %d is not at %d", i, p)
			}
		}
	})
}

// TestSplitThenConcat is the identity for any parts, and so are the attribute and the input form alike.
func TestSplitThenConcat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t, 1, 2, 3, 4)
		axis := rapid.IntRange(-len(x.Shape), len(x.Shape)-1).Draw(t, "axis")
		d := x.Shape[(axis+len(x.Shape))%len(x.Shape)]
		var parts []int
		for rest := d; rest > 0 || len(parts) == 0; {
			p := rapid.IntRange(0, rest).Draw(t, "part")
			parts, rest = append(parts, p), rest-p
			if len(parts) > 6 {
				parts[len(parts)-1] += rest
				break
			}
		}
		on := graph.IntAttr("axis", axis)
		ys := outputs(t, 13, "Split", len(parts), graph.Attrs{on}, x, int64s(parts...))
		same(t, "input form", single(t, 13, "Concat", graph.Attrs{on}, ys...), x)
		ys = outputs(t, 11, "Split", len(parts), graph.Attrs{on, graph.IntsAttr("split", parts...)}, x)
		same(t, "attribute form", single(t, 11, "Concat", graph.Attrs{on}, ys...), x)
		n := rapid.IntRange(1, 6).Draw(t, "num_outputs")
		ys = outputs(t, 18, "Split", n, graph.Attrs{on, graph.IntAttr("num_outputs", n)}, x)
		same(t, "num_outputs", single(t, 18, "Concat", graph.Attrs{on}, ys...), x)
	})
}

// TestSliceUndoesPad: cropping what was added gives back the input, in every mode; so does Pad by the negative.
func TestSliceUndoesPad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t, 1, 2, 3, 4)
		mode := rapid.SampledFrom([]string{"constant", "edge", "reflect", "wrap"}).Draw(t, "mode")
		var begin, end, stop, minus []int
		for _, d := range x.Shape {
			most := 3
			if d == 0 && mode != "constant" {
				most = 0
			}
			b, e := rapid.IntRange(0, most).Draw(t, "begin"), rapid.IntRange(0, most).Draw(t, "end")
			begin, end, stop = append(begin, b), append(end, e), append(stop, b+d)
		}
		pads := slices.Concat(begin, end)
		for _, p := range pads {
			minus = append(minus, -p)
		}
		y := single(t, 19, "Pad", graph.Attrs{graph.StrAttr("mode", mode)}, x, int64s(pads...))
		same(t, "Slice", single(t, 13, "Slice", nil, y, int64s(begin...), int64s(stop...)), x)
		same(t, "Pad", single(t, 13, "Pad", nil, y, int64s(minus...)), x)
		if x.DType == tensor.Float32 {
			z := single(t, 2, "Pad", graph.Attrs{graph.IntsAttr("pads", pads...)}, x)
			same(t, "attribute form", z, single(t, 13, "Pad", nil, x, int64s(pads...)))
		}
	})
}

// TestSliceBackwards: a step of -1 over everything reverses, twice is the identity; a step of n takes every n-th.
func TestSliceBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t, 1, 2, 3)
		axis := rapid.IntRange(0, len(x.Shape)-1).Draw(t, "axis")
		reverse := func(x *tensor.Tensor) *tensor.Tensor {
			return single(t, 13, "Slice", nil, x, int64s(math.MaxInt64), int64s(math.MinInt64), int64s(axis), int64s(-1))
		}
		same(t, "twice", reverse(reverse(x)), x)
		step := rapid.IntRange(1, 4).Draw(t, "step")
		start := rapid.IntRange(-7, 7).Draw(t, "start")
		got := single(t, 13, "Slice", nil, x, int64s(start), int64s(math.MaxInt64), int64s(axis), int64s(step))
		var idx []int
		d := x.Shape[axis]
		first := start
		if first < 0 {
			first = max(first+d, 0)
		}
		for i := first; i < d; i += step {
			idx = append(idx, i)
		}
		same(t, "Gather", got, single(t, 13, "Gather", graph.Attrs{graph.IntAttr("axis", axis)}, x, int64s(idx...)))
	})
}

// TestDepthToSpaceAndBack is the identity in the order DCR, which is SpaceToDepth's.
func TestDepthToSpaceAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.IntRange(1, 3).Draw(t, "blocksize")
		n, c, h, w := rapid.IntRange(1, 2).Draw(t, "n"), rapid.IntRange(1, 3).Draw(t, "c"), rapid.IntRange(1, 3).Draw(t, "h"), rapid.IntRange(1, 3).Draw(t, "w")
		x := tensor.New(tensor.Int16, n, c*b*b, h, w)
		for i, v := 0, tensor.Of[int16](x); i < len(v); i++ {
			v[i] = int16(i)
		}
		at := graph.Attrs{graph.IntAttr("blocksize", b)}
		same(t, "DCR", single(t, 13, "SpaceToDepth", at, single(t, 13, "DepthToSpace", at, x)), x)
		// CRD is DCR with the channels in another order.
		crd := single(t, 13, "DepthToSpace", at.Set(graph.StrAttr("mode", "CRD")), x)
		y := single(t, 13, "Reshape", nil, x, int64s(n, c, b*b, h, w))
		y = single(t, 13, "Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 1, 3, 4)}, y)
		y = single(t, 13, "Reshape", nil, y, int64s(n, c*b*b, h, w))
		same(t, "CRD", crd, single(t, 13, "DepthToSpace", at, y))
	})
}

// TestReshapes: every operator that keeps the elements keeps them, and Reshape by Shape undoes it.
func TestReshapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t, 1, 2, 3, 4)
		shape := single(t, 13, "Shape", nil, x)
		if got, want := tensor.Of[int64](single(t, 13, "Size", nil, x))[0], int64(x.Elems()); got != want {
			t.Fatalf("Size is %d, want %d", got, want)
		}
		axis := rapid.IntRange(0, len(x.Shape)).Draw(t, "axis")
		back := func(what string, y *tensor.Tensor) {
			t.Helper()
			same(t, what, single(t, 14, "Reshape", graph.Attrs{graph.IntAttr("allowzero", 1)}, y, shape), x)
		}
		back("Flatten", single(t, 13, "Flatten", graph.Attrs{graph.IntAttr("axis", axis)}, x))
		u := single(t, 13, "Unsqueeze", nil, x, int64s(axis, -1))
		same(t, "Unsqueeze forms", u, single(t, 11, "Unsqueeze", graph.Attrs{graph.IntsAttr("axes", axis, -1)}, x))
		same(t, "Squeeze", single(t, 13, "Squeeze", nil, u, int64s(-1, axis)), x)
		same(t, "Identity", single(t, 13, "Identity", nil, x), x)
		// Shape from start to end is a Slice of Shape.
		a, b := rapid.IntRange(-6, 6).Draw(t, "start"), rapid.IntRange(-6, 6).Draw(t, "end")
		same(t, "Shape", single(t, 15, "Shape", graph.Attrs{graph.IntAttr("start", a), graph.IntAttr("end", b)}, x),
			single(t, 13, "Slice", nil, shape, int64s(a), int64s(b)))
	})
}

// TestTileIsConcat: repeating n times along an axis is n inputs in a row.
func TestTileIsConcat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t, 1, 2, 3)
		axis, n := rapid.IntRange(0, len(x.Shape)-1).Draw(t, "axis"), rapid.IntRange(1, 4).Draw(t, "n")
		repeats := slices.Repeat([]int{1}, len(x.Shape))
		repeats[axis] = n
		want := single(t, 13, "Concat", graph.Attrs{graph.IntAttr("axis", axis)}, slices.Repeat([]*tensor.Tensor{x}, n)...)
		same(t, "Tile", single(t, 13, "Tile", nil, x, int64s(repeats...)), want)
	})
}

// TestScatterUndoesGather: writing what was read leaves the data as it is.
func TestScatterUndoesGather(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTensor(t, 2, 3)
		if x.Shape[0]*x.Shape[1] == 0 {
			return
		}
		n := rapid.IntRange(1, 4).Draw(t, "n")
		idx := tensor.New(tensor.Int64, n, 2)
		for i, v := 0, tensor.Of[int64](idx); i < n; i++ {
			v[2*i] = int64(rapid.IntRange(-x.Shape[0], x.Shape[0]-1).Draw(t, "i"))
			v[2*i+1] = int64(rapid.IntRange(-x.Shape[1], x.Shape[1]-1).Draw(t, "j"))
		}
		same(t, "ScatterND", single(t, 16, "ScatterND", nil, x, idx, single(t, 13, "GatherND", nil, x, idx)), x)
	})
}

// TestThreads: on several workers, above the size that is shared among them, the bits are the same.
func TestThreads(t *testing.T) {
	pool := kernel.NewPool(4)
	x := tensor.New(tensor.Float32, 3, 70, 41, 53)
	for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
		v[i] = float32(i%1013) - 500
	}
	c := tensor.New(tensor.Float32, 70, 1, 1)
	for i, v := 0, tensor.Of[float32](c); i < len(v); i++ {
		v[i] = float32(i + 1)
	}
	for _, k := range []struct {
		op    string
		attrs graph.Attrs
		in    []*tensor.Tensor
	}{
		{"Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 3, 1)}, []*tensor.Tensor{x}},
		{"Transpose", graph.Attrs{graph.IntsAttr("perm", 2, 0, 1, 3)}, []*tensor.Tensor{x}},
		{"Add", nil, []*tensor.Tensor{x, x}}, {"Mul", nil, []*tensor.Tensor{x, c}}, {"Sub", nil, []*tensor.Tensor{c, x}},
		{"Div", nil, []*tensor.Tensor{x, tensor.Scalar(float32(3))}}, {"Greater", nil, []*tensor.Tensor{x, c}},
		{"Mean", nil, []*tensor.Tensor{c, x, x}}, {"Pow", nil, []*tensor.Tensor{x, tensor.Scalar(float32(2))}},
		{"Cast", graph.Attrs{graph.IntAttr("to", int(tensor.Int8))}, []*tensor.Tensor{x}},
		{"Pad", graph.Attrs{graph.StrAttr("mode", "reflect")}, []*tensor.Tensor{x, int64s(0, 1, 2, 3, 0, 0, 1, 2)}},
		{"Pad", nil, []*tensor.Tensor{x, int64s(0, 1, 2, 3, 0, 0, -1, 2), tensor.Scalar(float32(7))}},
		{"Concat", graph.Attrs{graph.IntAttr("axis", 1)}, []*tensor.Tensor{x, x}},
		{"Slice", nil, []*tensor.Tensor{x, int64s(50), int64s(2), int64s(3), int64s(-3)}},
		{"Expand", nil, []*tensor.Tensor{c, int64s(3, 70, 41, 53)}},
	} {
		n := node(k.op, len(k.in), k.attrs)
		want, err := op.Apply(n, 13, tensor.Float32, k.in...)
		if err != nil {
			t.Fatalf("%s: %v", k.op, err)
		}
		s := &op.Site{Node: n, Opset: 13, Float: tensor.Float32}
		for _, x := range k.in {
			s.In = append(s.In, op.Arg{Type: x.Type(), Const: x})
		}
		def, err := op.Lookup(n, 13)
		if err != nil {
			t.Fatal(err)
		}
		if s.Out, err = def.Infer(s); err != nil {
			t.Fatal(err)
		}
		kern, err := def.New(s)
		if err != nil {
			t.Fatal(err)
		}
		got := tensor.New(s.Out[0].DType, s.Out[0].Shape...)
		run := kern.Bind(&op.Env{Pool: pool}, []*tensor.Tensor{got}, k.in)
		for range 2 { // what Bind returned runs again
			clear(got.Data)
			if err := run(); err != nil {
				t.Fatal(err)
			}
			if !tensor.Equal(got, want[0]) {
				t.Errorf("%s: 4 workers differ from one", k.op)
			}
		}
		if a := testing.AllocsPerRun(3, func() { _ = run() }); a > 0 {
			t.Errorf("%s: %g allocations in a run", k.op, a)
		}
	}
}

// TestHugeOutputs: a few bytes that ask for gigabytes are refused before anything is allocated.
func TestHugeOutputs(t *testing.T) {
	one := tensor.Scalar(float32(1))
	row := tensor.New(tensor.Float32, 1, 1)
	for _, k := range []struct {
		op string
		in []*tensor.Tensor
	}{
		{"ConstantOfShape", []*tensor.Tensor{int64s(1<<20, 1<<20)}},
		{"ConstantOfShape", []*tensor.Tensor{int64s(1<<62, 1<<62, 4)}},
		{"Expand", []*tensor.Tensor{one, int64s(1<<14, 1<<15)}},
		{"Tile", []*tensor.Tensor{row, int64s(1<<40, 1<<40)}},
		{"Tile", []*tensor.Tensor{row, int64s(math.MaxInt64, 2)}},
		{"Pad", []*tensor.Tensor{row, int64s(0, 1<<28, 0, 1<<28)}},
		{"Pad", []*tensor.Tensor{row, int64s(0, math.MaxInt64, 0, math.MaxInt64)}},
		{"Range", []*tensor.Tensor{tensor.Scalar(float32(0)), tensor.Scalar(float32(1e30)), one}},
		{"Range", []*tensor.Tensor{tensor.Scalar(int64(math.MinInt64)), tensor.Scalar(int64(math.MaxInt64)), tensor.Scalar(int64(1))}},
	} {
		_, err := op.Apply(node(k.op, len(k.in), nil), 13, tensor.Float32, k.in...)
		var un *op.Unsupported
		if !errors.As(err, &un) {
			t.Errorf("%s: error %v, want Unsupported", k.op, err)
		}
	}
}

// TestBadModels: what is no valid ONNX, or indexes outside of the data, is an error that is not Unsupported, and no panic.
func TestBadModels(t *testing.T) {
	x := tensor.From([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	for _, k := range []struct {
		what, op string
		attrs    graph.Attrs
		in       []*tensor.Tensor
	}{
		{"no input", "Add", nil, []*tensor.Tensor{x}},
		{"types differ", "Add", nil, []*tensor.Tensor{x, int64s(1, 2, 3)}},
		{"shapes differ", "Mul", nil, []*tensor.Tensor{x, tensor.New(tensor.Float32, 2)}},
		{"by zero", "Div", nil, []*tensor.Tensor{int64s(1, 2), int64s(1, 0)}},
		{"modulo zero", "Mod", nil, []*tensor.Tensor{int64s(1, 2), int64s(1, 0)}},
		{"condition", "Where", nil, []*tensor.Tensor{x, x, x}},
		{"two -1", "Reshape", nil, []*tensor.Tensor{x, int64s(-1, -1)}},
		{"elements", "Reshape", nil, []*tensor.Tensor{x, int64s(4, -1)}},
		{"overflow", "Reshape", nil, []*tensor.Tensor{x, int64s(1<<31, 1<<31, 4)}},
		{"copy", "Reshape", nil, []*tensor.Tensor{x, int64s(2, 3, 0)}},
		{"shape is float", "Reshape", nil, []*tensor.Tensor{x, x}},
		{"axis", "Flatten", graph.Attrs{graph.IntAttr("axis", 3)}, []*tensor.Tensor{x}},
		{"not 1", "Squeeze", nil, []*tensor.Tensor{x, int64s(0)}},
		{"twice", "Unsqueeze", nil, []*tensor.Tensor{x, int64s(0, 0)}},
		{"perm", "Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 0)}, []*tensor.Tensor{x}},
		{"perm", "Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2)}, []*tensor.Tensor{x}},
		{"axis", "Concat", graph.Attrs{graph.IntAttr("axis", 2)}, []*tensor.Tensor{x, x}},
		{"rank", "Concat", graph.Attrs{graph.IntAttr("axis", 0)}, []*tensor.Tensor{x, int64s(1)}},
		{"sum", "Split", nil, []*tensor.Tensor{x, int64s(1, 2)}},
		{"negative", "Split", nil, []*tensor.Tensor{x, int64s(3, -1)}},
		{"step", "Slice", nil, []*tensor.Tensor{x, int64s(0), int64s(1), int64s(0), int64s(0)}},
		{"lengths", "Slice", nil, []*tensor.Tensor{x, int64s(0, 1), int64s(1)}},
		{"axes", "Slice", nil, []*tensor.Tensor{x, int64s(0, 1, 2), int64s(1, 2, 3)}},
		{"pads", "Pad", nil, []*tensor.Tensor{x, int64s(1)}},
		{"crop", "Pad", nil, []*tensor.Tensor{x, int64s(-2, 0, -1, 0)}},
		{"mode", "Pad", graph.Attrs{graph.StrAttr("mode", "wrap")}, []*tensor.Tensor{x, int64s(0, 0, 0, 0)}},
		{"empty", "Pad", graph.Attrs{graph.StrAttr("mode", "edge")}, []*tensor.Tensor{tensor.New(tensor.Float32, 0), int64s(1, 1)}},
		{"index", "Gather", nil, []*tensor.Tensor{x, int64s(2)}},
		{"index", "Gather", nil, []*tensor.Tensor{x, int64s(math.MinInt64)}},
		{"index", "GatherElements", nil, []*tensor.Tensor{x, tensor.From([]int64{0, -3}, 1, 2)}},
		{"index", "GatherND", nil, []*tensor.Tensor{x, int64s(1, 3)}},
		{"index", "ScatterND", nil, []*tensor.Tensor{x, tensor.From([]int64{5}, 1, 1), tensor.New(tensor.Float32, 1, 3)}},
		{"batch", "GatherND", graph.Attrs{graph.IntAttr("batch_dims", 1)}, []*tensor.Tensor{x, int64s(1)}},
		{"blocksize", "DepthToSpace", nil, []*tensor.Tensor{tensor.New(tensor.Float32, 1, 4, 1, 1)}},
		{"blocksize", "DepthToSpace", graph.Attrs{graph.IntAttr("blocksize", math.MaxInt64)}, []*tensor.Tensor{tensor.New(tensor.Float32, 1, 4, 1, 1)}},
		{"negative", "Expand", nil, []*tensor.Tensor{x, int64s(-1, 3)}},
		{"negative", "ConstantOfShape", nil, []*tensor.Tensor{int64s(-1)}},
		{"delta", "Range", nil, []*tensor.Tensor{tensor.Scalar(int64(0)), tensor.Scalar(int64(1)), tensor.Scalar(int64(0))}},
		{"no value", "Constant", nil, nil},
	} {
		_, err := op.Apply(node(k.op, len(k.in), k.attrs), 13, tensor.Float32, k.in...)
		var un *op.Unsupported
		if err == nil || errors.As(err, &un) {
			t.Errorf("%s, %s: error %v, want one that says the model is invalid", k.op, k.what, err)
		}
	}
}
