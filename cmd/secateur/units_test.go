package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
)

func TestExplain(t *testing.T) {
	f := &clientFlags{Addr: "127.0.0.1:8500"}
	detailed := func(c codes.Code, m string, d *errdetails.BadRequest, r *errdetails.RetryInfo) error {
		st := status.New(c, m)
		var err error
		if d != nil {
			st, err = st.WithDetails(d)
		}
		if r != nil && err == nil {
			st, err = st.WithDetails(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	plain := errors.New("disk full")
	for _, c := range []struct {
		err  error
		want string
	}{
		{plain, "disk full"},
		{detailed(codes.InvalidArgument, "bad request", &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "image.encoded", Description: "truncated JPEG"}}}, nil), "bad request; image.encoded: truncated JPEG"},
		{detailed(codes.ResourceExhausted, "the queue is full", nil, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}),
			"the queue is full; try again in 1s"},
		{status.Error(codes.Canceled, "x"), context.Canceled.Error()},
		{status.Error(codes.NotFound, ""), "notfound"},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: connect: refused"`),
			"no server answers at 127.0.0.1:8500 (secateur serve starts one): transport: connect: refused"},
	} {
		if got := f.explain(c.err); got == nil || got.Error() != c.want {
			t.Errorf("explain(%v) = %q, want %q", c.err, got, c.want)
		}
	}
	if f.explain(nil) != nil {
		t.Error("explain(nil) is an error")
	}
}

// TestMaskRoundTrip: a mask that went through the PNG of a reply is the mask.
func TestMaskRoundTrip(t *testing.T) {
	for _, classes := range []int{1, 3} {
		m := vision.NewMask(5, 3)
		m.Classes = classes
		for i := range m.Pix {
			m.Pix[i] = byte(i % (classes + 1))
		}
		got, err := readMask(&secateurv1.Segmentation{Mask: &secateurv1.Mask{Data: m.PNG()}, Classes: make([]*secateurv1.ClassSummary, classes)})
		if err != nil {
			t.Fatal(err)
		}
		if got.W != m.W || got.H != m.H || got.Classes != m.Classes || string(got.Pix) != string(m.Pix) {
			t.Errorf("%d classes: %v, want %v", classes, got, m)
		}
	}
}

// TestReplaceFile: a write that fails leaves the old content and no other file.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := replaceBytes(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := replaceFile(path, func(w io.Writer) error { _, _ = w.Write([]byte("new")); return broken }); !errors.Is(err, broken) {
		t.Fatalf("error %v, want %v", err, broken)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("content %q, want the old one", b)
	}
	if e, _ := os.ReadDir(dir); len(e) != 1 {
		t.Errorf("%d files, want 1", len(e))
	}
}

func TestTurn(t *testing.T) {
	want := []int{0, 1, 2, 3, 2, 1, 0, 1, 2}
	for i, w := range want {
		if got := turn(uint64(i), 4); got != w {
			t.Errorf("turn(%d, 4) = %d, want %d", i, got, w)
		}
	}
}

func TestQuantile(t *testing.T) {
	s := &stream{}
	for i := range 100 {
		s.latency[before] = append(s.latency[before], time.Duration(100-i)*time.Millisecond)
	}
	if p50, p99 := s.quantile(before, 0.5), s.quantile(before, 0.99); p50 != 51 || p99 != 100 {
		t.Errorf("p50 %g, p99 %g of 1..100 ms", p50, p99)
	}
	if s.quantile(after, 0.5) != 0 {
		t.Error("the quantile of nothing is not 0")
	}
}

// TestDifference: pixels of one mask alone have its colour; no others have any.
func TestDifference(t *testing.T) {
	img := vision.NewImage(4, 1)
	was, is := vision.NewMask(4, 1), vision.NewMask(4, 1)
	was.Pix[1], was.Pix[3], is.Pix[2], is.Pix[3] = 1, 1, 1, 1
	d := difference(img, was, is)
	if d.RGBAAt(1, 0) != onlyBefore || d.RGBAAt(2, 0) != onlyAfter {
		t.Errorf("colours %v and %v", d.RGBAAt(1, 0), d.RGBAAt(2, 0))
	}
	for _, x := range []int{0, 3} {
		if c := d.RGBAAt(x, 0); c.R != c.G || c.G != c.B {
			t.Errorf("pixel %d is %v, want gray", x, c)
		}
	}
}

func TestHowToIsFiveLines(t *testing.T) {
	if n := strings.Count(howTo("127.0.0.1:8500", "127.0.0.1:8501", "models"), "\n"); n != 5 {
		t.Errorf("%d lines, want 5", n)
	}
}

func TestDataFolder(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, c := range []struct{ xdg, want string }{
		{"", filepath.Join(home, ".local/share/secateur/models")},
		{"relative", filepath.Join(home, ".local/share/secateur/models")},
		{"/data", "/data/secateur/models"},
	} {
		t.Setenv("XDG_DATA_HOME", c.xdg)
		if got, err := dataFolder(); err != nil || got != c.want {
			t.Errorf("XDG_DATA_HOME=%q: %q, %v, want %q", c.xdg, got, err, c.want)
		}
	}
}
