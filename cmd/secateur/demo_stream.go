package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
)

// phase is what the server is busy with while a frame is on its way.
type phase int32

const (
	before phase = iota // serving the original
	during              // serving it, and pruning
	after               // serving the pruned model
	phases
)

// stream sends frames at a steady pace through one SegmentStream, the next one when the last is answered and its time
// has come, and notes what it sees.
type stream struct {
	phase atomic.Int32

	mu       sync.Mutex
	latency  [phases][]time.Duration
	requests int
	failures []string
	versions []uint64 // in order of appearance, a version once for every time it takes over
}

// sequenceFrames is how many frames of the moving scene are drawn; they play forth and back. Drawing takes longer than
// segmenting, so it is done ahead.
const sequenceFrames = 60

// sequence draws the frames of a moving scene.
func sequence(ctx context.Context, seed uint64) ([]*vision.Image, error) {
	frames := make([]*vision.Image, sequenceFrames)
	for i := range frames {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		frames[i], _ = phantom.Draw(seed, i)
	}
	return frames, nil
}

// run streams until stop is closed, then waits for the last answer. An error is one of the stream itself; frames that
// fail are counted.
func (s *stream) run(ctx context.Context, client secateurv1.SegmentationServiceClient, model string, frames []*vision.Image, fps int, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := client.SegmentStream(ctx)
	if err != nil {
		return err
	}
	png := &secateurv1.SegmentOptions{MaskFormat: secateurv1.MaskFormat_MASK_FORMAT_PNG}
	pace := time.NewTicker(time.Second / time.Duration(fps))
	defer pace.Stop()
	for id := uint64(0); ; id++ {
		select {
		case <-stop:
			return finish(c)
		case <-pace.C:
		}
		p := phase(s.phase.Load())
		t0 := time.Now()
		err := c.Send(&secateurv1.SegmentStreamRequest{FrameId: id, CaptureTime: timestamppb.New(t0), Model: model,
			Image: rawImage(frames[turn(id, len(frames))]), Options: png})
		var r *secateurv1.SegmentStreamResponse
		if err == nil {
			r, err = c.Recv()
		}
		s.note(p, time.Since(t0), r, id, err)
		if err != nil {
			return err
		}
	}
}

// finish tells the server that no frame follows and hears how it took the stream.
func finish(c interface {
	CloseSend() error
	Recv() (*secateurv1.SegmentStreamResponse, error)
}) error {
	if err := c.CloseSend(); err != nil {
		return err
	}
	switch _, err := c.Recv(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return errors.New("the server answered a frame that was not sent")
}

// turn walks 0, 1, …, n-1, n-2, …, 1, 0, 1, …
func turn(i uint64, n int) int {
	k := int(i % uint64(2*n-2))
	return min(k, 2*n-2-k)
}

func rawImage(m *vision.Image) *secateurv1.Image {
	return &secateurv1.Image{Content: &secateurv1.Image_Raw{Raw: &secateurv1.RawImage{
		Format: secateurv1.PixelFormat_PIXEL_FORMAT_RGB24, Width: uint32(m.W), Height: uint32(m.H), Pixels: m.Pix}}}
}

// note keeps what came of a frame.
func (s *stream) note(p phase, d time.Duration, r *secateurv1.SegmentStreamResponse, id uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	switch {
	case err != nil:
		s.fail(id, err)
	case r.GetError() != nil:
		s.fail(id, status.ErrorProto(r.GetError()))
	case r.GetFrameId() != id || r.GetSegmentation() == nil:
		s.fail(id, fmt.Errorf("the answer is to frame %d", r.GetFrameId()))
	default:
		s.latency[p] = append(s.latency[p], d)
		if v := r.GetSegmentation().GetVersion(); len(s.versions) == 0 || s.versions[len(s.versions)-1] != v {
			s.versions = append(s.versions, v)
		}
	}
}

func (s *stream) fail(id uint64, err error) {
	s.failures = append(s.failures, fmt.Sprintf("frame %d: %v", id, err))
}

// answered counts the frames of a phase that have their mask.
func (s *stream) answered(p phase) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.latency[p])
}

// version is the one that answered last; 0 if none has.
func (s *stream) version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.versions) == 0 {
		return 0
	}
	return s.versions[len(s.versions)-1]
}

// quantile is the time that the share q of the frames of a phase needed at most, in milliseconds.
func (s *stream) quantile(p phase, q float64) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := slices.Sorted(slices.Values(s.latency[p]))
	if len(d) == 0 {
		return 0
	}
	return float64(d[min(int(q*float64(len(d))), len(d)-1)]) / 1e6
}
