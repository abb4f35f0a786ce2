package vision

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// format is one kind of file: how it begins, and who reads it.
type format struct {
	name   string
	magics []string // '?' matches any byte
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
	// fix prepares the bytes for decode and gives the EXIF orientation, 1 where there is none.
	fix func(b []byte) (fixed []byte, orientation int, err error)
	// plausible refuses sizes that so few bytes cannot hold; nil if a few bytes can hold anything.
	plausible func(b []byte, w, h int) bool
}

var formats = []format{
	{"PNG", []string{"\x89PNG\r\n\x1a\n"}, png.DecodeConfig, png.Decode, pngOrientation, plausiblePNG},
	{"JPEG", []string{"\xff\xd8"}, jpeg.DecodeConfig, jpeg.Decode, scanJPEG, plausibleJPEG},
	{"TIFF", []string{"II*\x00", "MM\x00*"}, tiff.DecodeConfig, tiff.Decode, fixTIFF, nil},
	{"BMP", []string{"BM"}, bmp.DecodeConfig, bmp.Decode, upright, plausibleBMP},
	{"WebP", []string{"RIFF????WEBP"}, webp.DecodeConfig, webp.Decode, webpOrientation, nil},
}

func upright(b []byte) ([]byte, int, error) { return b, 1, nil }

func sniff(b []byte) *format {
	for i := range formats {
		for _, m := range formats[i].magics {
			if len(b) < len(m) {
				continue
			}
			ok := true
			for j := range len(m) {
				ok = ok && (m[j] == '?' || m[j] == b[j])
			}
			if ok {
				return &formats[i]
			}
		}
	}
	return nil
}

// Decode reads a PNG, JPEG, TIFF, BMP or WebP file and turns it upright by its EXIF orientation.
//
// Gray becomes three equal channels, palettes and CMYK become RGB, 16 bits become 8 by keeping the upper byte. Alpha is
// dropped and the colour kept as stored: nothing is composited. Of several pages or frames the first is read. The size is
// checked against lim from the header, before memory for pixels is taken. Every error is a *FormatError.
func Decode(b []byte, lim Limits) (*Image, error) {
	src, f, orientation, err := open(b, lim)
	if err != nil {
		return nil, err
	}
	return orient(toRGB(src, f.name == "WebP"), orientation), nil
}

// open decodes a file into whatever pixels it holds, and says how they lie.
func open(b []byte, lim Limits) (src image.Image, f *format, orientation int, err error) {
	if len(b) == 0 {
		return nil, nil, 0, badImage("no bytes")
	}
	if f = sniff(b); f == nil {
		return nil, nil, 0, badImage("not a PNG, JPEG, TIFF, BMP or WebP file")
	}
	// The decoders read what strangers send; a panic in one of them is the file's fault as far as a caller can act on it.
	defer func() {
		if v := recover(); v != nil {
			src, err = nil, badImage("decoding %s: %v", f.name, v)
		}
	}()
	if b, orientation, err = f.fix(b); err != nil {
		return nil, nil, 0, reason(f, err)
	}
	cfg, err := f.config(bytes.NewReader(b))
	if err != nil {
		return nil, nil, 0, reason(f, err)
	}
	if err := lim.check(cfg.Width, cfg.Height); err != nil {
		return nil, nil, 0, err
	}
	if f.plausible != nil && !f.plausible(b, cfg.Width, cfg.Height) {
		return nil, nil, 0, badImage("decoding %s: truncated: %d bytes cannot hold %d x %d pixels", f.name, len(b), cfg.Width, cfg.Height)
	}
	if src, err = f.decode(bytes.NewReader(b)); err != nil {
		return nil, nil, 0, reason(f, err)
	}
	// A decoder that disagrees with its own header would escape the limit.
	if err := lim.check(src.Bounds().Dx(), src.Bounds().Dy()); err != nil {
		return nil, nil, 0, err
	}
	return src, f, orientation, nil
}

func reason(f *format, err error) error {
	if fe := (*FormatError)(nil); errors.As(err, &fe) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badImage("decoding %s: truncated", f.name)
	}
	return badImage("decoding %s: %v", f.name, err)
}

// plausiblePNG knows that deflate shrinks at most 1032-fold.
func plausiblePNG(b []byte, w, h int) bool {
	if len(b) < 33 {
		return true // the decoder will say what is missing
	}
	channels := map[byte]int{0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[b[25]]
	bits := uint64(w) * uint64(h) * uint64(channels) * uint64(b[24])
	return bits/8 <= 1032*uint64(len(b))
}

// plausibleJPEG knows that each 8x8 block takes at least one bit, for its DC coefficient.
func plausibleJPEG(b []byte, w, h int) bool { return uint64(w)*uint64(h) <= 8*64*uint64(len(b)) }

// plausibleBMP knows that the BMPs that are read are not compressed. 8 bits a pixel is the least of them.
func plausibleBMP(b []byte, w, h int) bool { return uint64(w)*uint64(h) <= 8*uint64(len(b)) }

// maxScans bounds the passes of a progressive JPEG: each may cost a sweep over the whole picture for a few bytes, so a
// small file could keep a core busy for minutes. Encoders write about ten.
const maxScans = 128

// scanJPEG walks the segments for the EXIF orientation and counts the scans.
func scanJPEG(b []byte) ([]byte, int, error) {
	orientation, scans := 1, 0
	for i := 2; i+4 <= len(b); {
		if b[i] != 0xff { // entropy-coded data, or padding
			j := bytes.IndexByte(b[i:], 0xff)
			if j < 0 {
				break
			}
			i += j
			continue
		}
		marker := b[i+1]
		if marker == 0xff {
			i++
			continue
		}
		if marker == 0 || marker == 1 || marker >= 0xd0 && marker <= 0xd8 { // stuffing, TEM, RSTn, SOI: no length
			i += 2
			continue
		}
		if marker == 0xd9 {
			break
		}
		n := int(b[i+2])<<8 | int(b[i+3])
		end := min(i+2+max(n, 2), len(b))
		switch seg := b[i+4 : max(end, i+4)]; {
		case marker == 0xda:
			if scans++; scans > maxScans {
				return nil, 0, fmt.Errorf("more than %d scans", maxScans)
			}
		case marker == 0xe1 && bytes.HasPrefix(seg, []byte("Exif\x00\x00")) && orientation == 1:
			orientation = exifOrientation(seg[6:])
		}
		i = end
	}
	return b, orientation, nil
}

// pngOrientation finds an eXIf chunk.
func pngOrientation(b []byte) ([]byte, int, error) {
	for i := 8; i+8 <= len(b); {
		n := int(b[i])<<24 | int(b[i+1])<<16 | int(b[i+2])<<8 | int(b[i+3])
		if n > len(b)-i-8 {
			break
		}
		if string(b[i+4:i+8]) == "eXIf" {
			return b, exifOrientation(b[i+8 : i+8+n]), nil
		}
		i += 12 + n
	}
	return b, 1, nil
}

// webpOrientation finds an EXIF chunk.
func webpOrientation(b []byte) ([]byte, int, error) {
	for i := 12; i+8 <= len(b); {
		n := int(b[i+4]) | int(b[i+5])<<8 | int(b[i+6])<<16 | int(b[i+7])<<24
		if n > len(b)-i-8 {
			break
		}
		if string(b[i:i+4]) == "EXIF" {
			return b, exifOrientation(bytes.TrimPrefix(b[i+8:i+8+n], []byte("Exif\x00\x00"))), nil
		}
		i += 8 + n + n&1
	}
	return b, 1, nil
}
