package vision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"strings"
	"testing"
)

// A mask of several classes written as PNG is the same mask when it is read as labels.
func TestLabelsRoundTrip(t *testing.T) {
	m := &Mask{W: 3, H: 2, Pix: []byte{0, 1, 2, 3, 2, 0}, Classes: 3}
	back, err := DecodeLabels(m.PNG(), 3, Limits{})
	if err != nil || !bytes.Equal(back.Pix, m.Pix) || back.Classes != 3 {
		t.Fatalf("%v, %v", back, err)
	}
}

// gray2 is a PNG of 2 bits a pixel, which Go's encoder does not write: 4 x 1 pixels of 0, 1, 2, 3.
func gray2() []byte {
	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		_ = binary.Write(&b, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		b.Write(body)
		_ = binary.Write(&b, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	chunk("IHDR", []byte{0, 0, 0, 4, 0, 0, 0, 1, 2, 0, 0, 0, 0})
	// zlib of one stored block: filter 0, then the pixels; with its Adler-32.
	chunk("IDAT", []byte{0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 0x1b, 0, 0x1d, 0, 0x1c})
	chunk("IEND", nil)
	return b.Bytes()
}

func TestDecodeLabels(t *testing.T) {
	rect := image.Rect(0, 0, 4, 1)
	pix := []byte{0, 1, 2, 1}
	gray := &image.Gray{Pix: pix, Stride: 4, Rect: rect}
	palette := &image.Paletted{Pix: pix, Stride: 4, Rect: rect, Palette: color.Palette{color.White, color.Black, color.RGBA{9, 200, 9, 255}}}
	rgb, coloured := image.NewRGBA(rect), image.NewRGBA(rect)
	for i, v := range pix {
		rgb.Set(i, 0, color.RGBA{v, v, v, 255})
		coloured.Set(i, 0, color.RGBA{v, 0, 0, 255})
	}
	deep := image.NewGray16(rect)
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, gray, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		file    []byte
		classes int
		want    []byte
		err     string
	}{
		{"gray", encodePNG(t, gray), 2, pix, ""},
		{"palette, whose colours do not matter", encodePNG(t, palette), 2, pix, ""},
		{"equal channels", encodePNG(t, rgb), 2, pix, ""},
		{"two bits", gray2(), 3, []byte{0, 1, 2, 3}, ""},
		{"beyond the classes", gray2(), 2, nil, "3, 0 has class 3"},
		{"colours", encodePNG(t, coloured), 2, nil, "1, 0 is a colour"},
		{"16 bits", encodePNG(t, deep), 2, nil, "not 16"},
		{"JPEG", jpg.Bytes(), 2, nil, "not a JPEG"},
		{"not an image", []byte("mask"), 2, nil, "not a PNG"},
		{"one class of 0 and 255", encodePNG(t, &image.Gray{Pix: []byte{0, 255, 255, 1}, Stride: 4, Rect: rect}), 1, []byte{0, 1, 1, 0}, ""},
		{"one class of 0 and 1", encodePNG(t, &image.Gray{Pix: []byte{0, 1, 1, 0}, Stride: 4, Rect: rect}), 1, []byte{0, 1, 1, 0}, ""},
		{"one class, dark noise", encodePNG(t, gray), 1, []byte{0, 0, 0, 0}, ""},
	} {
		m, err := DecodeLabels(c.file, c.classes, Limits{})
		if c.err != "" {
			if fe := (*FormatError)(nil); !errors.As(err, &fe) || fe.Field != "mask" || !strings.Contains(fe.Reason, c.err) {
				t.Errorf("%s: error %v, want one about the mask that says %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || !bytes.Equal(m.Pix, c.want) || m.Classes != c.classes {
			t.Errorf("%s: %v, %v; want %v", c.name, m, err, c.want)
		}
	}
	if _, err := DecodeLabels(encodePNG(t, gray), 2, Limits{MaxPixels: 3}); err == nil {
		t.Error("a mask over the limit is read")
	}
}

func FuzzDecodeLabels(f *testing.F) {
	f.Add(gray2())
	f.Add((&Mask{W: 2, H: 2, Pix: []byte{0, 1, 2, 0}, Classes: 2}).PNG())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeLabels(b, 3, Limits{MaxPixels: 1 << 20})
		if err != nil {
			if fe := (*FormatError)(nil); !errors.As(err, &fe) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		for _, v := range m.Pix {
			if v > 3 {
				t.Fatalf("class %d", v)
			}
		}
	})
}
