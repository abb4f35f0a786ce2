package main

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/server"
)

// startServer serves the embedded models on loopback until the test ends, and gives the flag that names it.
func startServer(t *testing.T) string {
	t.Helper()
	s, err := newServer(serverOptions{Models: t.TempDir(), Log: io.Discard, Config: server.Config{DrainWait: -1}})
	if err != nil {
		t.Fatal(err)
	}
	var l [2]net.Listener
	for i := range l {
		if l[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l[0], l[1]) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "--addr=" + l[0].Addr().String()
}

// TestModels: what is uploaded comes back unchanged, serves when it is promoted, and not when it is rolled back.
func TestModels(t *testing.T) {
	addr := startServer(t)
	file := modelFile(t, models.All()[1])
	serving := func() uint64 {
		t.Helper()
		var v versionInfo
		callJSON(t, &v, "models", "get", "mine", addr)
		return v.Version
	}
	var v versionInfo
	callJSON(t, &v, "models", "upload", file, "--name", "mine", "--note", "first", addr)
	if v.Model != "mine" || v.Version != 1 || !v.Serving || v.Note != "first" || v.Bytes != uint64(len(models.All()[1].ONNX)) {
		t.Fatalf("uploaded %+v", v)
	}
	callJSON(t, &v, "models", "upload", modelFile(t, models.Default()), "--name", "mine", addr)
	if v.Version != 2 || serving() != 1 {
		t.Fatalf("uploaded version %d, version %d serves", v.Version, serving())
	}
	if code, _ := call(t, "models", "promote", "mine", "2", addr); code != exitOK || serving() != 2 {
		t.Fatalf("promote: exit code %d, version %d serves", code, serving())
	}
	if code, _ := call(t, "models", "promote", "mine", "1", "--expected", "1", addr); code != exitError || serving() != 2 {
		t.Fatalf("stale promote: exit code %d, version %d serves", code, serving())
	}
	if code, _ := call(t, "models", "rollback", "mine", addr); code != exitOK || serving() != 1 {
		t.Fatalf("rollback: exit code %d, version %d serves", code, serving())
	}
	out := filepath.Join(t.TempDir(), "back.onnx")
	if code, _ := call(t, "models", "download", "mine", "1", "--out", out, addr); code != exitOK {
		t.Fatalf("download: exit code %d", code)
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != string(models.All()[1].ONNX) {
		t.Fatalf("what was downloaded is not what was uploaded (%v)", err)
	}
	if code, _ := call(t, "models", "delete", "mine", "1", addr); code != exitError {
		t.Fatalf("delete the serving version: exit code %d, want %d", code, exitError)
	}
	if code, _ := call(t, "models", "delete", "mine", "2", addr); code != exitOK {
		t.Fatalf("delete: exit code %d", code)
	}
	var all []modelInfo
	callJSON(t, &all, "models", "list", addr)
	if len(all) != 3 || !all[0].Default || all[0].Name != models.Default().Name {
		t.Fatalf("models %+v", all)
	}
}

// TestRemoteSegment: a server gives the mask that the model file gives here.
func TestRemoteSegment(t *testing.T) {
	addr := startServer(t)
	dir := t.TempDir()
	if code, _ := call(t, "phantom", "--out", dir, "--n", "2"); code != exitOK {
		t.Fatalf("phantom: exit code %d", code)
	}
	images := filepath.Join(dir, "images")
	var here, there []segmented
	callJSON(t, &here, "segment", images, "--model", modelFile(t, models.Default()), "--out", filepath.Join(dir, "here"))
	callJSON(t, &there, "segment", images, addr, "--out", filepath.Join(dir, "there"))
	for i := range here {
		a, err := os.ReadFile(here[i].Mask)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(there[i].Mask)
		if err != nil {
			t.Fatal(err)
		}
		if string(a) != string(b) || there[i].Version != 1 {
			t.Errorf("%s: masks differ, or it is not version 1 that answers: %+v", here[i].Image, there[i])
		}
	}
	bad := filepath.Join(dir, "bad.png")
	if err := os.WriteFile(bad, []byte("\x89PNG\r\n\x1a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _ := call(t, "segment", bad, addr); code != exitError {
		t.Errorf("a broken image: exit code %d, want %d", code, exitError)
	}
}

// TestPruneHereAndThere: a server and this process prune to the same file, and both say what they did.
func TestPruneHereAndThere(t *testing.T) {
	if testing.Short() {
		t.Skip("prunes twice")
	}
	addr := startServer(t)
	dir := t.TempDir()
	for _, k := range [][]string{{"calib", "4", "1"}, {"val", "3", "100"}} {
		if code, _ := call(t, "phantom", "--out", filepath.Join(dir, k[0]), "--n", k[1], "--seed", k[2]); code != exitOK {
			t.Fatalf("phantom: exit code %d", code)
		}
	}
	files := func(where string) []string {
		return []string{"--calib", filepath.Join(dir, "calib"), "--val", filepath.Join(dir, "val"), "--target", "macs=0.3",
			"--out", filepath.Join(dir, where+".onnx"), "--report", filepath.Join(dir, where)}
	}
	// Three held-out images prove nothing: the verdict is not pass, and the output is written all the same.
	code, table := call(t, append([]string{"prune", "--model", modelFile(t, models.Default())}, files("here")...)...)
	if code != exitNotPassed {
		t.Fatalf("prune here: exit code %d, want %d; %s", code, exitNotPassed, table)
	}
	if code, table = call(t, append([]string{"prune", "--promote", "always", addr}, files("there")...)...); code != exitNotPassed {
		t.Fatalf("prune there: exit code %d, want %d; %s", code, exitNotPassed, table)
	}
	for _, f := range []string{".onnx", "/report.json", "/report.html"} {
		a, err := os.ReadFile(filepath.Join(dir, "here"+f))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "there"+f))
		if err != nil {
			t.Fatal(err)
		}
		if f == ".onnx" && string(a) != string(b) { // reports hold times
			t.Error("the files differ")
		}
	}
	var v versionInfo
	callJSON(t, &v, "models", "get", addr)
	if v.Version != 2 || v.Parent != 1 || v.Source != "prune" || v.MACs > 7*1933260800/10 {
		t.Errorf("it is %+v that serves", v)
	}
}

// TestDemo runs the demo as make demo does, only shorter.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("prunes")
	}
	dir := t.TempDir()
	code, table := call(t, "demo", "--out", dir, "--images", "10", "--held-out", "4", "--frames", "5", "--target", "macs=0.3")
	if code != exitOK {
		t.Fatalf("exit code %d; %s", code, table)
	}
	for _, f := range []string{"index.html", "demo.json", "report.html", "report.json", "overlays/1-difference.png"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s is missing or empty (%v)", f, err)
		}
	}
}
