package group_test

import (
	"strings"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
)

func analyze(t *testing.T, g *graph.Graph, shape ...int) *group.Analysis {
	t.Helper()
	info, err := engine.Infer(g, []tensor.Type{{DType: tensor.Float32, Shape: shape}}, tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	a, err := group.Analyze(g, info)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// In both models every layer but the head can be pruned, down to the last channel: no operator pins by mistake.
func TestModelsArePrunable(t *testing.T) {
	for _, m := range models.All() {
		g, err := onnx.Decode(m.ONNX, onnx.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a := analyze(t, g, 1, 3, 64, 64)
		layers := a.Layers()
		for i, l := range layers {
			if l.Name == "" || len(l.Class) != l.Channels {
				t.Errorf("%s: layer %d: %+v", m.Name, i, l)
			}
			if head := i == len(layers)-1; head {
				if l.Prunable != 0 || !strings.Contains(l.Pinned, `the model's output "logits"`) {
					t.Errorf("%s: the head %s: %d channels can go, pinned %q", m.Name, l.Name, l.Prunable, l.Pinned)
				}
			} else if l.Prunable != l.Channels || l.Pinned != "" {
				t.Errorf("%s: layer %s: %d of %d channels can go, pinned %q", m.Name, l.Name, l.Prunable, l.Channels, l.Pinned)
			}
		}
		for _, e := range a.Edges() {
			for p, id := range a.EdgeClasses(e) {
				if a.ClassOf(e, p) != id {
					t.Fatalf("%s: %v: position %d", m.Name, e, p)
				}
			}
			if a.ClassOf(e, -1) != -1 || a.ClassOf(e, 1<<20) != -1 {
				t.Errorf("%s: %v: a class where there is no channel", m.Name, e)
			}
		}
	}
}

// chain is conv -> middle -> conv, in which the middle decides what may go.
func chain(channels int, middle func(x *graph.Value, add func(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value) *graph.Value) *graph.Graph {
	x := &graph.Value{Name: "x"}
	g := &graph.Graph{IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{x}}
	add := func(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
		n := &graph.Node{Op: op, Name: "my_" + op, Inputs: in, Attrs: attrs}
		for _, v := range in {
			if v.Const != nil && g.Fresh(v.Name) == v.Name {
				g.Inits = append(g.Inits, v)
			}
		}
		y := &graph.Value{Name: g.Fresh("y"), Def: n}
		n.Outputs = []*graph.Value{y}
		g.Nodes = append(g.Nodes, n)
		return y
	}
	h := add("Conv", nil, x, &graph.Value{Name: "w1", Const: tensor.New(tensor.Float32, channels, 3, 1, 1)})
	h = middle(h, add)
	h = add("Conv", nil, h, &graph.Value{Name: "w2", Const: tensor.New(tensor.Float32, 1, channels, 1, 1)})
	g.Outputs = []*graph.Value{h}
	return g
}

func list(name string, v ...int64) *graph.Value {
	return &graph.Value{Name: name, Const: tensor.From(v, len(v))}
}

func TestReasonsAreWords(t *testing.T) {
	type adder = func(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value
	for _, c := range []struct {
		name   string
		middle func(x *graph.Value, add adder) *graph.Value
		want   string // a part of the reason; empty: free
	}{
		{"relu", func(x *graph.Value, add adder) *graph.Value { return add("Relu", nil, x) }, ""},
		{"softmax over channels", func(x *graph.Value, add adder) *graph.Value {
			return add("Softmax", graph.Attrs{graph.IntAttr("axis", 1)}, x)
		}, "Softmax over channels"},
		{"softmax over width", func(x *graph.Value, add adder) *graph.Value { return add("Softmax", nil, x) }, ""},
		{"grouped", func(x *graph.Value, add adder) *graph.Value {
			w := &graph.Value{Name: "wg", Const: tensor.New(tensor.Float32, 6, 3, 1, 1)}
			return add("Conv", graph.Attrs{graph.IntAttr("group", 2)}, x, w)
		}, ""},
		{"grouped, of the input too", func(x *graph.Value, add adder) *graph.Value {
			w := &graph.Value{Name: "wg", Const: tensor.New(tensor.Float32, 6, 3, 1, 1)}
			y := add("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, x.Def.Inputs[0], x)
			y = add("Slice", nil, y, list("from", 0), list("to", 6), list("along", 1))
			return add("Mul", nil, x, add("Conv", graph.Attrs{graph.IntAttr("group", 2)}, y, w))
		}, "grouped convolution"},
		{"shuffled", func(x *graph.Value, add adder) *graph.Value {
			y := add("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 1, 3, 4)}, add("Reshape", nil, x, list("apart", 1, 2, 3, 4, 4)))
			return add("Reshape", nil, y, list("joined", 0, 6, 4, 4))
		}, ""},
		{"cut in bands", func(x *graph.Value, add adder) *graph.Value {
			return add("Reshape", nil, add("Reshape", nil, x, list("apart", 1, 4, 24)), list("joined", 0, 6, 4, 4))
		}, ""},
		{"mixed with space", func(x *graph.Value, add adder) *graph.Value {
			y := add("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, x, add("Slice", nil, x, list("from", 0), list("to", 1), list("along", 1)))
			y = add("Transpose", graph.Attrs{graph.IntsAttr("perm", 0, 2, 3, 1)}, y)
			y = add("Reshape", nil, add("Reshape", nil, y, list("apart", 1, 28, 4)), list("joined", 7, 4, 4))
			return add("Mul", nil, x, add("Slice", nil, y, list("zero", 0), list("six", 6), list("first", 0)))
		}, "moves channels among other axes"},
		{"picked", func(x *graph.Value, add adder) *graph.Value {
			return add("Gather", graph.Attrs{graph.IntAttr("axis", 1)}, x, list("order", 5, 4, 3, 2, 1, 0))
		}, ""},
		{"halved, as exported", func(x *graph.Value, add adder) *graph.Value {
			c := add("Gather", nil, add("Shape", nil, x), list("first", 1))
			half := add("Div", nil, add("Add", nil, c, list("one", 1)), list("two", 2))
			y := add("Slice", nil, x, list("zero", 0), half, list("along", 1))
			z := add("Slice", nil, x, half, add("Mul", nil, half, list("twice", 2)), list("across", 1))
			return add("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, z, y)
		}, ""},
		{"cut by the height", func(x *graph.Value, add adder) *graph.Value {
			h := add("Gather", nil, add("Shape", nil, x), list("height", 2))
			y := add("Slice", nil, x, list("zero", 0), add("Add", nil, h, list("two", 2)), list("along", 1))
			return add("Mul", nil, x, y)
		}, "in a way that has no rule"},
		{"cut by the height and itself", func(x *graph.Value, add adder) *graph.Value {
			of := func(name string, i int64) *graph.Value {
				return add("Gather", nil, add("Shape", nil, x), list(name, i))
			}
			by := add("Sub", nil, add("Add", nil, of("channels", 1), of("height", 2)), list("four", 4))
			return add("Mul", nil, x, add("Slice", nil, x, list("zero", 0), by, list("along", 1)))
		}, "in a way that has no rule"},
		{"scaled by how many they are", func(x *graph.Value, add adder) *graph.Value {
			c := add("Gather", nil, add("Shape", nil, x), list("first", 1))
			return add("Div", nil, x, add("Sqrt", nil, add("Cast", graph.Attrs{graph.IntAttr("to", 1)}, c)))
		}, "computes with its channel count"},
		{"normalised over channels", func(x *graph.Value, add adder) *graph.Value {
			return add("Softmax", graph.Attrs{graph.IntAttr("axis", 1)}, add("Expand", nil, x, list("same", 1, 6, 4, 4)))
		}, "Softmax over channels"},
		{"mean over channels", func(x *graph.Value, add adder) *graph.Value {
			return add("Mul", nil, x, add("ReduceMean", graph.Attrs{graph.IntsAttr("axes", 1)}, x))
		}, "ReduceMean over channels"},
		{"with the input", func(x *graph.Value, add adder) *graph.Value {
			return add("Add", nil, x, add("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, x.Def.Inputs[0], x.Def.Inputs[0]))
		}, "cannot shrink"},
	} {
		a := analyze(t, chain(6, c.middle), 1, 3, 4, 4)
		l := a.Layers()[0]
		switch {
		case c.want == "" && l.Prunable != 6:
			t.Errorf("%s: %d channels can go, pinned %q", c.name, l.Prunable, l.Pinned)
		case c.want != "" && (l.Prunable != 0 || !strings.Contains(l.Pinned, c.want)):
			t.Errorf("%s: %d channels can go, pinned %q, want %q in it", c.name, l.Prunable, l.Pinned, c.want)
		}
	}
}
