package vision

import (
	"fmt"
	"math"
	"slices"
)

// resizers names the ways to bring an image to another size. Each follows the library that models are trained with, so
// that a served pixel is the pixel of training, to one grey level.
var resizers = map[string]func(dst, src *Image){
	"area":               resizeArea,      // OpenCV INTER_AREA
	"bilinear":           resizeBilinear,  // OpenCV INTER_LINEAR
	"bilinear-antialias": resizeAntialias, // Pillow BILINEAR
	"nearest":            resizeNearest,   // OpenCV INTER_NEAREST
}

// Resize brings an image to w x h pixels, by the name of a method: area, bilinear, bilinear-antialias or nearest.
func Resize(img *Image, w, h int, method string) (*Image, error) {
	f, ok := resizers[method]
	if !ok {
		return nil, &FormatError{"preprocess.resize", fmt.Sprintf("unknown method %q; area, bilinear, bilinear-antialias and nearest are known", method)}
	}
	if err := img.check(); err != nil {
		return nil, err
	}
	if w <= 0 || h <= 0 || w > DefaultMaxPixels/h {
		return nil, &FormatError{"preprocess.size", fmt.Sprintf("cannot resize to %d x %d", w, h)}
	}
	if w == img.W && h == img.H {
		return &Image{W: w, H: h, Pix: slices.Clone(img.Pix)}, nil
	}
	dst := NewImage(w, h)
	f(dst, img)
	return dst, nil
}

func resizeNearest(dst, src *Image) {
	xs := make([]int, dst.W)
	for x := range xs {
		xs[x] = 3 * (x * src.W / dst.W)
	}
	for y := range dst.H {
		s := src.Pix[3*src.W*(y*src.H/dst.H):]
		d := dst.Pix[3*dst.W*y : 3*dst.W*(y+1)]
		for x, o := range xs {
			d[3*x], d[3*x+1], d[3*x+2] = s[o], s[o+1], s[o+2]
		}
	}
}

// span is the part of the source that one target pixel covers: first and last pixel with their shares, and count whole
// pixels from at on between them, each with share whole.
type span struct {
	first, last, at, count int
	wFirst, wLast, wWhole  float32
}

// areaSpans is OpenCV's computeResizeAreaTab: shares are parts of a pixel's width over the target pixel's width.
func areaSpans(src, dst int) []span {
	scale := float64(src) / float64(dst)
	spans := make([]span, dst)
	for d := range spans {
		f1 := float64(d) * scale
		f2 := f1 + scale
		cell := min(scale, float64(src)-f1)
		s1, s2 := int(math.Ceil(f1)), min(int(math.Floor(f2)), src-1)
		s1 = min(s1, s2)
		sp := span{at: s1, count: s2 - s1, wWhole: float32(1 / cell)}
		if float64(s1)-f1 > 1e-3 {
			sp.first, sp.wFirst = s1-1, float32((float64(s1)-f1)/cell)
		}
		if f2-float64(s2) > 1e-3 {
			sp.last, sp.wLast = s2, float32(min(f2-float64(s2), 1, cell)/cell)
		}
		spans[d] = sp
	}
	return spans
}

func resizeArea(dst, src *Image) {
	if dst.W > src.W || dst.H > src.H {
		resizeLinear(dst, src, areaTaps) // so does OpenCV where either side grows
		return
	}
	xs, ys := areaSpans(src.W, dst.W), areaSpans(src.H, dst.H)
	row, acc := make([]float32, 3*dst.W), make([]float32, 3*dst.W)
	have := -1 // the source row that row holds; neighbouring targets share one
	shrink := func(y int) {
		if y != have {
			shrinkRow(row, src.Pix[3*src.W*y:3*src.W*(y+1)], xs)
			have = y
		}
	}
	for y, sp := range ys {
		clear(acc)
		add := func(sy int, w float32) {
			shrink(sy)
			for i, v := range row {
				acc[i] += w * v
			}
		}
		if sp.wFirst != 0 {
			add(sp.first, sp.wFirst)
		}
		for k := range sp.count {
			add(sp.at+k, sp.wWhole)
		}
		if sp.wLast != 0 {
			add(sp.last, sp.wLast)
		}
		d := dst.Pix[3*dst.W*y : 3*dst.W*(y+1)]
		for i, v := range acc {
			d[i] = round8(v)
		}
	}
}

func shrinkRow(row []float32, src []byte, xs []span) {
	for x := range xs {
		sp := &xs[x]
		var r, g, b float32
		if sp.wFirst != 0 {
			p := src[3*sp.first : 3*sp.first+3]
			r, g, b = sp.wFirst*float32(p[0]), sp.wFirst*float32(p[1]), sp.wFirst*float32(p[2])
		}
		var ir, ig, ib int
		for p := src[3*sp.at : 3*(sp.at+sp.count)]; len(p) >= 3; p = p[3:] {
			ir += int(p[0])
			ig += int(p[1])
			ib += int(p[2])
		}
		r, g, b = r+sp.wWhole*float32(ir), g+sp.wWhole*float32(ig), b+sp.wWhole*float32(ib)
		if sp.wLast != 0 {
			p := src[3*sp.last : 3*sp.last+3]
			r, g, b = r+sp.wLast*float32(p[0]), g+sp.wLast*float32(p[1]), b+sp.wLast*float32(p[2])
		}
		row[3*x], row[3*x+1], row[3*x+2] = r, g, b
	}
}

// round8 rounds to the nearest grey level, ties to even, as OpenCV's saturate_cast on x86.
func round8(v float32) byte {
	// Adding 1.5*2^23 leaves no fraction bits: the addition itself rounds.
	const magic = 3 << 22
	return clip8(int(float32(v+magic) - magic))
}

// tap is a target pixel's two source pixels and the share of the second, in 1/2048.
type tap struct{ a, b, w int }

const tapOne = 2048 // OpenCV's INTER_RESIZE_COEF_SCALE

// linearTaps puts pixel centres at half-integers: OpenCV INTER_LINEAR.
func linearTaps(src, dst int) []tap {
	taps := make([]tap, dst)
	scale := float64(src) / float64(dst)
	for d := range taps {
		f := float32((float64(d)+0.5)*scale - 0.5)
		s := int(math.Floor(float64(f)))
		taps[d] = newTap(s, f-float32(s), src)
	}
	return taps
}

// areaTaps is what OpenCV's INTER_AREA does where a side grows: pixels are squares, blended only where a target straddles.
func areaTaps(src, dst int) []tap {
	taps := make([]tap, dst)
	scale, inv := float64(src)/float64(dst), float64(dst)/float64(src)
	for d := range taps {
		s := int(math.Floor(float64(d) * scale))
		f := float32(float64(d+1) - float64(s+1)*inv)
		if f <= 0 {
			f = 0
		} else {
			f -= float32(math.Floor(float64(f)))
		}
		taps[d] = newTap(s, f, src)
	}
	return taps
}

func newTap(s int, f float32, src int) tap {
	if s < 0 {
		s, f = 0, 0
	}
	if s >= src-1 {
		s, f = src-1, 0
	}
	return tap{a: s, b: min(s+1, src-1), w: int(math.RoundToEven(float64(f) * tapOne))}
}

func resizeBilinear(dst, src *Image) { resizeLinear(dst, src, linearTaps) }

func resizeLinear(dst, src *Image, taps func(src, dst int) []tap) {
	xs, ys := taps(src.W, dst.W), taps(src.H, dst.H)
	rows := [2][]int32{make([]int32, 3*dst.W), make([]int32, 3*dst.W)}
	have := [2]int{-1, -1}
	for y, t := range ys {
		if have[1] == t.a {
			rows[0], rows[1] = rows[1], rows[0]
			have[0], have[1] = have[1], have[0]
		}
		for k, sy := range [2]int{t.a, t.b} {
			if have[k] != sy {
				stretchRow(rows[k], src.Pix[3*src.W*sy:3*src.W*(sy+1)], xs)
				have[k] = sy
			}
		}
		d := dst.Pix[3*dst.W*y : 3*dst.W*(y+1)]
		wa, wb := int32(tapOne-t.w), int32(t.w)
		r0, r1 := rows[0][:len(d)], rows[1][:len(d)]
		for i := range d {
			// The shifts are those of OpenCV's fixed-point VResizeLinear.
			d[i] = byte(((wa * (r0[i] >> 4) >> 16) + (wb * (r1[i] >> 4) >> 16) + 2) >> 2)
		}
	}
}

func stretchRow(row []int32, src []byte, xs []tap) {
	for x, t := range xs {
		p, q := src[3*t.a:3*t.a+3], src[3*t.b:3*t.b+3]
		wa, wb := int32(tapOne-t.w), int32(t.w)
		row[3*x] = wa*int32(p[0]) + wb*int32(q[0])
		row[3*x+1] = wa*int32(p[1]) + wb*int32(q[1])
		row[3*x+2] = wa*int32(p[2]) + wb*int32(q[2])
	}
}

// window is a target pixel's weighted neighbourhood, weights in 1/2^22.
type window struct {
	at int
	w  []int32
}

const windowBits = 22 // Pillow's PRECISION_BITS: 32 - 8 - 2

// triangles is Pillow's precompute_coeffs with its bilinear filter: a triangle that widens with the reduction.
func triangles(src, dst int) []window {
	scale := float64(src) / float64(dst)
	support := max(scale, 1)
	ws := make([]window, dst)
	for d := range ws {
		center := (float64(d) + 0.5) * scale
		lo := max(int(center-support+0.5), 0)
		hi := min(int(center+support+0.5), src)
		w := make([]float64, hi-lo)
		total := 0.0
		for i := range w {
			w[i] = max(0, 1-math.Abs((float64(i+lo)-center+0.5)/support))
			total += w[i]
		}
		k := make([]int32, len(w))
		for i, v := range w {
			k[i] = int32(0.5 + v/total*(1<<windowBits))
		}
		ws[d] = window{lo, k}
	}
	return ws
}

// resizeAntialias goes across first and rounds to 8 bits, then down, as Pillow does.
func resizeAntialias(dst, src *Image) {
	mid := src
	if dst.W != src.W {
		mid = NewImage(dst.W, src.H)
		ws := triangles(src.W, dst.W)
		for y := range src.H {
			s, d := src.Pix[3*src.W*y:3*src.W*(y+1)], mid.Pix[3*dst.W*y:]
			for x := range ws {
				r, g, b := int32(1<<(windowBits-1)), int32(1<<(windowBits-1)), int32(1<<(windowBits-1))
				p := s[3*ws[x].at:]
				for i, k := range ws[x].w {
					r += k * int32(p[3*i])
					g += k * int32(p[3*i+1])
					b += k * int32(p[3*i+2])
				}
				d[3*x], d[3*x+1], d[3*x+2] = clip8(int(r>>windowBits)), clip8(int(g>>windowBits)), clip8(int(b>>windowBits))
			}
		}
	}
	if dst.H == src.H {
		copy(dst.Pix, mid.Pix)
		return
	}
	acc := make([]int32, 3*dst.W)
	for y, win := range triangles(src.H, dst.H) {
		for i := range acc {
			acc[i] = 1 << (windowBits - 1)
		}
		for j, k := range win.w {
			for i, v := range mid.Pix[3*dst.W*(win.at+j) : 3*dst.W*(win.at+j+1)] {
				acc[i] += k * int32(v)
			}
		}
		d := dst.Pix[3*dst.W*y : 3*dst.W*(y+1)]
		for i, v := range acc {
			d[i] = clip8(int(v >> windowBits))
		}
	}
}
