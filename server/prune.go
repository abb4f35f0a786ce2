package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/server/registry"
)

// pruning is the PruningService.
type pruning struct {
	secateurv1.UnimplementedPruningServiceServer
	*Server
}

// Prune implements PruningService. What can be wrong with the request is found before the operation begins.
func (s pruning) Prune(ctx context.Context, req *secateurv1.PruneRequest) (*longrunningpb.Operation, error) {
	e, err := s.lookup(req.GetModel())
	if err != nil {
		return nil, err
	}
	if s.reg.ReadOnly() {
		return nil, &registry.StateError{Model: e.Name, Reason: "READ_ONLY", Text: "the folder of models cannot be written"}
	}
	opt, err := s.pruneOptions(req)
	if err != nil {
		return nil, err
	}
	if err := s.ops.free(e.Name); err != nil { // before the sets are read into memory
		return nil, err
	}
	done, err := s.uploads.work(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	fit, val, err := s.pruneSets(req)
	if err != nil {
		return nil, err
	}
	promotion := req.GetPromotion()
	if promotion == secateurv1.PromotionPolicy_PROMOTION_POLICY_UNSPECIFIED {
		promotion = secateurv1.PromotionPolicy_PROMOTION_POLICY_ON_PASS
	}
	meta := &secateurv1.PruneMetadata{Model: e.Name, ParentVersion: e.Version, Target: req.GetTarget(), Calibration: req.GetCalibration(), Promotion: promotion}
	job := &pruneJob{Server: s.Server, parent: e, fit: fit, val: val, opt: opt, promotion: promotion, calibration: req.GetCalibration(), note: req.GetNote()}
	op, err := s.ops.start(meta, job.run)
	if err != nil {
		return nil, err
	}
	callOf(ctx).add(slog.String("model", e.Name), slog.Uint64("version", e.Version), slog.String("operation", op.name))
	st, _ := op.get()
	return st, nil
}

var targetKinds = map[secateurv1.TargetKind]string{
	secateurv1.TargetKind_TARGET_KIND_UNSPECIFIED: "macs",
	secateurv1.TargetKind_TARGET_KIND_MACS:        "macs",
	secateurv1.TargetKind_TARGET_KIND_PARAMETERS:  "params",
	secateurv1.TargetKind_TARGET_KIND_FILTERS:     "filters",
	secateurv1.TargetKind_TARGET_KIND_LATENCY:     "latency",
	secateurv1.TargetKind_TARGET_KIND_SPEEDUP:     "speedup",
	secateurv1.TargetKind_TARGET_KIND_AUTO:        "auto",
}

// target reads what is to be reached.
func target(t *secateurv1.PruneTarget) (pruner.Target, error) {
	kind, ok := targetKinds[t.GetKind()]
	if !ok {
		return pruner.Target{}, badField("target.kind", "%d is no kind of target", t.GetKind())
	}
	switch kind {
	case "latency":
		if v := t.GetMilliseconds(); !(v > 0 && v < 1e9) {
			return pruner.Target{}, badField("target.milliseconds", "%g is not above 0", v)
		}
		return pruner.Target{Kind: kind, Value: t.GetMilliseconds()}, nil
	case "speedup":
		if v := t.GetFactor(); !(v > 1 && v < 1e3) {
			return pruner.Target{}, badField("target.factor", "%g is not above 1", v)
		}
		return pruner.Target{Kind: kind, Value: t.GetFactor()}, nil
	case "auto":
		return pruner.Target{Kind: kind}, nil
	}
	if f := t.GetFraction(); !(f > 0 && f < 1) {
		return pruner.Target{}, badField("target.fraction", "%g is not between 0 and 1", f)
	}
	return pruner.Target{Kind: kind, Value: t.GetFraction()}, nil
}

func (s pruning) pruneOptions(req *secateurv1.PruneRequest) (pruner.Options, error) {
	opt := pruner.Options{Seed: req.GetSeed(), NoRepair: req.GetNoRepair(), Threads: s.cfg.PruneThreads,
		Unlabelled: req.GetLabels() == secateurv1.LabelUse_LABEL_USE_NONE}
	var err error
	if opt.Target, err = target(req.GetTarget()); err != nil {
		return opt, err
	}
	if err := selection(req, &opt); err != nil {
		return opt, err
	}
	if _, ok := secateurv1.LabelUse_name[int32(req.GetLabels())]; !ok {
		return opt, badField("labels", "%d is no use of labels", req.GetLabels())
	}
	if _, ok := secateurv1.PromotionPolicy_name[int32(req.GetPromotion())]; !ok {
		return opt, badField("promotion", "%d is no policy", req.GetPromotion())
	}
	const maxEpochs = 1000
	opt.Distil = pruner.DefaultDistil
	if req.Distil != nil {
		opt.Distil = int(req.GetDistil())
	}
	opt.Finetune = int(req.GetFinetune())
	if req.GetDistil() > maxEpochs || req.GetFinetune() > maxEpochs {
		return opt, badField("distil, finetune", "are %d and %d epochs, at most %d are run", req.GetDistil(), req.GetFinetune(), maxEpochs)
	}
	if opt.GroupBy, err = expression("group_by", req.GetGroupBy()); err != nil {
		return opt, err
	}
	if len(req.GetNote()) > 256 {
		return opt, badField("note", "has %d bytes, at most 256 are kept", len(req.GetNote()))
	}
	for _, v := range []struct {
		field string
		from  *float64
		to    *float64
	}{{"delta", req.Delta, &opt.Delta}, {"agreement", req.Agreement, &opt.Agreement}, {"max_layer", req.MaxLayer, &opt.MaxLayer}} {
		if v.from == nil {
			continue
		}
		if !(*v.from > 0 && *v.from <= 1) {
			return opt, badField(v.field, "%g is not above 0 and at most 1", *v.from)
		}
		*v.to = *v.from
	}
	return opt, nil
}

// selection reads how channels are chosen.
func selection(req *secateurv1.PruneRequest, opt *pruner.Options) error {
	const maxSteps, maxRound = 100, 1024
	if req.GetSteps() > maxSteps || opt.Target.Kind == "auto" && req.GetSteps() > 1 {
		return badField("steps", "are %d; at most %d are taken, and one with target auto", req.GetSteps(), maxSteps)
	}
	if req.GetRound() > maxRound {
		return badField("round", "is %d, at most %d", req.GetRound(), maxRound)
	}
	opt.Steps, opt.Round = int(req.GetSteps()), int(req.GetRound())
	for _, v := range []struct {
		field, value string
		known        []string
		to           *string
	}{{"criterion", req.GetCriterion(), pruner.Criteria(), &opt.Criterion}, {"normalise", req.GetNormalise(), pruner.Normalisations(), &opt.Normalise}} {
		if v.value != "" && !slices.Contains(v.known, v.value) {
			return badField(v.field, "%q is none of %s", v.value, strings.Join(v.known, ", "))
		}
		*v.to = v.value
	}
	var err error
	opt.Keep, err = expression("keep", req.GetKeep())
	return err
}

// expression reads a regular expression; nil for none.
func expression(field, s string) (*regexp.Regexp, error) {
	if s == "" {
		return nil, nil
	}
	re, err := regexp.Compile(s)
	if err != nil || len(s) > 1024 {
		return nil, badField(field, "%q is no regular expression of at most 1024 bytes: %v", s, err)
	}
	return re, nil
}

func (s pruning) pruneSets(req *secateurv1.PruneRequest) (fit, val *calib.Set, err error) {
	if req.GetCalibration() == "" {
		return nil, nil, badField("calibration", "no set is named; UploadCalibration makes one")
	}
	if fit, err = s.sets.load("calibration", req.GetCalibration()); err != nil {
		return nil, nil, err
	}
	if req.GetValidation() == "" {
		if len(fit.Items) < 3 {
			return nil, nil, badField("calibration", "the set has %d images; without a validation set at least 3 are needed", len(fit.Items))
		}
		return fit, nil, nil
	}
	if val, err = s.sets.load("validation", req.GetValidation()); err != nil {
		return nil, nil, err
	}
	if len(fit.Items) < 2 {
		return nil, nil, badField("calibration", "the set has %d images, at least 2 are needed", len(fit.Items))
	}
	if both := fit.Overlap(val); len(both) > 0 {
		return nil, nil, badField("validation", "%d images are in the calibration set too, such as %q: the verdict would mean nothing", len(both), both[0])
	}
	return fit, val, nil
}

// pruneJob is one prune: what it works on and what becomes of the result.
type pruneJob struct {
	*Server
	parent            *registry.Entry
	fit, val          *calib.Set
	opt               pruner.Options
	promotion         secateurv1.PromotionPolicy
	calibration, note string
}

func (j *pruneJob) run(ctx context.Context, op *operation) (proto.Message, error) {
	name := j.parent.Name
	start := time.Now()
	j.metrics.pruneRunning.WithLabelValues(name).Set(1)
	j.metrics.pruneProgress.WithLabelValues(name).Set(0)
	outcome := "error"
	defer func() {
		j.metrics.pruneRunning.WithLabelValues(name).Set(0)
		j.metrics.prunes.WithLabelValues(name, outcome).Inc()
		j.metrics.pruneSeconds.WithLabelValues(name).Observe(time.Since(start).Seconds())
	}()
	result, verdict, err := j.prune(ctx, op)
	switch {
	case err == nil:
		outcome = verdict
	case ctx.Err() != nil:
		outcome = "cancelled"
	}
	return result, err
}

func (j *pruneJob) prune(ctx context.Context, op *operation) (_ *secateurv1.PruneResult, verdict string, err error) {
	name, version := j.parent.Name, j.parent.Version
	// The graph as the file has it: the serving one may have been changed by passes.
	file, _, err := j.reg.File(name, version, registry.KindONNX)
	if err != nil {
		return nil, "", err
	}
	g, err := onnx.Decode(file, onnx.Options{Dir: j.reg.Folder(name, version), MaxBytes: j.cfg.MaxModelBytes})
	if err != nil {
		return nil, "", fmt.Errorf("prune model %q version %d: %w", name, version, err)
	}
	var missing *registry.NotFoundError
	override, _, err := j.reg.File(name, version, registry.KindOverride)
	if err != nil && !errors.As(err, &missing) {
		return nil, "", err
	}
	j.opt.Parent = hex.EncodeToString(j.parent.SHA256[:])
	j.opt.Log = j.cfg.Log.With("model", name, "operation", op.name)
	j.opt.Progress = func(p pruner.Progress) {
		j.metrics.pruneProgress.WithLabelValues(name).Set(p.Fraction)
		op.set(func(m *secateurv1.PruneMetadata) {
			m.Progress = &secateurv1.PruneProgress{Stage: p.Stage, Done: uint64(p.Done), Total: uint64(p.Total), Fraction: p.Fraction}
		})
	}
	res, err := j.cfg.Prune(ctx, g, j.fit, j.val, j.opt)
	if err != nil {
		return nil, "", &pruneError{name, err}
	}
	r := res.Report
	j.metrics.pruned(name, r)

	swapStart := time.Now()
	e, err := j.reg.Add(ctx, name, res.ONNX, registry.New{Source: registry.SourcePrune, Parent: version, Verdict: r.Verdict,
		Calibration: j.calibration, Note: j.note, ReportJSON: r.JSON(), ReportHTML: r.HTML(), Override: override})
	if err != nil {
		return nil, "", fmt.Errorf("store what was pruned from model %q version %d: %w", name, version, err)
	}
	op.set(func(m *secateurv1.PruneMetadata) { m.Version = e.Version })
	if err := j.ops.save(op); err != nil {
		return nil, "", err
	}
	v := verdictOf(r.Verdict)
	out := &secateurv1.PruneResult{Model: name, Version: e.Version, ParentVersion: version, Verdict: v, Sha256: e.Info.SHA256,
		ParametersBefore: uint64(r.Parameters.Before), ParametersAfter: uint64(r.Parameters.After),
		MacsBefore: uint64(r.MACs.Before), MacsAfter: uint64(r.MACs.After)}
	switch {
	case ctx.Err() != nil:
		// Whoever cancels wants nothing changed; the new version stays, without serving.
		return nil, "", ctx.Err()
	case j.promotion == secateurv1.PromotionPolicy_PROMOTION_POLICY_STAGED:
		out.NotPromotedReason = "the promotion policy is STAGED"
	case j.promotion == secateurv1.PromotionPolicy_PROMOTION_POLICY_ON_PASS && v != secateurv1.Verdict_VERDICT_PASS:
		out.NotPromotedReason = "the gate's verdict is: " + r.Verdict
	default:
		err := j.reg.Swap(version, e, registry.ReasonPrune)
		var stale *registry.StaleError
		switch {
		case errors.As(err, &stale): // somebody promoted another version meanwhile, and knew why
			out.NotPromotedReason = err.Error()
		case err != nil:
			return nil, "", err
		default:
			out.Promoted = true
			j.metrics.swapSeconds.WithLabelValues(name).Observe(time.Since(swapStart).Seconds())
		}
	}
	return out, outcomes[v], nil
}

// outcomes are label values.
var outcomes = map[secateurv1.Verdict]string{
	secateurv1.Verdict_VERDICT_PASS:        "pass",
	secateurv1.Verdict_VERDICT_FAIL:        "fail",
	secateurv1.Verdict_VERDICT_CANNOT_TELL: "cannot_tell",
	secateurv1.Verdict_VERDICT_UNSPECIFIED: "cannot_tell",
}

func verdictOf(s string) secateurv1.Verdict {
	switch s {
	case "pass":
		return secateurv1.Verdict_VERDICT_PASS
	case "fail":
		return secateurv1.Verdict_VERDICT_FAIL
	case "cannot tell":
		return secateurv1.Verdict_VERDICT_CANNOT_TELL
	}
	return secateurv1.Verdict_VERDICT_UNSPECIFIED
}

// WatchPrune implements PruningService. A slow watcher misses steps, never the end.
func (s pruning) WatchPrune(req *secateurv1.WatchPruneRequest, stream grpc.ServerStreamingServer[secateurv1.WatchPruneResponse]) error {
	op, err := s.ops.find(req.GetName())
	if err != nil {
		return err
	}
	for {
		st, meta, changed := op.watch()
		resp := &secateurv1.WatchPruneResponse{Metadata: meta, Done: st.Done}
		switch r := st.Result.(type) {
		case *longrunningpb.Operation_Response:
			var out secateurv1.PruneResult
			if err := r.Response.UnmarshalTo(&out); err != nil {
				return fmt.Errorf("read the result of %s: %w", op.name, err)
			}
			resp.Outcome = &secateurv1.WatchPruneResponse_Result{Result: &out}
		case *longrunningpb.Operation_Error:
			resp.Outcome = &secateurv1.WatchPruneResponse_Error{Error: r.Error}
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		if st.Done {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
