package vision

import (
	"encoding/binary"
)

// A TIFF header and its first directory: what an EXIF block and a TIFF file have in common.
type ifd struct {
	order   byteOrder
	b       []byte
	entries []byte // 12 bytes each: tag, type, count, value or offset
}

// byteOrder is what binary.LittleEndian and binary.BigEndian are.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

const (
	tagBitsPerSample   = 258
	tagPhotometric     = 262
	tagOrientation     = 274
	tagSamplesPerPixel = 277
	tagPlanarConfig    = 284
)

// readIFD reads the first directory. ok is false if there is none, or not all of it.
func readIFD(b []byte) (d ifd, ok bool) {
	if len(b) < 8 {
		return d, false
	}
	switch string(b[:4]) {
	case "II*\x00":
		d.order = binary.LittleEndian
	case "MM\x00*":
		d.order = binary.BigEndian
	default:
		return d, false
	}
	at := uint64(d.order.Uint32(b[4:]))
	if at+2 > uint64(len(b)) {
		return d, false
	}
	n := uint64(d.order.Uint16(b[at:])) * 12
	if at+2+n > uint64(len(b)) {
		return d, false
	}
	d.b, d.entries = b, b[at+2:at+2+n]
	return d, true
}

// entry finds a tag's 12 bytes, or nil.
func (d ifd) entry(tag uint16) []byte {
	for e := d.entries; len(e) >= 12; e = e[12:] {
		if d.order.Uint16(e) == tag {
			return e[:12]
		}
	}
	return nil
}

// short is the first value of a SHORT or LONG entry, or def if there is none.
func (d ifd) short(tag uint16, def int) int {
	e := d.entry(tag)
	if e == nil {
		return def
	}
	n := d.order.Uint32(e[4:])
	switch kind := d.order.Uint16(e[2:]); {
	case kind == 3 && n >= 1 && n <= 2:
		return int(d.order.Uint16(e[8:]))
	case kind == 3 && n > 2:
		if at := uint64(d.order.Uint32(e[8:])); at+2 <= uint64(len(d.b)) {
			return int(d.order.Uint16(d.b[at:]))
		}
	case kind == 4 && n == 1:
		return int(d.order.Uint32(e[8:]))
	}
	return def
}

// exifOrientation is the orientation, 1 to 8, that an EXIF block (from its TIFF header on) gives; 1 if it gives none.
func exifOrientation(b []byte) int {
	d, ok := readIFD(b)
	if !ok {
		return 1
	}
	return d.orientation()
}

func (d ifd) orientation() int {
	if o := d.short(tagOrientation, 1); o >= 1 && o <= 8 {
		return o
	}
	return 1
}

// orient turns an image upright. Orientation is EXIF's: where the first row and the first column of the file belong
// (1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top, 7 right bottom, 8 left bottom).
func orient(m *Image, orientation int) *Image {
	if orientation <= 1 || orientation > 8 {
		return m
	}
	w, h := m.W, m.H
	if orientation >= 5 {
		w, h = h, w
	}
	out := NewImage(w, h)
	for y := range h {
		for x := range w {
			sx, sy := x, y
			switch orientation {
			case 2:
				sx = w - 1 - x
			case 3:
				sx, sy = w-1-x, h-1-y
			case 4:
				sy = h - 1 - y
			case 5:
				sx, sy = y, x
			case 6:
				sx, sy = y, w-1-x
			case 7:
				sx, sy = h-1-y, w-1-x
			case 8:
				sx, sy = h-1-y, x
			}
			d, s := 3*(y*w+x), 3*(sy*m.W+sx)
			copy(out.Pix[d:d+3], m.Pix[s:s+3])
		}
	}
	return out
}
