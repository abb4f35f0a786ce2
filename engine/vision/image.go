package vision

import (
	"fmt"
)

// Image is an upright picture in RGB, 8 bits a channel, 3 bytes a pixel, rows from the top without padding.
type Image struct {
	W, H int
	Pix  []byte
}

// NewImage returns a black image of w x h pixels.
func NewImage(w, h int) *Image { return &Image{W: w, H: h, Pix: make([]byte, 3*w*h)} }

// check says whether a caller's image is whole.
func (m *Image) check() error {
	if m == nil || m.W <= 0 || m.H <= 0 || len(m.Pix) != 3*m.W*m.H {
		return &FormatError{Field: "image", Reason: "image is empty or its pixels do not fill its size"}
	}
	return nil
}

// Limits bounds what a file may ask for. The zero value is the default.
type Limits struct {
	// MaxPixels is the largest width x height that is decoded; 0 means 64 Mpx (2^26).
	MaxPixels int
}

// DefaultMaxPixels is the limit of the zero Limits: 2^26 pixels, 8192 x 8192.
const DefaultMaxPixels = 1 << 26

func (l Limits) maxPixels() int {
	if l.MaxPixels <= 0 {
		return DefaultMaxPixels
	}
	return l.MaxPixels
}

// check refuses sizes that are empty or above the limit. It runs on the header, before anything is allocated.
func (l Limits) check(w, h int) error {
	if w <= 0 || h <= 0 {
		return badImage("image is %d x %d pixels", w, h)
	}
	if limit := l.maxPixels(); w > limit/h {
		return badImage("image is %d x %d pixels, the limit is %d", w, h, limit)
	}
	return nil
}

// FormatError says that bytes from outside (an image, a setting) are not what they must be. Field is the part of the
// request that is wrong (image, preprocess.size, …) and Reason a sentence for the caller, as in a gRPC BadRequest.
type FormatError struct {
	Field, Reason string
}

func (e *FormatError) Error() string { return e.Field + ": " + e.Reason }

func badImage(format string, args ...any) error {
	return &FormatError{Field: "image", Reason: fmt.Sprintf(format, args...)}
}

// Raw takes pixels without a header, row by row from the top, unpadded: "rgb24" (3 bytes a pixel), "rgba32" (4; alpha is
// dropped, the colour kept as stored), "gray8" (1) and "gray16le" (2, little-endian; the upper byte is kept).
func Raw(format string, w, h int, pix []byte) (*Image, error) {
	size, ok := map[string]int{"rgb24": 3, "rgba32": 4, "gray8": 1, "gray16le": 2}[format]
	if !ok {
		return nil, &FormatError{"image.format", fmt.Sprintf("unknown raw format %q; rgb24, rgba32, gray8 and gray16le are known", format)}
	}
	// The division keeps w*h*size from overflowing: what does not fit in pix is refused before it is multiplied.
	if w <= 0 || h <= 0 || w > len(pix)/h/size || w*h*size != len(pix) {
		return nil, badImage("%d bytes do not fill %d x %d pixels of %s", len(pix), w, h, format)
	}
	m := NewImage(w, h)
	switch format {
	case "rgb24":
		copy(m.Pix, pix)
	case "rgba32":
		dropAlpha(m.Pix, pix)
	case "gray8":
		for i, v := range pix {
			m.setGray(i, v)
		}
	case "gray16le":
		for i := range w * h {
			m.setGray(i, pix[2*i+1])
		}
	}
	return m, nil
}

func dropAlpha(rgb, rgba []byte) {
	for i, j := 0, 0; j+3 < len(rgba); i, j = i+3, j+4 {
		rgb[i], rgb[i+1], rgb[i+2] = rgba[j], rgba[j+1], rgba[j+2]
	}
}

func (m *Image) setGray(i int, v byte) { m.Pix[3*i], m.Pix[3*i+1], m.Pix[3*i+2] = v, v, v }

// gray is the luma of ITU-R BT.601, rounded as OpenCV's RGB2GRAY (14-bit fixed point).
func gray(r, g, b byte) byte {
	return byte((int(r)*4899 + int(g)*9617 + int(b)*1868 + 1<<13) >> 14)
}
