package pass_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// scaled is x scaled or moved by a constant, or by something that only looks like one.
func (d drawing) scaled(x *graph.Value) *graph.Value {
	c, rank := d.channels(x), len(d.shape(x))
	shapes := [][]int{{}, {1}, {1, 1, 1}, {1, c, 1, 1}, {c, 1, 1}, {c, 1, 1}, {1, 1, 1, 1, 1}}
	spoilt := [][]int{{1, 1, d.shape(x)[rank-1]}, {d.shape(x)[0], c, 1, 1}, {2, 1, c, 1, 1}}
	if rank == 2 {
		shapes = [][]int{{}, {1}, {1, 1}, {c}, {1, c}, {c}}
		spoilt = [][]int{{d.shape(x)[0], 1}, {2, 1, c}}
	}
	shape := pick(d, "shape", shapes...)
	if d.draw("spoil", 0, 6) == 0 {
		shape = pick(d, "shape", spoilt...)
	}
	lo := -2.0
	name := pick(d, "operator", "Add", "Sub", "Mul", "Div", "BatchNormalization")
	switch name {
	case "BatchNormalization":
		return d.batchNorm(x)
	case "Div":
		lo = .5
	}
	k := d.weight(lo, 2, shape...)
	if d.draw("not constant", 0, 8) == 0 {
		k = d.node("Add", nil, d.computed(x, shape...), d.number(.5))
	}
	if d.coin("first") && name != "Div" {
		return d.node(name, nil, k, x)
	}
	return d.node(name, nil, x, k)
}

func (d drawing) randomGemm(x *graph.Value) *graph.Value {
	x = d.node("Reshape", nil, d.node("Slice", nil, d.node("Flatten", nil, x), d.ints(0), d.ints(8), d.ints(1)), d.ints(int64(d.shape(x)[0]), -1))
	m, k, n := d.shape(x)[0], d.shape(x)[1], d.draw("n", 1, 4)
	a := graph.Attrs{graph.FloatAttr("alpha", .5), graph.FloatAttr("beta", 2)}
	if d.coin("scaled before") {
		x = d.scaled(x)
		if len(d.shape(x)) != 2 {
			return x
		}
		m, k = d.shape(x)[0], d.shape(x)[1]
	}
	if d.draw("transA", 0, 3) == 0 {
		a, m, k = append(a, graph.IntAttr("transA", 1)), k, m
	}
	shape := []int{k, n}
	if d.coin("transB") {
		a, shape = append(a, graph.IntAttr("transB", 1)), []int{n, k}
	}
	in := []*graph.Value{x, d.weight(-.3, .3, shape...)}
	switch d.draw("c", 0, 4) {
	case 0:
		in = append(in, d.weight(-1, 1, m, 1))
	case 1:
		in = append(in, d.weight(-1, 1))
	case 2:
		in = append(in, d.weight(-1, 1, n))
	case 3:
		in = append(in, d.computed(x, n))
	}
	return d.node("Gemm", a, in...)
}

// Folded constants are rounded once more than those of the file. A sum of at most 36 products is then off by as many ulp of
// what was added up, that is of the numbers before they were scaled and moved: a few times the result.
func TestFoldAffine(t *testing.T) {
	ranked := func(d drawing, x *graph.Value) bool { return len(d.shape(x)) == 4 }
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { // behind
				y := d.randomConv(x)
				for range d.draw("times", 1, 3) {
					if ranked(d, y) {
						y = d.scaled(y)
					}
				}
			},
			func(d drawing, x *graph.Value) { // before
				for range d.draw("times", 1, 3) {
					if ranked(d, x) {
						x = d.scaled(x)
					}
				}
				if ranked(d, x) && d.channels(x) < 10 {
					if d.coin("unpadded") {
						d.node("Conv", graph.Attrs{graph.StrAttr("auto_pad", "VALID")}, x, d.weight(-.5, .5, 2, d.channels(x), 1, 2))
					} else {
						d.randomConv(x)
					}
				}
			},
			func(d drawing, x *graph.Value) {
				y := d.randomGemm(x)
				if len(d.shape(y)) == 2 {
					d.scaled(y)
				}
			},
			func(d drawing, x *graph.Value) { // twice, which is no constant
				y := d.randomConv(x)
				d.node(pick(d, "operator", "Add", "Mul"), nil, y, y)
			},
		), pass.FoldAffine, 3e-5)
	})
	valid := func(b *builder, x *graph.Value) *graph.Value {
		return b.node("Conv", nil, x, b.weight(-.2, .2, 3, 4, 3, 3))
	}
	fires(t, pass.FoldAffine, 3e-5, []firing{
		{"behind", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Mul", nil, b.weight(1, 2, 5, 1, 1), b.conv(x, 5, 3))
			y = b.node("Sub", nil, b.number(1), b.node("Div", nil, b.node("Add", nil, y, b.weight(1, 2, 1, 5, 1, 1)), b.number(3)))
			return values(b.batchNorm(y))
		}, []string{"Conv"}},
		{"behind a transposed one", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("ConvTranspose", graph.Attrs{graph.IntsAttr("strides", 2, 2), graph.IntAttr("group", 2)}, x, b.weight(-1, 1, 4, 3, 2, 2))
			return values(b.node("Mul", nil, y, b.weight(1, 2, 6, 1, 1)))
		}, []string{"ConvTranspose"}},
		{"behind a product", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Gemm", graph.Attrs{graph.IntAttr("transB", 1)}, b.node("Flatten", nil, x), b.weight(-.1, .1, 5, 144))
			return values(b.node("Add", nil, b.node("Mul", nil, y, b.weight(1, 2, 5)), b.weight(1, 2, 1, 5)))
		}, []string{"Flatten", "Gemm"}},
		{"scaled before", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.conv(b.node("Div", nil, b.node("Mul", nil, x, b.weight(1, 2, 4, 1, 1)), b.number(255)), 5, 3))
		}, []string{"Conv"}},
		{"moved before", func(b *builder, x *graph.Value) []*graph.Value {
			return values(valid(b, b.node("Div", nil, b.node("Sub", nil, x, b.weight(1, 2, 1, 4, 1, 1)), b.number(2))))
		}, []string{"Conv"}},
		{"moved before, where there is a border", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.conv(b.node("Mul", nil, b.node("Add", nil, x, b.number(1)), b.number(2)), 5, 3))
		}, []string{"Add", "Conv"}},
		{"moved before a transposed one", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("ConvTranspose", nil, b.node("Add", nil, x, b.number(1)), b.weight(-1, 1, 4, 3, 2, 2)))
		}, []string{"Add", "ConvTranspose"}},
		{"read twice", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.conv(x, 5, 3)
			return values(b.node("Mul", nil, y, b.number(2)), b.node("Mul", nil, y, b.number(3)))
		}, []string{"Conv", "Mul", "Mul"}},
		{"scaled for two", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Mul", nil, x, b.number(2))
			return values(b.conv(y, 5, 3), b.conv(y, 5, 1))
		}, []string{"Mul", "Conv", "Conv"}},
		{"of each pixel", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, b.conv(x, 5, 3), b.weight(1, 2, 6)))
		}, []string{"Conv", "Mul"}},
		{"of a batch", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, b.conv(x, 5, 3), b.weight(1, 2, 2, 5, 1, 1)))
		}, []string{"Conv", "Mul"}},
		{"larger than the type can hold", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Mul", nil, b.node("Mul", nil, b.conv(x, 5, 3), b.number(math.MaxFloat32)), b.number(math.MaxFloat32))
			return values(b.node("Sigmoid", nil, b.node("Sub", nil, b.number(0), b.node("Abs", nil, y))))
		}, []string{"Conv", "Mul", "Mul", "Abs", "Sub", "Sigmoid"}},
		{"divided by 0", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Sigmoid", nil, b.node("Div", nil, b.node("Abs", nil, b.conv(x, 5, 3)), b.number(0))),
				b.node("Tanh", nil, b.node("Div", nil, b.conv(x, 5, 3), b.number(0))))
		}, []string{"Conv", "Abs", "Div", "Sigmoid", "Conv", "Div", "Tanh"}},
	})
}

// Weights that many convolutions share are copied only so often.
func TestFoldAffineIsBounded(t *testing.T) {
	b, x := newBuilder(t, 1, 1, 1, 1, 1)
	w := b.weight(-1, 1, 1<<18, 1, 1, 1)
	var outs []*graph.Value
	for range 260 {
		outs = append(outs, b.node("Mul", nil, b.node("Conv", nil, x, w), b.number(2)))
	}
	g := b.done(outs...)
	before := len(g.Nodes)
	pass.FoldAffine(g, b.info)
	bytes := 0
	for _, v := range g.Inits {
		bytes += len(v.Const.Data)
	}
	if bytes > 1<<28+1<<22 || len(g.Nodes) == before {
		t.Errorf("%d bytes of constants, %d nodes of %d", bytes, len(g.Nodes), before)
	}
}
