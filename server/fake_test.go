package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/server/registry"
)

func TestMain(m *testing.M) {
	// The engine's process-wide pool lives as long as the process does.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/secateur/secateur/engine/kernel.(*helper).serve"))
}

// fake is a model that answers every pixel with the value in its file.
type fake struct {
	value  byte
	params int64
	// Predict calls hold, if it is set, with the context of the request.
	hold  func(ctx context.Context) error
	calls *atomic.Int64
}

func (f *fake) Predict(ctx context.Context, img *vision.Image) (*predict.Prediction, error) {
	f.calls.Add(1)
	if f.hold != nil {
		if err := f.hold(ctx); err != nil {
			return nil, err
		}
	}
	m := vision.NewMask(img.W, img.H)
	m.Classes = 255
	for i := range m.Pix {
		m.Pix[i] = f.value
	}
	p := &vision.Prob{W: img.W, H: img.H, C: 255, P: make([]float32, 255*img.W*img.H)}
	for i := range p.Plane(int(f.value) - 1) {
		p.Plane(int(f.value) - 1)[i] = 0.75
	}
	return &predict.Prediction{Mask: m, Prob: p, Prepare: time.Millisecond, Infer: 2 * time.Millisecond, Post: time.Millisecond}, nil
}

func (f *fake) Spec() vision.Spec          { return vision.Spec{} }
func (f *fake) Warm(context.Context) error { return nil }
func (f *fake) Cost() (engine.Cost, tensor.Type, error) {
	return engine.Cost{Parameters: f.params, MACs: 10 * f.params}, tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}, nil
}

// fakeFile is the ONNX file of a fake. Sigmoid makes it a model that the engine runs too.
func fakeFile(t testing.TB, value byte) []byte {
	t.Helper()
	typ := tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}
	in, out := &graph.Value{Name: "image", Type: typ}, &graph.Value{Name: "mask", Type: typ}
	n := &graph.Node{Op: "Sigmoid", Name: "activate", Inputs: []*graph.Value{in}, Outputs: []*graph.Value{out}}
	out.Def = n
	b, err := onnx.Encode(&graph.Graph{Name: "fake", IR: 8, Opsets: map[string]int{"": 17}, Meta: map[string]string{"value": strconv.Itoa(int(value))},
		Inputs: []*graph.Value{in}, Outputs: []*graph.Value{out}, Nodes: []*graph.Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// harness is a running server and a client of it.
type harness struct {
	*Server
	seg    secateurv1.SegmentationServiceClient
	models secateurv1.ModelServiceClient
	prune  secateurv1.PruningServiceClient
	conn   *grpc.ClientConn
	web    string
	calls  atomic.Int64 // of Predict
	hold   atomic.Pointer[func(ctx context.Context) error]
	stop   func() error // drains; may be called once before the test's end
}

// start runs a server of fakes. Its folder holds no model unless cfg says so.
func start(t *testing.T, cfg Config) *harness {
	t.Helper()
	h := &harness{}
	if cfg.Models == "" {
		cfg.Models = t.TempDir()
	}
	cfg.NoSeed = true
	if cfg.Load == nil {
		cfg.Load = func(g *graph.Graph, _ []byte) (registry.Runner, error) {
			v, err := strconv.Atoi(g.Meta["value"])
			if err != nil {
				return nil, err
			}
			return &fake{value: byte(v), params: int64(1000 * v), calls: &h.calls, hold: func(ctx context.Context) error {
				if f := h.hold.Load(); f != nil {
					return (*f)(ctx)
				}
				return nil
			}}, nil
		}
	}
	if cfg.DrainWait == 0 {
		cfg.DrainWait = -1
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewJSONHandler(&testWriter{t: t}, nil))
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = s
	gl, wl := listen(t), listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, gl, wl) }()
	h.web = "http://" + wl.Addr().String()
	h.conn, err = grpc.NewClient(gl.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(128<<20)))
	if err != nil {
		t.Fatal(err)
	}
	h.seg, h.models, h.prune = secateurv1.NewSegmentationServiceClient(h.conn), secateurv1.NewModelServiceClient(h.conn), secateurv1.NewPruningServiceClient(h.conn)
	h.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = h.conn.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return h
}

type testWriter struct {
	t  *testing.T
	mu sync.Mutex
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// upload stores a fake as a new version.
func (h *harness) upload(t *testing.T, name string, value byte, promote bool) *secateurv1.ModelVersion {
	t.Helper()
	v, err := h.send(t.Context(), &secateurv1.UploadModelHeader{Name: name, Promote: promote}, fakeFile(t, value))
	if err != nil {
		t.Fatalf("upload %s: %v", name, err)
	}
	return v
}

// send uploads a file in two parts.
func (h *harness) send(ctx context.Context, header *secateurv1.UploadModelHeader, file []byte) (*secateurv1.ModelVersion, error) {
	up, err := h.models.UploadModel(ctx)
	if err != nil {
		return nil, err
	}
	parts := []*secateurv1.UploadModelRequest{{Part: &secateurv1.UploadModelRequest_Header{Header: header}}}
	for _, c := range [][]byte{file[:len(file)/2], file[len(file)/2:]} {
		parts = append(parts, &secateurv1.UploadModelRequest{Part: &secateurv1.UploadModelRequest_Chunk{Chunk: c}})
	}
	for _, p := range parts {
		if err := up.Send(p); err != nil {
			break // CloseAndRecv says why
		}
	}
	resp, err := up.CloseAndRecv()
	return resp.GetVersion(), err
}

// picture is a PNG of w x h pixels.
func picture(t testing.TB, w, h int, shade byte) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = shade
	}
	m.SetGray(0, 0, color.Gray{Y: ^shade})
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encoded(b []byte) *secateurv1.Image {
	return &secateurv1.Image{Content: &secateurv1.Image_Encoded{Encoded: b}}
}

// request asks for the mask of a small image, as it is.
func request(t testing.TB, model string) *secateurv1.SegmentRequest {
	return &secateurv1.SegmentRequest{Model: model, Image: encoded(picture(t, 6, 4, 200)),
		Options: &secateurv1.SegmentOptions{MaskFormat: secateurv1.MaskFormat_MASK_FORMAT_RAW8}}
}

// violation is the field of an error's BadRequest.
func violation(err error) string {
	for _, d := range status.Convert(err).Details() {
		if b, ok := d.(*errdetails.BadRequest); ok && len(b.FieldViolations) == 1 {
			return b.FieldViolations[0].Field
		}
	}
	return ""
}

// reason is that of an error's ErrorInfo.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i.Reason
		}
	}
	return ""
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// fakePrune waits for go, tells its progress and returns a fake of the given value with a verdict.
type fakePrune struct {
	value   byte
	verdict string
	started chan struct{} // a value for each prune that has begun
	proceed chan struct{} // a prune takes one value to go on; closed: none waits
	file    []byte
}

func newFakePrune(t testing.TB, value byte, verdict string) *fakePrune {
	return &fakePrune{value, verdict, make(chan struct{}, 10), make(chan struct{}), fakeFile(t, value)}
}

func (f *fakePrune) prune(ctx context.Context, g *graph.Graph, fit, val *calib.Set, opt pruner.Options) (*pruner.Result, error) {
	if g.Meta["value"] == "" || len(fit.Items) == 0 || opt.Target.Value == 0 || opt.Parent == "" {
		return nil, fmt.Errorf("the prune was given %v, %d images, %v", g.Meta, len(fit.Items), opt)
	}
	opt.Progress(pruner.Progress{Stage: "score", Done: 1, Total: 2, Fraction: 0.5})
	f.started <- struct{}{}
	select {
	case <-f.proceed:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.verdict == "panic" {
		panic("at the fake")
	}
	if f.verdict == "error" {
		return nil, errors.New("no channel can be removed")
	}
	return &pruner.Result{ONNX: f.file, Report: &pruner.Report{Verdict: f.verdict, MACs: pruner.Change{Before: 100, After: 60},
		Parameters: pruner.Change{Before: 10, After: 7}, Filters: pruner.Change{Before: 8, After: 5},
		Gate: &gate.Result{Verdict: f.verdict, Agreement: gate.Interval{Mean: 0.98}}}}, nil
}
