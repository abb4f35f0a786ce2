package onnx_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
)

// roundTrip checks Decode(Encode(g)) == g, and that Encode gives the same bytes for the same graph.
func roundTrip(g *graph.Graph) (err error) {
	b, err := onnx.Encode(g)
	if err != nil {
		return err
	}
	h, err := onnx.Decode(b, onnx.Options{})
	if err != nil {
		return err
	}
	if err := graph.Diff(g, h); err != nil {
		return err
	}
	again, err := onnx.Encode(h)
	if err == nil && !bytes.Equal(b, again) {
		err = errors.New("Encode gives other bytes for the same graph")
	}
	return err
}

func TestRoundTripOfGeneratedGraphs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := genGraph(t)
		if err := g.Validate(); err != nil {
			t.Fatalf("the generator made an invalid graph: %v", err)
		}
		if err := roundTrip(g); err != nil {
			t.Fatal(err)
		}
		if err := graph.Diff(g, g.Clone()); err != nil {
			t.Fatalf("clone: %v", err)
		}
	})
}

func TestRoundTripOfModels(t *testing.T) {
	paths, err := filepath.Glob("../../deploy/models/*.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Skip("no models in deploy/models")
	}
	for _, p := range paths {
		g, err := onnx.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(g); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestRoundTripOfNodeTests(t *testing.T) {
	dir := os.Getenv("SECATEUR_NODE_TESTS")
	if dir == "" {
		t.Skip("set SECATEUR_NODE_TESTS to a folder of ONNX node tests")
	}
	models, tensors, others := 0, 0, 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		switch filepath.Ext(path) {
		case ".onnx":
			g, err := onnx.ReadFile(path)
			if err == nil {
				err = roundTrip(g)
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			models++
		case ".pb":
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			x, err := onnx.DecodeTensor(b)
			if errors.Is(err, onnx.ErrNotTensor) {
				others++
				return nil
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
				return nil
			}
			tensors++
			sameTensor(t, path, x, onnx.EncodeTensor("x", x))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if models == 0 {
		t.Errorf("no models under %s", dir)
	}
	t.Logf("%d models, %d tensors, %d sequences and optionals", models, tensors, others)
}

// FuzzDecode: any bytes give an error or a graph, and a graph survives the round trip.
func FuzzDecode(f *testing.F) {
	b, err := onnx.Encode(tiny())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(everything(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := onnx.Decode(b, onnx.Options{MaxBytes: 1 << 20})
		if err != nil {
			return
		}
		if err := roundTrip(g); err != nil {
			t.Fatal(err)
		}
	})
}
