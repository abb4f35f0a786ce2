package pass_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// Written out, an activation is rounded after each step: by a few ulp of x, which is 80 at most here.
func TestRestoreActivations(t *testing.T) {
	// times multiplies factors, of which nil stands for the number k, in any order.
	times := func(d drawing, k float32, factors ...*graph.Value) {
		by := func(x, y *graph.Value) *graph.Value {
			if x == nil {
				x, y = y, x
			}
			if y != nil {
				return d.node("Mul", nil, x, y)
			}
			if d.coin("divided") {
				return d.node("Div", nil, x, d.number(1/k))
			}
			return d.node("Mul", nil, d.number(k), x)
		}
		f := rapid.Permutation(factors).Draw(d.t, "order")
		y := by(f[0], f[1])
		if len(f) > 2 {
			if d.coin("turned") {
				y = by(f[2], y)
			} else {
				y = by(y, f[2])
			}
		}
		if d.draw("read", 0, 3) == 0 {
			d.node("Neg", nil, y)
		}
	}
	plus := func(d drawing, x *graph.Value, b float32) *graph.Value {
		if d.coin("first") {
			return d.node("Add", nil, d.number(b), x)
		}
		return d.node("Add", nil, x, d.number(b))
	}
	another := func(d drawing, x *graph.Value) *graph.Value {
		if d.draw("another", 0, 5) == 0 {
			return d.node("Neg", nil, x)
		}
		return x
	}
	hard := func(d drawing, x *graph.Value) *graph.Value {
		return d.node("Clip", nil, plus(d, another(d, x), pick[float32](d, "b", 3, 3, 2)), d.number(pick[float32](d, "lo", 0, 0, 0, 1)), d.number(pick[float32](d, "h", 6, 6, 6, 5)))
	}
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { times(d, 1.0/6, hard(d, x), nil) },
			func(d drawing, x *graph.Value) { times(d, 1.0/6, x, hard(d, x), nil) },
			func(d drawing, x *graph.Value) {
				root := pick[float32](d, "root", math.Sqrt2, math.Sqrt2, 1.4)
				y := another(d, x)
				if d.coin("divided") {
					y = d.node("Div", nil, y, d.number(root))
				} else {
					y = d.node("Mul", nil, y, d.number(1/root))
				}
				times(d, pick[float32](d, "k", .5, .5, .25), x, plus(d, d.node("Erf", nil, y), pick[float32](d, "one", 1, 1, 1, 2)), nil)
			},
		), pass.RestoreActivations, 1e-5)
	})
	relu6 := func(b *builder, x *graph.Value) *graph.Value {
		return b.node("Clip", nil, b.node("Add", nil, x, b.number(3)), b.number(0), b.number(6))
	}
	erf := func(b *builder, x *graph.Value, root float32) *graph.Value {
		return b.node("Add", nil, b.number(1), b.node("Erf", nil, b.node("Div", nil, x, b.number(root))))
	}
	fires(t, pass.RestoreActivations, 1e-5, []firing{
		{"hard sigmoid", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Div", nil, relu6(b, x), b.number(6)))
		}, []string{"HardSigmoid"}},
		{"hard swish", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, b.node("Mul", nil, x, relu6(b, x)), b.number(1.0/6)))
		}, []string{"HardSwish"}},
		{"hard swish, divided first", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, b.node("Div", nil, x, b.number(6)), relu6(b, x)))
		}, []string{"HardSwish"}},
		{"gelu", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, b.node("Mul", nil, x, erf(b, x, math.Sqrt2)), b.number(.5)))
		}, []string{"Gelu"}},
		{"gelu, halved first", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, erf(b, x, math.Sqrt2), b.node("Mul", nil, b.number(.5), x)))
		}, []string{"Gelu"}},
		{"by another number", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Div", nil, relu6(b, x), b.number(5)))
		}, []string{"Add", "Clip", "Div"}},
		{"gate of another", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Div", nil, b.node("Mul", nil, x, b.node("Clip", nil, b.node("Add", nil, b.node("Neg", nil, x), b.number(3)), b.number(0), b.number(6))), b.number(6)))
		}, []string{"Neg", "Add", "Clip", "Mul", "Div"}},
		{"the gate is read by others", func(b *builder, x *graph.Value) []*graph.Value {
			y := relu6(b, x)
			return values(b.node("Div", nil, b.node("Mul", nil, x, y), b.number(6)), y)
		}, []string{"Add", "Clip", "Mul", "Div"}},
		{"another root", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Mul", nil, b.node("Mul", nil, x, erf(b, x, 1.4)), b.number(.5)))
		}, []string{"Div", "Erf", "Add", "Mul", "Mul"}},
		{"squared", func(b *builder, x *graph.Value) []*graph.Value {
			y := relu6(b, x)
			return values(b.node("Div", nil, b.node("Mul", nil, y, y), b.number(6)))
		}, []string{"Add", "Clip", "Mul", "Div"}},
	})
}
