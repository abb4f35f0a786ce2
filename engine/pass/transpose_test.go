package pass_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
)

// Elements are moved once in place of twice: no bit differs.
func TestMergeTransposes(t *testing.T) {
	transpose := func(d drawing, x *graph.Value) *graph.Value {
		if d.draw("default", 0, 3) == 0 {
			return d.node("Transpose", nil, x)
		}
		return d.node("Transpose", graph.Attrs{graph.IntsAttr("perm", rapid.Permutation([]int{0, 1, 2, 3}).Draw(d.t, "perm")...)}, x)
	}
	rapid.Check(t, func(t *rapid.T) {
		law(t, draw(t,
			func(d drawing, x *graph.Value) { transpose(d, x) },
			func(d drawing, x *graph.Value) { transpose(d, transpose(d, x)) },
			func(d drawing, x *graph.Value) { transpose(d, transpose(d, transpose(d, x))) },
			func(d drawing, x *graph.Value) { transpose(d, d.node("Neg", nil, transpose(d, x))) },
		), pass.MergeTransposes, 0)
	})
	perm := func(p ...int) graph.Attrs { return graph.Attrs{graph.IntsAttr("perm", p...)} }
	both := func(g *graph.Graph, info pass.Info) {
		pass.MergeTransposes(g, info)
		pass.DropIdentities(g, info)
	}
	fires(t, both, 0, []firing{
		{"there and back", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Transpose", perm(0, 3, 1, 2), b.node("Transpose", perm(0, 2, 3, 1), b.node("Exp", nil, x)))
			return values(b.node("Neg", nil, y))
		}, []string{"Exp", "Neg"}},
		{"twice", func(b *builder, x *graph.Value) []*graph.Value {
			return values(b.node("Transpose", perm(0, 2, 3, 1), b.node("Transpose", perm(0, 2, 3, 1), x)))
		}, []string{"Transpose"}},
		{"the first is read by others", func(b *builder, x *graph.Value) []*graph.Value {
			y := b.node("Transpose", perm(0, 2, 3, 1), b.node("Exp", nil, x))
			return values(b.node("Neg", nil, b.node("Transpose", perm(0, 3, 1, 2), y)), y)
		}, []string{"Exp", "Transpose", "Neg"}},
	})
}
