package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/zoo"
)

// TestDiff: files and folders of them are compared, and one that no backend runs does not stop the others.
func TestDiff(t *testing.T) {
	dir := t.TempDir()
	g, err := zoo.Load("u-net-classes", 1)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) {
		b, err := onnx.Encode(g)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.onnx")
	last := g.Nodes[len(g.Nodes)-1]
	last.Op, last.Name = "Det", "the last"
	write("b.onnx")

	var got []diffed
	callJSON(t, &got, "diff", "--model", dir+","+filepath.Join(dir, "a.onnx"))
	if len(got) != 3 || got[0].Model != "a.onnx" || got[1].Model != "b.onnx" || got[2].Model != "a.onnx" {
		t.Fatalf("got %+v", got)
	}
	for _, i := range []int{0, 2} {
		if d := got[i]; d.Error != "" || d.Result == nil || len(d.Outputs) != 1 || d.Nodes < 20 || d.Start != nil || d.Worst() > 1e-4 || d.Unknown != "" {
			t.Errorf("%s: %+v, %+v", d.Model, d, d.Result)
		}
	}
	if !strings.Contains(got[1].Error, `native: Det "the last"`) {
		t.Errorf("b.onnx: %q", got[1].Error)
	}
	code, out := call(t, "diff", "--model", filepath.Join(dir, "a.onnx"))
	if code != exitOK || !strings.Contains(out, "nodes agree") {
		t.Errorf("exit code %d: %s", code, out)
	}
	// Float32 does not agree to nothing at all, so a tolerance of zero is exceeded, at a node.
	code, out = call(t, "diff", "--model", filepath.Join(dir, "a.onnx"), "--tolerance", "0")
	if code != exitError || !strings.Contains(out, "begins at Conv") {
		t.Errorf("tolerance 0: exit code %d: %s", code, out)
	}
	if code, out = call(t, "diff", "--model", filepath.Join(dir, "b.onnx")); code != exitError || !strings.Contains(out, "not compared") {
		t.Errorf("nothing to compare: exit code %d: %s", code, out)
	}
}

// TestDiffOfAnImage runs on a picture.
func TestDiffOfAnImage(t *testing.T) {
	dir := t.TempDir()
	if code, _ := call(t, "phantom", "--out", dir, "--n", "1"); code != exitOK {
		t.Fatal(code)
	}
	pictures, err := filepath.Glob(filepath.Join(dir, "images", "*"))
	if err != nil || len(pictures) == 0 {
		t.Fatal(pictures, err)
	}
	var got []diffed
	callJSON(t, &got, "diff", "--model", "polyp-unet", "--size", "32", "--image", pictures[0])
	if len(got) != 1 || got[0].Result == nil || got[0].Worst() > 1e-4 {
		t.Errorf("got %+v", got)
	}
}
