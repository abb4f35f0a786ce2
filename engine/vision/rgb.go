package vision

import (
	"image"
	"image/color"
)

// toRGB copies a decoded picture into RGB: colours as stored, alpha dropped, 16 bits cut to the upper 8. studio says that
// luma runs from 16 to 235, as in WebP; Go's type for both does not tell.
func toRGB(src image.Image, studio bool) *Image {
	b := src.Bounds()
	w, h := b.Dx(), b.Dy()
	m := NewImage(w, h)
	row := func(y int) []byte { return m.Pix[3*y*w : 3*(y+1)*w] }
	switch s := src.(type) {
	case *image.YCbCr:
		ycbcrToRGB(m, s, studio)
	case *image.NYCbCrA:
		ycbcrToRGB(m, &s.YCbCr, studio)
	case *image.Gray:
		for y := range h {
			grayRow(row(y), s.Pix[y*s.Stride:], 1)
		}
	case *image.Gray16:
		for y := range h {
			grayRow(row(y), s.Pix[y*s.Stride:], 2) // big-endian: the upper byte comes first
		}
	case *image.RGBA:
		for y := range h {
			dropAlpha(row(y), s.Pix[y*s.Stride:y*s.Stride+4*w])
		}
	case *image.NRGBA:
		for y := range h {
			dropAlpha(row(y), s.Pix[y*s.Stride:y*s.Stride+4*w])
		}
	case *image.RGBA64:
		for y := range h {
			upperBytes(row(y), s.Pix[y*s.Stride:])
		}
	case *image.NRGBA64:
		for y := range h {
			upperBytes(row(y), s.Pix[y*s.Stride:])
		}
	case *image.Paletted:
		palette := make([][3]byte, 256) // an index past the palette is black, as in libpng
		for i, c := range s.Palette[:min(len(s.Palette), 256)] {
			palette[i] = stored(c)
		}
		for y := range h {
			r := row(y)
			for x, i := range s.Pix[y*s.Stride : y*s.Stride+w] {
				copy(r[3*x:3*x+3], palette[i][:])
			}
		}
	case *image.CMYK:
		for y := range h {
			r, p := row(y), s.Pix[y*s.Stride:]
			for x := range w {
				r[3*x], r[3*x+1], r[3*x+2] = color.CMYKToRGB(p[4*x], p[4*x+1], p[4*x+2], p[4*x+3])
			}
		}
	default:
		for y := range h {
			r := row(y)
			for x := range w {
				c := stored(src.At(b.Min.X+x, b.Min.Y+y))
				copy(r[3*x:3*x+3], c[:])
			}
		}
	}
	return m
}

// stored is a colour without its alpha.
func stored(c color.Color) [3]byte {
	switch c := c.(type) {
	case color.RGBA:
		return [3]byte{c.R, c.G, c.B}
	case color.NRGBA:
		return [3]byte{c.R, c.G, c.B}
	case color.NRGBA64:
		return [3]byte{byte(c.R >> 8), byte(c.G >> 8), byte(c.B >> 8)}
	}
	r, g, b, _ := c.RGBA()
	return [3]byte{byte(r >> 8), byte(g >> 8), byte(b >> 8)}
}

func grayRow(rgb, src []byte, step int) {
	for i, j := 0, 0; i < len(rgb); i, j = i+3, j+step {
		v := src[j]
		rgb[i], rgb[i+1], rgb[i+2] = v, v, v
	}
}

func upperBytes(rgb, src []byte) {
	for i, j := 0, 0; i < len(rgb); i, j = i+3, j+8 {
		rgb[i], rgb[i+1], rgb[i+2] = src[j], src[j+2], src[j+4]
	}
}

// ycbcrToRGB converts a JPEG's or WebP's planes. Halved chroma is brought up by the triangle filter of libjpeg ("fancy
// upsampling"), so that pixels equal those of OpenCV, Pillow and PyTorch to about one grey level; Go's own conversion
// repeats each sample.
func ycbcrToRGB(m *Image, s *image.YCbCr, studio bool) {
	w, h := m.W, m.H
	sx, sy, ok := subsampling(s.SubsampleRatio)
	if !ok || s.Rect.Min != (image.Point{}) {
		for y := range h {
			for x := range w {
				c := s.YCbCrAt(s.Rect.Min.X+x, s.Rect.Min.Y+y)
				o := 3 * (y*w + x)
				m.Pix[o], m.Pix[o+1], m.Pix[o+2] = color.YCbCrToRGB(c.Y, c.Cb, c.Cr)
			}
		}
		return
	}
	cw, ch := (w+sx-1)/sx, (h+sy-1)/sy
	cb, cr := make([]byte, 2*cw), make([]byte, 2*cw)
	sum := make([]int, cw)
	for y := range h {
		upsampleRow(cb, sum, s.Cb, s.CStride, cw, ch, y, sx, sy)
		upsampleRow(cr, sum, s.Cr, s.CStride, cw, ch, y, sx, sy)
		ys, d := s.Y[y*s.YStride:y*s.YStride+w], m.Pix[3*y*w:3*(y+1)*w]
		if studio {
			for x, v := range ys {
				d[3*x], d[3*x+1], d[3*x+2] = studioRGB(int(v), int(cb[x]), int(cr[x]))
			}
			continue
		}
		for x, v := range ys {
			// ITU-R BT.601 full range in 16-bit fixed point, as libjpeg's jdcolor.c.
			l, u, r := int(v), int(cb[x])-128, int(cr[x])-128
			d[3*x] = clip8(l + (91881*r+1<<15)>>16)
			d[3*x+1] = clip8(l + (-22554*u-46802*r+1<<15)>>16)
			d[3*x+2] = clip8(l + (116130*u+1<<15)>>16)
		}
	}
}

// studioRGB is ITU-R BT.601 for luma of 16 to 235, in the fixed point of libwebp's yuv.h.
func studioRGB(y, u, v int) (r, g, b byte) {
	y = y * 19077 >> 8
	r = clip8((y + v*26149>>8 - 14234) >> 6)
	g = clip8((y - u*6419>>8 - v*13320>>8 + 8708) >> 6)
	b = clip8((y + u*33050>>8 - 17685) >> 6)
	return r, g, b
}

func subsampling(r image.YCbCrSubsampleRatio) (sx, sy int, ok bool) {
	switch r {
	case image.YCbCrSubsampleRatio444:
		return 1, 1, true
	case image.YCbCrSubsampleRatio422:
		return 2, 1, true
	case image.YCbCrSubsampleRatio420:
		return 2, 2, true
	}
	return 0, 0, false
}

// upsampleRow gives row y of a chroma plane at full width. It follows h2v1_fancy_upsample and h2v2_fancy_upsample of
// libjpeg's jdsample.c: 3/4 of the near sample, 1/4 of the far one, in each direction, rounded alternately.
func upsampleRow(dst []byte, sum []int, plane []byte, stride, cw, ch, y, sx, sy int) {
	near := plane[y/sy*stride : y/sy*stride+cw]
	if sx == 1 {
		copy(dst, near)
		return
	}
	shift, up, down := 2, 1, 2 // rounding of left and right pixels
	if sy == 1 {
		for i, v := range near {
			sum[i] = int(v)
		}
	} else {
		fy := y/2 - 1 + y&1*2
		fy = min(max(fy, 0), ch-1)
		far := plane[fy*stride : fy*stride+cw]
		for i, v := range near {
			sum[i] = 3*int(v) + int(far[i])
		}
		shift, up, down = 4, 8, 7
	}
	for i, v := range sum {
		l, r := sum[max(i-1, 0)], sum[min(i+1, cw-1)]
		dst[2*i], dst[2*i+1] = byte((3*v+l+up)>>shift), byte((3*v+r+down)>>shift)
	}
}

func clip8(v int) byte { return byte(min(max(v, 0), 255)) }
