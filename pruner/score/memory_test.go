package score

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/secateur/secateur/engine/tensor"
	classic "github.com/secateur/secateur/engine/unet"
	"github.com/secateur/secateur/engine/vision"
)

// Scores are the same to the bit with memory for every value and with next to none, with labels and with probes.
func TestMemoryChangesNoScore(t *testing.T) {
	g := classic.Classic(4, 1)
	in := tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 32, 32}}
	examples := Examples{N: 2, At: func(i int) (Example, error) {
		r := rand.New(rand.NewPCG(uint64(i), 9))
		x := tensor.New(in.DType, in.Shape...)
		for j := range tensor.Of[float32](x) {
			tensor.Of[float32](x)[j] = float32(r.NormFloat64())
		}
		m := &vision.Mask{W: 32, H: 32, Pix: make([]byte, 32*32)}
		for j := range m.Pix {
			m.Pix[j] = byte(r.IntN(2))
		}
		return Example{x, m}, nil
	}}
	l, _ := Logits(g)
	for _, labels := range []bool{true, false} {
		var want *Scores
		for _, memory := range []int64{1 << 40, 0, 1} {
			s, err := TaylorFO(t.Context(), g, []tensor.Type{in}, l, examples, edgesOf(g), Options{Labels: labels, Probes: 3, Memory: memory})
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = s
			}
			for _, e := range s.Edges {
				for n, row := range s.S[e] {
					if !slices.Equal(row, want.S[e][n]) {
						t.Errorf("labels %v, memory %d: sample %d at %v differs", labels, memory, n, e)
					}
				}
			}
		}
	}
}
