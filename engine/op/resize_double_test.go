package op_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Resize of float32, which has loops for rows that are doubled, is that of float64, which has none, up to rounding.
func TestResizeRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		x := tensor.New(tensor.Float32, 1, 2, rapid.IntRange(1, 5).Draw(t, "h"), rapid.OneOf(rapid.IntRange(1, 40), rapid.IntRange(250, 530)).Draw(t, "w"))
		for i, v := 0, tensor.Of[float32](x); i < len(v); i++ {
			v[i] = float32(r.NormFloat64())
		}
		attrs := graph.Attrs{graph.StrAttr("mode", rapid.SampledFrom([]string{"nearest", "linear"}).Draw(t, "mode")),
			graph.StrAttr("coordinate_transformation_mode", rapid.SampledFrom(transforms[:5]).Draw(t, "transform")),
			graph.StrAttr("nearest_mode", rapid.SampledFrom([]string{"floor", "round_prefer_floor", "ceil"}).Draw(t, "rounding"))}
		scales := tensor.From([]float32{1, 1, rapid.SampledFrom([]float32{1, 2, 1.5}).Draw(t, "down"), rapid.SampledFrom([]float32{2, 2, 2, 3, .5}).Draw(t, "along")}, 4)
		if float32(x.Shape[3])*tensor.Of[float32](scales)[3] < 1 {
			return
		}
		exact, err := x.Float(tensor.Float64)
		if err != nil {
			t.Fatalf("%v", err)
		}
		n := node("Resize", 3, attrs)
		got, err := op.Apply(n, 19, tensor.Float32, x, nil, scales)
		if err != nil {
			t.Fatalf("%v", err)
		}
		want := tensor.Of[float64](call(t, 19, "Resize", attrs, exact, nil, scales))
		for i, v := range tensor.Of[float32](got[0]) {
			if math.Abs(float64(v)-want[i]) > 1e-5 {
				t.Fatalf("y[%d] = %g, want %g", i, v, want[i])
			}
		}
	})
}

// BenchmarkResize is a decoder's doubling.
func BenchmarkResize(b *testing.B) {
	for _, mode := range []string{"nearest", "linear"} {
		b.Run(mode, func(b *testing.B) {
			transform := map[string]string{"nearest": "asymmetric", "linear": "half_pixel"}[mode]
			n := node("Resize", 3, append(resizeAttrs(mode, transform), graph.StrAttr("nearest_mode", "floor")))
			x := tensor.New(tensor.Float32, 1, 64, 64, 64)
			run := bound(b, n, 19, x, nil, tensor.From([]float32{1, 1, 2, 2}, 4))
			b.SetBytes(int64(16 * x.Shape.Elems()))
			b.ReportAllocs()
			for b.Loop() {
				if err := run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
