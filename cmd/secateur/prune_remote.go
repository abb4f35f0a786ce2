package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
)

// remote has the server prune its model, and follows it.
func (c *pruneCmd) remote(ctx context.Context, target pruner.Target, fit, val *calib.Set) (r pruned, rep *pruner.Report, err error) {
	p := newProgress()
	defer p.done()
	err = c.with(func(conn *grpc.ClientConn) error {
		client := secateurv1.NewPruningServiceClient(conn)
		req := c.request(target)
		if req.Calibration, err = uploadSet(ctx, client, fit, func(done int) { p.update("upload", done, len(fit.Items)) }); err != nil {
			return err
		}
		if val != nil {
			if req.Validation, err = uploadSet(ctx, client, val, func(done int) { p.update("upload val", done, len(val.Items)) }); err != nil {
				return err
			}
		}
		op, err := client.Prune(ctx, req)
		if err != nil {
			return err
		}
		res, err := watch(ctx, client, op.GetName(), p)
		if ctx.Err() != nil {
			return c.cancel(conn, op.GetName())
		}
		if err != nil {
			return err
		}
		p.done()
		r, rep, err = c.fetch(ctx, secateurv1.NewModelServiceClient(conn), res)
		return err
	})
	return r, rep, err
}

// request is what the flags ask for; the sets are named later.
func (c *pruneCmd) request(target pruner.Target) *secateurv1.PruneRequest {
	policies := map[string]secateurv1.PromotionPolicy{"on-pass": secateurv1.PromotionPolicy_PROMOTION_POLICY_ON_PASS,
		"staged": secateurv1.PromotionPolicy_PROMOTION_POLICY_STAGED, "always": secateurv1.PromotionPolicy_PROMOTION_POLICY_ALWAYS}
	labels := secateurv1.LabelUse_LABEL_USE_AUTO
	if c.Labels == "none" {
		labels = secateurv1.LabelUse_LABEL_USE_NONE
	}
	distil := uint32(max(c.distil(), 0))
	return &secateurv1.PruneRequest{
		Model: c.Name, Target: targetOf(target),
		Labels: labels, Promotion: policies[c.Promote], Delta: &c.Delta, Agreement: &c.Agreement, MaxLayer: &c.MaxLayer,
		Seed: c.Seed, NoRepair: c.NoRepair, Note: c.Note, Distil: &distil, Finetune: uint32(max(c.Finetune, 0)), GroupBy: c.GroupBy,
		Steps: uint32(max(c.Steps, 0)), Round: uint32(max(c.Round, 0)), Keep: c.Keep, Criterion: c.Criterion, Normalise: c.Normalise,
	}
}

func targetOf(t pruner.Target) *secateurv1.PruneTarget {
	switch t.Kind {
	case "latency":
		return &secateurv1.PruneTarget{Kind: secateurv1.TargetKind_TARGET_KIND_LATENCY, Milliseconds: t.Value}
	case "speedup":
		return &secateurv1.PruneTarget{Kind: secateurv1.TargetKind_TARGET_KIND_SPEEDUP, Factor: t.Value}
	case "auto":
		return &secateurv1.PruneTarget{Kind: secateurv1.TargetKind_TARGET_KIND_AUTO}
	}
	kinds := map[string]secateurv1.TargetKind{"macs": secateurv1.TargetKind_TARGET_KIND_MACS,
		"params": secateurv1.TargetKind_TARGET_KIND_PARAMETERS, "filters": secateurv1.TargetKind_TARGET_KIND_FILTERS}
	return &secateurv1.PruneTarget{Kind: kinds[t.Kind], Fraction: t.Value}
}

// uploadSet sends a set of images and returns the name that the server gives it.
func uploadSet(ctx context.Context, client secateurv1.PruningServiceClient, set *calib.Set, progress func(done int)) (string, error) {
	s, err := client.UploadCalibration(ctx)
	if err != nil {
		return "", err
	}
	for i, it := range set.Items {
		err := s.Send(&secateurv1.UploadCalibrationRequest{Item: &secateurv1.CalibrationItem{Name: it.Name, Image: it.Image, Mask: it.Mask}})
		if errors.Is(err, io.EOF) {
			break // the server has refused; CloseAndRecv has the reason
		}
		if err != nil {
			return "", err
		}
		progress(i + 1)
	}
	r, err := s.CloseAndRecv()
	return r.GetCalibration(), itemError(set, err)
}

// itemError says which image a server means that names it by its place.
func itemError(set *calib.Set, err error) error {
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	for _, d := range st.Details() {
		bad, ok := d.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			var i int
			if n, _ := fmt.Sscanf(v.GetField(), "item[%d]", &i); n == 1 && i >= 0 && i < len(set.Items) {
				return fmt.Errorf("image %q: %s", set.Items[i].Name, sentence(st))
			}
		}
	}
	return err
}

// watch shows a prune's progress until it ends.
func watch(ctx context.Context, client secateurv1.PruningServiceClient, name string, p *progress) (*secateurv1.PruneResult, error) {
	s, err := client.WatchPrune(ctx, &secateurv1.WatchPruneRequest{Name: name})
	if err != nil {
		return nil, err
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: the server stopped telling of it before its end", name)
		}
		if err != nil {
			return nil, err
		}
		if k := m.GetMetadata().GetProgress(); k.GetStage() != "" {
			p.update(k.GetStage(), int(k.GetDone()), int(k.GetTotal()))
		}
		if e := m.GetError(); e != nil {
			return nil, status.ErrorProto(e)
		}
		if m.GetDone() {
			if m.GetResult() == nil {
				return nil, fmt.Errorf("%s: the server gave no result", name)
			}
			return m.GetResult(), nil
		}
	}
}

// cancel stops a prune on the server. The caller's own context has ended by then.
func (c *pruneCmd) cancel(conn *grpc.ClientConn, name string) error {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	_, err := longrunningpb.NewOperationsClient(conn).CancelOperation(ctx, &longrunningpb.CancelOperationRequest{Name: name})
	if err != nil {
		return fmt.Errorf("%s may still run, it could not be cancelled: %w", name, c.explain(err))
	}
	return fmt.Errorf("interrupted; %s was cancelled", name)
}

// fetch gets the report, and the file if --out asks for it.
func (c *pruneCmd) fetch(ctx context.Context, client secateurv1.ModelServiceClient, res *secateurv1.PruneResult) (pruned, *pruner.Report, error) {
	r := pruned{Verdict: word(res.GetVerdict().String(), "VERDICT_"), Model: res.GetModel(), Version: res.GetVersion(),
		ParentVersion: res.GetParentVersion(), Promoted: res.GetPromoted(), NotPromoted: res.GetNotPromotedReason(), SHA256: res.GetSha256()}
	request := func(file secateurv1.ModelFile) *secateurv1.DownloadModelRequest {
		return &secateurv1.DownloadModelRequest{Name: r.Model, Version: r.Version, File: file}
	}
	_, rest, err := receive(ctx, client, request(secateurv1.ModelFile_MODEL_FILE_REPORT_JSON))
	if err != nil {
		return r, nil, err
	}
	var doc bytes.Buffer
	if err := rest(&doc); err != nil {
		return r, nil, err
	}
	rep := new(pruner.Report)
	if err := json.Unmarshal(doc.Bytes(), rep); err != nil {
		return r, nil, fmt.Errorf("the server's report: %w", err)
	}
	r.Report = doc.Bytes()
	if c.Report != "" {
		if err := replaceBytes(filepath.Join(c.Report, "report.json"), doc.Bytes()); err != nil {
			return r, nil, err
		}
		if _, _, err := download(ctx, client, request(secateurv1.ModelFile_MODEL_FILE_REPORT_HTML), filepath.Join(c.Report, "report.html"), ""); err != nil {
			return r, nil, err
		}
	}
	if c.Out != "" {
		_, r.Out, err = download(ctx, client, request(secateurv1.ModelFile_MODEL_FILE_ONNX), c.Out, "")
	}
	return r, rep, err
}
