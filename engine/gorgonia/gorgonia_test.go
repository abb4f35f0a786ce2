package gorgonia

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/zoo"
)

func embedded(t *testing.T, name string) *graph.Graph {
	t.Helper()
	for _, m := range models.All() {
		if m.Name == name {
			g, err := onnx.Decode(m.ONNX, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
	}
	t.Fatalf("no embedded model %q", name)
	return nil
}

// agree runs a model here and in the engine.
func agree(t *testing.T, g *graph.Graph, x *tensor.Tensor, runs int) {
	t.Helper()
	in := []tensor.Type{x.Type()}
	m, err := Compile(g, in, tensor.Float32)
	if err != nil {
		t.Fatal(err)
	}
	n, err := engine.Compile(g, in, engine.Options{Threads: 1, Verbatim: true})
	if err != nil {
		t.Fatal(err)
	}
	s := n.NewSession()
	for run := range runs { // a machine is used again
		got, err := m.Run(context.Background(), []*tensor.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		want, err := s.Run(context.Background(), []*tensor.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if got[i].Type().String() != want[i].Type().String() {
				t.Fatalf("output %d is %v, the engine's %v", i, got[i].Type(), want[i].Type())
			}
			if d := apart(got[i], want[i]); !(d <= 1e-4) {
				t.Errorf("run %d, output %d: max|Δ|/max|y| = %g", run, i, d)
			}
		}
	}
}

// large lists the networks that take too long for a test; make crosscheck has them all.
var large = []string{"convnext", "resnet18-fpn", "resnet18-linknet", "resnet18-u-net", "resnet18-u-net++", "resnext"}

// beyond lists the networks that gorgonia does not run, each with what it says.
var beyond = map[string]string{
	"keras-u-net":          "operator Mod is not lowered",
	"pranet":               "operator Equal is not lowered",
	"mobilenet-v3-pspnet":  "onnx-go",
	"mobilenet-v3-upernet": "onnx-go",
}

// TestModelsAgree: two implementations that share no arithmetic give the same, for whole networks.
func TestModelsAgree(t *testing.T) {
	for _, name := range []string{"polyp-unet", "polyp-lite0"} {
		t.Run(name, func(t *testing.T) { agree(t, embedded(t, name), w(1, 3, 64, 96), 2) })
	}
	for _, name := range zoo.Names() {
		if slices.Contains(large, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			g, err := zoo.Load(name, 1)
			if err != nil {
				t.Fatal(err)
			}
			if why := beyond[name]; why != "" {
				if _, err := Compile(g, []tensor.Type{g.Inputs[0].Type}, tensor.Float32); err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("got %v, want an error with %q", err, why)
				}
				return
			}
			agree(t, g, zoo.Image(g, 2), 1)
		})
	}
}

func TestWhatIsNotLoweredIsNamed(t *testing.T) {
	for _, c := range []struct {
		name string
		s    sample
		want string
	}{
		{"an operator", sample{op: "Det", opset: 17, shapes: [][]int{{2, 2}}}, "operator Det is not lowered"},
		{"a setting", sample{op: "Resize antialias", opset: 18, shapes: image, at: as{i1("antialias", 1)}, more: []any{nil, nil, []int64{2, 3, 9, 9}}}, "antialias"},
		{"what the data would decide", sample{op: "Reshape", opset: 17, shapes: [][]int{{4}, {1}}}, "depends on the data"},
		{"what no memory holds", sample{op: "Expand", opset: 17, shapes: [][]int{{1}}, more: []any{[]int64{1 << 20, 1 << 20}}}, "too large"},
		{"padding that no memory holds", sample{op: "AveragePool", opset: 17, shapes: image, at: as{is("kernel_shape", 1, 1), is("pads", 1<<40, 0, 0, 0)}}, "too large"},
		{"a window that takes forever", sample{op: "MaxPool", opset: 17, shapes: image, at: as{is("kernel_shape", 1<<40, 1), is("pads", 1<<40, 0, 0, 0)}}, "too large"},
		{"an operator that would panic", sample{op: "BatchNormalization", opset: 17, shapes: [][]int{{3}}, more: []any{w(3), w(3), w(3), w(3)}}, "panic"},
		{"an input that is missing", sample{op: "Add", opset: 17, shapes: [][]int{{2}}}, "input 1 is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, in := c.s.graph()
			_, err := Compile(g, types(in), tensor.Float32)
			if err == nil || !strings.HasPrefix(err.Error(), "gorgonia: node ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestFoldedShapes: shapes and constants are known when a model is lowered, whatever computes them.
func TestFoldedShapes(t *testing.T) {
	g, in := sample{op: "Reshape", opset: 17, shapes: image}.graph()
	last := g.Nodes[len(g.Nodes)-1]
	add := func(op string, at as, in ...*graph.Value) *graph.Value {
		n := &graph.Node{Op: op, Attrs: at, Inputs: in}
		n.Outputs = []*graph.Value{{Name: g.Fresh(op), Def: n}}
		g.Nodes = append(g.Nodes[:len(g.Nodes)-1], n, last)
		return n.Outputs[0]
	}
	constant := func(v ...int64) *graph.Value {
		return add("Constant", as{{Name: "value", Kind: graph.AttrTensor, Tensor: tensor.From(v, len(v))}})
	}
	shape := add("Shape", nil, g.Nodes[0].Outputs[0]) // 2 3 5 4
	tail := add("Slice", nil, shape, constant(1), constant(3))
	area := add("Mul", nil, add("Gather", nil, tail, constant(0)), add("Gather", nil, tail, constant(1)))
	half := add("Div", nil, area, constant(2)) // 15 / 2 is 7, and one more times 15 is all
	zero := add("Cast", as{i1("to", 7)}, add("ConstantOfShape", nil, constant(1)))
	rest := add("Sub", nil, add("Add", nil, half, constant(1)), zero)
	last.Inputs = append(last.Inputs, add("Concat", as{i1("axis", 0)}, area, rest))
	agree(t, g, in[0], 1)
}

// TestHalfWeights: onnx-go does not read float16, and need not.
func TestHalfWeights(t *testing.T) {
	g, in := sample{op: "Mul", opset: 17, shapes: image, more: []any{w(3, 1, 1)}}.graph()
	c := tensor.New(tensor.Float16, 3, 1, 1)
	copy(c.Data, []byte{0, 0x3c, 0, 0xc0, 0, 0x38}) // 1, -2, 0.5
	g.Inits[0].Const, g.Inits[0].Type = c, c.Type()
	agree(t, g, in[0], 1)
}
