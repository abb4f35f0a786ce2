package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

// requestIDKey is the metadata key, in both directions.
const requestIDKey = "x-request-id"

// call is what the log will say of one call. Handlers add to it.
type call struct {
	id string

	mu    sync.Mutex
	attrs []slog.Attr
}

func (c *call) add(attrs ...slog.Attr) {
	c.mu.Lock()
	c.attrs = append(c.attrs, attrs...)
	c.mu.Unlock()
}

// milliseconds is how the log gives times: JSON has no unit, so the key names it.
func milliseconds(key string, d time.Duration) slog.Attr {
	return slog.Float64(key, float64(d.Microseconds())/1000)
}

type callKey struct{}

// callOf is the call of a context, an empty one outside of any.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// newCall takes the caller's request id if it is one, else makes one.
func newCall(ctx context.Context) (*call, context.Context) {
	c := &call{}
	if v := metadata.ValueFromIncomingContext(ctx, requestIDKey); len(v) > 0 && validID(v[0]) {
		c.id = v[0]
	} else {
		c.id = strings.ToLower(rand.Text())
	}
	return c, context.WithValue(ctx, callKey{}, c)
}

// validID keeps logs and exemplars (128 runes with their names) from what callers might put there.
func validID(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for _, b := range []byte(s) {
		if b <= ' ' || b > '~' || b == '"' || b == '\\' {
			return false
		}
	}
	return true
}

// unary gives each call an id, logs it when it is done, turns errors into statuses and panics into INTERNAL.
func (s *Server) unary(ctx context.Context, req any, i *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	c, ctx := newCall(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDKey, c.id)) // fails only for a connection that is gone
	start := time.Now()
	defer func() {
		err = s.finish(ctx, c, i.FullMethod, start, err, recover())
	}()
	return next(ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, i *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	c, ctx := newCall(ss.Context())
	// A watch of health has no end of its own and would keep the server from stopping in peace.
	if strings.HasPrefix(i.FullMethod, "/grpc.health.") {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(s.closing, cancel)
		defer stop()
	}
	// SegmentStream looks after itself: between two frames it may wait as long as it likes.
	if i.IsClientStream && i.FullMethod != secateurv1.SegmentationService_SegmentStream_FullMethodName {
		patience := time.Duration(0)
		if !i.IsServerStream { // an upload, not reflection
			patience = max(s.cfg.UploadPatience, 0)
		}
		ss = &patientStream{ss, patience, s.closing.Done()}
	}
	_ = ss.SetHeader(metadata.Pairs(requestIDKey, c.id)) // as above
	start := time.Now()
	defer func() {
		err = s.finish(ctx, c, i.FullMethod, start, err, recover())
	}()
	return next(srv, &callStream{ss, ctx})
}

// callStream is a stream with another context.
type callStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *callStream) Context() context.Context { return s.ctx }

// finish logs a call and makes its error a status.
func (s *Server) finish(ctx context.Context, c *call, method string, start time.Time, err error, panicked any) error {
	if panicked != nil {
		s.cfg.Log.Error("panic", "method", method, "request_id", c.id, "panic", panicked, "stack", string(debug.Stack()))
		err = status.Error(codes.Internal, "internal error; the server's log says more under the call's request id")
	}
	st := statusOf(err)
	level := slog.LevelInfo
	switch st.Code() {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		level = slog.LevelError
	case codes.OK:
		if strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.") {
			level = slog.LevelDebug
		}
	default:
		level = slog.LevelWarn
	}
	c.mu.Lock()
	attrs := append([]slog.Attr{slog.String("method", method), slog.String("request_id", c.id), slog.String("code", st.Code().String()),
		milliseconds("ms", time.Since(start))}, c.attrs...)
	c.mu.Unlock()
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", clip(err.Error())))
	}
	s.cfg.Log.LogAttrs(ctx, level, "call", attrs...)
	return st.Err()
}
