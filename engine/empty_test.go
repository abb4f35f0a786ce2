package engine_test

import (
	"context"
	"testing"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// A convolution of nothing but padding yields its bias.
func TestConvOfNothing(t *testing.T) {
	for _, name := range []string{"Conv", "ConvTranspose"} {
		for _, shape := range [][]int{{1, 2, 3, 0}, {1, 2, 0, 3}, {1, 2, 0, 0}} {
			b, x := newBuilder(1, shape...)
			pad := graph.IntsAttr("pads", 2, 2, 2, 2)
			if name == "ConvTranspose" {
				pad = graph.IntsAttr("output_padding", 3, 3)
			}
			bias := b.constant(tensor.From([]float32{5, 7}, 2))
			strides := graph.IntsAttr("strides", 4, 4)
			y := b.node(name, graph.Attrs{pad, strides}, x, b.weight(-1, 1, 2, 2, 2, 2), bias)
			m, err := engine.Compile(b.done(y), []tensor.Type{x.Type}, engine.Options{Threads: 1})
			if err != nil {
				t.Fatalf("%s of %v: %v", name, shape, err)
			}
			s := m.NewSession()
			s.Poison(0x7f)
			out, err := s.Run(context.Background(), []*tensor.Tensor{tensor.New(tensor.Float32, shape...)})
			if err != nil {
				t.Fatalf("%s of %v: %v", name, shape, err)
			}
			v := tensor.Of[float32](out[0])
			for i, got := range v {
				if want := []float32{5, 7}[i*2/len(v)]; got != want {
					t.Fatalf("%s of %v: y[%d] = %g, want %g", name, shape, i, got, want)
				}
			}
		}
	}
}

// Other dimensions of an empty tensor may be as large as they like: nothing goes over them.
func TestEmptyButLarge(t *testing.T) {
	for _, name := range []string{"MaxPool", "AveragePool", "Softmax", "Relu", "Transpose"} {
		b, x := newBuilder(1, 1, 1<<31-1, 5, 0)
		var attrs graph.Attrs
		if name == "MaxPool" || name == "AveragePool" {
			attrs = graph.Attrs{graph.IntsAttr("kernel_shape", 3, 3), graph.IntsAttr("pads", 1, 1, 1, 1), graph.IntsAttr("strides", 1, 5)}
		}
		y := b.node(name, attrs, x)
		m, err := engine.Compile(b.done(y), []tensor.Type{x.Type}, engine.Options{Threads: 1})
		if err != nil {
			continue // too large, where padding makes something of nothing
		}
		if _, err := m.NewSession().Run(context.Background(), []*tensor.Tensor{tensor.New(tensor.Float32, 1, 1<<31-1, 5, 0)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
