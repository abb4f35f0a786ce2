package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A script gets a time for each run, and outputs that agree with the reference.
func TestBenchStdio(t *testing.T) {
	dir := t.TempDir()
	y, ref := filepath.Join(dir, "y"), filepath.Join(dir, "ref")
	c := &benchCmd{Model: []string{"unet-2"}, Size: []int{32}, Threads: []int{1}}
	var out bytes.Buffer
	if err := c.stdio(context.Background(), strings.NewReader("run\noutput "+y+"\nreference "+ref+"\nquit\nrun\n"), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(out.String())
	if len(lines) != 4 || lines[0] != "ready" || lines[2] != "ok" || lines[3] != "ok" {
		t.Fatalf("answers %q", lines)
	}
	if ms, err := strconv.ParseFloat(lines[1], 64); err != nil || ms <= 0 {
		t.Errorf("a run took %q", lines[1])
	}
	a, b := rawFloats(t, y), rawFloats(t, ref)
	if len(a) != 32*32 || len(b) != len(a) {
		t.Fatalf("%d and %d numbers", len(a), len(b))
	}
	for i := range a {
		if d := math.Abs(float64(a[i] - b[i])); d > 1e-4 {
			t.Fatalf("[%d] = %g, reference %g", i, a[i], b[i])
		}
	}
	if err := c.stdio(context.Background(), strings.NewReader("walk\n"), &out); err == nil {
		t.Error("an unknown word is no error")
	}
}

func rawFloats(t *testing.T, file string) []float32 {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// Rows have as many cells as the heading, and the halved model is measured against its dense self.
func TestBenchRows(t *testing.T) {
	r := benchReport{Rows: []timing{{Model: "polyp-unet", Input: "x", Threads: 1, MS: 20}, {Model: "polyp-unet", Input: "x", Threads: 2, MS: 12}}}
	for _, c := range []struct{ ort, busy bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		row := timing{Model: "m", Input: "float32[1]", Threads: 1, MS: 2}
		if c.ort {
			row.OrtMS, row.Ratio = 4, 2
		}
		if c.busy {
			row.BusyMS, row.BusyOrtMS = 4, 9
		}
		got, want := strings.Count(row.row(nil), "\t"), strings.Count(benchColumns(c.ort, c.busy), "\t")
		if got != want {
			t.Errorf("%+v: %d cells under %d columns", c, got, want)
		}
	}
	half := timing{Model: halved, Input: "x", Threads: 2, MS: 8}
	if d := r.dense(half); d == nil || !strings.Contains(half.row(d), "1.50x its dense self") {
		t.Errorf("row %q", half.row(r.dense(half)))
	}
	if r.dense(timing{Model: "polyp-unet", Input: "x", Threads: 2}) != nil {
		t.Error("the dense model is measured against something")
	}
}

// Models are found by name, or the user is told what there is.
func TestBenchModels(t *testing.T) {
	for _, name := range []string{"unet-0", "unet-x", "unet-999", "no such file.onnx"} {
		if _, err := benchModel(context.Background(), name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, name := range []string{"unet-1", "polyp-lite0"} {
		m, err := benchModel(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.input(m.sizes(nil)[0]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
