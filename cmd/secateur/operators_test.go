package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/grad"
	"github.com/secateur/secateur/pruner/group"
)

var update = flag.Bool("update", false, "write docs/OPERATORS.md instead of checking it")

// operand is an input of a node that is tried: of the element type tried, unless it says which values it has.
type operand struct {
	shape tensor.Shape
	fixed *tensor.Tensor
}

func of(shape ...int) operand { return operand{shape: shape} }

func ints(v ...int64) operand { return operand{fixed: tensor.From(v, len(v))} }

// trial is a node whose operands take every element type in turn.
type trial struct {
	in      []operand
	attrs   graph.Attrs
	outputs int // 0: 1
}

var (
	picture   = of(1, 4, 4, 4)
	indices   = operand{fixed: tensor.From([]int64{0}, 1, 1, 1, 1)}
	condition = operand{fixed: tensor.From([]bool{true}, 1)}
	scales    = operand{fixed: tensor.From([]float32{1, 1, 2, 2}, 4)}
	window    = graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2)}
	blocks    = graph.Attrs{graph.IntAttr("blocksize", 2)}
	pair      = trial{in: []operand{picture, picture}}
)

// trials has the operators that take more than one picture.
var trials = map[string]trial{
	"Add": pair, "Sub": pair, "Mul": pair, "Div": pair, "Pow": pair, "Mod": pair, "And": pair, "Or": pair, "Xor": pair, "PRelu": pair,
	"Equal": pair, "Greater": pair, "GreaterOrEqual": pair, "Less": pair, "LessOrEqual": pair, "CastLike": pair,
	"Min": pair, "Max": pair, "Sum": pair, "Mean": pair,
	"Concat":                {in: pair.in, attrs: graph.Attrs{graph.IntAttr("axis", 1)}},
	"Where":                 {in: []operand{condition, picture, picture}},
	"Cast":                  {in: []operand{picture}, attrs: graph.Attrs{graph.IntAttr("to", int(tensor.Float32))}},
	"Split":                 {in: []operand{picture}, attrs: graph.Attrs{graph.IntAttr("axis", 1), graph.IntAttr("num_outputs", 2)}, outputs: 2},
	"Slice":                 {in: []operand{picture, ints(0), ints(2)}},
	"Gather":                {in: []operand{picture, ints(0)}},
	"GatherElements":        {in: []operand{picture, indices}},
	"GatherND":              {in: []operand{picture, ints(0)}},
	"ScatterND":             {in: []operand{picture, ints(0), of(4, 4, 4)}},
	"Reshape":               {in: []operand{picture, ints(-1)}},
	"Squeeze":               {in: []operand{picture, ints(0)}},
	"Unsqueeze":             {in: []operand{picture, ints(0)}},
	"Expand":                {in: []operand{picture, ints(2, 4, 4, 4)}},
	"Tile":                  {in: []operand{picture, ints(2, 1, 1, 1)}},
	"Pad":                   {in: []operand{picture, ints(0, 0, 1, 1, 0, 0, 1, 1)}},
	"Range":                 {in: []operand{of(), of(), of()}},
	"Resize":                {in: []operand{picture, {}, scales}},
	"Upsample":              {in: []operand{picture, scales}},
	"Conv":                  {in: []operand{picture, of(4, 4, 1, 1)}},
	"ConvTranspose":         {in: []operand{picture, of(4, 4, 1, 1)}},
	"Gemm":                  {in: []operand{of(4, 4), of(4, 4)}},
	"MatMul":                {in: []operand{of(4, 4), of(4, 4)}},
	"BatchNormalization":    {in: []operand{picture, of(4), of(4), of(4), of(4)}},
	"InstanceNormalization": {in: []operand{picture, of(4), of(4)}}, "GroupNormalization": {in: []operand{picture, of(4), of(4)}, attrs: graph.Attrs{graph.IntAttr("num_groups", 2)}},
	"LayerNormalization": {in: []operand{picture, of(4)}},
	"QuantizeLinear":     {in: []operand{picture, of()}}, "DequantizeLinear": {in: []operand{picture, {fixed: tensor.Scalar(float32(1))}}},
	"DepthToSpace": {in: []operand{picture}, attrs: blocks}, "SpaceToDepth": {in: []operand{picture}, attrs: blocks},
	"MaxPool": {in: []operand{picture}, attrs: window}, "AveragePool": {in: []operand{picture}, attrs: window},
}

// unread has the operators whose first input, if any, is of one type: what is listed is what they yield.
var unread = map[string]string{"Constant": "any", "ConstantOfShape": "float, int, bool"}

// run tries an operator at its newest opset.
func (c trial) run(name string, opset int, dt tensor.DType) error {
	n := &graph.Node{Op: name, Attrs: c.attrs, Outputs: []*graph.Value{{Name: "y"}}}
	for i := 1; i < c.outputs; i++ {
		n.Outputs = append(n.Outputs, &graph.Value{Name: fmt.Sprint("y", i)})
	}
	var in []*tensor.Tensor
	for i, o := range c.in {
		t := o.fixed
		if t == nil && (o.shape != nil || i == 0 || name == "Range" || name == "QuantizeLinear") {
			t = some(dt, o.shape)
		}
		in = append(in, t)
		n.Inputs = append(n.Inputs, &graph.Value{Name: fmt.Sprint("x", i)})
		if t == nil {
			n.Inputs[i] = nil
		}
	}
	_, err := op.Apply(n, opset, tensor.Float32, in...)
	return err
}

// some makes a tensor of ones, or of fractions.
func some(dt tensor.DType, shape tensor.Shape) *tensor.Tensor {
	t := tensor.New(dt, shape...)
	for i := range t.Data {
		if dt.IsFloat() {
			t.Data[i] = 0x3f
		} else if i%dt.Size(1) == 0 {
			t.Data[i] = 1
		}
	}
	return t
}

// kinds is the element types that go together in the table.
var kinds = []struct {
	name  string
	types []tensor.DType
}{
	{"float", []tensor.DType{tensor.Float32, tensor.Float64, tensor.Float16, tensor.BFloat16}},
	{"int", []tensor.DType{tensor.Int8, tensor.Int16, tensor.Int32, tensor.Int64, tensor.Uint8, tensor.Uint16, tensor.Uint32, tensor.Uint64}},
	{"bool", []tensor.DType{tensor.Bool}},
}

// elements lists the element types that an operator runs on, as op.Apply finds.
func elements(name string, opset int) string {
	if s := unread[name]; s != "" {
		return s
	}
	c, ok := trials[name]
	if !ok {
		c = trial{in: []operand{picture}}
	}
	var list []string
	for _, k := range kinds {
		var runs []string
		for _, dt := range k.types {
			if c.run(name, opset, dt) == nil {
				runs = append(runs, dt.String())
			}
		}
		if len(runs) == len(k.types) {
			runs = []string{k.name}
		}
		list = append(list, runs...)
	}
	return strings.Join(list, ", ")
}

// TestOperatorsPage: the page lists exactly the operators of the engine's table, and what the pruner's tables say of them.
// `make generate` writes it.
func TestOperatorsPage(t *testing.T) {
	since := map[string][]int{}
	for _, d := range op.Table {
		if d.Domain == "" {
			since[d.Op] = append(since[d.Op], d.Since)
		}
	}
	gradients, channels := grad.Operators(), group.Operators()
	var b strings.Builder
	b.WriteString("# Operators\n\nGenerated from the engine's table and the pruner's; `make generate` brings it up to date.\n\n" +
		"The ONNX operators that the engine runs, and the opsets at which their definitions begin; the newest that is not above\n" +
		"the model's opset applies. Any other operator is kept in the file, and refused by name when the model is to run.\n\n" +
		"- *elements*: the types that the data which is read first may have: float is float32, and float16, bfloat16 and float64, which run as\n" +
		"  float32; int is all integers of 8 to 64 bits;\n" +
		"- *gradient*: scores and training go back through it;\n" +
		"- *channels*: layers around it can lose channels. An operator without keeps all channels that it reads.\n\n" +
		"| operator | since opset | elements | gradient | channels |\n|---|---|---|---|---|\n")
	yes := func(list []string, name string) string {
		if slices.Contains(list, name) {
			return "yes"
		}
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(since)) {
		slices.Sort(since[name])
		el := elements(name, since[name][len(since[name])-1])
		if el == "" {
			t.Errorf("%s runs on no element type; it lacks a trial", name)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, strings.Trim(fmt.Sprint(since[name]), "[]"), el, yes(gradients, name), yes(channels, name))
	}
	path := filepath.Join("..", "..", "docs", "OPERATORS.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/OPERATORS.md does not list what the tables have; run: make generate")
	}
}
