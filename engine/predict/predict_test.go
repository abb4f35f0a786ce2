package predict

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// fake is a backend whose model is "the red channel, shifted": its logit is positive where red is above 128.
type fake struct {
	compiles, runners atomic.Int32
	gate              chan struct{} // if set, compilation waits for it
	fail              error         // of compilation
	failRun           error
}

type fakeRunner struct {
	f    *fake
	busy atomic.Bool
	out  *tensor.Tensor
}

func (f *fake) backend(_ *graph.Graph, in []tensor.Type) (func() (Runner, error), error) {
	f.compiles.Add(1)
	if f.gate != nil {
		<-f.gate
	}
	if f.fail != nil {
		return nil, f.fail
	}
	sh := in[0].Shape
	return func() (Runner, error) {
		f.runners.Add(1)
		return &fakeRunner{f: f, out: tensor.New(tensor.Float32, 1, 1, sh[2], sh[3])}, nil
	}, nil
}

func (r *fakeRunner) Run(ctx context.Context, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	if r.busy.Swap(true) {
		panic("one runner, two goroutines")
	}
	defer r.busy.Store(false)
	if r.f.failRun != nil {
		return nil, r.f.failRun
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x, y := tensor.Of[float32](in[0]), tensor.Of[float32](r.out)
	for i := range y {
		y[i] = 100 * (x[i] - 0.5)
	}
	return []*tensor.Tensor{r.out}, nil
}

func testGraph() *graph.Graph {
	x := &graph.Value{Name: "image", Type: tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{-1, 3, -1, -1}}}
	y := &graph.Value{Name: "logits"}
	n := &graph.Node{Op: "Conv", Name: "c", Inputs: []*graph.Value{x}, Outputs: []*graph.Value{y}}
	y.Def = n
	return &graph.Graph{Inputs: []*graph.Value{x}, Outputs: []*graph.Value{y}, Nodes: []*graph.Node{n}}
}

func newTest(t testing.TB, f *fake) *Model {
	t.Helper()
	m, err := New(testGraph(), Options{Backend: f.backend})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// half is a picture whose left half is red.
func half(w, h int) *vision.Image {
	img := vision.NewImage(w, h)
	for i := range w * h {
		if i%w < w/2 {
			img.Pix[3*i] = 255
		}
	}
	return img
}

func TestPredict(t *testing.T) {
	m := newTest(t, &fake{})
	for _, size := range [][2]int{{64, 32}, {100, 70}, {1, 1}, {622, 530}} {
		img := half(size[0], size[1])
		p, err := m.Predict(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		if p.Mask.W != img.W || p.Mask.H != img.H || p.Prob.W != img.W || p.Prob.H != img.H {
			t.Fatalf("%v: mask %dx%d", size, p.Mask.W, p.Mask.H)
		}
		for i, v := range p.Mask.Pix {
			x := i % img.W
			if d := x - img.W/2; d < 8 && d > -8 && img.W > 1 { // resizing may blur the edge
				continue
			}
			if want := img.Pix[3*i] / 255; v != want {
				t.Fatalf("%v: x=%d is %d, want %d", size, x, v, want)
			}
		}
	}
}

// The logits belong to the caller: a later prediction does not change them.
func TestLogitsAreACopy(t *testing.T) {
	m := newTest(t, &fake{})
	a, err := m.Predict(t.Context(), half(64, 64))
	if err != nil {
		t.Fatal(err)
	}
	before := slices.Clone(a.Logits.Data)
	if _, err := m.Predict(t.Context(), vision.NewImage(64, 64)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, a.Logits.Data) {
		t.Error("a second prediction wrote over the first one's logits")
	}
}

func TestConcurrentFirstUsesCompileOnce(t *testing.T) {
	f := &fake{gate: make(chan struct{})}
	m := newTest(t, f)
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for range 16 {
		wg.Go(func() {
			_, err := m.Predict(t.Context(), half(64, 64))
			errs <- err
		})
	}
	close(f.gate)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := f.compiles.Load(); n != 1 {
		t.Errorf("compiled %d times, want once", n)
	}
	if n := f.runners.Load(); n > 16 {
		t.Errorf("%d runners for 16 requests", n)
	}
}

func TestSessionsAreReusedAndShapesEvicted(t *testing.T) {
	f := &fake{}
	m := newTest(t, f)
	use := func(w int) {
		t.Helper()
		if _, err := m.Predict(t.Context(), half(w, 32)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		use(32)
	}
	if c, r := f.compiles.Load(), f.runners.Load(); c != 1 || r != 1 {
		t.Fatalf("five requests one after the other: %d compilations, %d runners, want 1 and 1", c, r)
	}
	for w := 64; w <= 32*cacheSize; w += 32 {
		use(w)
	}
	use(32) // the oldest is used again
	before := f.compiles.Load()
	use(32 * (cacheSize + 1)) // 64 falls out
	use(32)
	if n := f.compiles.Load(); n != before+1 {
		t.Errorf("the shape used last was compiled anew")
	}
	use(64)
	if n := f.compiles.Load(); n != before+2 {
		t.Errorf("%d compilations, want %d: the oldest shape falls out", n, before+2)
	}
	if n := len(m.cache.entries); n != cacheSize {
		t.Errorf("%d shapes kept, want %d", n, cacheSize)
	}
}

func TestErrors(t *testing.T) {
	boom := errors.New("boom")
	f := &fake{fail: boom}
	m := newTest(t, f)
	for range 2 {
		if _, err := m.Predict(t.Context(), half(32, 32)); !errors.Is(err, boom) {
			t.Fatalf("compilation fails with %v, want boom wrapped", err)
		}
	}
	if n := f.compiles.Load(); n != 2 {
		t.Errorf("%d compilations: a failure must not be kept", n)
	}
	f.fail, f.failRun = nil, boom
	if _, err := m.Predict(t.Context(), half(32, 32)); !errors.Is(err, boom) {
		t.Fatalf("a run fails with %v, want boom wrapped", err)
	}
	f.failRun = nil
	if _, err := m.Predict(t.Context(), half(32, 32)); err != nil {
		t.Fatal(err)
	}
	if n := f.runners.Load(); n != 2 {
		t.Errorf("%d runners: one that failed must not be used again", n)
	}
	fe := (*vision.FormatError)(nil)
	for _, img := range []*vision.Image{nil, {}, {W: 2, H: 2}, {W: -1, H: -1, Pix: make([]byte, 3)}} {
		if _, err := m.Predict(t.Context(), img); !errors.As(err, &fe) {
			t.Errorf("image %v: %v, want a FormatError", img, err)
		}
	}
}

func TestContext(t *testing.T) {
	f := &fake{gate: make(chan struct{})}
	m := newTest(t, f)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Predict(done, half(32, 32)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want canceled", err)
	}
	if f.compiles.Load() != 0 {
		t.Error("a canceled request compiled")
	}
	// One who waits for another's compilation leaves when its own context ends.
	leader := make(chan error)
	go func() {
		_, err := m.Predict(t.Context(), half(32, 32))
		leader <- err
	}()
	for f.compiles.Load() == 0 {
		select {
		case err := <-leader:
			t.Fatal(err)
		default:
		}
	}
	waiting, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.cache.get(waiting, tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 32, 32}}); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter with an ended context gets %v", err)
	}
	close(f.gate)
	if err := <-leader; err != nil {
		t.Fatal(err)
	}
}

func TestCompilePanicFreesWaiters(t *testing.T) {
	g := testGraph()
	m, err := New(g, Options{Backend: func(*graph.Graph, []tensor.Type) (func() (Runner, error), error) { panic("bug") }})
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }() // the panic goes to the one who compiled
		_, _ = m.Predict(t.Context(), half(32, 32))
	}()
	if n := len(m.cache.entries); n != 0 {
		t.Errorf("%d entries kept after a panic", n)
	}
}

func TestServingTypeAndWarm(t *testing.T) {
	f := &fake{}
	m := newTest(t, f)
	if got := fmt.Sprint(ServingType(m.Graph(), m.Spec())); got != "float32[1,3,256,256]" {
		t.Errorf("serving type %s", got)
	}
	if err := m.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Predict(t.Context(), half(256, 256)); err != nil || f.compiles.Load() != 1 {
		t.Errorf("after Warm: %v, %d compilations, want 1", err, f.compiles.Load())
	}
	s := m.Spec()
	s.Pre.Size = []int{96, 64}
	if got := fmt.Sprint(ServingType(m.Graph(), s)); got != "float32[1,3,96,64]" {
		t.Errorf("serving type %s", got)
	}
}

// A network of volumes is refused by the node that would have to work in three dimensions.
func TestVolumesAreRefused(t *testing.T) {
	g := testGraph()
	g.Inputs[0].Type.Shape = tensor.Shape{-1, 1, 32, -1, 32}
	w := &graph.Value{Name: "w", Const: tensor.New(tensor.Float32, 4, 1, 3, 3, 3)}
	g.Opsets = map[string]int{"": 17}
	g.Nodes[0].Inputs = append(g.Nodes[0].Inputs, w)
	g.Inits = append(g.Inits, w)
	m, err := New(g, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, _, count := m.Cost()
	for _, err := range []error{count, m.Warm(t.Context())} {
		var un *op.Unsupported
		if !errors.As(err, &un) || un.Node.Name != "c" || !strings.Contains(err.Error(), "3 spatial axes") {
			t.Errorf("%v", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	g := testGraph()
	g.Inputs = append(g.Inputs, &graph.Value{Name: "second"})
	if _, err := New(g, Options{}); err == nil {
		t.Error("a model of two inputs is accepted")
	}
	g = testGraph()
	g.Meta = map[string]string{vision.MetaPreprocess: `{"colour": 1}`}
	if fe := (*vision.FormatError)(nil); !errors.As(func() error { _, err := New(g, Options{}); return err }(), &fe) {
		t.Error("metadata with an unknown key is accepted")
	}
}
