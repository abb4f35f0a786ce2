package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/server/registry"
)

// segmentation is the SegmentationService.
type segmentation struct {
	secateurv1.UnimplementedSegmentationServiceServer
	*Server
}

// Segment implements SegmentationService.
func (s segmentation) Segment(ctx context.Context, req *secateurv1.SegmentRequest) (*secateurv1.SegmentResponse, error) {
	out, err := s.segment(ctx, req.GetModel(), req.GetImage(), req.GetOptions())
	if err != nil {
		return nil, err
	}
	t := out.Timings
	callOf(ctx).add(slog.String("model", out.Model), slog.Uint64("version", out.Version),
		slog.Group("stages_ms", milliseconds(stageQueue, t.Queue.AsDuration()), milliseconds(stageDecode, t.Decode.AsDuration()),
			milliseconds(stagePrepare, t.Prepare.AsDuration()), milliseconds(stageInfer, t.Infer.AsDuration()),
			milliseconds(stageMask, t.Mask.AsDuration()), milliseconds(stageEncode, t.Encode.AsDuration())))
	return &secateurv1.SegmentResponse{Segmentation: out}, nil
}

// unknown is the metric label for models that are not there.
const unknown = "unknown"

// segment is what Segment and SegmentStream do for one image.
func (s *Server) segment(ctx context.Context, model string, img *secateurv1.Image, opt *secateurv1.SegmentOptions) (out *secateurv1.Segmentation, err error) {
	start := time.Now()
	id, label := callOf(ctx).id, unknown
	defer func() {
		s.metrics.observe(label, statusOf(err).Code().String(), id, time.Since(start))
	}()
	// What needs no place in the queue is checked before it.
	e, err := s.lookup(model)
	if err != nil {
		return nil, err
	}
	label = e.Name
	if err := checkSegment(img, opt); err != nil {
		return nil, err
	}
	release, err := s.queue.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	queued := time.Since(start)
	if e, err = s.lookup(model); err != nil { // what serves now; the request stays on it
		return nil, err
	}

	at := time.Now()
	pixels, err := s.decode(img)
	if err != nil {
		return nil, err
	}
	decoded := time.Since(at)
	// A model without a size of its own runs at the image's, and needs memory to match.
	if n := pixels.W * pixels.H; len(e.Model.Spec().Pre.Size) == 0 && n > s.cfg.MaxModelPixels {
		return nil, badField("image", "model %q runs at the image's own size: %d pixels, the limit is %d", e.Name, n, s.cfg.MaxModelPixels)
	}
	p, err := e.Model.Predict(ctx, pixels)
	if err != nil {
		return nil, fmt.Errorf("model %q version %d: %w", e.Name, e.Version, err)
	}
	at = time.Now()
	spec, mask := e.Model.Spec(), p.Mask
	if opt != nil && opt.Threshold != nil {
		spec.Post.Threshold = float64(opt.GetThreshold())
		mask = spec.Mask(p.Prob)
	}
	regions := measure(mask, p.Prob, spec.Post.Classes, opt)
	masked := p.Post + time.Since(at)
	at = time.Now()
	out = &secateurv1.Segmentation{Model: e.Name, Version: e.Version, RequestId: id,
		Mask: encodeMask(opt.GetMaskFormat(), mask, p.Prob), Classes: regions.classes, Components: regions.components}
	encoded := time.Since(at)
	out.Timings = &secateurv1.Timings{
		Decode: durationpb.New(decoded), Queue: durationpb.New(queued), Prepare: durationpb.New(p.Prepare), Infer: durationpb.New(p.Infer),
		Mask: durationpb.New(masked), Encode: durationpb.New(encoded), Total: durationpb.New(time.Since(start)),
	}
	for _, t := range []struct {
		stage string
		d     time.Duration
	}{{stageQueue, queued}, {stageDecode, decoded}, {stagePrepare, p.Prepare}, {stageInfer, p.Infer}, {stageMask, masked}, {stageEncode, encoded}} {
		s.metrics.stage(e.Name, t.stage, id, t.d)
	}
	return out, nil
}

// lookup is the registry's, but tells a model that is not there from one that cannot serve now.
func (s *Server) lookup(model string) (*registry.Entry, error) {
	e, err := s.reg.Lookup(model)
	if err == nil {
		return e, nil
	}
	var missing *registry.NotFoundError
	if errors.As(err, &missing) {
		for _, m := range s.reg.List() {
			if m.Name == model || model == "" && m.Default {
				return nil, fmt.Errorf("model %q: %w", m.Name, errNotReady)
			}
		}
		if model == "" {
			return nil, errNotReady
		}
	}
	return nil, err
}

func checkSegment(img *secateurv1.Image, opt *secateurv1.SegmentOptions) error {
	switch c := img.GetContent().(type) {
	case *secateurv1.Image_Encoded:
		if len(c.Encoded) == 0 {
			return badField("image.encoded", "no bytes")
		}
	case *secateurv1.Image_Raw:
		if len(c.Raw.GetPixels()) == 0 {
			return badField("image.raw.pixels", "no bytes")
		}
	default:
		return badField("image", "neither a file nor raw pixels are given")
	}
	if _, ok := secateurv1.MaskFormat_name[int32(opt.GetMaskFormat())]; !ok {
		return badField("options.mask_format", "%d is no format", opt.GetMaskFormat())
	}
	if t := opt.GetThreshold(); !(t >= 0 && t <= 1) {
		return badField("options.threshold", "%g is not between 0 and 1", t)
	}
	return nil
}

var rawFormats = map[secateurv1.PixelFormat]string{
	secateurv1.PixelFormat_PIXEL_FORMAT_RGB24:    "rgb24",
	secateurv1.PixelFormat_PIXEL_FORMAT_RGBA32:   "rgba32",
	secateurv1.PixelFormat_PIXEL_FORMAT_GRAY8:    "gray8",
	secateurv1.PixelFormat_PIXEL_FORMAT_GRAY16LE: "gray16le",
}

// decode makes pixels of an image, within the limit. Every error is the caller's.
func (s *Server) decode(img *secateurv1.Image) (*vision.Image, error) {
	raw := img.GetRaw()
	if raw == nil {
		m, err := vision.Decode(img.GetEncoded(), vision.Limits{MaxPixels: s.cfg.MaxPixels})
		return m, under("image.encoded", err)
	}
	if w, h := uint64(raw.GetWidth()), uint64(raw.GetHeight()); w == 0 || h == 0 || w > uint64(s.cfg.MaxPixels)/h {
		return nil, badField("image.raw", "image is %d x %d pixels, the limit is %d", w, h, s.cfg.MaxPixels)
	}
	format, ok := rawFormats[raw.GetFormat()]
	if !ok {
		return nil, badField("image.raw.format", "%d is no format of raw pixels", raw.GetFormat())
	}
	m, err := vision.Raw(format, int(raw.GetWidth()), int(raw.GetHeight()), raw.GetPixels())
	return m, under("image.raw", err)
}

// under names the field of the request that package vision's errors are about.
func under(field string, err error) error {
	var f *vision.FormatError
	if errors.As(err, &f) {
		return &fieldError{field, f.Reason}
	}
	return err
}
