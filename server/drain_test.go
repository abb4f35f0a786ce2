package server

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/server/registry"
)

// On the way out health says so first, requests in flight end with their answers, streams and watches end, and Serve
// returns nil.
func TestDrain(t *testing.T) {
	h := start(t, Config{DrainWait: time.Millisecond, MaxInFlight: 4})
	h.upload(t, "m", 1, true)
	health := grpc_health_v1.NewHealthClient(h.conn)
	watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "m"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("health of a model that serves: %v %v", r, err)
	}
	idle, err := h.seg.SegmentStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Send(&secateurv1.SegmentStreamRequest{Image: encoded(picture(t, 2, 2, 0))}); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Recv(); err != nil {
		t.Fatal(err)
	}
	began, release := h.held()
	defer release()
	var wg sync.WaitGroup
	wg.Go(func() {
		resp, err := h.seg.Segment(t.Context(), request(t, "m"))
		if err != nil || resp.Segmentation.Version != 1 {
			t.Errorf("the request in flight: %v %v", resp, err)
		}
	})
	<-began
	wg.Go(func() {
		if err := h.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	if r, err := watch.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health on the way out: %v %v", r, err)
	}
	_, err = idle.Recv()
	wantCode(t, err, codes.Unavailable)
	for err == nil || status.Code(err) == codes.OK {
		_, err = watch.Recv()
	}
	release()
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = h.seg.Segment(ctx, request(t, "m"))
	wantCode(t, err, codes.Unavailable)
}

// Whoever does not end is cut off, and the server stops all the same.
func TestDrainTimeout(t *testing.T) {
	h := start(t, Config{DrainTimeout: time.Millisecond})
	h.upload(t, "m", 1, true)
	began := make(chan struct{}, 1)
	f := func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	h.hold.Store(&f)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := h.seg.Segment(t.Context(), request(t, "m"))
		if status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled {
			t.Errorf("the one that was cut off: %v", err)
		}
	})
	<-began
	if err := h.stop(); err != nil {
		t.Errorf("serve: %v", err)
	}
	wg.Wait()
}

func (h *harness) get(t *testing.T, path string, accept string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.web+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestWeb(t *testing.T) {
	f := newFakePrune(t, 2, "pass")
	close(f.proceed)
	h := start(t, Config{Prune: f.prune, Version: "v1.2.3"})
	if code, _ := h.get(t, "/readyz", ""); code != http.StatusServiceUnavailable {
		t.Errorf("ready without a model: %d", code)
	}
	h.upload(t, "m", 1, true)
	op, err := h.prune.Prune(t.Context(), pruneRequest(h.calibrate(t, 4, false), 0))
	if err != nil {
		t.Fatal(err)
	}
	h.wait(t, op.Name)
	for _, c := range []struct {
		path string
		code int
		part string
	}{
		{"/healthz", 200, "ok"}, {"/readyz", 200, "ready"}, {"/", 200, `href="/reports/m/2"`}, {"/", 200, "v1.2.3"},
		{"/reports/m/2", 200, "<!doctype html>"}, {"/reports/m/2.json", 200, `"verdict": "pass"`},
		{"/reports/m/1", 404, ""}, {"/reports/m/0", 404, ""}, {"/reports/m/x", 404, ""}, {"/reports/x/1", 404, ""},
		{"/reports/..%2f..%2f/1", 404, ""}, {"/nothing", 404, ""}, {"/metrics", 200, "secateur_model_info"},
	} {
		code, body := h.get(t, c.path, "")
		if code != c.code || !strings.Contains(body, c.part) {
			t.Errorf("%s: %d %.300s, want %d with %q", c.path, code, body, c.code, c.part)
		}
	}
}

func TestReflectionAndHealth(t *testing.T) {
	h := start(t, Config{})
	h.upload(t, "m", 1, true)
	r, err := grpc_reflection_v1.NewServerReflectionClient(h.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := r.Recv()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, s := range resp.GetListServicesResponse().GetService() {
		have[s.Name] = true
	}
	for _, want := range []string{"secateur.v1.SegmentationService", "secateur.v1.PruningService", "secateur.v1.ModelService", "google.longrunning.Operations", "grpc.health.v1.Health"} {
		if !have[want] {
			t.Errorf("reflection does not list %s", want)
		}
	}
	if err := r.CloseSend(); err != nil {
		t.Error(err)
	}
	health := grpc_health_v1.NewHealthClient(h.conn)
	for _, s := range []string{"", "m", "secateur.v1.SegmentationService"} {
		if r, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: s}); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v %v", s, r, err)
		}
	}
	_, err = health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "x"})
	wantCode(t, err, codes.NotFound)
}

func TestSecondServerIsKeptOut(t *testing.T) {
	h := start(t, Config{})
	if _, err := New(Config{Models: h.cfg.Models}); err == nil || !strings.Contains(err.Error(), registry.ErrLocked.Error()) {
		t.Errorf("a second server on the folder: %v", err)
	}
}
