package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/deploy/models"
)

// call runs the program with args and gives its exit code and what it wrote to standard output.
func call(t *testing.T, args ...string) (int, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr := os.Stdout, os.Stderr
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	if !testing.Verbose() {
		os.Stderr = null
	}
	out := make(chan string)
	go func() {
		b, _ := io.ReadAll(r) // a pipe of our own
		out <- string(b)
	}()
	code := run(args)
	os.Stdout, os.Stderr = stdout, stderr
	_, _ = w.Close(), null.Close() // the reader sees the end
	return code, <-out
}

// callJSON runs the program with args and --json, wants one document and nothing else, and reads it into v.
func callJSON(t *testing.T, v any, args ...string) {
	t.Helper()
	code, out := call(t, append(args, "--json")...)
	if code != exitOK {
		t.Fatalf("%v: exit code %d", args, code)
	}
	d := json.NewDecoder(strings.NewReader(out))
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v: %v in %q", args, err, out)
	}
	if d.More() {
		t.Fatalf("%v: more than one document: %q", args, out)
	}
}

// modelFile writes an embedded model to a file.
func modelFile(t *testing.T, m models.Model) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), m.Name+".onnx")
	if err := os.WriteFile(path, m.ONNX, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitCodes(t *testing.T) {
	file := modelFile(t, models.Default())
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"version", []string{"version"}, exitOK},
		{"no command", nil, exitUsage},
		{"unknown command", []string{"grow"}, exitUsage},
		{"unknown flag", []string{"version", "--loud"}, exitUsage},
		{"no such file", []string{"inspect", "nowhere.onnx"}, exitUsage},
		{"phantom count", []string{"phantom", "--out", dir, "--n", "0"}, exitUsage},
		{"prune without out", []string{"prune", "--model", file, "--calib", dir, "--target", "macs=0.5"}, exitUsage},
		{"prune target", []string{"prune", "--model", file, "--out", file, "--calib", dir, "--target", "speed=2"}, exitUsage},
		{"prune margin", []string{"prune", "--model", file, "--out", file, "--calib", dir, "--target", "macs=0.5", "--delta", "0"}, exitUsage},
		{"prune into no folder", []string{"prune", "--model", file, "--out", filepath.Join(dir, "none", "a.onnx"), "--calib", dir, "--target", "macs=0.5"}, exitUsage},
		{"prune into a folder", []string{"prune", "--model", file, "--out", dir, "--calib", dir, "--target", "macs=0.5"}, exitUsage},
		{"latency table in no folder", []string{"prune", "--model", file, "--out", file, "--latency-table", filepath.Join(dir, "none", "t.json"), "--calib", dir, "--target", "speedup=2x"}, exitUsage},
		{"resume in no folder", []string{"prune", "--model", file, "--out", file, "--resume", filepath.Join(dir, "none", "r"), "--calib", dir, "--target", "macs=0.5"}, exitUsage},
		{"report in a file", []string{"prune", "--model", file, "--sweep", "0.2:0.4:0.2", "--report", file, "--calib", dir}, exitUsage},
		{"prune without images", []string{"prune", "--model", file, "--out", file, "--calib", dir, "--target", "macs=0.5"}, exitError},
		{"score samples without json", []string{"score", "--model", file, "--calib", dir, "--samples"}, exitUsage},
		{"score probes", []string{"score", "--model", file, "--calib", dir, "--probes", "0"}, exitUsage},
		{"score without images", []string{"score", "--model", file, "--calib", dir}, exitError},
		{"segment without images", []string{"segment", "--model", file, dir}, exitError},
		{"backend of a server", []string{"segment", "--backend", "gorgonia", file}, exitUsage},
		{"resume of a server", []string{"prune", "--resume", file, "--calib", dir, "--target", "macs=0.5"}, exitUsage},
		{"backend without its library", []string{"segment", "--backend", "ort", "--ort-lib", "nowhere.so", "--model", file, file}, exitError},
		{"diff of one backend", []string{"diff", "--model", file, "--backends", "native"}, exitUsage},
		{"diff in no backend", []string{"diff", "--model", file, "--backends", "native,abacus"}, exitUsage},
		{"diff of no model", []string{"diff", "--model", dir}, exitUsage},
		{"tuning another backend", []string{"bench", "--backend", "gorgonia", "--tune"}, exitUsage},
		{"spec of a server", []string{"prune", "--spec", file, "--calib", dir, "--target", "macs=0.5"}, exitUsage},
		{"nobody serves", []string{"models", "list", "--addr", "127.0.0.1:1"}, exitError},
		{"demo sizes", []string{"demo", "--out", dir, "--images", "1"}, exitUsage},
	} {
		if got, _ := call(t, c.args...); got != c.want {
			t.Errorf("%s: exit code %d, want %d", c.name, got, c.want)
		}
	}
}

// An address in use is told before anything is written.
func TestServeAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nobody called
	dir := filepath.Join(t.TempDir(), "models")
	for _, flag := range []string{"--listen", "--http"} {
		args := map[string]string{"--listen": "127.0.0.1:0", "--http": "127.0.0.1:0", flag: l.Addr().String(), "--models": dir}
		line := []string{"serve"}
		for k, v := range args {
			line = append(line, k, v)
		}
		if code, out := call(t, line...); code != exitError || out != "" {
			t.Errorf("%s in use: exit code %d, output %q", flag, code, out)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of models: %v, want none", err)
	}
}

func TestSegmentAndEval(t *testing.T) {
	dir := t.TempDir()
	if code, _ := call(t, "phantom", "--out", dir, "--n", "3", "--seed", "7"); code != exitOK {
		t.Fatalf("phantom: exit code %d", code)
	}
	file := modelFile(t, models.Default())
	var masks []segmented
	callJSON(t, &masks, "segment", "--model", file, filepath.Join(dir, "images"), "--out", filepath.Join(dir, "out"), "--overlay")
	if len(masks) != 3 {
		t.Fatalf("%d masks of 3 images", len(masks))
	}
	for _, m := range masks {
		for _, f := range []string{m.Mask, m.Overlay} {
			if _, err := os.Stat(f); err != nil {
				t.Error(err)
			}
		}
		if !(m.Area > 0 && m.Area < 1) {
			t.Errorf("%s: %g of the image is polyp", m.Image, m.Area)
		}
	}
	var e evaluation
	callJSON(t, &e, "eval", "--model", file, "--data", dir)
	if e.N != 3 || e.Dice < 0.5 || e.Dice > 1 || e.IoU > e.Dice {
		t.Errorf("evaluation %+v", e)
	}
	// A threshold that nothing passes, in model.json beside the model, empties the masks.
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "model.json"), []byte(`{"postprocess":{"threshold":0.999999}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	callJSON(t, &e, "eval", "--model", file, "--data", dir)
	if e.Dice > 0.1 {
		t.Errorf("model.json is not heeded: Dice %g at threshold 0.999999", e.Dice)
	}
}

// Every layer has a row, every channel that can be removed a number, and the samples are those of each image.
func TestScore(t *testing.T) {
	dir := t.TempDir()
	if code, _ := call(t, "phantom", "--out", dir, "--n", "2", "--seed", "7"); code != exitOK {
		t.Fatalf("phantom: exit code %d", code)
	}
	file := modelFile(t, models.Default())
	var of inspection
	callJSON(t, &of, "inspect", file)
	var r scored
	callJSON(t, &r, "score", "--model", file, "--calib", dir, "--samples", "--repeat", "2")
	if r.Images != 2 || !r.Labels || len(r.Seconds) != 2 || len(r.Layers) != len(of.Groups) {
		t.Fatalf("%d images, labels %v, %d times, %d layers of %d", r.Images, r.Labels, len(r.Seconds), len(r.Layers), len(of.Groups))
	}
	for i, l := range r.Layers {
		n := 0
		for _, v := range l.Importance {
			if v != nil {
				n++
			}
		}
		if g := of.Groups[i]; l.Name != g.Name || len(l.Importance) != g.Channels || n != g.Prunable {
			t.Errorf("%s: %d channels, %d of them with a number; inspect says %+v", l.Name, len(l.Importance), n, g)
		}
	}
	for _, e := range r.Edges {
		if len(e.Samples) != 2 || e.Samples[0].Image == e.Samples[1].Image || len(e.Samples[0].Sums) == 0 {
			t.Errorf("%s: %d samples", e.Node, len(e.Samples))
		}
	}
	code, out := call(t, "score", "--model", file, "--calib", dir, "--labels", "none", "--probes", "1")
	if code != exitOK || !strings.Contains(out, r.Layers[0].Name) || !strings.Contains(out, "without masks") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestInspect(t *testing.T) {
	file := modelFile(t, models.Default())
	var r inspection
	callJSON(t, &r, "inspect", file)
	if r.Problem != "" || r.MACs == 0 || len(r.Layers) == 0 || len(r.Groups) == 0 {
		t.Errorf("problem %q, %d MACs, %d layers, %d groups", r.Problem, r.MACs, len(r.Layers), len(r.Groups))
	}
	row := map[string]groupRow{}
	for _, l := range r.Groups {
		row[l.Name] = l
	}
	tied := 0
	for _, l := range r.Groups {
		for _, name := range l.Tied {
			tied++
			if !slices.Contains(row[name].Tied, l.Name) {
				t.Errorf("%s goes with %s, but not the other way round", l.Name, name)
			}
		}
	}
	if tied == 0 {
		t.Error("the model has residual sums, but no layer goes with another")
	}
	all, prunable := r.filters()
	head := r.Groups[len(r.Groups)-1]
	for _, c := range []struct {
		flags      []string
		has, lacks string
	}{
		{nil, fmt.Sprintf("%d, of which %d can be removed", all, prunable), head.Pinned},
		{[]string{"--groups"}, head.Pinned, "parameters"},
	} {
		code, out := call(t, append([]string{"inspect", file}, c.flags...)...)
		if code != exitOK || !strings.Contains(out, c.has) || strings.Contains(out, c.lacks) {
			t.Errorf("inspect %v: exit code %d, want %q and not %q in %q", c.flags, code, c.has, c.lacks, out)
		}
	}
	if code, _ := call(t, "inspect", file, "--groups", "--plan"); code != exitUsage {
		t.Errorf("--groups with --plan: exit code %d", code)
	}
}
