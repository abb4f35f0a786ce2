package grad

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/gorgonia"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

// TestGorgoniaAgrees: gorgonia's reverse mode, which shares no arithmetic with this package, gives the same gradients at
// the activations of the whole embedded U-Net, in float64.
func TestGorgoniaAgrees(t *testing.T) {
	var file []byte
	for _, m := range models.All() {
		if m.Name == "polyp-unet" {
			file = m.ONNX
		}
	}
	g, err := onnx.Decode(file, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	x := tensor.New(tensor.Float64, 1, 3, 32, 32)
	for i, v := 0, tensor.Of[float64](x); i < len(v); i++ {
		v[i] = r.NormFloat64()
	}
	seed := tensor.New(tensor.Float64, 1, 1, 32, 32)
	for i, v := 0, tensor.Of[float64](seed); i < len(v); i++ {
		v[i] = r.NormFloat64() / 32
	}
	in := []tensor.Type{x.Type()}

	// What a pruner reads: the inputs of convolutions.
	var names []string
	seen := map[string]bool{}
	for _, n := range g.Nodes {
		if (n.Op == "Conv" || n.Op == "ConvTranspose") && n.Inputs[0].Def != nil {
			if !seen[n.Inputs[0].Name] {
				seen[n.Inputs[0].Name] = true
				names = append(names, n.Inputs[0].Name)
			}
		}
	}
	m, err := engine.Compile(g, in, engine.Options{Verbatim: true, Float64: true})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := m.NewSession().Trace(context.Background(), []*tensor.Tensor{x})
	if err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(2)
	s, err := New(g, in, tensor.Float64, pool)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := s.Backward(context.Background(), tr, Gradients{g.Outputs[0]: seed}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := gorgonia.Compile(g, in, tensor.Float64, names...)
	if err != nil {
		t.Fatal(err)
	}
	oracle, err := ref.Gradients(context.Background(), []*tensor.Tensor{x}, seed)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for v, d := range got {
		o := oracle[v.Name]
		if o == nil {
			continue
		}
		compared++
		a, _ := d.Float64s()
		b, _ := o.Float64s()
		var diff, top float64
		for i := range a {
			diff, top = max(diff, math.Abs(a[i]-b[i])), max(top, math.Abs(b[i]))
		}
		if !(diff <= 1e-9*top) || top == 0 {
			t.Errorf("%s: max|Δ| = %g, max|gradient| = %g", v.Name, diff, top)
		}
	}
	if compared != len(names) {
		t.Errorf("%d of %d activations were compared", compared, len(names))
	}
}
