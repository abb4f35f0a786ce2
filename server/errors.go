package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/server/admission"
	"github.com/secateur/secateur/server/registry"
)

// retryElsewhere is what a caller is told to wait when this server cannot answer for now.
const retryElsewhere = time.Second

// domain is that of our ErrorInfo reasons.
const domain = "secateur.v1"

// Resource types in ResourceInfo.
const (
	resourceModel       = "secateur.v1.Model"
	resourceCalibration = "secateur.v1.Calibration"
	resourceOperation   = "google.longrunning.Operation"
)

// fieldError says which field of a request is wrong, and why.
type fieldError struct {
	Field, Reason string
}

func (e *fieldError) Error() string { return e.Field + ": " + e.Reason }

func badField(field, format string, args ...any) error {
	return &fieldError{field, fmt.Sprintf(format, args...)}
}

// missingError says that a thing that is no model is not there.
type missingError struct{ Type, Name string }

func (e *missingError) Error() string { return fmt.Sprintf("there is no %s %q", e.Type, e.Name) }

// pruneRunningError says that a model is being pruned already.
type pruneRunningError struct{ Model, Operation string }

func (e *pruneRunningError) Error() string {
	return fmt.Sprintf("model %q is being pruned by %s", e.Model, e.Operation)
}

// pruneError carries what the pruner says: that a target cannot be reached, or that nothing can be removed.
type pruneError struct {
	Model string
	Err   error
}

func (e *pruneError) Error() string { return fmt.Sprintf("prune model %q: %v", e.Model, e.Err) }

func (e *pruneError) Unwrap() error { return e.Err }

var (
	errDraining = errors.New("the server is shutting down")
	errNotReady = errors.New("no version of the model is ready")
	// errRestarted ends operations that an earlier process began.
	errRestarted = errors.New("the server stopped before the operation ended")
)

// statusOf turns any error into what the caller gets: code, message and details. It is the only place that does. What it
// does not know is INTERNAL, without the error's text, which may tell about the server: the log has it.
func statusOf(err error) *status.Status {
	if err == nil {
		return nil
	}
	var (
		field       *fieldError
		format      *vision.FormatError
		name        *registry.NameError
		missing     *missingError
		notFound    *registry.NotFoundError
		stale       *registry.StaleError
		state       *registry.StateError
		model       *registry.ModelError
		unsupported *op.Unsupported
		full        *admission.FullError
		running     *pruneRunningError
		prune       *pruneError
		busy        *busyError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "the deadline passed")
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the call was cancelled")
	case errors.As(err, &field):
		return badRequest(field.Field, field.Reason)
	case errors.As(err, &format):
		return badRequest(format.Field, format.Reason)
	case errors.As(err, &name):
		return badRequest("name", name.Error())
	case errors.As(err, &full):
		return detailed(codes.ResourceExhausted, full.Error(), &errdetails.RetryInfo{RetryDelay: durationpb.New(full.RetryAfter)})
	case errors.As(err, &busy):
		return detailed(codes.ResourceExhausted, busy.Error(), &errdetails.RetryInfo{RetryDelay: durationpb.New(retryUpload)})
	case errors.Is(err, errStalled):
		return status.New(codes.DeadlineExceeded, "the upload did not go on; nothing is stored")
	case errors.As(err, &missing):
		return detailed(codes.NotFound, missing.Error(), &errdetails.ResourceInfo{ResourceType: missing.Type, ResourceName: clip(missing.Name), Description: clip(missing.Error())})
	case errors.As(err, &notFound):
		n := notFound.Model
		if notFound.Version != 0 {
			n += "/" + strconv.FormatUint(notFound.Version, 10)
		}
		if notFound.File != "" {
			n += "/" + notFound.File
		}
		return detailed(codes.NotFound, notFound.Error(), &errdetails.ResourceInfo{ResourceType: resourceModel, ResourceName: clip(n), Description: clip(notFound.Error())})
	case errors.As(err, &running):
		return info(codes.FailedPrecondition, running.Error(), "PRUNE_RUNNING", "model", running.Model, "operation", running.Operation)
	case errors.As(err, &stale):
		return info(codes.Aborted, stale.Error(), "STALE_VERSION", "model", stale.Model,
			"expected_version", strconv.FormatUint(stale.Expected, 10), "serving_version", strconv.FormatUint(stale.Serving, 10))
	case errors.As(err, &state):
		return info(codes.FailedPrecondition, state.Error(), state.Reason, "model", state.Model)
	case errors.Is(err, engine.ErrTooLarge), errors.Is(err, onnx.ErrTooLarge):
		if errors.As(err, &model) {
			return badRequest("model", err.Error())
		}
		return badRequest("image", err.Error()) // a model that serves, at the size of this image
	case errors.As(err, &unsupported):
		return info(codes.Unimplemented, unsupported.Error(), "UNSUPPORTED_OPERATOR",
			"node", unsupported.Node.String(), "operator", unsupported.Node.Op, "domain", unsupported.Node.Domain)
	case errors.As(err, &model):
		return badRequest("model", err.Error())
	case errors.Is(err, calib.ErrEmpty):
		return badRequest("calibration", err.Error())
	case errors.As(err, &prune):
		return info(codes.FailedPrecondition, prune.Error(), "PRUNE_FAILED", "model", prune.Model)
	case errors.Is(err, errDraining), errors.Is(err, errNotReady):
		return detailed(codes.Unavailable, err.Error(), &errdetails.RetryInfo{RetryDelay: durationpb.New(retryElsewhere)})
	case errors.Is(err, errRestarted):
		return info(codes.Aborted, err.Error(), "SERVER_STOPPED")
	}
	if st, ok := status.FromError(err); ok { // what grpc says of a connection, and what has been through here
		return st
	}
	return status.New(codes.Internal, "internal error; the server's log says more under the call's request id")
}

// clip bounds a text that may quote what came from outside: a status travels in headers, which have little room.
func clip(s string) string {
	const most = 1000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func badRequest(field, reason string) *status.Status {
	reason = clip(reason)
	return detailed(codes.InvalidArgument, field+": "+reason,
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: reason}}})
}

// info carries an ErrorInfo with pairs of metadata.
func info(c codes.Code, text, reason string, pairs ...string) *status.Status {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = clip(pairs[i+1])
	}
	return detailed(c, text, &errdetails.ErrorInfo{Reason: reason, Domain: domain, Metadata: m})
}

func detailed(c codes.Code, text string, d protoadapt.MessageV1) *status.Status {
	st := status.New(c, clip(text))
	if with, err := st.WithDetails(d); err == nil {
		return with
	}
	return st // the details did not marshal (a name that is not UTF-8): code and message say it too
}
