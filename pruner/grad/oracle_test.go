package grad

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/gorgonia"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/zoo"
)

// TestGorgoniaAgrees: gorgonia's reverse mode, which shares no arithmetic with this package, gives the same gradients at
// the activations of whole networks, in float64.
func TestGorgoniaAgrees(t *testing.T) {
	for _, m := range models.All() {
		t.Run(m.Name, func(t *testing.T) {
			g, err := onnx.Decode(m.ONNX, onnx.Options{})
			if err != nil {
				t.Fatal(err)
			}
			agreesWithGorgonia(t, g, tensor.Shape{1, 3, 32, 32})
		})
	}
	for _, name := range []string{
		"attention-u-net", "csp", "hrnet", "mobilenet-v3-u-net", "shufflenet-v1", "u-net-channels-last", "u-net-classes",
		"u-net-groupnorm-21", "u-net-instancenorm", "u-net-pixelshuffle", "u-net-prelu", "u-net-resize", "u2-net",
	} {
		t.Run(name, func(t *testing.T) {
			g, err := zoo.Load(name, 1)
			if err != nil {
				t.Fatal(err)
			}
			agreesWithGorgonia(t, g, g.Inputs[0].Type.Shape)
		})
	}
}

// agreesWithGorgonia compares at what a pruner reads: the inputs of convolutions.
func agreesWithGorgonia(t *testing.T, g *graph.Graph, shape tensor.Shape) {
	r := rand.New(rand.NewPCG(5, 6))
	draw := func(shape []int) *tensor.Tensor {
		x := tensor.New(tensor.Float64, shape...)
		for i, v := 0, tensor.Of[float64](x); i < len(v); i++ {
			v[i] = r.NormFloat64()
		}
		return x
	}
	x := draw(shape)
	in := []tensor.Type{x.Type()}
	var names []string
	for _, n := range g.Nodes {
		if (n.Op == "Conv" || n.Op == "ConvTranspose") && n.Inputs[0].Def != nil && !slices.Contains(names, n.Inputs[0].Name) {
			names = append(names, n.Inputs[0].Name)
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
	seed := draw(tr[g.Outputs[0]].Shape)
	s, err := New(g, in, tensor.Float64, kernel.NewPool(2))
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
