package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
)

// A node that yields what it reads makes no bit's difference.
func TestDropIdentities(t *testing.T) {
	one := func(name string) piece { return func(d drawing, x *graph.Value) { d.node(name, nil, x) } }
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			one("Identity"), one("Dropout"), one("Sum"), one("Max"),
			func(d drawing, x *graph.Value) {
				y := d.nodes(2, "Dropout", nil, x)
				if d.coin("mask") {
					d.node("Mul", nil, y[0], d.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, y[1]))
				}
			},
			func(d drawing, x *graph.Value) {
				to := pick(d, "to", tensor.Float32, tensor.Float64, tensor.Float16, tensor.Int32)
				y := d.node("Cast", graph.Attrs{graph.IntAttr("to", int(to))}, x)
				d.node("Cast", graph.Attrs{graph.IntAttr("to", int(tensor.Float32))}, y)
			},
			func(d drawing, x *graph.Value) {
				d.node("Transpose", graph.Attrs{graph.IntsAttr("perm", pick(d, "perm", []int{0, 1, 2, 3}, []int{1, 0, 2, 3}, []int{0, 1, 3, 2}, []int{0, 2, 1, 3})...)}, x)
			},
			func(d drawing, x *graph.Value) {
				d.node("Reshape", nil, x, pick(d, "shape", d.ints(0, 0, 0, 0), d.ints(0, -1, 1, 1), d.ints(0, 0, -1, 1)))
			},
			func(d drawing, x *graph.Value) { d.join(d.draw("axis", 0, 3), x) },
			func(d drawing, x *graph.Value) { // something of no length joined to it
				d.join(1, d.node("Slice", nil, x, d.ints(0), d.ints(int64(d.draw("end", 0, 1))), d.ints(1)), x)
			},
			func(d drawing, x *graph.Value) {
				start := pick[int64](d, "start", 0, 0, 1, -1, -100)
				d.node("Slice", nil, x, d.ints(start, 0), d.ints(pick[int64](d, "end", 100, -100), 100), d.ints(2, 0), d.ints(pick[int64](d, "step", 1, -1), 1))
			},
			func(d drawing, x *graph.Value) {
				n := int64(d.draw("pad", 0, 1))
				d.node("Pad", nil, x, d.ints(0, 0, n, 0, 0, 0, -n, 0))
			},
			func(d drawing, x *graph.Value) {
				a := graph.Attrs{graph.StrAttr("mode", pick(d, "mode", "nearest", "linear", "cubic")),
					graph.StrAttr("coordinate_transformation_mode", pick(d, "coordinates", "half_pixel", "align_corners", "asymmetric"))}
				d.node("Resize", a, x, nil, d.floats(1, 1, pick[float32](d, "scale", 1, 1, 1.1), 1))
			},
			func(d drawing, x *graph.Value) {
				d.nodes(1, "Split", graph.Attrs{graph.IntAttr("axis", 1)}, x)
				d.node("Tile", nil, x, d.ints(1, 1, 1, int64(d.draw("times", 1, 2))))
				d.node("Expand", nil, d.node("Slice", nil, x, d.ints(0), d.ints(1)), d.ints(int64(d.draw("batch", 1, 2)), 1, 1, 1))
			},
			func(d drawing, x *graph.Value) {
				k := d.draw("kernel", 1, 2)
				d.node(pick(d, "pool", "MaxPool", "AveragePool"), graph.Attrs{graph.IntsAttr("kernel_shape", k, k), graph.IntsAttr("pads", 0, 0, k-1, k-1)}, x)
			},
			func(d drawing, x *graph.Value) {
				name := pick(d, "operator", "Add", "Sub", "Mul", "Div")
				e := pick[float32](d, "element", 0, 1)
				if name == "Div" {
					e++
				}
				c := d.constant(tensor.From([]float32{e}, pick(d, "shape", []int{}, []int{1}, []int{1, 1, 1, 1}, []int{1, 1, 1, 1, 1})...))
				if d.coin("first") && name != "Div" {
					d.node(name, nil, c, x)
				} else {
					d.node(name, nil, x, c)
				}
			},
		), pass.DropIdentities, 0)
	})
	perm := func(p ...int) graph.Attrs { return graph.Attrs{graph.IntsAttr("perm", p...)} }
	mode := func(m string) graph.Attrs { return graph.Attrs{graph.StrAttr("mode", m)} }
	fires(t, pass.DropIdentities, 0, []firing{
		{"between", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Relu", nil, b.node("Dropout", nil, b.node("Identity", nil, x))))
		}, []string{"Relu"}},
		{"all of them", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Relu", nil, x)
			y = b.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, y)
			y = b.node("Transpose", perm(2, 0, 1), b.node("Squeeze", nil, b.node("Transpose", perm(0, 1, 2, 3), y), b.ints(0)))
			y = b.node("Concat", graph.Attrs{graph.IntAttr("axis", 0)}, y)
			y = b.node("Slice", nil, y, b.ints(0, -100), b.ints(1<<62, 100))
			y = b.node("Pad", nil, y, b.ints(0, 0, 0, 0, 0, 0))
			y = b.node("Resize", mode("linear"), y, nil, b.floats(1, 1, 1))
			y = b.node("Resize", mode("cubic"), y, nil, nil, b.ints(6, 4, 6))
			y = b.node("Mul", nil, b.number(1), b.node("Mul", nil, y, b.weight(1, 1, 4, 1)))
			y = b.node("Add", nil, b.number(0), b.node("Sub", nil, b.node("Div", nil, y, b.number(1)), b.number(0)))
			y = b.node("Reshape", nil, b.node("Expand", nil, b.node("Tile", nil, y, b.ints(1, 1, 1)), b.ints(1)), b.ints(0, -1, 6))
			return values(b.node("Neg", nil, y))
		}, []string{"Relu", "Squeeze", "Transpose", "Neg"}},
		{"an output of its own", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Relu", nil, x)
			return values(b.node("Identity", nil, y), b.node("Neg", nil, y))
		}, []string{"Relu", "Neg"}},
		{"both are outputs", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Relu", nil, x)
			z := b.node("Identity", nil, y)
			return values(y, z, b.node("Identity", nil, z))
		}, []string{"Relu", "Identity", "Identity"}},
		{"mask is read", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.nodes(2, "Dropout", nil, x)
			return values(b.node("Relu", nil, y[0]), b.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, y[1]))
		}, []string{"Dropout", "Relu", "Cast"}},
		{"mask is an output", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.nodes(2, "Dropout", nil, x)
			return values(b.node("Relu", nil, y[0]), y[1])
		}, []string{"Dropout", "Relu"}},
		{"from input to output", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Identity", nil, x))
		}, []string{"Identity"}},
		{"another shape, or another order", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, x, b.weight(1, 1, 2, 1, 1, 1)), b.node("Transpose", perm(0, 1, 3, 2), x),
				b.node("Slice", nil, x, b.ints(-1), b.ints(-100), b.ints(2), b.ints(-1)), b.node("Sub", nil, b.number(0), x),
				b.node("Div", nil, b.number(1), x), b.node("Pad", nil, x, b.ints(0, 0, 1, 0, 0, 0, -1, 0)),
				b.node("Cast", graph.Attrs{graph.IntAttr("to", 10)}, x))
		}, []string{"Mul", "Transpose", "Slice", "Sub", "Div", "Pad", "Cast"}},
	})
}
