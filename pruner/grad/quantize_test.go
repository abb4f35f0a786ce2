package grad

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// A network that is quantised, its weights and what flows between its operators, has the gradients of the one that is not,
// where nothing is clipped: what stands between the two operators is moved as integers, and takes gradients along.
func TestThroughIntegers(t *testing.T) {
	const scale = 1. / 64
	build := func(quantised bool) *net {
		b := newNet(17, 3) // each has the same weights
		s, z := b.constant(tensor.Scalar(scale)), b.constant(tensor.Scalar(int8(5)))
		integers := func(n int) *tensor.Tensor {
			q := tensor.New(tensor.Int8, n)
			for i := range q.Data {
				q.Data[i] = byte(b.rng.Uint32())
			}
			return q
		}
		w, c := integers(2*4*3*3), integers(2*3*4)
		w.Shape, c.Shape = tensor.Shape{2, 4, 3, 3}, tensor.Shape{1, 2, 3, 4}
		dequantise := func(v *graph.Value) *graph.Value { return b.node("DequantizeLinear", nil, v, s, z) }
		weights := dequantise(b.constant(w))
		x, more := b.node("Sigmoid", nil, b.input(1, 3, 4, 2)), b.constant(c)
		if quantised {
			x = b.node("QuantizeLinear", nil, x, s, z)
		} else {
			more = dequantise(more)
		}
		x = b.node("Transpose", as{is("perm", 0, 3, 1, 2)}, x) // 1, 2, 3, 4
		x = b.node("Concat", as{i1("axis", 1)}, b.node("Reshape", nil, x, b.ints(0, 2, 3, -1)), more)
		if quantised {
			x = dequantise(x)
		}
		b.g.Outputs = []*graph.Value{b.node("Conv", as{is("pads", 1, 1, 1, 1)}, x, weights)}
		return b
	}
	for _, float := range []tensor.DType{tensor.Float64, tensor.Float32} {
		plain, q := build(false), build(true)
		in := plain.inputs(-1, 1)
		get := func(b *net) *tensor.Tensor {
			tr := b.done(t, b.g.Outputs...)(in)
			seed := tensor.New(float, tr[b.g.Outputs[0]].Shape...)
			for i := range seed.Elems() {
				if v := float64(i%7) - 3; float == tensor.Float64 {
					tensor.Of[float64](seed)[i] = v
				} else {
					tensor.Of[float32](seed)[i] = float32(v)
				}
			}
			s, err := New(b.g, b.in, float, nil)
			if err != nil {
				t.Fatal(err)
			}
			g, _, err := s.Backward(context.Background(), tr, Gradients{b.g.Outputs[0]: seed}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return g[b.g.Inputs[0]]
		}
		a, _ := get(plain).Float64s()
		c, _ := get(q).Float64s()
		for i := range a {
			// The scale is a power of two, so that no bit differs.
			if a[i] == 0 || a[i] != c[i] {
				t.Fatalf("%v: gradient[%d] is %g quantised, %g plain", float, i, c[i], a[i])
			}
		}
	}
}

// Beyond the range of the integers there is no gradient, nor for what is no number.
func TestClipped(t *testing.T) {
	b := newNet(13, 1)
	s := b.constant(tensor.Scalar(0.5))
	z := b.constant(tensor.Scalar(uint8(10)))
	y := b.node("DequantizeLinear", nil, b.node("QuantizeLinear", nil, b.input(6), s, z), s, z)
	x := tensor.From([]float64{-5.3, -5, 0, 122.5, 122.8, math.NaN()}, 6) // the range is -5 to 122.5
	tr := b.done(t, y)([]*tensor.Tensor{x})
	sweep, err := New(b.g, b.in, tensor.Float64, nil)
	if err != nil {
		t.Fatal(err)
	}
	seed := tensor.From([]float64{1, 2, 3, 4, 5, 6}, 6)
	g, _, err := sweep.Backward(context.Background(), tr, Gradients{y: seed}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := tensor.From([]float64{0, 2, 3, 4, 0, 0}, 6); !tensor.Equal(g[b.g.Inputs[0]], want) {
		t.Errorf("gradients %v, want %v", tensor.Of[float64](g[b.g.Inputs[0]]), tensor.Of[float64](want))
	}
}

// What has no gradient says so, instead of giving one of zero.
func TestQuantizedRefusals(t *testing.T) {
	for _, c := range []struct {
		want  string
		opset int
		build func(b *net) *graph.Value
	}{
		{"blocks", 21, func(b *net) *graph.Value {
			s, at := b.weights(2, 2), as{i1("axis", 1), i1("block_size", 3)}
			return b.node("DequantizeLinear", at, b.node("QuantizeLinear", at, b.input(2, 6), s), s)
		}},
		{"input 1", 17, func(b *net) *graph.Value { // a scale that is computed
			x := b.input(2, 6)
			s := b.node("ReduceMax", as{i1("keepdims", 0)}, x)
			return b.node("DequantizeLinear", nil, b.node("QuantizeLinear", nil, x, s), s)
		}},
	} {
		b := newNet(c.opset, 1)
		y := c.build(b)
		tr := b.done(t, y)(b.inputs(0.5, 1))
		sweep, err := New(b.g, b.in, tensor.Float64, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = sweep.Backward(context.Background(), tr, b.seeds(tr), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want one with %q", err, c.want)
		}
	}
}
