package zoo_test

import (
	"context"
	"math"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/zoo"
)

// Every network runs, and yields numbers that are neither all alike nor out of bounds; the same seed makes the same ones,
// and to optimise changes nothing.
func TestNetworksRun(t *testing.T) {
	for _, name := range zoo.Names() {
		t.Run(name, func(t *testing.T) {
			var outs [][]float32
			for _, opt := range []engine.Options{{Threads: 1}, {Threads: 1, Verbatim: true}} {
				g, err := zoo.Load(name, 1)
				if err != nil {
					t.Fatal(err)
				}
				in := []tensor.Type{g.Inputs[0].Type}
				m, err := engine.Compile(g, in, opt)
				if err != nil {
					t.Fatal(err)
				}
				out, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{zoo.Image(g, 2)})
				if err != nil {
					t.Fatal(err)
				}
				outs = append(outs, append([]float32{}, tensor.Of[float32](out[0])...))
			}
			lo, hi, diff := math.Inf(1), math.Inf(-1), 0.0
			for i, v := range outs[0] {
				lo, hi = math.Min(lo, float64(v)), math.Max(hi, float64(v))
				diff = math.Max(diff, math.Abs(float64(v)-float64(outs[1][i])))
			}
			if !(hi-lo > 1e-2 && hi < 1e3 && lo > -1e3) {
				t.Errorf("values from %g to %g", lo, hi)
			}
			if top := math.Max(hi, -lo); !(diff <= 1e-4*top) {
				t.Errorf("optimised and not differ by %g, values up to %g", diff, top)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	if _, err := zoo.Load("no-net", 1); err == nil {
		t.Error("there is no such network")
	}
}
