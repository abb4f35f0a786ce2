package op_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// TestNormalizationsAgree: groups of one channel are instances; one group is a layer, whose scale and bias are of
// elements; numbers for each group, as before opset 21, are those of its channels.
func TestNormalizationsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		groups, per := rapid.IntRange(1, 4).Draw(t, "groups"), rapid.IntRange(1, 3).Draw(t, "channels of each")
		c := groups * per
		space := rapid.SliceOfN(rapid.IntRange(1, 9), 0, 3).Draw(t, "space")
		x := normal(r, append([]int{2, c}, space...)...)
		gamma, beta := normal(r, c), normal(r, c)
		group := func(opset, groups int, gamma, beta *tensor.Tensor) *tensor.Tensor {
			return call(t, opset, "GroupNormalization", graph.Attrs{graph.IntAttr("num_groups", groups)}, x, gamma, beta)
		}
		near(t, "instances", group(21, c, gamma, beta), call(t, 22, "InstanceNormalization", nil, x, gamma, beta), 0)

		spread := func(v *tensor.Tensor) *tensor.Tensor { // to every element of a layer
			return filled(tensor.Float64, x.Shape[1:], func(i int) float64 { return tensor.Of[float64](v)[i/x.Shape[2:].Elems()] })
		}
		layer := call(t, 17, "LayerNormalization", graph.Attrs{graph.IntAttr("axis", 1)}, x, spread(gamma), spread(beta))
		near(t, "layer", group(21, 1, gamma, beta), layer, 1e-12)

		repeat := func(v *tensor.Tensor) *tensor.Tensor {
			return filled(tensor.Float64, []int{c}, func(i int) float64 { return tensor.Of[float64](v)[i/per] })
		}
		gamma, beta = normal(r, groups), normal(r, groups)
		near(t, "numbers of groups", group(18, groups, gamma, beta), group(21, groups, repeat(gamma), repeat(beta)), 0)
	})
}

// TestLayerNormalization: all three outputs are what the definition says, computed one step after another, and the bias
// may be left out.
func TestLayerNormalization(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		shape := rapid.SliceOfN(rapid.IntRange(1, 7), 1, 4).Draw(t, "shape")
		axis := rapid.IntRange(0, len(shape)-1).Draw(t, "axis")
		x, gamma, beta := normal(r, shape...), normal(r, shape[axis:]...), normal(r, shape[axis:]...)
		in := []*tensor.Tensor{x, gamma, beta}
		if rapid.Bool().Draw(t, "no bias") {
			in, beta = in[:2], tensor.Scalar(0.)
		}
		n := node("LayerNormalization", len(in), graph.Attrs{graph.IntAttr("axis", axis-len(shape)*rapid.IntRange(0, 1).Draw(t, "negative")), graph.FloatAttr("epsilon", 0.5)})
		n.Outputs = append(n.Outputs, &graph.Value{Name: "mean", Def: n}, &graph.Value{Name: "inverse", Def: n})
		out, err := op.Apply(n, 17, tensor.Float64, in...)
		if err != nil {
			t.Fatal(err)
		}
		var axes []int64
		for a := axis; a < len(shape); a++ {
			axes = append(axes, int64(a))
		}
		over := tensor.From(axes, len(axes))
		mean := call(t, 18, "ReduceMean", nil, x, over)
		d := call(t, 18, "Sub", nil, x, mean)
		variance := call(t, 18, "ReduceMean", nil, call(t, 18, "Mul", nil, d, d), over)
		inverse := call(t, 18, "Reciprocal", nil, call(t, 18, "Sqrt", nil, call(t, 18, "Add", nil, variance, tensor.Scalar(0.5))))
		y := call(t, 18, "Add", nil, call(t, 18, "Mul", nil, call(t, 18, "Mul", nil, d, inverse), gamma), beta)
		near(t, "Y", out[0], y, 1e-12)
		near(t, "Mean", out[1], mean, 1e-12)
		near(t, "InvStdDev", out[2], inverse, 1e-12)

		n.Outputs = []*graph.Value{nil, n.Outputs[1]}
		if out, err = op.Apply(n, 17, tensor.Float64, in...); err != nil {
			t.Fatal(err)
		}
		near(t, "Mean alone", out[1], mean, 1e-12)
	})
}

// TestNormalizationsOfLargeMeans: in float32 the error is that of rounding the numbers normalised, not that of a
// difference of large sums, be the mean a thousand times the deviation.
func TestNormalizationsOfLargeMeans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	const mean, c, side = 1000., 6, 50
	x := filled(tensor.Float32, []int{1, c, side, side}, func(int) float64 { return mean + r.NormFloat64() })
	one, zero := filled(tensor.Float64, []int{c}, func(int) float64 { return 1 }), tensor.New(tensor.Float64, c)
	for _, k := range []struct {
		name  string
		attrs graph.Attrs
		in    []*tensor.Tensor
	}{
		{"InstanceNormalization", nil, []*tensor.Tensor{x, one, zero}},
		{"GroupNormalization", graph.Attrs{graph.IntAttr("num_groups", 2)}, []*tensor.Tensor{x, one, zero}},
		{"LayerNormalization", nil, []*tensor.Tensor{x, filled(tensor.Float64, []int{side}, func(int) float64 { return 1 })}},
	} {
		out, err := op.Apply(node(k.name, len(k.in), k.attrs), 22, tensor.Float32, k.in...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := out[0].Float(tensor.Float64)
		if err != nil {
			t.Fatal(err)
		}
		// scale·x and the shift are about 1000 each, and are rounded, as the scale is: three halves of 2^-23 of that, and
		// a deviation of a row of 50 may be 0.7.
		near(t, k.name, got, call(t, 22, k.name, k.attrs, k.in...), 1.5*mean/0.7/(1<<23))
	}
}

// TestHostileNormalizations: what does not fit is an error, and what is valid but not run says why.
func TestHostileNormalizations(t *testing.T) {
	f := func(shape ...int) *tensor.Tensor { return tensor.New(tensor.Float64, shape...) }
	x, six := f(2, 6, 4), f(6)
	groups := func(n int) graph.Attrs { return graph.Attrs{graph.IntAttr("num_groups", n)} }
	axis := func(n int) graph.Attrs { return graph.Attrs{graph.IntAttr("axis", n)} }
	for _, k := range []struct {
		op          string
		opset       int
		attrs       graph.Attrs
		in          []*tensor.Tensor
		unsupported bool
	}{
		{"GroupNormalization", 21, nil, []*tensor.Tensor{x, six, six}, false},
		{"GroupNormalization", 21, groups(4), []*tensor.Tensor{x, six, six}, false},
		{"GroupNormalization", 21, groups(-6), []*tensor.Tensor{x, six, six}, false},
		{"GroupNormalization", 21, groups(math.MaxInt), []*tensor.Tensor{x, six, six}, false},
		{"GroupNormalization", 21, groups(2), []*tensor.Tensor{x, f(2), f(2)}, false},
		{"GroupNormalization", 18, groups(2), []*tensor.Tensor{x, six, six}, false},
		{"GroupNormalization", 21, groups(2), []*tensor.Tensor{x, six}, false},
		{"GroupNormalization", 21, groups(1), []*tensor.Tensor{f(6), f(1), f(1)}, false},
		{"GroupNormalization", 21, groups(1), []*tensor.Tensor{tensor.New(tensor.Int32, 2, 6), six, six}, true},
		{"LayerNormalization", 17, axis(3), []*tensor.Tensor{x, f(4)}, false},
		{"LayerNormalization", 17, axis(-4), []*tensor.Tensor{x, f(4)}, false},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{f(), f()}, false},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{x, f(5)}, false},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{x, f(4), f(2, 2, 6, 4)}, false},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{x, tensor.New(tensor.Int32, 4)}, false},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{x, f(1)}, true},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{x, f(2, 1, 4)}, true},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{x, f(4), f(6, 1)}, true},
		{"LayerNormalization", 17, nil, []*tensor.Tensor{tensor.New(tensor.Int32, 2, 6), six}, true},
		{"LayerNormalization", 17, axis(2), []*tensor.Tensor{f(1<<20, 1<<10, 0), f(0)}, true}, // a mean for each of 2^30 rows of nothing
	} {
		_, err := op.Apply(node(k.op, len(k.in), k.attrs), k.opset, tensor.Float64, k.in...)
		var un *op.Unsupported
		if err == nil || errors.As(err, &un) != k.unsupported {
			t.Errorf("%s %v of %v: error is %v; a refusal of valid ONNX: want %t", k.op, k.attrs, fmt.Sprint(k.in[0].Shape, k.in[1].Shape), err, k.unsupported)
		}
	}
}
