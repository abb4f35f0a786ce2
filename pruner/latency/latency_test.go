package latency

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/unet"
)

// What was made by coefficients gives them back, those that are zero too.
func TestFitFindsCoefficients(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for set := 1; set < 16; set++ {
		want := Step{Layer: "l"}
		for i, c := range []*float64{&want.Base, &want.PerOut, &want.PerIn, &want.PerPair} {
			if set>>i&1 == 1 {
				*c = 0.1 + rng.Float64()
			}
		}
		got := Step{Layer: "l"}
		for range 20 {
			in, out := rng.Float64(), rng.Float64()
			got.Samples = append(got.Samples, Sample{in, out, want.At(in, out)})
		}
		got.fit()
		for _, c := range [][2]float64{{got.Base, want.Base}, {got.PerIn, want.PerIn}, {got.PerOut, want.PerOut}, {got.PerPair, want.PerPair}} {
			if math.Abs(c[0]-c[1]) > 1e-6 {
				t.Fatalf("set %b: %+v, want %+v", set, got, want)
			}
		}
	}
}

// No coefficient is below zero, whatever was measured: more channels are never predicted to take less time.
func TestFitIsMonotone(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		s := Step{}
		if rng.IntN(2) == 0 {
			s.Layer = "l"
		}
		for range 1 + rng.IntN(10) {
			s.Samples = append(s.Samples, Sample{rng.Float64(), rng.Float64(), rng.ExpFloat64()})
		}
		s.fit()
		for _, c := range []float64{s.Base, s.PerIn, s.PerOut, s.PerPair} {
			if !(c >= 0) {
				t.Fatalf("%+v", s)
			}
		}
		if s.At(0.5, 0.5) == 0 {
			t.Fatalf("nothing was fitted: %+v", s)
		}
	}
}

func net(base int) *graph.Graph {
	return unet.Classic(base, 1)
}

func TestMeasure(t *testing.T) {
	in := []tensor.Type{{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 32, 32}}}
	var cuts []*graph.Graph
	for range 2 {
		cuts = append(cuts, net(4), net(6))
	}
	layers := func(output string, _ int64) string { return output }
	table, err := Measure(context.Background(), net(8), cuts, in, layers, Options{Model: "m", Pool: kernel.NewPool(1), Block: 16})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.check(); err != nil {
		t.Fatal(err)
	}
	if len(table.Steps) < 5 || table.Threads != 1 || len(table.Steps[0].Samples) != 5 {
		t.Errorf("%d steps of %d samples on %d threads", len(table.Steps), len(table.Steps[0].Samples), table.Threads)
	}
	name := filepath.Join(t.TempDir(), "table.json")
	if _, err := ReadFile(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(name, table.JSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	back, err := ReadFile(name)
	if err != nil || !reflect.DeepEqual(back, table) {
		t.Errorf("read back: %v, %+v, want %+v", err, back, table)
	}
	if table.For("m", in[0].String()) != nil || table.For("n", in[0].String()) == nil || table.For("m", "x") == nil {
		t.Error("a table is for its model and its input")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Measure(ctx, net(8), cuts, in, layers, Options{Pool: kernel.NewPool(1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReadFileRefuses(t *testing.T) {
	name := filepath.Join(t.TempDir(), "table.json")
	for _, s := range []string{"", "{", "{}", `{"whole_ms":1,"between":1,"round":0}`, `{"whole_ms":-1,"between":1,"round":1}`,
		`{"whole_ms":1,"between":1,"round":1,"steps":[{"per_in_ms":-1}]}`, `{"whole_ms":1e300,"between":1,"round":1}`} {
		if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if table, err := ReadFile(name); err == nil {
			t.Errorf("%s: %+v, want an error", s, table)
		}
	}
}
