package grad

import (
	"slices"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// trained are the inputs of each operator that hold what is learnt.
var trained = map[string][]int{
	"Conv": {1, 2}, "ConvTranspose": {1, 2}, "BatchNormalization": {1, 2}, "InstanceNormalization": {1, 2}, "PRelu": {1},
	"GroupNormalization": {1, 2}, "LayerNormalization": {1, 2},
	"Gemm": {1, 2}, "MatMul": {1}, "Add": {1}, "Mul": {1},
}

// Gradients of weights equal central differences, at every site of an operator that has weights, and in whole networks.
func TestWeightGradients(t *testing.T) {
	seen := map[string]bool{}
	for i, s := range sites() {
		b := newNet(s.opset, uint64(i))
		outs := s.build(b)
		n := b.g.Nodes[0]
		for _, k := range trained[n.Op] {
			if v := n.Input(k); v != nil && v.Const != nil {
				seen[n.Op] = true
			}
		}
		lo, hi := s.lo, s.hi
		if lo == hi {
			lo, hi = -1, 1
		}
		b.g.Outputs = outs
		t.Run(s.name, func(t *testing.T) { checkWeights(t, b, b.inputs(lo, hi), 5) })
	}
	for _, op := range []string{"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "PRelu"} {
		if !seen[op] {
			t.Errorf("no site has weights of %s", op)
		}
	}
	for seed := range uint64(8) {
		b := randomNet(seed)
		checkWeights(t, b, b.inputs(-1, 1), 2)
	}
}

// checkWeights compares at most so many elements of each weight tensor.
func checkWeights(t *testing.T, b *net, in []*tensor.Tensor, most int) {
	t.Helper()
	want := map[Edge]bool{}
	for _, n := range b.g.Nodes {
		for _, k := range trained[n.Op] {
			if v := n.Input(k); v != nil && v.Const != nil && v.Const.DType.IsFloat() {
				want[Edge{n, k}] = true
			}
		}
	}
	tr := b.done(t, b.g.Outputs...)(in)
	seed := b.seeds(tr)
	for _, workers := range []int{1, 3} {
		sweep, err := New(b.g, b.in, tensor.Float64, kernel.NewPool(workers))
		if err != nil {
			t.Fatal(err)
		}
		_, got, err := sweep.Backward(t.Context(), tr, seed, want)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d of %d gradients", len(got), len(want))
		}
		if workers > 1 {
			continue // the gradients are taken; that they are the same is the kernel's law
		}
		value := func() float64 {
			m, err := engine.Compile(b.g, b.in, engine.Options{Verbatim: true, Float64: true, Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			now, err := m.NewSession().Trace(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			var sum float64
			for v, d := range seed {
				sum += dot(now[v], d)
			}
			return sum
		}
		for e, d := range got {
			if uses := b.g.Uses()[e.Value()]; len(uses) > 1 {
				continue // shared weights: an edge has its part alone
			}
			w, g := tensor.Of[float64](e.Value().Const), tensor.Of[float64](d)
			if !slices.Equal(d.Shape, e.Value().Const.Shape) {
				t.Fatalf("%v: gradient of shape %v, weights %v", e, d.Shape, e.Value().Const.Shape)
			}
			central(t, e.String(), w, g, most, 1e-6, value)
		}
	}
}
