package server

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

// half begins an upload and sends no more than its beginning.
func (h *harness) half(t *testing.T) grpc.ClientStreamingClient[secateurv1.UploadModelRequest, secateurv1.UploadModelResponse] {
	t.Helper()
	up, err := h.models.UploadModel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*secateurv1.UploadModelRequest{
		{Part: &secateurv1.UploadModelRequest_Header{Header: &secateurv1.UploadModelHeader{Name: "m"}}},
		{Part: &secateurv1.UploadModelRequest_Chunk{Chunk: []byte("half of it")}},
	} {
		if err := up.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	return up
}

// leftovers are the temporary files of uploads.
func (h *harness) leftovers(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.cfg.Models, ".state", "*", prefixTemp+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Uploads have so many places; one more is refused, and a place is free again when an upload ends, however it does.
func TestUploadsAreBounded(t *testing.T) {
	h := start(t, Config{MaxUploads: 1})
	first := h.half(t)
	for len(h.uploads.places) == 0 { // it has arrived
		runtime.Gosched()
	}
	_, err := h.send(t.Context(), &secateurv1.UploadModelHeader{Name: "m"}, fakeFile(t, 1))
	wantCode(t, err, codes.ResourceExhausted)
	if r, ok := status.Convert(err).Details()[0].(*errdetails.RetryInfo); !ok || r.RetryDelay.AsDuration() <= 0 {
		t.Errorf("details %v, want a RetryInfo", status.Convert(err).Details())
	}
	_, err = first.CloseAndRecv()
	wantCode(t, err, codes.InvalidArgument)
	h.upload(t, "m", 1, true)
	if left := h.leftovers(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// An upload that does not go on loses its place.
func TestStalledUpload(t *testing.T) {
	h := start(t, Config{MaxUploads: 1, UploadPatience: time.Millisecond})
	_, err := h.half(t).CloseAndRecv()
	if status.Code(err) != codes.InvalidArgument { // it was faster than the clock
		wantCode(t, err, codes.DeadlineExceeded)
	}
	up := h.half(t)
	err = up.RecvMsg(&secateurv1.UploadModelResponse{}) // nothing more is sent
	wantCode(t, err, codes.DeadlineExceeded)
	for len(h.uploads.places) > 0 {
		runtime.Gosched()
	}
	if left := h.leftovers(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// Streams on which nothing happens do not hold a stopping server up until its timeout.
func TestDrainEndsIdleStreams(t *testing.T) {
	h := start(t, Config{DrainTimeout: 24 * time.Hour})
	up := h.half(t)
	for len(h.uploads.places) == 0 {
		runtime.Gosched()
	}
	r, err := grpc_reflection_v1.NewServerReflectionClient(h.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := h.stop(); err != nil {
		t.Errorf("serve: %v", err)
	}
	wantCode(t, up.RecvMsg(&secateurv1.UploadModelResponse{}), codes.Unavailable)
	_, err = r.Recv()
	wantCode(t, err, codes.Unavailable)
}

// What a caller sent comes back in errors only as far as there is room for it in headers.
func TestLongNames(t *testing.T) {
	h := start(t, Config{})
	h.upload(t, "m", 1, true)
	long := strings.Repeat("é", 1<<20)
	_, err := h.seg.Segment(t.Context(), request(t, long))
	wantCode(t, err, codes.NotFound)
	_, err = h.models.GetModel(t.Context(), &secateurv1.GetModelRequest{Name: long})
	wantCode(t, err, codes.NotFound)
	_, err = h.send(context.Background(), &secateurv1.UploadModelHeader{Name: long}, fakeFile(t, 1))
	wantCode(t, err, codes.InvalidArgument)
}
