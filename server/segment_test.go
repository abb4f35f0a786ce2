package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
)

func TestSegmentFormats(t *testing.T) {
	h := start(t, Config{})
	h.upload(t, "m", 7, true)
	pixels := make([]byte, 6*4*3)
	raw := &secateurv1.Image{Content: &secateurv1.Image_Raw{Raw: &secateurv1.RawImage{
		Format: secateurv1.PixelFormat_PIXEL_FORMAT_RGB24, Width: 6, Height: 4, Pixels: pixels}}}
	for _, c := range []struct {
		name   string
		format secateurv1.MaskFormat
		img    *secateurv1.Image
		check  func(m *secateurv1.Mask) bool
	}{
		{"default", 0, encoded(picture(t, 6, 4, 1)), func(m *secateurv1.Mask) bool {
			p, err := png.Decode(bytes.NewReader(m.Data))
			if err != nil {
				return false
			}
			g, ok := p.(*image.Gray)
			return ok && g.GrayAt(3, 2).Y == 7 && m.Format == secateurv1.MaskFormat_MASK_FORMAT_PNG
		}},
		{"raw", secateurv1.MaskFormat_MASK_FORMAT_RAW8, raw, func(m *secateurv1.Mask) bool { return bytes.Equal(m.Data, bytes.Repeat([]byte{7}, 24)) }},
		{"probabilities", secateurv1.MaskFormat_MASK_FORMAT_PROBABILITY8, raw, func(m *secateurv1.Mask) bool {
			return m.Planes == 255 && len(m.Data) == 255*24 && m.Data[6*24] == 191 && m.Data[0] == 0
		}},
		{"none", secateurv1.MaskFormat_MASK_FORMAT_NONE, raw, func(m *secateurv1.Mask) bool { return m.Data == nil && m.Planes == 0 }},
	} {
		resp, err := h.seg.Segment(t.Context(), &secateurv1.SegmentRequest{Model: "m", Image: c.img,
			Options: &secateurv1.SegmentOptions{MaskFormat: c.format, Components: true}})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		s := resp.Segmentation
		if s.Model != "m" || s.Version != 1 || s.RequestId == "" || s.Mask.Width != 6 || s.Mask.Height != 4 || !c.check(s.Mask) {
			t.Errorf("%s: got %v", c.name, s)
		}
		if len(s.Components) != 1 || s.Components[0].Area != 24 || s.Components[0].MeanConfidence != 0.75 || s.Components[0].ClassIndex != 7 {
			t.Errorf("%s: components %v", c.name, s.Components)
		}
		if s.Timings.Infer.AsDuration() != 2*time.Millisecond || s.Timings.Total.AsDuration() <= 0 {
			t.Errorf("%s: timings %v", c.name, s.Timings)
		}
	}
}

// hugePNG claims 100000 x 100000 pixels and holds none.
func hugePNG() []byte {
	chunk := func(typ string, data []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		b = append(append(b, typ...), data...)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 100000), 100000)
	b := append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(header, 8, 2, 0, 0, 0))...)
	return append(b, chunk("IDAT", []byte{0x78, 0x9c, 3, 0, 0, 0, 0, 1})...)
}

func TestSegmentRefuses(t *testing.T) {
	h := start(t, Config{})
	h.upload(t, "m", 1, true)
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, image.NewRGBA(image.Rect(0, 0, 64, 64)), nil); err != nil {
		t.Fatal(err)
	}
	raw := func(f secateurv1.PixelFormat, w, h uint32, n int) *secateurv1.Image {
		return &secateurv1.Image{Content: &secateurv1.Image_Raw{Raw: &secateurv1.RawImage{Format: f, Width: w, Height: h, Pixels: make([]byte, n)}}}
	}
	rgb := secateurv1.PixelFormat_PIXEL_FORMAT_RGB24
	good := encoded(picture(t, 2, 2, 0))
	half, tooHigh := float32(0.5), float32(1.5)
	for _, c := range []struct {
		name  string
		req   *secateurv1.SegmentRequest
		field string
	}{
		{"empty request", &secateurv1.SegmentRequest{}, "image"},
		{"empty body", &secateurv1.SegmentRequest{Image: encoded(nil)}, "image.encoded"},
		{"no image file", &secateurv1.SegmentRequest{Image: encoded([]byte("not an image at all"))}, "image.encoded"},
		{"truncated JPEG", &secateurv1.SegmentRequest{Image: encoded(jpg.Bytes()[:jpg.Len()/2])}, "image.encoded"},
		{"huge PNG", &secateurv1.SegmentRequest{Image: encoded(hugePNG())}, "image.encoded"},
		{"raw without format", &secateurv1.SegmentRequest{Image: raw(0, 2, 2, 12)}, "image.raw.format"},
		{"raw of unknown format", &secateurv1.SegmentRequest{Image: raw(99, 2, 2, 12)}, "image.raw.format"},
		{"raw too short", &secateurv1.SegmentRequest{Image: raw(rgb, 2, 2, 11)}, "image.raw"},
		{"raw without pixels", &secateurv1.SegmentRequest{Image: raw(rgb, 2, 2, 0)}, "image.raw.pixels"},
		{"raw of no size", &secateurv1.SegmentRequest{Image: raw(rgb, 0, 2, 3)}, "image.raw"},
		{"raw that overflows", &secateurv1.SegmentRequest{Image: raw(rgb, 1<<31, 1<<31, 3)}, "image.raw"},
		{"unknown mask format", &secateurv1.SegmentRequest{Image: good, Options: &secateurv1.SegmentOptions{MaskFormat: 99}}, "options.mask_format"},
		{"threshold", &secateurv1.SegmentRequest{Image: good, Options: &secateurv1.SegmentOptions{Threshold: &tooHigh}}, "options.threshold"},
	} {
		c.req.Model = "m"
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := h.seg.Segment(t.Context(), c.req)
		runtime.ReadMemStats(&after)
		if status.Code(err) != codes.InvalidArgument || violation(err) != c.field {
			t.Errorf("%s: got %v (field %q), want INVALID_ARGUMENT about %q", c.name, err, violation(err), c.field)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
			t.Errorf("%s: %d bytes were allocated to refuse it", c.name, n)
		}
	}
	if h.calls.Load() != 0 {
		t.Errorf("the model ran %d times on requests that were refused", h.calls.Load())
	}
	_, err := h.seg.Segment(t.Context(), request(t, "nobody"))
	wantCode(t, err, codes.NotFound)
	if r, ok := status.Convert(err).Details()[0].(*errdetails.ResourceInfo); !ok || r.ResourceName != "nobody" {
		t.Errorf("details %v, want a ResourceInfo", status.Convert(err).Details())
	}
	_, err = h.seg.Segment(t.Context(), &secateurv1.SegmentRequest{Image: good, Options: &secateurv1.SegmentOptions{Threshold: &half}})
	wantCode(t, err, codes.OK) // the empty name is the default model
}

func TestNoModelIsUnavailable(t *testing.T) {
	h := start(t, Config{})
	_, err := h.seg.Segment(t.Context(), request(t, ""))
	wantCode(t, err, codes.Unavailable)
}

func TestMessageLimit(t *testing.T) {
	h := start(t, Config{MaxMessageBytes: 1 << 20})
	h.upload(t, "m", 1, true)
	_, err := h.seg.Segment(t.Context(), &secateurv1.SegmentRequest{Image: encoded(make([]byte, 2<<20))})
	wantCode(t, err, codes.ResourceExhausted)
}

// held makes the model's runs wait. Each run sends to began and waits for the end of release.
func (h *harness) held() (began chan struct{}, release func()) {
	began = make(chan struct{}, 100)
	let := make(chan struct{})
	f := func(context.Context) error {
		began <- struct{}{}
		<-let
		return nil
	}
	h.hold.Store(&f)
	return began, sync.OnceFunc(func() {
		h.hold.Store(nil)
		close(let)
	})
}

func TestQueue(t *testing.T) {
	h := start(t, Config{MaxInFlight: 1, QueueDepth: 1})
	h.upload(t, "m", 1, true)
	began, release := h.held()
	defer release()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := h.seg.Segment(t.Context(), request(t, "m"))
		if err != nil {
			t.Errorf("the one that computes: %v", err)
		}
	})
	<-began
	// One waits, past its deadline: no compute.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := h.seg.Segment(ctx, request(t, "m"))
	wantCode(t, err, codes.DeadlineExceeded)
	for h.queue.Waiting() != 0 { // the client's clock may be ahead of the server's
		runtime.Gosched()
	}
	// One waits, the next is refused.
	wg.Go(func() {
		_, err := h.seg.Segment(t.Context(), request(t, "m"))
		if err != nil {
			t.Errorf("the one that waits: %v", err)
		}
	})
	for h.queue.Waiting() != 1 {
		runtime.Gosched()
	}
	_, err = h.seg.Segment(t.Context(), request(t, "m"))
	wantCode(t, err, codes.ResourceExhausted)
	if r, ok := status.Convert(err).Details()[0].(*errdetails.RetryInfo); !ok || r.RetryDelay.AsDuration() <= 0 {
		t.Errorf("details %v, want a RetryInfo", status.Convert(err).Details())
	}
	release()
	wg.Wait()
	if h.calls.Load() != 2 {
		t.Errorf("the model ran %d times, want 2: whoever expired or was refused costs nothing", h.calls.Load())
	}
}

func TestPanicIsInternal(t *testing.T) {
	h := start(t, Config{MaxInFlight: 1, QueueDepth: -1})
	h.upload(t, "m", 1, true)
	f := func(context.Context) error { panic("in the model") }
	h.hold.Store(&f)
	_, err := h.seg.Segment(t.Context(), request(t, "m"))
	wantCode(t, err, codes.Internal)
	h.hold.Store(nil)
	_, err = h.seg.Segment(t.Context(), request(t, "m")) // its place is free again
	wantCode(t, err, codes.OK)
}

func TestRequestID(t *testing.T) {
	h := start(t, Config{})
	h.upload(t, "m", 1, true)
	for _, c := range []struct{ send, want string }{{"case-4711", "case-4711"}, {"two words", ""}, {"", ""}} {
		ctx, header := t.Context(), metadata.MD{}
		if c.send != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", c.send)
		}
		resp, err := h.seg.Segment(ctx, request(t, "m"), grpc.Header(&header))
		if err != nil {
			t.Fatal(err)
		}
		id := resp.Segmentation.RequestId
		if id == "" || id == "two words" || c.want != "" && id != c.want || header.Get("x-request-id")[0] != id {
			t.Errorf("sent %q: got %q, header %v", c.send, id, header)
		}
	}
}

func TestStreamAnswersInOrder(t *testing.T) {
	h := start(t, Config{})
	h.upload(t, "m", 3, true)
	stream, err := h.seg.SegmentStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	good, opt := encoded(picture(t, 3, 3, 9)), &secateurv1.SegmentOptions{MaskFormat: secateurv1.MaskFormat_MASK_FORMAT_RAW8}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint64(n) {
			f := &secateurv1.SegmentStreamRequest{FrameId: 1000 - i, Image: good}
			switch i {
			case 0: // said once
				f.Model, f.Options = "m", opt
			case 10:
				f.Image = encoded([]byte("junk"))
			}
			if err := stream.Send(f); err != nil {
				t.Errorf("frame %d: %v", i, err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
	})
	for i := range uint64(n) {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if r.FrameId != 1000-i {
			t.Fatalf("answer %d is for frame %d, want %d", i, r.FrameId, 1000-i)
		}
		if i == 10 {
			if r.GetError().GetCode() != int32(codes.InvalidArgument) {
				t.Errorf("the bad frame got %v", r)
			}
			continue
		}
		if m := r.GetSegmentation().GetMask(); !bytes.Equal(m.GetData(), bytes.Repeat([]byte{3}, 9)) {
			t.Fatalf("frame %d: %v", i, r)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
	wg.Wait()
}

// n clients, k swaps: nothing fails, and each reply's version is the one that made its mask.
func TestRepliesMatchTheirVersionDuringSwaps(t *testing.T) {
	h := start(t, Config{MaxInFlight: 3, QueueDepth: 100})
	const clients, swaps = 8, 40
	value := func(version uint64) byte { return byte(version) } // version v answers v
	for v := uint64(1); v <= 4; v++ {
		if got := h.upload(t, "m", value(v), false); got.Version != v {
			t.Fatalf("upload %d became version %d", v, got.Version)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range clients {
		check := func(s *secateurv1.Segmentation) {
			if s.GetMask().GetData()[0] != value(s.GetVersion()) {
				t.Errorf("version %d answered %d", s.GetVersion(), s.GetMask().GetData()[0])
			}
		}
		req := request(t, "m")
		if i%2 == 0 {
			wg.Go(func() {
				for ctx.Err() == nil {
					resp, err := h.seg.Segment(t.Context(), req)
					if err != nil {
						t.Errorf("segment: %v", err)
						return
					}
					check(resp.Segmentation)
				}
			})
			continue
		}
		stream, err := h.seg.SegmentStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				err := stream.Send(&secateurv1.SegmentStreamRequest{Model: "m", Image: req.Image, Options: req.Options})
				if err != nil {
					t.Errorf("send: %v", err)
					return
				}
				resp, err := stream.Recv()
				if err != nil || resp.GetError() != nil {
					t.Errorf("stream: %v %v", err, resp)
					return
				}
				check(resp.GetSegmentation())
			}
			_ = stream.CloseSend()
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("the end of a stream: %v", err)
			}
		})
	}
	for k := range swaps {
		want := uint64(k%4) + 1
		var err error
		if k%5 == 4 {
			_, err = h.models.RollbackModel(t.Context(), &secateurv1.RollbackModelRequest{Name: "m"})
		} else {
			_, err = h.models.PromoteModel(t.Context(), &secateurv1.PromoteModelRequest{Name: "m", Version: want})
		}
		if err != nil {
			t.Errorf("swap %d: %v", k, err)
		}
	}
	cancel()
	wg.Wait()
}

// Without fakes: the embedded default model finds what the phantom shows.
func TestServesEmbeddedModels(t *testing.T) {
	s, err := New(Config{Models: t.TempDir(), DrainWait: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	img, truth := phantom.Draw(1, 0)
	raw := &secateurv1.RawImage{Format: secateurv1.PixelFormat_PIXEL_FORMAT_RGB24, Width: uint32(img.W), Height: uint32(img.H), Pixels: img.Pix}
	out, err := s.segment(t.Context(), "", &secateurv1.Image{Content: &secateurv1.Image_Raw{Raw: raw}},
		&secateurv1.SegmentOptions{MaskFormat: secateurv1.MaskFormat_MASK_FORMAT_RAW8, Components: true})
	if err != nil {
		t.Fatal(err)
	}
	// Whatever a camera or an archive sends gets a mask of its size.
	files := map[string][]byte{"4K": picture(t, 3840, 2160, 90), "one pixel": picture(t, 1, 1, 90)}
	for _, name := range []string{"palette.png", "gray16.png", "cmyk.jpg", "orientation6.jpg", "blackiszero3.tiff", "rgb.bmp", "lossy.webp"} {
		b, err := os.ReadFile(filepath.Join("..", "engine", "vision", "testdata", "decode", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	for name, b := range files {
		pixels, err := vision.Decode(b, vision.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out, err := s.segment(t.Context(), "", encoded(b), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := png.DecodeConfig(bytes.NewReader(out.Mask.Data))
		if err != nil || m.Width != pixels.W || m.Height != pixels.H {
			t.Errorf("%s: mask %+v (%v), want %d x %d", name, m, err, pixels.W, pixels.H)
		}
	}
	got := &vision.Mask{W: img.W, H: img.H, Pix: out.Mask.Data, Classes: 1}
	if d := vision.Compare(got, truth).Dice; out.Model != "polyp-lite0" || d < 0.7 || len(out.Components) == 0 || out.Classes[0].Name != "polyp" {
		t.Errorf("%s: Dice %.3f, components %v, classes %v", out.Model, d, out.Components, out.Classes)
	}
}

func TestOwnSizeIsBounded(t *testing.T) {
	h := start(t, Config{MaxModelPixels: 20}) // the fake runs at the image's own size
	h.upload(t, "m", 1, true)
	_, err := h.seg.Segment(t.Context(), request(t, "m"))
	if wantCode(t, err, codes.InvalidArgument); violation(err) != "image" {
		t.Errorf("field %q", violation(err))
	}
}
