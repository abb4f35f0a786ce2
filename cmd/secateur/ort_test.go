//go:build ort && linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/zoo"
)

func needsORT(t *testing.T) {
	if os.Getenv("SECATEUR_ORT_LIB") == "" {
		t.Skip("SECATEUR_ORT_LIB does not name libonnxruntime.so.1")
	}
}

// TestORTRunsWhatNativeRefuses: an operator that the engine does not have is no hindrance.
func TestORTRunsWhatNativeRefuses(t *testing.T) {
	needsORT(t)
	g, err := zoo.Load("u-net", 1)
	if err != nil {
		t.Fatal(err)
	}
	n := &graph.Node{Op: "Shrink", Name: "shrink", Inputs: []*graph.Value{g.Outputs[0]}}
	n.Outputs = []*graph.Value{{Name: "shrunk", Type: g.Outputs[0].Type, Def: n}}
	g.Nodes, g.Outputs = append(g.Nodes, n), n.Outputs
	b, err := onnx.Encode(g)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "shrink.onnx")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"native": false, "ort": true} {
		f := modelFlags{backendFlags: backendFlags{Backend: name, OrtLib: os.Getenv("SECATEUR_ORT_LIB")}, Threads: 1}
		m, err := f.open(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = m.Predict(context.Background(), vision.NewImage(64, 64)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	var r benchReport
	callJSON(t, &r, "bench", "--backend", "ort", "--model", file, "--runs", "1", "--threads", "1")
	if len(r.Rows) != 1 || r.Rows[0].MS <= 0 || r.Backend != "ort" {
		t.Errorf("bench: %+v", r)
	}
}

// TestDiffWithORT: every value of a network agrees, typed in the file or not.
func TestDiffWithORT(t *testing.T) {
	needsORT(t)
	var got []diffed
	callJSON(t, &got, "diff", "--model", "polyp-lite0", "--size", "64", "--backends", "native,ort", "--threads", "1")
	if len(got) != 1 || got[0].Result == nil || got[0].Start != nil || got[0].Nodes < 100 || got[0].Worst() > 1e-4 || got[0].Unknown != "" {
		t.Errorf("got %+v", got)
	}
}
