package conform

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

// writeCase writes a model of one node and one data set.
func writeCase(t *testing.T, dir, name, op string, in []*tensor.Tensor, want *tensor.Tensor) {
	t.Helper()
	g := &graph.Graph{Name: name, IR: 8, Opsets: map[string]int{"": 17}}
	n := &graph.Node{Op: op}
	set := filepath.Join(dir, name, "test_data_set_0")
	if err := os.MkdirAll(set, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(path string, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, x := range in {
		v := &graph.Value{Name: "x" + string(rune('0'+i)), Type: x.Type()}
		g.Inputs, n.Inputs = append(g.Inputs, v), append(n.Inputs, v)
		write(filepath.Join(set, "input_"+string(rune('0'+i))+".pb"), onnx.EncodeTensor(v.Name, x))
	}
	y := &graph.Value{Name: "y", Type: want.Type(), Def: n}
	n.Outputs, g.Outputs, g.Nodes = []*graph.Value{y}, []*graph.Value{y}, []*graph.Node{n}
	write(filepath.Join(set, "output_0.pb"), onnx.EncodeTensor("y", want))
	b, err := onnx.Encode(g)
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, name, "model.onnx"), b)
}

// TestOutcomes: what is right passes, and nothing else does.
func TestOutcomes(t *testing.T) {
	a, b := tensor.From([]float32{1, 2, 3, 4}, 2, 2), tensor.From([]float32{10, 20}, 2)
	dir := t.TempDir()
	shape := tensor.From([]int64{4, -1}, 2)
	writeCase(t, dir, "right", "Add", []*tensor.Tensor{a, b}, tensor.From([]float32{11, 22, 13, 24}, 2, 2))
	writeCase(t, dir, "value", "Add", []*tensor.Tensor{a, b}, tensor.From([]float32{11, 22, 13, 24.1}, 2, 2))
	writeCase(t, dir, "shape", "Add", []*tensor.Tensor{a, b}, tensor.From([]float32{11, 22, 13, 24}, 4))
	writeCase(t, dir, "type", "Add", []*tensor.Tensor{a, b}, tensor.From([]int32{11, 22, 13, 24}, 2, 2))
	writeCase(t, dir, "bound", "Reshape", []*tensor.Tensor{a, shape}, tensor.From([]float32{1, 2, 3, 4}, 4, 1))
	writeCase(t, dir, "unknown", "Frobnicate", []*tensor.Tensor{a}, a)
	writeCase(t, dir, "broken", "Add", []*tensor.Tensor{a, b}, a)
	if err := os.WriteFile(filepath.Join(dir, "broken", "model.onnx"), []byte("no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	last := 0
	r, err := Run(dir, func(done, total int) {
		if done != last+1 || total != 7 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		status Status
		reason string
	}{
		"right": {Pass, ""}, "value": {Fail, "element 3"}, "shape": {Fail, "want float32[4]"}, "type": {Fail, "want int32"},
		"bound": {Pass, "x1"}, "unknown": {Unsupported, "Frobnicate"}, "broken": {Fail, "decode"},
	}
	for _, c := range r.Cases {
		if w := want[c.Name]; c.Status != w.status || !strings.Contains(c.Reason, w.reason) {
			t.Errorf("%s: got %s, %q; want %s, %q", c.Name, c.Status, c.Reason, w.status, w.reason)
		}
	}
	if r.Totals != (Totals{Pass: 2, Fail: 4, Unsupported: 1}) {
		t.Errorf("totals %+v", r.Totals)
	}
	b2, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b2), `{"totals":{"pass":2,"fail":4,"unsupported":1},"cases":[{"name":"bound","status":"pass","reason":`) {
		t.Errorf("JSON is %s", b2)
	}
}

// TestNoCases: a tree without a model is an error, not an empty success.
func TestNoCases(t *testing.T) {
	if _, err := Run(t.TempDir(), nil); err == nil {
		t.Error("no error")
	}
}

// TestNear states the tolerance.
func TestNear(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		g, w float64
		want bool
	}{
		{1, 1, true}, {1.0009, 1, true}, {1.0011, 1, false}, {9e-6, 0, true}, {1.1e-5, 0, false},
		{nan, nan, true}, {nan, 1, false}, {1, nan, false}, {inf, inf, true}, {inf, -inf, false}, {1e300, inf, false},
	} {
		if got := near(c.g, c.w); got != c.want {
			t.Errorf("near(%g, %g) = %v, want %v", c.g, c.w, got, c.want)
		}
	}
	for _, c := range []struct {
		g, w float64
		dt   tensor.DType
		want bool
	}{
		{1 + 1.0/128, 1, tensor.BFloat16, true}, {1 + 2.0/128, 1, tensor.BFloat16, false},
		{1 + 1.0/1024, 1, tensor.Float16, true}, {1 + 2.0/1024, 1, tensor.Float16, false},
		{1 + 1.0/128, 1, tensor.Float32, false}, {1e6, inf, tensor.Float16, false},
	} {
		if got := adjacent(c.g, c.w, c.dt, 1); got != c.want {
			t.Errorf("adjacent(%g, %g, %v) = %v, want %v", c.g, c.w, c.dt, got, c.want)
		}
	}
}
