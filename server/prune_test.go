package server

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

// calibrate uploads n small images, with masks if they are labelled.
func (h *harness) calibrate(t *testing.T, n int, labelled bool) string {
	t.Helper()
	up, err := h.prune.UploadCalibration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		it := &secateurv1.CalibrationItem{Name: string(rune('a' + i)), Image: picture(t, 4, 4, byte(i))}
		if labelled {
			it.Mask = picture(t, 4, 4, 0)
		}
		if err := up.Send(&secateurv1.UploadCalibrationRequest{Item: it}); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := up.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	if int(resp.Images) != n || resp.Labelled != labelled {
		t.Errorf("calibration: %v, want %d images, labelled %v", resp, n, labelled)
	}
	return resp.Calibration
}

func pruneRequest(set string, p secateurv1.PromotionPolicy) *secateurv1.PruneRequest {
	return &secateurv1.PruneRequest{Model: "m", Calibration: set, Target: &secateurv1.PruneTarget{Fraction: 0.4}, Promotion: p}
}

// wait returns an operation when it has ended.
func (h *harness) wait(t *testing.T, name string) *longrunningpb.Operation {
	t.Helper()
	op, err := longrunningpb.NewOperationsClient(h.conn).WaitOperation(t.Context(), &longrunningpb.WaitOperationRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if !op.Done {
		t.Fatalf("waited for %v, which has not ended", op)
	}
	return op
}

func resultOf(t *testing.T, op *longrunningpb.Operation) *secateurv1.PruneResult {
	t.Helper()
	var out secateurv1.PruneResult
	if err := op.GetResponse().UnmarshalTo(&out); err != nil {
		t.Fatalf("%v: %v", op, err)
	}
	return &out
}

func TestPromotionPolicies(t *testing.T) {
	const (
		onPass = secateurv1.PromotionPolicy_PROMOTION_POLICY_ON_PASS
		staged = secateurv1.PromotionPolicy_PROMOTION_POLICY_STAGED
		always = secateurv1.PromotionPolicy_PROMOTION_POLICY_ALWAYS
	)
	for _, c := range []struct {
		policy   secateurv1.PromotionPolicy
		verdict  string
		promoted bool
	}{
		{0, "pass", true}, {0, "fail", false}, {onPass, "pass", true}, {onPass, "fail", false}, {onPass, "cannot tell", false},
		{staged, "pass", false}, {always, "fail", true}, {always, "cannot tell", true},
	} {
		t.Run(c.policy.String()+" "+c.verdict, func(t *testing.T) {
			f := newFakePrune(t, 2, c.verdict)
			close(f.proceed)
			h := start(t, Config{Prune: f.prune})
			h.upload(t, "m", 1, true)
			op, err := h.prune.Prune(t.Context(), pruneRequest(h.calibrate(t, 4, true), c.policy))
			if err != nil {
				t.Fatal(err)
			}
			r := resultOf(t, h.wait(t, op.Name))
			if r.Promoted != c.promoted || r.Version != 2 || r.ParentVersion != 1 || r.MacsBefore != 100 || r.MacsAfter != 60 ||
				r.Verdict != verdictOf(c.verdict) || (r.NotPromotedReason == "") != c.promoted {
				t.Errorf("result %v", r)
			}
			resp, err := h.seg.Segment(t.Context(), request(t, "m"))
			want := uint64(1)
			if c.promoted {
				want = 2
			}
			if err != nil || resp.Segmentation.Version != want {
				t.Errorf("version %d serves (%v), want %d", resp.GetSegmentation().GetVersion(), err, want)
			}
			v, err := h.models.GetModel(t.Context(), &secateurv1.GetModelRequest{Name: "m", Version: 2})
			if err != nil || v.Version.ParentVersion != 1 || !v.Version.HasReport || v.Version.Verdict != r.Verdict ||
				v.Version.Source != secateurv1.ModelSource_MODEL_SOURCE_PRUNE || !strings.HasPrefix(v.Version.Calibration, "sha256-") {
				t.Errorf("the new version: %v %v", v, err)
			}
			b, _, err := h.download(t, &secateurv1.DownloadModelRequest{Name: "m", Version: 2, File: secateurv1.ModelFile_MODEL_FILE_REPORT_JSON})
			if err != nil || !strings.Contains(string(b), `"verdict": "`+c.verdict+`"`) {
				t.Errorf("report: %s %v", b, err)
			}
		})
	}
}

func TestPruneRefuses(t *testing.T) {
	f := newFakePrune(t, 2, "pass")
	h := start(t, Config{Prune: f.prune})
	h.upload(t, "m", 1, true)
	set, two := h.calibrate(t, 4, false), h.calibrate(t, 2, false)
	delta := -1.0
	gone := "sha256-" + strings.Repeat("0", 64)
	for _, c := range []struct {
		name  string
		edit  func(r *secateurv1.PruneRequest)
		code  codes.Code
		field string
	}{
		{"model", func(r *secateurv1.PruneRequest) { r.Model = "x" }, codes.NotFound, ""},
		{"no set", func(r *secateurv1.PruneRequest) { r.Calibration = "" }, codes.InvalidArgument, "calibration"},
		{"a path", func(r *secateurv1.PruneRequest) { r.Calibration = "../../etc" }, codes.InvalidArgument, "calibration"},
		{"unknown set", func(r *secateurv1.PruneRequest) { r.Calibration = gone }, codes.NotFound, ""},
		{"unknown validation", func(r *secateurv1.PruneRequest) { r.Validation = gone }, codes.NotFound, ""},
		{"overlap", func(r *secateurv1.PruneRequest) { r.Validation = set }, codes.InvalidArgument, "validation"},
		{"small set", func(r *secateurv1.PruneRequest) { r.Calibration = two }, codes.InvalidArgument, "calibration"},
		{"no target", func(r *secateurv1.PruneRequest) { r.Target = nil }, codes.InvalidArgument, "target.fraction"},
		{"no milliseconds", func(r *secateurv1.PruneRequest) { r.Target.Kind = secateurv1.TargetKind_TARGET_KIND_LATENCY }, codes.InvalidArgument, "target.milliseconds"},
		{"no factor", func(r *secateurv1.PruneRequest) { r.Target.Kind = secateurv1.TargetKind_TARGET_KIND_SPEEDUP }, codes.InvalidArgument, "target.factor"},
		{"steps", func(r *secateurv1.PruneRequest) { r.Steps = 1 << 20 }, codes.InvalidArgument, "steps"},
		{"round", func(r *secateurv1.PruneRequest) { r.Round = 1 << 20 }, codes.InvalidArgument, "round"},
		{"keep", func(r *secateurv1.PruneRequest) { r.Keep = "(" }, codes.InvalidArgument, "keep"},
		{"criterion", func(r *secateurv1.PruneRequest) { r.Criterion = "taste" }, codes.InvalidArgument, "criterion"},
		{"normalise", func(r *secateurv1.PruneRequest) { r.Normalise = "taste" }, codes.InvalidArgument, "normalise"},
		{"all of it", func(r *secateurv1.PruneRequest) { r.Target.Fraction = 1 }, codes.InvalidArgument, "target.fraction"},
		{"kind", func(r *secateurv1.PruneRequest) { r.Target.Kind = 9 }, codes.InvalidArgument, "target.kind"},
		{"policy", func(r *secateurv1.PruneRequest) { r.Promotion = 9 }, codes.InvalidArgument, "promotion"},
		{"labels", func(r *secateurv1.PruneRequest) { r.Labels = 9 }, codes.InvalidArgument, "labels"},
		{"delta", func(r *secateurv1.PruneRequest) { r.Delta = &delta }, codes.InvalidArgument, "delta"},
	} {
		req := pruneRequest(set, 0)
		c.edit(req)
		_, err := h.prune.Prune(t.Context(), req)
		if wantCode(t, err, c.code); violation(err) != c.field {
			t.Errorf("%s: field %q, want %q", c.name, violation(err), c.field)
		}
	}
}

func TestCalibration(t *testing.T) {
	h := start(t, Config{})
	if a, b := h.calibrate(t, 3, true), h.calibrate(t, 3, true); a != b {
		t.Errorf("one set has two names, %s and %s", a, b)
	}
	good := picture(t, 4, 4, 1)
	for _, c := range []struct {
		name  string
		items []*secateurv1.CalibrationItem
		field string
	}{
		{"none", nil, "item"},
		{"no name", []*secateurv1.CalibrationItem{{Image: good}}, "item[0].name"},
		{"same name", []*secateurv1.CalibrationItem{{Name: "a", Image: good}, {Name: "a", Image: good}}, "item[1].name"},
		{"junk", []*secateurv1.CalibrationItem{{Name: "a", Image: []byte("junk")}}, "item[0].image"},
		{"junk mask", []*secateurv1.CalibrationItem{{Name: "a", Image: good, Mask: []byte("junk")}}, "item[0].mask"},
		{"mask of another size", []*secateurv1.CalibrationItem{{Name: "a", Image: good, Mask: picture(t, 5, 4, 0)}}, "item[0].mask"},
	} {
		up, err := h.prune.UploadCalibration(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range c.items {
			if up.Send(&secateurv1.UploadCalibrationRequest{Item: it}) != nil {
				break // CloseAndRecv says why
			}
		}
		_, err = up.CloseAndRecv()
		if wantCode(t, err, codes.InvalidArgument); violation(err) != c.field {
			t.Errorf("%s: field %q, want %q", c.name, violation(err), c.field)
		}
	}
	files, err := filepath.Glob(filepath.Join(h.cfg.Models, ".state", "calibration", "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("files %v, want that of the one good set", files)
	}
}

func TestOnePruneAtATime(t *testing.T) {
	f := newFakePrune(t, 2, "pass")
	h := start(t, Config{Prune: f.prune})
	h.upload(t, "m", 1, true)
	h.upload(t, "other", 1, true)
	set := h.calibrate(t, 4, false)
	op, err := h.prune.Prune(t.Context(), pruneRequest(set, 0))
	if err != nil {
		t.Fatal(err)
	}
	<-f.started
	_, err = h.prune.Prune(t.Context(), pruneRequest(set, 0))
	if wantCode(t, err, codes.FailedPrecondition); reason(err) != "PRUNE_RUNNING" {
		t.Errorf("reason %q", reason(err))
	}
	req := pruneRequest(set, 0)
	req.Model = "other"
	second, err := h.prune.Prune(t.Context(), req)
	if err != nil {
		t.Fatalf("another model: %v", err)
	}
	close(f.proceed)
	h.wait(t, op.Name)
	h.wait(t, second.Name)
	third, err := h.prune.Prune(t.Context(), pruneRequest(set, 0))
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	if r := resultOf(t, h.wait(t, third.Name)); r.ParentVersion != 2 || !r.Promoted {
		t.Errorf("a pruned model is pruned again: %v", r)
	}
	ops := longrunningpb.NewOperationsClient(h.conn)
	var names []string
	for token := ""; ; {
		l, err := ops.ListOperations(t.Context(), &longrunningpb.ListOperationsRequest{PageSize: 2, PageToken: token, Filter: "done=true"})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range l.Operations {
			names = append(names, o.Name)
		}
		if token = l.NextPageToken; token == "" {
			break
		}
	}
	if len(names) != 3 || names[0] != third.Name || names[2] != op.Name {
		t.Errorf("list %v, want the newest of three first", names)
	}
	if _, err := ops.DeleteOperation(t.Context(), &longrunningpb.DeleteOperationRequest{Name: op.Name}); err != nil {
		t.Error(err)
	}
	_, err = ops.GetOperation(t.Context(), &longrunningpb.GetOperationRequest{Name: op.Name})
	wantCode(t, err, codes.NotFound)
}

func TestCancel(t *testing.T) {
	f := newFakePrune(t, 2, "pass")
	h := start(t, Config{Prune: f.prune})
	h.upload(t, "m", 1, true)
	op, err := h.prune.Prune(t.Context(), pruneRequest(h.calibrate(t, 4, false), 0))
	if err != nil {
		t.Fatal(err)
	}
	<-f.started
	ops := longrunningpb.NewOperationsClient(h.conn)
	// A wait with a timeout returns the state, and no error.
	st, err := ops.WaitOperation(t.Context(), &longrunningpb.WaitOperationRequest{Name: op.Name, Timeout: durationpb.New(1)})
	if err != nil || st.Done {
		t.Errorf("wait: %v %v", st, err)
	}
	if _, err := ops.CancelOperation(t.Context(), &longrunningpb.CancelOperationRequest{Name: op.Name}); err != nil {
		t.Fatal(err)
	}
	if st := h.wait(t, op.Name); st.GetError().GetCode() != int32(codes.Canceled) {
		t.Errorf("the cancelled operation: %v", st)
	}
	list, err := h.models.ListModels(t.Context(), &secateurv1.ListModelsRequest{})
	if err != nil || len(list.Models) != 1 || len(list.Models[0].Versions) != 1 {
		t.Errorf("after the cancel: %v %v", list, err)
	}
}

// Neither the end of the call that began a prune nor that of one that watches it touches the prune.
func TestDisconnectLeavesPruneAlone(t *testing.T) {
	f := newFakePrune(t, 2, "pass")
	h := start(t, Config{Prune: f.prune})
	h.upload(t, "m", 1, true)
	set := h.calibrate(t, 4, false)
	ctx, cancel := context.WithCancel(t.Context())
	op, err := h.prune.Prune(ctx, pruneRequest(set, 0))
	if err != nil {
		t.Fatal(err)
	}
	w, err := h.prune.WatchPrune(ctx, &secateurv1.WatchPruneRequest{Name: op.Name})
	if err != nil {
		t.Fatal(err)
	}
	<-f.started
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	for err == nil { // what was on its way, then the end
		_, err = w.Recv()
	}
	wantCode(t, err, codes.Canceled)

	// Another watcher sees it through.
	w, err = h.prune.WatchPrune(t.Context(), &secateurv1.WatchPruneRequest{Name: op.Name})
	if err != nil {
		t.Fatal(err)
	}
	close(f.proceed)
	var last *secateurv1.WatchPruneResponse
	for {
		r, err := w.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = r
	}
	if !last.GetDone() || !last.GetResult().GetPromoted() || last.Metadata.Version != 2 || last.Metadata.Progress.Stage != "score" || last.Metadata.EndTime == nil {
		t.Errorf("the last word: %v", last)
	}
}

// A prune that fails, or even panics, leaves the server and its models as they were, and says why.
func TestPruneFails(t *testing.T) {
	for _, c := range []struct {
		verdict string
		code    codes.Code
	}{{"error", codes.FailedPrecondition}, {"panic", codes.Internal}} {
		f := newFakePrune(t, 2, c.verdict)
		close(f.proceed)
		h := start(t, Config{Prune: f.prune})
		h.upload(t, "m", 1, true)
		op, err := h.prune.Prune(t.Context(), pruneRequest(h.calibrate(t, 4, false), 0))
		if err != nil {
			t.Fatal(err)
		}
		if st := h.wait(t, op.Name); st.GetError().GetCode() != int32(c.code) {
			t.Errorf("%s: %v, want %v", c.verdict, st, c.code)
		}
	}
}

// Somebody promotes another version while a prune runs: theirs stays.
func TestPruneLosesToPromotion(t *testing.T) {
	f := newFakePrune(t, 3, "pass")
	h := start(t, Config{Prune: f.prune})
	h.upload(t, "m", 1, true)
	h.upload(t, "m", 2, false)
	op, err := h.prune.Prune(t.Context(), pruneRequest(h.calibrate(t, 4, false), 0))
	if err != nil {
		t.Fatal(err)
	}
	<-f.started
	if _, err := h.models.PromoteModel(t.Context(), &secateurv1.PromoteModelRequest{Name: "m", Version: 2}); err != nil {
		t.Fatal(err)
	}
	close(f.proceed)
	if r := resultOf(t, h.wait(t, op.Name)); r.Promoted || r.NotPromotedReason == "" || r.Version != 3 {
		t.Errorf("result %v", r)
	}
	resp, err := h.seg.Segment(t.Context(), request(t, "m"))
	if err != nil || resp.Segmentation.Version != 2 {
		t.Errorf("got %v %v, want version 2", resp, err)
	}
}

// An operation that the last process left unfinished has failed, and says so.
func TestRestartMarksUnfinished(t *testing.T) {
	dir := t.TempDir()
	f := newFakePrune(t, 2, "pass")
	h := start(t, Config{Models: dir, Prune: f.prune})
	h.upload(t, "m", 1, true)
	op, err := h.prune.Prune(t.Context(), pruneRequest(h.calibrate(t, 4, false), 0))
	if err != nil {
		t.Fatal(err)
	}
	<-f.started
	// The state as a crash would leave it, beside the one that an orderly end leaves.
	state := filepath.Join(t.TempDir(), "operations")
	o, err := h.ops.find(op.Name)
	if err != nil {
		t.Fatal(err)
	}
	crashed := &operations{dir: state}
	if err := cleanFolder(state); err != nil {
		t.Fatal(err)
	}
	if err := crashed.save(o); err != nil {
		t.Fatal(err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{"drained": {Models: dir}, "crashed": {Models: dir, State: filepath.Dir(state)}} {
		h := start(t, cfg)
		st := h.wait(t, op.Name)
		if st.GetError().GetCode() != int32(codes.Aborted) {
			t.Errorf("%s: %v, want ABORTED", name, st)
		}
		resp, err := h.seg.Segment(t.Context(), request(t, "m"))
		if err != nil || resp.Segmentation.Version != 1 {
			t.Errorf("%s: %v %v", name, resp, err)
		}
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	}
}
