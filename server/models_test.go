package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/server/registry"
)

// download returns a file of a version.
func (h *harness) download(t *testing.T, req *secateurv1.DownloadModelRequest) ([]byte, *secateurv1.DownloadModelHeader, error) {
	t.Helper()
	d, err := h.models.DownloadModel(t.Context(), req)
	if err != nil {
		return nil, nil, err
	}
	first, err := d.Recv()
	if err != nil {
		return nil, nil, err
	}
	var b []byte
	for {
		part, err := d.Recv()
		if errors.Is(err, io.EOF) {
			return b, first.GetHeader(), nil
		}
		if err != nil {
			return nil, nil, err
		}
		b = append(b, part.GetChunk()...)
	}
}

func TestDownloadIsWhatWasUploaded(t *testing.T) {
	h := start(t, Config{})
	file := fakeFile(t, 9)
	hash := sha256.Sum256(file)
	up, err := h.models.UploadModel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(r *secateurv1.UploadModelRequest) {
		if err := up.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	send(&secateurv1.UploadModelRequest{Part: &secateurv1.UploadModelRequest_Header{Header: &secateurv1.UploadModelHeader{Name: "m", Sha256: hex.EncodeToString(hash[:]), Note: "n"}}})
	for _, b := range file { // parts may be as small as they like
		send(&secateurv1.UploadModelRequest{Part: &secateurv1.UploadModelRequest_Chunk{Chunk: []byte{b}}})
	}
	resp, err := up.CloseAndRecv()
	if err != nil || resp.Version.Note != "n" || resp.Version.Size != uint64(len(file)) {
		t.Fatalf("upload: %v %v", resp, err)
	}
	b, header, err := h.download(t, &secateurv1.DownloadModelRequest{Name: "m", Version: 1})
	if err != nil || !bytes.Equal(b, file) || header.Size != uint64(len(file)) || header.Sha256 != hex.EncodeToString(hash[:]) {
		t.Errorf("%d bytes, %v and %v, want the %d that were uploaded", len(b), header, err, len(file))
	}
}

func TestModels(t *testing.T) {
	h := start(t, Config{})
	ctx := t.Context()
	file := fakeFile(t, 2)
	for _, c := range []struct {
		name   string
		header *secateurv1.UploadModelHeader
		file   []byte
		code   codes.Code
		field  string
	}{
		{"path", &secateurv1.UploadModelHeader{Name: "../up"}, file, codes.InvalidArgument, "name"},
		{"no name", &secateurv1.UploadModelHeader{}, file, codes.InvalidArgument, "name"},
		{"hidden", &secateurv1.UploadModelHeader{Name: ".state"}, file, codes.InvalidArgument, "name"},
		{"hash", &secateurv1.UploadModelHeader{Name: "m", Sha256: "00"}, file, codes.InvalidArgument, "header.sha256"},
		{"junk", &secateurv1.UploadModelHeader{Name: "m"}, []byte("this is no model"), codes.InvalidArgument, "model"},
		{"empty", &secateurv1.UploadModelHeader{Name: "m"}, nil, codes.InvalidArgument, "chunk"},
	} {
		_, err := h.send(ctx, c.header, c.file)
		if wantCode(t, err, c.code); violation(err) != c.field {
			t.Errorf("%s: field %q, want %q (%v)", c.name, violation(err), c.field, err)
		}
	}
	list, err := h.models.ListModels(ctx, &secateurv1.ListModelsRequest{})
	if err != nil || len(list.Models) != 0 {
		t.Fatalf("after refused uploads: %v %v", list, err)
	}

	v1 := h.upload(t, "m", 1, false)
	v2 := h.upload(t, "m", 2, false)
	if !v1.Serving || v2.Serving {
		t.Errorf("serving %v and %v: the first version serves, the second waits", v1.Serving, v2.Serving)
	}
	b, header, err := h.download(t, &secateurv1.DownloadModelRequest{Name: "m", Version: 2})
	if err != nil || !bytes.Equal(b, file) || header.Size != uint64(len(file)) || header.Sha256 != v2.Sha256 {
		t.Errorf("download: %d bytes, %v, %v", len(b), header, err)
	}
	_, _, err = h.download(t, &secateurv1.DownloadModelRequest{Name: "m", File: secateurv1.ModelFile_MODEL_FILE_REPORT_HTML})
	wantCode(t, err, codes.NotFound)

	_, err = h.models.PromoteModel(ctx, &secateurv1.PromoteModelRequest{Name: "m", Version: 2, ExpectedServingVersion: 7})
	if wantCode(t, err, codes.Aborted); reason(err) != "STALE_VERSION" {
		t.Errorf("reason %q", reason(err))
	}
	_, err = h.models.RollbackModel(ctx, &secateurv1.RollbackModelRequest{Name: "m"})
	if wantCode(t, err, codes.FailedPrecondition); reason(err) != "NO_PREVIOUS_VERSION" {
		t.Errorf("reason %q", reason(err))
	}
	p, err := h.models.PromoteModel(ctx, &secateurv1.PromoteModelRequest{Name: "m", Version: 2, ExpectedServingVersion: 1})
	if err != nil || p.PreviousVersion != 1 || !p.Version.Serving {
		t.Errorf("promote: %v %v", p, err)
	}
	_, err = h.models.DeleteModel(ctx, &secateurv1.DeleteModelRequest{Name: "m", Version: 2})
	if wantCode(t, err, codes.FailedPrecondition); reason(err) != "VERSION_SERVING" {
		t.Errorf("reason %q", reason(err))
	}
	r, err := h.models.RollbackModel(ctx, &secateurv1.RollbackModelRequest{Name: "m"})
	if err != nil || r.Version.Version != 1 || r.PreviousVersion != 2 {
		t.Errorf("rollback: %v %v", r, err)
	}
	if _, err := h.models.DeleteModel(ctx, &secateurv1.DeleteModelRequest{Name: "m", Version: 2}); err != nil {
		t.Errorf("delete: %v", err)
	}
	_, err = h.models.GetModel(ctx, &secateurv1.GetModelRequest{Name: "m", Version: 2})
	wantCode(t, err, codes.NotFound)
	if v := h.upload(t, "m", 3, true); v.Version != 3 || !v.Serving {
		t.Errorf("after a delete: %v, want version 3 to serve", v)
	}
	g, err := h.models.GetModel(ctx, &secateurv1.GetModelRequest{})
	if err != nil || g.Version.Version != 3 || g.Version.Parameters != 3000 || g.Version.Macs != 30000 || g.Version.Inputs[0].Name != "image" ||
		g.Version.Source != secateurv1.ModelSource_MODEL_SOURCE_UPLOAD {
		t.Errorf("get: %v %v", g, err)
	}
}

// Without fakes: an operator that the engine lacks is named.
func TestUnsupportedOperator(t *testing.T) {
	h := start(t, Config{Load: func(g *graph.Graph, _ []byte) (registry.Runner, error) {
		m, err := predict.New(g, predict.Options{})
		if err != nil {
			return nil, err
		}
		return m, nil
	}})
	typ := tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{1, 3, 8, 8}}
	in, out := &graph.Value{Name: "image", Type: typ}, &graph.Value{Name: "mask", Type: typ}
	n := &graph.Node{Op: "Bernoulli", Name: "chance", Inputs: []*graph.Value{in}, Outputs: []*graph.Value{out}}
	out.Def = n
	b, err := onnx.Encode(&graph.Graph{Name: "g", IR: 8, Opsets: map[string]int{"": 17}, Inputs: []*graph.Value{in}, Outputs: []*graph.Value{out}, Nodes: []*graph.Node{n}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.send(t.Context(), &secateurv1.UploadModelHeader{Name: "m"}, b)
	if wantCode(t, err, codes.Unimplemented); reason(err) != "UNSUPPORTED_OPERATOR" {
		t.Errorf("reason %q of %v", reason(err), err)
	}
	if v := h.upload(t, "m", 1, true); v.Parameters != 0 || !v.Serving {
		t.Errorf("a model that runs: %v", v)
	}
}
