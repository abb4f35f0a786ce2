package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/server/registry"
)

// models is the ModelService.
type models struct {
	secateurv1.UnimplementedModelServiceServer
	*Server
}

// chunkBytes is how much of a file goes into one message.
const chunkBytes = 1 << 20

// ListModels implements ModelService.
func (s models) ListModels(context.Context, *secateurv1.ListModelsRequest) (*secateurv1.ListModelsResponse, error) {
	out := &secateurv1.ListModelsResponse{}
	for _, m := range s.reg.List() {
		pm := &secateurv1.Model{Name: m.Name, ServingVersion: m.Serving, PreviousVersion: m.Previous, Default: m.Default}
		for _, v := range m.Versions {
			pm.Versions = append(pm.Versions, versionProto(v, v.Version == m.Serving))
		}
		out.Models = append(out.Models, pm)
	}
	return out, nil
}

// GetModel implements ModelService.
func (s models) GetModel(_ context.Context, req *secateurv1.GetModelRequest) (*secateurv1.GetModelResponse, error) {
	info, serving, err := s.reg.Get(req.GetName(), req.GetVersion())
	if err != nil {
		return nil, err
	}
	return &secateurv1.GetModelResponse{Version: versionProto(info, serving)}, nil
}

var sources = map[registry.Source]secateurv1.ModelSource{
	registry.SourceBuiltin: secateurv1.ModelSource_MODEL_SOURCE_BUILTIN,
	registry.SourceUpload:  secateurv1.ModelSource_MODEL_SOURCE_UPLOAD,
	registry.SourcePrune:   secateurv1.ModelSource_MODEL_SOURCE_PRUNE,
	registry.SourceFolder:  secateurv1.ModelSource_MODEL_SOURCE_FOLDER,
}

func versionProto(i registry.Info, serving bool) *secateurv1.ModelVersion {
	return &secateurv1.ModelVersion{
		Model: i.Model, Version: i.Version, Sha256: i.SHA256, ParentVersion: i.Parent, Source: sources[i.Source],
		CreateTime: timestamppb.New(i.Created), Size: uint64(i.Size), Serving: serving,
		Inputs: signatures(i.Inputs), Outputs: signatures(i.Outputs), Parameters: uint64(i.Parameters), Macs: uint64(i.MACs),
		ServingShape: int64s(i.ServingShape), Verdict: verdictOf(i.Verdict), HasReport: i.HasReport, Calibration: i.Calibration, Note: i.Note,
	}
}

func signatures(ts []registry.Tensor) []*secateurv1.TensorSignature {
	var out []*secateurv1.TensorSignature
	for _, t := range ts {
		out = append(out, &secateurv1.TensorSignature{Name: t.Name, Type: t.Type, Shape: int64s(t.Shape)})
	}
	return out
}

func int64s(v []int) []int64 {
	var out []int64
	for _, d := range v {
		out = append(out, int64(d))
	}
	return out
}

// UploadModel implements ModelService.
func (s models) UploadModel(stream grpc.ClientStreamingServer[secateurv1.UploadModelRequest, secateurv1.UploadModelResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return badField("header", "the stream is empty")
		}
		return err
	}
	h := first.GetHeader()
	if h == nil {
		return badField("header", "the first message is not the header")
	}
	if len(h.GetNote()) > 256 {
		return badField("header.note", "has %d bytes, at most 256 are kept", len(h.GetNote()))
	}
	if err := s.reg.CheckNew(h.GetName()); err != nil { // before the file has come all the way
		return err
	}
	u, err := s.uploads.begin()
	if err != nil {
		return err
	}
	defer u.end()
	hash, size := sha256.New(), int64(0)
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if req.GetHeader() != nil {
			return badField("header", "there is a second one")
		}
		if size += int64(len(req.GetChunk())); size > s.cfg.MaxModelBytes {
			return badField("chunk", "the file has more than %d bytes", s.cfg.MaxModelBytes)
		}
		hash.Write(req.GetChunk())
		if _, err := u.Write(req.GetChunk()); err != nil {
			return fmt.Errorf("store the upload: %w", err)
		}
	}
	if size == 0 {
		return badField("chunk", "the file is empty")
	}
	if want := strings.ToLower(h.GetSha256()); want != "" && hex.EncodeToString(hash.Sum(nil)) != want {
		return badField("header.sha256", "the file's is %x", hash.Sum(nil))
	}
	ctx := stream.Context()
	start := time.Now()
	e, err := s.add(ctx, h, u)
	if err != nil {
		return err
	}
	callOf(ctx).add(slog.String("model", e.Name), slog.Uint64("version", e.Version))
	if err := ctx.Err(); err != nil { // nobody knows of the version
		return errors.Join(err, s.reg.Delete(e.Name, e.Version))
	}
	serving := false
	_, lookup := s.reg.Lookup(e.Name)
	if h.GetPromote() || lookup != nil {
		if err := s.swapIn(e); err != nil {
			return err
		}
		serving = true
		s.metrics.swapSeconds.WithLabelValues(e.Name).Observe(time.Since(start).Seconds())
	}
	return stream.SendAndClose(&secateurv1.UploadModelResponse{Version: versionProto(e.Info, serving)})
}

// add makes a version of a file that has arrived.
func (s models) add(ctx context.Context, h *secateurv1.UploadModelHeader, u *upload) (*registry.Entry, error) {
	done, err := s.uploads.work(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	file, err := u.content()
	if err != nil {
		return nil, fmt.Errorf("read the upload: %w", err)
	}
	return s.reg.Add(ctx, h.GetName(), file, registry.New{Source: registry.SourceUpload, Note: h.GetNote()})
}

// swapIn makes e serve, whatever serves now.
func (s models) swapIn(e *registry.Entry) error {
	for {
		old := uint64(0)
		for _, m := range s.reg.List() {
			if m.Name == e.Name {
				old = m.Serving
			}
		}
		err := s.reg.Swap(old, e, registry.ReasonUpload)
		var stale *registry.StaleError
		if !errors.As(err, &stale) {
			return err
		}
	}
}

// DownloadModel implements ModelService.
func (s models) DownloadModel(req *secateurv1.DownloadModelRequest, stream grpc.ServerStreamingServer[secateurv1.DownloadModelResponse]) error {
	kinds := map[secateurv1.ModelFile]registry.Kind{
		secateurv1.ModelFile_MODEL_FILE_UNSPECIFIED: registry.KindONNX,
		secateurv1.ModelFile_MODEL_FILE_ONNX:        registry.KindONNX,
		secateurv1.ModelFile_MODEL_FILE_REPORT_JSON: registry.KindReportJSON,
		secateurv1.ModelFile_MODEL_FILE_REPORT_HTML: registry.KindReportHTML,
	}
	kind, ok := kinds[req.GetFile()]
	if !ok {
		return badField("file", "%d is no file of a version", req.GetFile())
	}
	f, info, err := s.reg.Open(req.GetName(), req.GetVersion(), kind)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	_, serving, err := s.reg.Get(info.Model, info.Version)
	if err != nil {
		return err
	}
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := stream.Send(&secateurv1.DownloadModelResponse{Part: &secateurv1.DownloadModelResponse_Header{Header: &secateurv1.DownloadModelHeader{
		Version: versionProto(info, serving), Size: uint64(size), Sha256: hex.EncodeToString(h.Sum(nil))}}}); err != nil {
		return err
	}
	for size > 0 {
		b := make([]byte, min(size, chunkBytes, int64(s.cfg.MaxMessageBytes/2))) // each message keeps its own
		if _, err := io.ReadFull(f, b); err != nil {
			return err
		}
		if err := stream.Send(&secateurv1.DownloadModelResponse{Part: &secateurv1.DownloadModelResponse_Chunk{Chunk: b}}); err != nil {
			return err
		}
		size -= int64(len(b))
	}
	return nil
}

// PromoteModel implements ModelService.
func (s models) PromoteModel(ctx context.Context, req *secateurv1.PromoteModelRequest) (*secateurv1.PromoteModelResponse, error) {
	if req.GetVersion() == 0 {
		return nil, badField("version", "no version is named")
	}
	v, before, err := s.change(ctx, func(ctx context.Context) (*registry.Entry, uint64, error) {
		return s.reg.Promote(ctx, req.GetName(), req.GetVersion(), req.GetExpectedServingVersion())
	})
	if err != nil {
		return nil, err
	}
	return &secateurv1.PromoteModelResponse{Version: v, PreviousVersion: before}, nil
}

// RollbackModel implements ModelService.
func (s models) RollbackModel(ctx context.Context, req *secateurv1.RollbackModelRequest) (*secateurv1.RollbackModelResponse, error) {
	v, before, err := s.change(ctx, func(ctx context.Context) (*registry.Entry, uint64, error) {
		return s.reg.Rollback(ctx, req.GetName(), req.GetExpectedServingVersion())
	})
	if err != nil {
		return nil, err
	}
	return &secateurv1.RollbackModelResponse{Version: v, PreviousVersion: before}, nil
}

// change makes another version serve.
func (s models) change(ctx context.Context, f func(context.Context) (*registry.Entry, uint64, error)) (*secateurv1.ModelVersion, uint64, error) {
	start := time.Now()
	e, before, err := f(ctx)
	if err != nil {
		return nil, 0, err
	}
	if e.Version != before {
		s.metrics.swapSeconds.WithLabelValues(e.Name).Observe(time.Since(start).Seconds())
	}
	callOf(ctx).add(slog.String("model", e.Name), slog.Uint64("version", e.Version), slog.Uint64("previous", before))
	return versionProto(e.Info, true), before, nil
}

// DeleteModel implements ModelService.
func (s models) DeleteModel(ctx context.Context, req *secateurv1.DeleteModelRequest) (*secateurv1.DeleteModelResponse, error) {
	if req.GetName() == "" {
		return nil, badField("name", "no model is named")
	}
	if req.GetVersion() == 0 {
		return nil, badField("version", "no version is named")
	}
	callOf(ctx).add(slog.String("model", req.GetName()), slog.Uint64("version", req.GetVersion()))
	if err := s.reg.Delete(req.GetName(), req.GetVersion()); err != nil {
		return nil, err
	}
	return &secateurv1.DeleteModelResponse{}, nil
}
