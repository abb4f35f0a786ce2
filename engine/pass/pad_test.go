package pass_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// A convolution adds up the same products, perhaps in tiles that begin elsewhere: a sum of at most 27 is off by as many ulp.
func TestFoldPads(t *testing.T) {
	minus := float32(math.Inf(-1))
	pad := func(d drawing, x *graph.Value, value float32) *graph.Value {
		p := make([]int64, 8)
		for i := range 4 {
			p[2+i+i/2*2] = int64(d.draw("pad", 0, 2))
		}
		if d.draw("spoil", 0, 5) == 0 {
			axis := d.draw("axis", 0, 7)
			if p[axis] = 1; d.shape(x)[axis%4] > 3 {
				p[axis] = -1
			}
		}
		attrs := graph.Attrs{}
		if d.draw("edge", 0, 5) == 0 {
			attrs = append(attrs, graph.StrAttr("mode", "edge"))
		}
		if value == 0 && d.coin("no value") {
			return d.node("Pad", attrs, x, d.ints(p...))
		}
		y := d.node("Pad", attrs, x, d.ints(p...), d.number(value))
		d.hidden[y] = value == minus
		return y
	}
	window := func(d drawing, k int) graph.Attrs {
		a := graph.Attrs{graph.IntsAttr("strides", d.draw("stride", 1, 2), d.draw("stride", 1, 2))}
		switch d.draw("pads", 0, 3) {
		case 0:
			a = append(a, graph.StrAttr("auto_pad", pick(d, "auto_pad", "VALID", "SAME_UPPER", "NOTSET")))
		case 1:
			a = append(a, graph.IntsAttr("pads", d.draw("top", 0, k-1), d.draw("left", 0, k-1), d.draw("bottom", 0, k-1), d.draw("right", 0, k-1)))
		}
		return a
	}
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) {
				k, value := d.draw("kernel", 1, 3), pick[float32](d, "value", 0, 0, 0, 1)
				y := pad(d, x, value)
				if d.coin("two pads") {
					y = pad(d, y, 0)
				}
				c := d.channels(y)
				d.node("Conv", window(d, k), y, d.weight(-.3, .3, 2, c, k, k))
			},
			func(d drawing, x *graph.Value) {
				k := d.draw("kernel", 2, 3)
				a := append(window(d, k), graph.IntsAttr("kernel_shape", k, k), graph.IntAttr("count_include_pad", d.draw("count", 0, 1)), graph.IntAttr("ceil_mode", d.draw("ceil", 0, 1)))
				d.node("AveragePool", a, pad(d, x, pick[float32](d, "value", 0, 0, 0, 1)))
			},
			func(d drawing, x *graph.Value) {
				k := d.draw("kernel", 2, 3)
				a := append(window(d, k), graph.IntsAttr("kernel_shape", k, k), graph.IntAttr("ceil_mode", d.draw("ceil", 0, 1)))
				if d.coin("not negative") {
					x = d.node("Relu", nil, x)
				}
				y := d.nodes(pick(d, "outputs", 1, 1, 2), "MaxPool", a, pad(d, x, pick(d, "value", minus, 0, 0, 1)))
				d.hidden[y[0]] = true
				if len(y) > 1 {
					d.node("Cast", graph.Attrs{graph.IntAttr("to", 1)}, y[1])
				}
			},
		), pass.FoldPads, 1e-5)
	})
	around := func(b *builder) *graph.Value { return b.ints(0, 0, 1, 1, 0, 0, 1, 1) }
	w := func(b *builder) *graph.Value { return b.weight(-1, 1, 2, 4, 3, 3) }
	pool := func(a ...graph.Attr) graph.Attrs {
		return append(graph.Attrs{graph.IntsAttr("kernel_shape", 3, 3)}, a...)
	}
	fires(t, pass.FoldPads, 1e-5, []firing{
		{"convolution", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Conv", nil, b.node("Pad", nil, x, around(b)), w(b)))
		}, []string{"Conv"}},
		{"convolution that pads itself", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.conv(b.node("Pad", nil, b.node("Pad", nil, x, around(b)), around(b), b.number(0)), 3, 3))
		}, []string{"Conv"}},
		{"average", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("AveragePool", pool(), b.node("Pad", nil, x, around(b))))
		}, []string{"AveragePool"}},
		{"average that counts its own padding", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("AveragePool", pool(graph.IntsAttr("pads", 1, 1, 1, 1), graph.IntAttr("count_include_pad", 1)), b.node("Pad", nil, x, around(b))))
		}, []string{"AveragePool"}},
		{"average that does not", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("AveragePool", pool(graph.IntsAttr("pads", 1, 1, 1, 1)), b.node("Pad", nil, x, around(b))))
		}, []string{"Pad", "AveragePool"}},
		{"maximum", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("MaxPool", pool(), b.node("Pad", nil, x, around(b), b.number(minus))))
		}, []string{"MaxPool"}},
		{"maximum of zeros", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("MaxPool", pool(), b.node("Pad", nil, x, around(b))))
		}, []string{"Pad", "MaxPool"}},
		{"maximum of zeros and what is not less", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("MaxPool", pool(), b.node("Pad", nil, b.node("Relu", nil, x), around(b))))
		}, []string{"Relu", "MaxPool"}},
		{"maximum in the border alone", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("MaxPool", pool(), b.node("Pad", nil, b.node("Relu", nil, x), b.ints(0, 0, 3, 0, 0, 0, 0, 0))))
		}, []string{"Relu", "Pad", "MaxPool"}},
		{"somebody else reads it", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Pad", nil, x, around(b))
			return values(b.node("Conv", nil, y, w(b)), b.node("Neg", nil, y))
		}, []string{"Pad", "Conv", "Neg"}},
		{"ones", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Conv", nil, b.node("Pad", nil, x, around(b), b.number(1)), w(b)))
		}, []string{"Pad", "Conv"}},
		{"more than windows may have", func(b *builder, x *graph.Value) []*graph.Value {
			x = b.node("ReduceMean", nil, x)
			return values(b.node("Conv", nil, b.node("Pad", nil, x, b.ints(0, 0, 0, 1<<16+1, 0, 0, 0, 0)), b.weight(-1, 1, 1, 1, 1, 1)))
		}, []string{"ReduceMean", "Pad", "Conv"}},
	})
}
