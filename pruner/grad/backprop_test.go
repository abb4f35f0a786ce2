package grad

import (
	"math"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/unet"
)

// What Backprop gives at every edge, of values and of weights, is what Walk gives over a trace, to the bit: with memory
// for everything and with hardly any, again on the next way back, and in the next run after weights have moved.
func TestBackpropIsWalk(t *testing.T) {
	again := 0.
	for seed := range uint64(16) {
		b := randomNet(seed)
		run := b.done(t, b.g.Outputs...)
		seeds, want, inside := b.g.Outputs, map[Edge]bool{}, b.g.Nodes[len(b.g.Nodes)/2].Outputs[0]
		if seed%2 == 1 && b.g.Nodes[len(b.g.Nodes)/2].Op != "Split" { // and one in the middle
			seeds = append([]*graph.Value{inside}, seeds...)
		}
		for _, n := range b.g.Nodes {
			for i, v := range n.Inputs {
				if v != nil && (v.Def != nil || i == 1 && n.Op == "Conv") {
					want[Edge{n, i}] = true
				}
			}
		}
		for _, memory := range []int64{1, 1 << 40} {
			for _, once := range []bool{false, true} {
				p, err := NewBackprop(b.g, b.in, seeds, want, Options{Float: tensor.Float64, Memory: memory, Once: once})
				if err != nil {
					t.Fatal(err)
				}
				if memory == 1 {
					again += p.Again()
				} else if p.Again() != 0 {
					t.Fatalf("seed %d: %g is done again with memory for everything", seed, p.Again())
				}
				for round := range 2 {
					in := b.inputs(-1, 1)
					tr := run(in)
					got, err := p.Forward(t.Context(), in)
					if err != nil {
						t.Fatal(err)
					}
					grads := Gradients{}
					for _, v := range seeds {
						if !tensor.Equal(got[v], tr[v]) {
							t.Fatalf("seed %d: value %q differs", seed, v.Name)
						}
						grads[v] = b.random(-1, 1, tr[v].Shape...)
					}
					sweep, err := New(b.g, b.in, tensor.Float64, nil)
					if err != nil {
						t.Fatal(err)
					}
					_, each, err := sweep.Backward(t.Context(), tr, grads, want)
					if err != nil {
						t.Fatal(err)
					}
					backs := 2
					if once {
						backs = 1
					}
					for range backs {
						seen := 0
						err := p.Backward(t.Context(), grads, func(e Edge, x, d *tensor.Tensor) error {
							seen++
							if !tensor.Equal(d, each[e]) || !tensor.Equal(x, tr[e.Value()]) {
								t.Errorf("seed %d, memory %d, once %v: %v differs", seed, memory, once, e)
							}
							return nil
						})
						if err != nil || seen != len(each) {
							t.Fatalf("seed %d: %d edges visited (%v), want %d", seed, seen, err, len(each))
						}
					}
					if round == 0 { // kernels have weights packed: both are made anew
						for _, v := range b.g.Inits {
							if v.Const.DType == tensor.Float64 && v.Const.Elems() > 8 {
								tensor.Of[float64](v.Const)[0] += 0.5
							}
						}
						run = b.done(t, b.g.Outputs...)
						if err := p.Renew(); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	}
	if again == 0 {
		t.Error("nothing is done again: the test shows nothing")
	}
}

// Both passes over the U-Net of base 64 at 256x256 take less than three times what its inference does: its values, and
// the weights as they are and packed, which both passes have twice. So do smaller networks, whose weights are few.
func TestMemory(t *testing.T) {
	for _, c := range []struct {
		base, size int
		once       bool
	}{{64, 256, false}, {16, 256, false}, {16, 512, true}} {
		if testing.Short() && c.base > 16 {
			continue
		}
		g := unet.Classic(c.base, 1)
		in := []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, c.size, c.size}}}
		weights, values, err := engine.Footprint(g, in, tensor.Float32)
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewBackprop(g, in, g.Outputs, edges(g), Options{Once: c.once})
		if err != nil {
			t.Fatal(err)
		}
		inference, both := 2*weights+values, 3*weights+p.Bytes()
		t.Logf("base %d @%d: %.1f MB, of weights %.1f; both passes %.1f, %.2f of a run again", c.base, c.size,
			float64(inference)/1e6, float64(weights)/1e6, float64(both)/1e6, p.Again())
		if both > 3*inference {
			t.Errorf("base %d @%d: both passes take %d bytes, inference %d", c.base, c.size, both, inference)
		}
	}
}

// The gradients' buffers are as many as planned, at most.
func TestRoom(t *testing.T) {
	for seed := range uint64(16) {
		b := randomNet(seed)
		p, err := NewBackprop(b.g, b.in, b.g.Outputs, edges(b.g), Options{Float: tensor.Float64, Memory: math.MaxInt64})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			tr, err := p.Forward(t.Context(), b.inputs(-1, 1))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Backward(t.Context(), b.seeds(tr), func(Edge, *tensor.Tensor, *tensor.Tensor) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		var bytes int64
		for _, f := range p.sweep.free {
			bytes += int64(cap(f))
		}
		if bytes > p.room {
			t.Errorf("seed %d: gradients have taken %d bytes, planned %d", seed, bytes, p.room)
		}
	}
}
