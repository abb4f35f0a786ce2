package pruner

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/rewrite"
)

// sharing is a chain of convolutions and normalisations of c channels whose constants are drawn from a few, each read as it is,
// through one or two Identity nodes, or from a Constant node; one that is read by nothing else may be an Identity's that
// goes nowhere.
func sharing(t *rapid.T, c int) *graph.Graph {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	x := &graph.Value{Name: "x", Type: tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, c, 4, 4}}}
	g := &graph.Graph{IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{x}}
	node := func(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
		n := &graph.Node{Op: op, Name: fmt.Sprintf("n%d", len(g.Nodes)), Attrs: attrs, Inputs: in}
		n.Outputs = []*graph.Value{{Name: n.Name + ".y", Def: n}}
		g.Nodes = append(g.Nodes, n)
		return n.Outputs[0]
	}
	pool := map[string][]*graph.Value{}
	constant := func(kind string, shape ...int) *graph.Value {
		if old := pool[kind]; len(old) > 0 && rapid.Bool().Draw(t, "again") {
			v := rapid.SampledFrom(old).Draw(t, "which")
			for range rapid.IntRange(0, 2).Draw(t, "identities") {
				v = node("Identity", nil, v)
			}
			pool[kind] = append(pool[kind], v)
			return v
		}
		w := tensor.New(tensor.Float32, shape...)
		for i := range tensor.Of[float32](w) {
			tensor.Of[float32](w)[i] = 0.5 + rng.Float32()
		}
		var v *graph.Value
		if rapid.IntRange(0, 3).Draw(t, "constant") == 0 {
			v = node("Constant", graph.Attrs{{Name: "value", Kind: graph.AttrTensor, Tensor: w}})
		} else {
			v = &graph.Value{Name: fmt.Sprintf("w%d", len(g.Inits)), Const: w}
			g.Inits = append(g.Inits, v)
		}
		if rapid.IntRange(0, 9).Draw(t, "dangles") == 0 {
			node("Identity", nil, v)
		}
		pool[kind] = append(pool[kind], v)
		return v
	}
	y := x
	for range rapid.IntRange(2, 5).Draw(t, "layers") {
		y = node("Conv", nil, y, constant("weights", c, c, 1, 1), constant("vector", c))
		if rapid.Bool().Draw(t, "norm") {
			y = node("BatchNormalization", nil, y, constant("vector", c), constant("vector", c), constant("vector", c), constant("vector", c))
		}
		y = node("Relu", nil, y)
	}
	g.Outputs = []*graph.Value{node("Conv", nil, y, constant("head", 1, c, 1, 1))}
	return g
}

// What the cost model follows, class by class, forth and back, is what engine.Count finds in the cut graph, however its
// constants are shared.
func TestCostsOfSharedConstants(t *testing.T) {
	cuts := 0
	rapid.Check(t, func(t *rapid.T) {
		const c = 6
		g := sharing(t, c)
		in := []tensor.Type{g.Inputs[0].Type}
		a, base, err := examine(g, in)
		if err != nil {
			t.Fatal(err)
		}
		costs, f := newCosts(a, base, nil), newFloor(a, nil)
		remove := map[int]bool{}
		for _, id := range a.Free() {
			ids := []int{id}
			if !f.allows(ids) || rapid.IntRange(0, 2).Draw(t, "keeps") == 0 {
				continue
			}
			costs.remove(id, 1)
			if rapid.Bool().Draw(t, "puts back") {
				costs.remove(id, -1)
				continue
			}
			f.add(ids, -1)
			remove[id] = true
		}
		cut, err := rewrite.Cut(g, a, remove)
		if err != nil {
			t.Fatal(err)
		}
		got, err := engine.Count(cut, in)
		if err != nil {
			t.Fatal(err)
		}
		if len(remove) > 0 {
			cuts++
		}
		if got.MACs != costs.macs || got.Parameters != costs.params {
			t.Fatalf("without %d classes %d multiply-adds and %d parameters are left, predicted %d and %d", len(remove), got.MACs, got.Parameters, costs.macs, costs.params)
		}
	})
	if cuts == 0 {
		t.Error("nothing was ever cut")
	}
}
