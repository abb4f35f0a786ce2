package graph_test

import (
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// model is y = If(x + w): the branch reads h from outside.
func model() *graph.Graph {
	x := &graph.Value{Name: "x", Type: tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{-1, 3}, Symbols: []string{"batch", ""}}}
	w := &graph.Value{Name: "w", Const: tensor.From([]float32{1, 2, 3}, 3)}
	h, i, y := &graph.Value{Name: "h"}, &graph.Value{Name: "i"}, &graph.Value{Name: "y"}
	add := &graph.Node{Op: "Add", Inputs: []*graph.Value{x, w, nil}, Outputs: []*graph.Value{h}}
	relu := &graph.Node{Op: "Relu", Inputs: []*graph.Value{h}, Outputs: []*graph.Value{i}}
	body := &graph.Graph{Nodes: []*graph.Node{relu}, Outputs: []*graph.Value{i}}
	iff := &graph.Node{Op: "If", Inputs: []*graph.Value{x}, Outputs: []*graph.Value{y}, Attrs: graph.Attrs{
		graph.IntsAttr("k", 1, 2), {Name: "then_branch", Kind: graph.AttrGraph, Graph: body},
	}}
	h.Def, i.Def, y.Def = add, relu, iff
	return &graph.Graph{
		Name: "m", IR: 8, Opsets: map[string]int{"": 17}, Meta: map[string]string{"a": "b"},
		Inputs: []*graph.Value{x}, Inits: []*graph.Value{w}, Nodes: []*graph.Node{add, iff}, Outputs: []*graph.Value{y},
	}
}

func body(g *graph.Graph) *graph.Graph { return g.Nodes[1].Attrs[1].Graph }

func TestDiffSeesEveryChange(t *testing.T) {
	if err := graph.Diff(model(), model()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(g *graph.Graph){
		"name":              func(g *graph.Graph) { g.Name = "n" },
		"doc":               func(g *graph.Graph) { g.Doc = "d" },
		"IR":                func(g *graph.Graph) { g.IR = 9 },
		"opset":             func(g *graph.Graph) { g.Opsets[""] = 18 },
		"metadata":          func(g *graph.Graph) { g.Meta["a"] = "c" },
		"producer":          func(g *graph.Graph) { g.Producer.Name = "p" },
		"function":          func(g *graph.Graph) { g.Functions = [][]byte{{}} },
		"extra":             func(g *graph.Graph) { g.Extra = []byte{1} },
		"model extra":       func(g *graph.Graph) { g.ModelExtra = []byte{1} },
		"value name":        func(g *graph.Graph) { g.Inits[0].Name = "v" },
		"value doc":         func(g *graph.Graph) { g.Outputs[0].Doc = "d" },
		"inner value doc":   func(g *graph.Graph) { body(g).Outputs[0].Doc = "d" },
		"element type":      func(g *graph.Graph) { g.Inputs[0].Type.DType = tensor.Float16 },
		"dimension":         func(g *graph.Graph) { g.Inputs[0].Type.Shape[1] = 4 },
		"symbol":            func(g *graph.Graph) { g.Inputs[0].Type.Symbols[0] = "n" },
		"rank known":        func(g *graph.Graph) { g.Outputs[0].Type.Shape = tensor.Shape{} },
		"opaque type":       func(g *graph.Graph) { g.Inputs[0].Opaque = []byte{1} },
		"value extra":       func(g *graph.Graph) { g.Inputs[0].Extra = []byte{1} },
		"constant":          func(g *graph.Graph) { g.Inits[0].Const = tensor.From([]float32{1, 2, 4}, 3) },
		"constant's shape":  func(g *graph.Graph) { g.Inits[0].Const = tensor.From([]float32{1, 2, 3}, 1, 3) },
		"constant's extra":  func(g *graph.Graph) { g.Inits[0].ConstExtra = []byte{1} },
		"input as well":     func(g *graph.Graph) { g.Inputs = append(g.Inputs, g.Inits[0]) },
		"operator":          func(g *graph.Graph) { g.Nodes[0].Op = "Sub" },
		"domain":            func(g *graph.Graph) { g.Nodes[0].Domain = "d" },
		"overload":          func(g *graph.Graph) { g.Nodes[0].Overload = "o" },
		"node name":         func(g *graph.Graph) { g.Nodes[0].Name = "n" },
		"node doc":          func(g *graph.Graph) { g.Nodes[0].Doc = "d" },
		"node metadata":     func(g *graph.Graph) { g.Nodes[0].Meta = []graph.Pair{{}} },
		"node extra":        func(g *graph.Graph) { g.Nodes[0].Extra = []byte{1} },
		"inputs swapped":    func(g *graph.Graph) { in := g.Nodes[0].Inputs; in[0], in[1] = in[1], in[0] },
		"trailing omission": func(g *graph.Graph) { g.Nodes[0].Inputs = g.Nodes[0].Inputs[:2] },
		"another value":     func(g *graph.Graph) { g.Nodes[1].Inputs[0] = g.Nodes[0].Outputs[0] },
		"copy of a value":   func(g *graph.Graph) { c := *g.Inputs[0]; g.Nodes[1].Inputs[0] = &c },
		"capture":           func(g *graph.Graph) { body(g).Nodes[0].Inputs[0] = g.Inputs[0] },
		"attribute":         func(g *graph.Graph) { g.Nodes[1].Attrs[0].Ints[1] = 3 },
		"attribute kind":    func(g *graph.Graph) { g.Nodes[1].Attrs[0].Kind = graph.AttrFloats },
		"attribute order":   func(g *graph.Graph) { as := g.Nodes[1].Attrs; as[0], as[1] = as[1], as[0] },
		"no more nodes":     func(g *graph.Graph) { g.Nodes, g.Outputs = g.Nodes[:1], nil },
	} {
		g := model()
		change(g)
		if graph.Diff(model(), g) == nil || graph.Diff(g, model()) == nil {
			t.Errorf("%s: no difference seen", name)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := model().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(g *graph.Graph){
		"order":                  func(g *graph.Graph) { g.Nodes[0], g.Nodes[1] = g.Nodes[1], g.Nodes[0] },
		"nil input":              func(g *graph.Graph) { g.Inputs[0] = nil },
		"nil initializer":        func(g *graph.Graph) { g.Inits[0] = nil },
		"nil output":             func(g *graph.Graph) { g.Outputs[0] = nil },
		"input twice":            func(g *graph.Graph) { g.Inputs = append(g.Inputs, g.Inputs[0]) },
		"initializer twice":      func(g *graph.Graph) { g.Inits = append(g.Inits, g.Inits[0]) },
		"initializer without":    func(g *graph.Graph) { g.Inits[0].Const = nil },
		"initializer missing":    func(g *graph.Graph) { g.Inits = nil },
		"no name":                func(g *graph.Graph) { g.Outputs[0].Name = "" },
		"same name":              func(g *graph.Graph) { g.Outputs[0].Name = "x" },
		"no way back":            func(g *graph.Graph) { g.Outputs[0].Def = nil },
		"input from a node":      func(g *graph.Graph) { g.Inputs[0].Def = g.Nodes[1] },
		"yields twice":           func(g *graph.Graph) { g.Nodes[0].Outputs = append(g.Nodes[0].Outputs, g.Nodes[0].Outputs[0]) },
		"yields an input":        func(g *graph.Graph) { g.Nodes[0].Outputs = append(g.Nodes[0].Outputs, g.Inputs[0]) },
		"output from nowhere":    func(g *graph.Graph) { g.Outputs = append(g.Outputs, &graph.Value{Name: "z"}) },
		"hidden capture":         func(g *graph.Graph) { body(g).Outputs[0].Name = "h" },
		"body yields outer":      func(g *graph.Graph) { body(g).Inputs = g.Inputs },
		"outside reads the body": func(g *graph.Graph) { g.Outputs = body(g).Outputs },
	} {
		g := model()
		change(g)
		if g.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestClone(t *testing.T) {
	g := model()
	c, m := g.CloneMap()
	if err := graph.Diff(g, c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for v := range g.Values() {
		if m[v] == nil || m[v] == v {
			t.Errorf("%q was not copied", v.Name)
		}
	}
	if got := body(c).Nodes[0].Inputs[0]; got != c.Nodes[0].Outputs[0] {
		t.Error("the copy's body reads the original")
	}
	if uses := c.Uses()[c.Nodes[0].Outputs[0]]; len(uses) != 1 || uses[0] != (graph.Use{Node: c.Nodes[1], Input: -1}) {
		t.Errorf("uses of a captured value: %v", uses)
	}
	if n := g.Fresh("i"); n != "i_1" {
		t.Errorf("Fresh gave %q, which hides nothing only as i_1", n)
	}
}
