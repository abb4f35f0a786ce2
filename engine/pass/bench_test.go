package pass_test

import (
	"context"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
)

// BenchmarkEpilogues is four residual blocks, y + LeakyRelu(conv(conv(y))), with the sums and activations inside convolutions
// and outside, run by run; the ratio is what is gained.
func BenchmarkEpilogues(b *testing.B) {
	for _, c := range []struct {
		name        string
		channels, n int
	}{{"16x256x256", 16, 256}, {"64x128x128", 64, 128}, {"128x32x32", 128, 32}} {
		b.Run(c.name, func(b *testing.B) {
			bd, x := newBuilder(b, 1, 1, c.channels, c.n, c.n)
			y := x
			for range 4 {
				z := bd.node("LeakyRelu", nil, bd.conv(y, c.channels, 3))
				y = bd.node("LeakyRelu", nil, bd.node("Add", nil, bd.conv(z, c.channels, 3), y))
			}
			g := bd.done(y)
			in := []*tensor.Tensor{randomInput(x.Type.Shape)}
			var sessions []*engine.Session
			for _, fused := range []bool{true, false} {
				sessions = append(sessions, sessionOf(b, g, in[0].Type(), fused))
			}
			var took [2]float64
			for b.Loop() {
				for i, s := range sessions {
					before := b.Elapsed()
					if _, err := s.Run(context.Background(), in); err != nil {
						b.Fatal(err)
					}
					took[i] += (b.Elapsed() - before).Seconds()
				}
			}
			b.ReportMetric(took[1]/took[0], "times")
		})
	}
}

// sessionOf runs g with its epilogues fused, or not; every value has its own memory.
func sessionOf(b *testing.B, g *graph.Graph, typ tensor.Type, fused bool) *engine.Session {
	g = g.Clone()
	info, err := engine.Infer(g, []tensor.Type{typ}, tensor.Float32)
	if err != nil {
		b.Fatal(err)
	}
	if fused {
		pass.FuseEpilogues(g, info)
	}
	m, err := engine.Compile(g, []tensor.Type{typ}, engine.Options{Verbatim: true})
	if err != nil {
		b.Fatal(err)
	}
	return m.NewSession()
}
