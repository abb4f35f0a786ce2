package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
)

// clientFlags is how commands are told which server to call.
type clientFlags struct {
	Addr string `help:"The server's gRPC address." default:"127.0.0.1:8500"`
}

// maxMessage is the largest message sent or received: grpc-go's own limit of 4 MiB is less than a raw 1080p frame.
const maxMessage = 64 << 20

// chunkSize is how much of a file goes into one message of a stream.
const chunkSize = 1 << 20

// dial prepares a connection; the first call opens it.
func (f *clientFlags) dial() (*grpc.ClientConn, error) {
	c, err := grpc.NewClient(f.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", f.Addr, err)
	}
	return c, nil
}

// explain makes a sentence of a server's error: its message, and which fields of the request were wrong. Errors that are
// not a server's stay as they are.
func (f *clientFlags) explain(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch {
	case st.Code() == codes.Canceled:
		return context.Canceled
	case st.Code() == codes.Unavailable && strings.Contains(st.Message(), "connect"):
		return fmt.Errorf("no server answers at %s (secateur serve starts one): %s", f.Addr, reason(st.Message()))
	}
	return errors.New(sentence(st))
}

// reason is what grpc-go wraps in words of its own: what follows the last "desc = ", without quotes.
func reason(message string) string {
	if _, r, ok := strings.Cut(message, "desc = "); ok {
		return strings.Trim(r, `"`)
	}
	return message
}

// sentence is a status in words.
func sentence(st *status.Status) string {
	var b strings.Builder
	b.WriteString(st.Message())
	if st.Message() == "" {
		b.WriteString(strings.ToLower(st.Code().String()))
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				if !strings.Contains(st.Message(), v.Description) {
					fmt.Fprintf(&b, "; %s: %s", v.Field, v.Description)
				}
			}
		case *errdetails.RetryInfo:
			if d.RetryDelay != nil {
				fmt.Fprintf(&b, "; try again in %v", d.RetryDelay.AsDuration())
			}
		}
	}
	return b.String()
}

// remote segments on the server.
func (c *segmentCmd) remote() (segmenter, func(), error) {
	conn, err := c.dial()
	if err != nil {
		return nil, nil, err
	}
	client := secateurv1.NewSegmentationServiceClient(conn)
	return func(ctx context.Context, b []byte) (*vision.Mask, segmented, error) {
		r, err := client.Segment(ctx, &secateurv1.SegmentRequest{
			Model:   c.Name,
			Image:   encodedImage(b),
			Options: &secateurv1.SegmentOptions{MaskFormat: secateurv1.MaskFormat_MASK_FORMAT_PNG},
		})
		if err != nil {
			return nil, segmented{}, c.explain(err)
		}
		s := r.GetSegmentation()
		mask, err := readMask(s)
		if err != nil {
			return nil, segmented{}, fmt.Errorf("the server's mask: %w", err)
		}
		return mask, segmented{Model: s.GetModel(), Version: s.GetVersion(),
			MS: float64(s.GetTimings().GetTotal().AsDuration()) / 1e6}, nil
	}, func() { _ = conn.Close() }, nil // nothing is left to be sent
}

// encodedImage is an image file for the server.
func encodedImage(b []byte) *secateurv1.Image {
	return &secateurv1.Image{Content: &secateurv1.Image_Encoded{Encoded: b}}
}

// readMask reads the PNG of a reply. Its gray is the class, or 0 and 255 if there is one class.
func readMask(s *secateurv1.Segmentation) (*vision.Mask, error) {
	img, err := png.Decode(bytes.NewReader(s.GetMask().GetData()))
	if err != nil {
		return nil, err
	}
	gray, ok := img.(*image.Gray)
	if !ok {
		return nil, fmt.Errorf("it is a %T, want 8-bit gray", img)
	}
	r := gray.Bounds()
	m := vision.NewMask(r.Dx(), r.Dy())
	m.Classes = max(1, len(s.GetClasses()))
	for y := range m.H {
		copy(m.Pix[y*m.W:(y+1)*m.W], gray.Pix[y*gray.Stride:])
	}
	if m.Classes == 1 {
		for i, v := range m.Pix {
			m.Pix[i] = v >> 7
		}
	}
	return m, nil
}
