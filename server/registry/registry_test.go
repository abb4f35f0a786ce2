package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/secateur/secateur/engine/kernel.(*helper).serve"))
}

// fake is a model whose file names it.
type fake string

func (f fake) Predict(context.Context, *vision.Image) (*predict.Prediction, error) { return nil, nil }
func (f fake) Spec() vision.Spec                                                   { return vision.Spec{} }
func (f fake) Warm(context.Context) error {
	if f == "broken" {
		return errors.New("it does not run")
	}
	return nil
}
func (f fake) Cost() (engine.Cost, tensor.Type, error) {
	return engine.Cost{Parameters: 3, MACs: 30}, tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}, nil
}

func loadFake(g *graph.Graph, override []byte) (Runner, error) {
	return fake(g.Name + string(override)), nil
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	typ := tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, tensor.Unknown, 8}}
	in, out := &graph.Value{Name: "image", Type: typ}, &graph.Value{Name: "mask", Type: typ}
	n := &graph.Node{Op: "Sigmoid", Inputs: []*graph.Value{in}, Outputs: []*graph.Value{out}}
	out.Def = n
	b, err := onnx.Encode(&graph.Graph{Name: name, IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{in}, Outputs: []*graph.Value{out}, Nodes: []*graph.Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, dir string, seeds ...string) *Registry {
	t.Helper()
	opt := Options{Load: loadFake}
	for _, s := range seeds {
		opt.Seed = append(opt.Seed, Seed{s, file(t, s)})
	}
	r, err := Open(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func add(t testing.TB, r *Registry, name, content string) *Entry {
	t.Helper()
	e, err := r.Add(t.Context(), name, file(t, content), New{Source: SourceUpload})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// serves is the model and version that Lookup finds, as text.
func serves(r *Registry, name string) string {
	e, err := r.Lookup(name)
	if err != nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %d %s", e.Name, e.Version, e.Model)
}

func want(t *testing.T, r *Registry, name, what string) {
	t.Helper()
	if got := serves(r, name); got != what {
		t.Errorf("%q: %s serves, want %s", name, got, what)
	}
}

func TestSeedsOnce(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "b", "a")
	want(t, r, "", "b 1 b")
	want(t, r, "a", "a 1 a")
	if l := r.List(); len(l) != 2 || !l[0].Default || l[0].Name != "b" || l[0].Versions[0].Source != SourceBuiltin {
		t.Errorf("list %+v", l)
	}
	e := add(t, r, "b", "b2")
	if err := r.Swap(1, e, ReasonUpload); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir, "b", "a", "c")
	want(t, r, "", "b 2 b2")
	want(t, r, "c", "nothing")
}

func TestSwapIsCompareAndSwap(t *testing.T) {
	r := open(t, t.TempDir(), "m")
	const n = 16
	var entries []*Entry
	for i := range n {
		entries = append(entries, add(t, r, "m", "v"+strconv.Itoa(i)))
	}
	var wg sync.WaitGroup
	won := make(chan *Entry, n)
	for _, e := range entries {
		wg.Go(func() {
			err := r.Swap(1, e, ReasonPromote)
			var stale *StaleError
			switch {
			case err == nil:
				won <- e
			case !errors.As(err, &stale) || stale.Expected != 1:
				t.Errorf("swap: %v", err)
			}
		})
	}
	wg.Wait()
	close(won)
	if len(won) != 1 {
		t.Fatalf("%d swaps from version 1 were made, want 1", len(won))
	}
	e := <-won
	want(t, r, "m", fmt.Sprintf("m %d %s", e.Version, e.Model))
}

func TestRollbackAndDelete(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "m")
	for i := range 2 {
		add(t, r, "m", "v"+strconv.Itoa(i+2))
	}
	ctx := t.Context()
	if _, _, err := r.Promote(ctx, "m", 2, 1); err != nil {
		t.Fatal(err)
	}
	if _, before, err := r.Promote(ctx, "", 3, 0); err != nil || before != 2 {
		t.Fatal(before, err)
	}
	if e, before, err := r.Rollback(ctx, "m", 0); err != nil || e.Version != 2 || before != 3 {
		t.Fatal(e, before, err)
	}
	if _, _, err := r.Rollback(ctx, "m", 0); err != nil { // and forth again
		t.Fatal(err)
	}
	want(t, r, "m", "m 3 v3")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir) // not in memory any more
	if _, _, err := r.Rollback(ctx, "m", 3); err != nil {
		t.Fatal(err)
	}
	want(t, r, "m", "m 2 v2")
	var state *StateError
	if err := r.Delete("m", 2); !errors.As(err, &state) {
		t.Errorf("delete what serves: %v", err)
	}
	if err := r.Delete("m", 3); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Rollback(ctx, "m", 0); !errors.As(err, &state) {
		t.Errorf("rollback to what is deleted: %v", err)
	}
	if e := add(t, r, "m", "v4"); e.Version != 4 {
		t.Errorf("a deleted number came again: %d", e.Version)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir)
	want(t, r, "m", "m 2 v2") // not the newest: 4 was never promoted
}

// Whatever step a crash falls on, the folder opens, and what serves is the version before or the one after.
func TestCrash(t *testing.T) {
	crash := errors.New("crash")
	var steps int
	for at := 0; ; at++ {
		dir := t.TempDir()
		r := open(t, dir, "m")
		steps = 0
		dead := false
		r.store.step = func(string) error {
			if dead = dead || steps == at; dead {
				return crash
			}
			steps++
			return nil
		}
		e, err := r.Add(t.Context(), "m", file(t, "v2"), New{Source: SourceUpload, ReportJSON: []byte("{}")})
		if err == nil {
			err = r.Swap(1, e, ReasonUpload)
		}
		if err == nil {
			err = r.Delete("m", 1)
		}
		if !errors.Is(err, crash) && err != nil {
			t.Fatalf("step %d: %v", at, err)
		}
		served := serves(r, "m") // what clients were told before the crash
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r2 := open(t, dir)
		got := serves(r2, "m")
		if got != "m 1 m" && got != "m 2 v2" || served == "m 2 v2" && got != served {
			t.Errorf("crash at step %d: %s serves, it was %s", at, got, served)
		}
		for _, v := range r2.List()[0].Versions {
			if _, err := r2.Load(t.Context(), "m", v.Version); err != nil {
				t.Errorf("crash at step %d: version %d: %v", at, v.Version, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "m", ".*")); len(left) > 0 {
			t.Errorf("crash at step %d left %v", at, left)
		}
		e = add(t, r2, "m", "next")
		if err := r2.Swap(r2.List()[0].Serving, e, ReasonUpload); err != nil {
			t.Errorf("crash at step %d: afterwards: %v", at, err)
		}
		if err == nil {
			break
		}
	}
	if steps < 10 {
		t.Errorf("only %d steps were tried", steps)
	}
}

// A crash while a new folder is being filled is made good at the next start.
func TestCrashWhileSeeding(t *testing.T) {
	for at := range 40 {
		dir := t.TempDir()
		s, err := openStore(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		s.step = func(string) error {
			if n++; n > at {
				return errors.New("crash")
			}
			return nil
		}
		r := &Registry{opt: open(t, t.TempDir(), "a", "b").opt, store: s, models: map[string]*model{}, broken: map[string]string{}}
		r.serving.Store(&map[string]*Entry{})
		_ = r.open(t.Context()) // the error is the crash
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		r = open(t, dir, "a", "b")
		if !strings.HasSuffix(serves(r, ""), " a") || !strings.HasSuffix(serves(r, "b"), " b") {
			t.Errorf("crash at step %d: %s and %s serve", at, serves(r, ""), serves(r, "b"))
		}
	}
}

func TestTritonFolder(t *testing.T) {
	dir := t.TempDir()
	put := func(path string, b []byte) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("seg/config.pbtxt", []byte(`platform: "onnxruntime_onnx"`))
	put("seg/1/model.onnx", file(t, "one"))
	put("seg/10/model.onnx", file(t, "ten"))
	put("seg/10/model.json", []byte("+spec"))
	put("seg/9/model.onnx", file(t, "nine"))
	put("seg/11/README", []byte("no model here"))
	put("seg/labels/model.onnx", file(t, "x"))
	put("ensemble/1/.gitkeep", nil)
	put("bad/1/model.onnx", []byte("junk"))
	put("README.md", nil)
	r := open(t, dir, "seed")
	want(t, r, "seg", "seg 10 ten+spec")
	want(t, r, "seed", "nothing")
	info, serving, err := r.Get("seg", 0)
	if err != nil || !serving || info.Source != SourceFolder || len(info.SHA256) != 64 || info.Parameters != 3 || info.Inputs[0].Shape[2] != -1 {
		t.Errorf("get: %+v %v %v", info, serving, err)
	}
	l := r.List()
	if len(l) != 2 || l[0].Name != "bad" || l[0].Broken == "" || l[0].Serving != 0 {
		t.Errorf("list %+v", l)
	}
	e := add(t, r, "seg", "twelve")
	if e.Version != 12 {
		t.Errorf("the new version is %d, want 12: a folder 11 is there, though no model is in it", e.Version)
	}
	if err := r.Swap(10, e, ReasonUpload); err != nil {
		t.Fatal(err)
	}
}

// What lies in the folder cannot be trusted: each of these is one broken model, and the others serve.
func TestBrokenModels(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "good", "hash", "pointer", "gone")
	e := add(t, r, "gone", "v2")
	if err := r.Swap(1, e, ReasonUpload); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{"hash/1/model.onnx": file(t, "forged"), "pointer/serving.json": []byte("{"), "gone/2/model.onnx": nil} {
		if err := os.WriteFile(filepath.Join(dir, path), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r = open(t, dir)
	want(t, r, "good", "good 1 good")
	want(t, r, "hash", "nothing")
	want(t, r, "pointer", "nothing")
	want(t, r, "gone", "gone 1 gone") // the one that served before
	_, _, err := r.Promote(t.Context(), "pointer", 1, 0)
	if err != nil {
		t.Errorf("a promotion repairs a pointer: %v", err)
	}
	want(t, r, "pointer", "pointer 1 pointer")
}

func TestAddRefuses(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "m")
	var bad *ModelError
	for name, b := range map[string][]byte{"junk": []byte("junk"), "empty": nil, "does not run": file(t, "broken")} {
		if _, err := r.Add(t.Context(), "m", b, New{}); !errors.As(err, &bad) {
			t.Errorf("%s: %v, want a ModelError", name, err)
		}
	}
	var name *NameError
	for _, n := range []string{"", ".", "..", "a/b", `a\b`, ".hidden", "-x", "a b", strings.Repeat("x", 65), "ü", "a\x00"} {
		if _, err := r.Add(t.Context(), n, file(t, "v"), New{}); !errors.As(err, &name) {
			t.Errorf("name %q: %v, want a NameError", n, err)
		}
	}
	if es, err := os.ReadDir(filepath.Join(dir, "m")); err != nil || len(es) != 2 { // 1 and serving.json
		t.Errorf("left behind: %v %v", es, err)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "m")
	if _, err := Open(t.Context(), dir, Options{Load: loadFake}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one: %v, want ErrLocked", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, dir), "m", "m 1 m")
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "m")
	e := add(t, r, "m", "v2")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir)
	r.store.readOnly = true // root may write anywhere, so the mode of the folder would test nothing
	if err := r.Swap(1, e, ReasonPromote); err != nil {
		t.Errorf("swap in memory: %v", err)
	}
	want(t, r, "m", "m 2 v2")
	var state *StateError
	if _, err := r.Add(t.Context(), "m", file(t, "v3"), New{}); !errors.As(err, &state) {
		t.Errorf("add: %v", err)
	}
	if err := r.Delete("m", 1); !errors.As(err, &state) {
		t.Errorf("delete: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, dir), "m", "m 1 m")
}

func BenchmarkLookup(b *testing.B) {
	r := open(b, b.TempDir(), "m")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Lookup("m"); err != nil {
			b.Fatal(err)
		}
	}
}
