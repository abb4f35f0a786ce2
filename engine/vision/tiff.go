package vision

import (
	"errors"
)

// fixTIFF mends a tag combination that x/image/tiff refuses: BlackIsZero (or no interpretation at all) with three samples
// a pixel, which CVC-ClinicDB's files have. Three samples are RGB. Files with one BitsPerSample for three samples are
// mended too. The mended directory goes to the end of a copy, so that no offset in the file moves.
func fixTIFF(b []byte) ([]byte, int, error) {
	d, ok := readIFD(b)
	if !ok {
		return nil, 0, errors.New("truncated directory")
	}
	samples := d.short(tagSamplesPerPixel, 1)
	if samples > 1 && d.short(tagPlanarConfig, 1) != 1 {
		return nil, 0, errors.New("separate colour planes are not supported")
	}
	const blackIsZero, rgb = 1, 2
	bits := d.entry(tagBitsPerSample)
	oneDepth := bits != nil && d.order.Uint32(bits[4:]) == 1
	photo := d.short(tagPhotometric, blackIsZero)
	if samples != 3 || photo != blackIsZero && !(photo == rgb && oneDepth) {
		return b, d.orientation(), nil
	}
	out := append(make([]byte, 0, len(b)+len(d.entries)+64), b...)
	out = append(out, make([]byte, len(out)&1)...) // offsets are even
	depths := len(out)
	for range 3 {
		out = d.order.AppendUint16(out, uint16(d.short(tagBitsPerSample, 8)))
	}
	at := len(out)
	if uint64(at) > 1<<32-1 {
		return nil, 0, errors.New("file is too large")
	}
	out = append(out, 0, 0)
	count := 0
	add := func(tag, kind uint16, n, value uint32) {
		out = d.order.AppendUint16(out, tag)
		out = d.order.AppendUint16(out, kind)
		out = d.order.AppendUint32(out, n)
		if kind == 3 && n == 1 {
			out = d.order.AppendUint16(out, uint16(value))
			out = append(out, 0, 0)
		} else {
			out = d.order.AppendUint32(out, value)
		}
		count++
	}
	var wroteBits, wrotePhoto bool
	// Directories are sorted by tag; both tags go in at their place whether or not the file had them.
	before := func(tag uint16) {
		if tag > tagBitsPerSample && !wroteBits {
			add(tagBitsPerSample, 3, 3, uint32(depths))
			wroteBits = true
		}
		if tag > tagPhotometric && !wrotePhoto {
			add(tagPhotometric, 3, 1, rgb)
			wrotePhoto = true
		}
	}
	for e := d.entries; len(e) >= 12; e = e[12:] {
		tag := d.order.Uint16(e)
		before(tag)
		if tag == tagBitsPerSample || tag == tagPhotometric {
			continue
		}
		out = append(out, e[:12]...)
		count++
	}
	before(1<<16 - 1)
	out = append(out, 0, 0, 0, 0) // no further directory
	d.order.PutUint16(out[at:], uint16(count))
	d.order.PutUint32(out[4:], uint32(at))
	return out, d.orientation(), nil
}
