package vision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestDecodeEqualsReference(t *testing.T) {
	wants, err := filepath.Glob("testdata/decode/*.want.png")
	if err != nil || len(wants) < 30 {
		t.Fatalf("%d reference files: %v", len(wants), err)
	}
	for _, path := range wants {
		name := strings.TrimSuffix(filepath.Base(path), ".want.png")
		t.Run(name, func(t *testing.T) {
			want, got := mustDecode(t, read(t, path)), mustDecode(t, read(t, strings.TrimSuffix(path, ".want.png")))
			tol := 0
			switch filepath.Ext(name) {
			case ".jpg":
				tol = 2 // inverse transform and colour conversion each round
			case ".webp":
				if strings.HasPrefix(name, "lossy") {
					tol = 4 // libwebp rounds chroma once more while it upsamples, and blue doubles that
				}
			}
			sameWithin(t, got, want, tol)
		})
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRaw(t *testing.T) {
	for _, c := range []struct {
		format string
		w, h   int
		pix    []byte
		want   []byte
	}{
		{"rgb24", 2, 1, []byte{1, 2, 3, 4, 5, 6}, []byte{1, 2, 3, 4, 5, 6}},
		{"rgba32", 1, 2, []byte{1, 2, 3, 0, 4, 5, 6, 9}, []byte{1, 2, 3, 4, 5, 6}},
		{"gray8", 2, 1, []byte{7, 8}, []byte{7, 7, 7, 8, 8, 8}},
		{"gray16le", 2, 1, []byte{255, 7, 0, 8}, []byte{7, 7, 7, 8, 8, 8}},
		{"rgb24", 2, 1, []byte{1, 2, 3, 4, 5}, nil},
		{"rgb24", 0, 1, nil, nil},
		{"rgb24", -1, -1, []byte{1, 2, 3}, nil},
		{"gray8", 1 << 62, 4, nil, nil},
		{"gray8", 1 << 32, 1 << 32, nil, nil},
		{"yuv", 1, 1, []byte{1}, nil},
	} {
		m, err := Raw(c.format, c.w, c.h, c.pix)
		if c.want == nil {
			if fe := (*FormatError)(nil); !errors.As(err, &fe) {
				t.Errorf("%s %dx%d: error %v, want a FormatError", c.format, c.w, c.h, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(m.Pix, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.format, m, err, c.want)
		}
	}
}

func encodePNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// claim is a PNG header that says w x h of 8-bit RGBA, and a few bytes of data.
func claim(w, h uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint32(b, h)
	b = append(b, 8, 6, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
	return append(b, "\x00\x00\x00\x04IDAT\x78\x9c\x00\x00\x00\x00\x00\x00"...)
}

func TestDecodeRefuses(t *testing.T) {
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, image.NewGray(image.Rect(0, 0, 64, 64)), nil); err != nil {
		t.Fatal(err)
	}
	wide := bytes.Clone(jpg.Bytes())
	if i := bytes.Index(wide, []byte{0xff, 0xc0}); i > 0 {
		binary.BigEndian.PutUint16(wide[i+5:], 60000)
		binary.BigEndian.PutUint16(wide[i+7:], 1000)
	}
	scans := bytes.Clone(jpg.Bytes())
	if i := bytes.Index(scans, []byte{0xff, 0xda}); i > 0 {
		sos := bytes.Clone(scans[i : i+10])
		scans = append(scans[:i:i], bytes.Repeat(sos, 5000)...)
	}
	for _, c := range []struct {
		name, reason string
		b            []byte
		lim          Limits
	}{
		{"empty", "no bytes", nil, Limits{}},
		{"text", "not a PNG", []byte("hello, this is no picture"), Limits{}},
		{"huge PNG", "limit", claim(100000, 100000), Limits{}},
		{"PNG within the limit, but hollow", "truncated", claim(8000, 8000), Limits{}},
		{"PNG over a small limit", "limit", encodePNG(t, image.NewGray(image.Rect(0, 0, 20, 20))), Limits{MaxPixels: 399}},
		{"PNG of no pixels", "", claim(0, 5), Limits{}},
		{"truncated PNG", "not enough", encodePNG(t, image.NewRGBA(image.Rect(0, 0, 64, 64)))[:60], Limits{}},
		{"truncated JPEG", "short", jpg.Bytes()[:jpg.Len()-20], Limits{}},
		{"JPEG of two bytes", "", []byte{0xff, 0xd8}, Limits{}},
		{"hollow JPEG", "truncated", wide, Limits{}},
		{"JPEG of many scans", "scans", scans, Limits{}},
		{"TIFF header", "", []byte("II*\x00\x08\x00\x00\x00"), Limits{}},
		{"TIFF with a directory far away", "", []byte("II*\x00\xff\xff\xff\xff\x00\x00"), Limits{}},
		{"BMP header", "", []byte("BM\x00\x00"), Limits{}},
		{"WebP header", "", []byte("RIFF\x10\x00\x00\x00WEBPVP8L"), Limits{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m, err := Decode(c.b, c.lim)
			runtime.ReadMemStats(&after)
			fe := (*FormatError)(nil)
			if !errors.As(err, &fe) {
				t.Fatalf("got %v, %v, want a FormatError", m, err)
			}
			if fe.Field != "image" || fe.Reason == "" || !strings.Contains(fe.Reason, c.reason) {
				t.Errorf("got field %q, reason %q, want image, …%s…", fe.Field, fe.Reason, c.reason)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("took %d bytes for it", n)
			}
			if _, err := DecodeMask(c.b, c.lim); !errors.As(err, &fe) || fe.Field != "mask" {
				t.Errorf("as a mask: %v, want a FormatError of field mask", err)
			}
		})
	}
}

// Every prefix of every reference file gives an error or a picture, and no error is of another type.
func TestDecodePrefixes(t *testing.T) {
	files, _ := filepath.Glob("testdata/decode/*")
	for _, path := range files {
		b := read(t, path)
		for n := 0; n < len(b); n += 1 + len(b)/60 {
			_, err := Decode(b[:n], Limits{})
			if fe := (*FormatError)(nil); err != nil && !errors.As(err, &fe) {
				t.Fatalf("%s cut to %d: %v", path, n, err)
			}
		}
	}
}

func TestDecode4K(t *testing.T) {
	src := image.NewGray(image.Rect(0, 0, 3840, 2160))
	for i := range src.Pix {
		src.Pix[i] = byte(i * 7)
	}
	m := mustDecode(t, encodePNG(t, src))
	if m.W != 3840 || m.H != 2160 || m.Pix[3*5000] != src.Pix[5000] {
		t.Fatalf("got %dx%d", m.W, m.H)
	}
}

// The mask of a picture is 1 from gray 128 on.
func TestDecodeMask(t *testing.T) {
	g := image.NewGray(image.Rect(0, 0, 256, 1))
	for i := range g.Pix {
		g.Pix[i] = byte(i)
	}
	m, err := DecodeMask(encodePNG(t, g), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range m.Pix {
		if want := byte(i / 128); v != want {
			t.Fatalf("gray %d becomes %d, want %d", i, v, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/decode/*")
	for _, path := range files {
		f.Add(read(f, path))
	}
	f.Add(claim(100000, 100000))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b, Limits{MaxPixels: 1 << 20})
		if fe := (*FormatError)(nil); err != nil && !errors.As(err, &fe) {
			t.Fatalf("error of type %T: %v", err, err)
		}
		if err == nil {
			if err := m.check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzDecodeMask(f *testing.F) {
	f.Add(NewMask(3, 2).PNG())
	files, _ := filepath.Glob("testdata/decode/gray*")
	for _, path := range files {
		f.Add(read(f, path))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMask(b, Limits{MaxPixels: 1 << 20})
		if fe := (*FormatError)(nil); err != nil && !errors.As(err, &fe) {
			t.Fatalf("error of type %T: %v", err, err)
		}
		if err == nil && (len(m.Pix) != m.W*m.H || m.W*m.H > 1<<20) {
			t.Fatalf("%d pixels for %dx%d", len(m.Pix), m.W, m.H)
		}
	})
}
