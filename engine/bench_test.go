package engine_test

import (
	"context"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

// BenchmarkRun is one image of 256x256 through each built-in model; it must allocate nothing.
func BenchmarkRun(b *testing.B) {
	for _, f := range models.All() {
		b.Run(f.Name, func(b *testing.B) {
			g, err := onnx.Decode(f.ONNX, onnx.Options{})
			if err != nil {
				b.Fatal(err)
			}
			x := randomInput(1, 1, 3, 256, 256)
			m, err := engine.Compile(g, []tensor.Type{x.Type()}, engine.Options{})
			if err != nil {
				b.Fatal(err)
			}
			s, in, ctx := m.NewSession(), []*tensor.Tensor{x}, context.Background()
			b.ReportMetric(float64(m.SessionBytes())/1e6, "MB/session")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Run(ctx, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
