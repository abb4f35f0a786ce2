package server

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

// SegmentStream implements SegmentationService: one frame after the other, in order. A frame takes its place in the queue
// like any request, so that streams and single images share the cores by turns; while it computes, the next one is
// received, and beyond that flow control holds the sender back.
func (s segmentation) SegmentStream(stream grpc.BidiStreamingServer[secateurv1.SegmentStreamRequest, secateurv1.SegmentStreamResponse]) error {
	type received struct {
		frame *secateurv1.SegmentStreamRequest
		err   error
	}
	ctx := stream.Context()
	frames := make(chan received)
	go func() { // ends with the stream at the latest: returning from the handler fails Recv and ends ctx
		for {
			f, err := stream.Recv()
			select {
			case frames <- received{f, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	var (
		model           string
		options         *secateurv1.SegmentOptions
		answered, wrong int
	)
	defer func() {
		callOf(ctx).add(slog.Int("frames", answered), slog.Int("frame_errors", wrong))
	}()
	for {
		var f *secateurv1.SegmentStreamRequest
		select {
		case r := <-frames:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			f = r.frame
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing.Done():
			return errDraining
		}
		if f.GetModel() != "" {
			model = f.GetModel()
		}
		if f.GetOptions() != nil {
			options = f.GetOptions()
		}
		start := time.Now()
		resp := &secateurv1.SegmentStreamResponse{FrameId: f.GetFrameId(), CaptureTime: f.GetCaptureTime()}
		out, err := s.segment(ctx, model, f.GetImage(), options)
		switch {
		case err == nil:
			resp.Outcome = &secateurv1.SegmentStreamResponse_Segmentation{Segmentation: out}
			s.cfg.Log.Debug("frame", "request_id", out.RequestId, "frame_id", f.GetFrameId(), "model", out.Model, "version", out.Version, milliseconds("ms", time.Since(start)))
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			wrong++
			resp.Outcome = &secateurv1.SegmentStreamResponse_Error{Error: statusOf(err).Proto()}
			s.cfg.Log.Warn("frame", "request_id", callOf(ctx).id, "frame_id", f.GetFrameId(), "error", err)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		answered++
	}
}
