package vision

import (
	"fmt"
	"math"
	"slices"
)

// HD95 is how far apart the outlines of two masks of one size are, in pixels: the 95th percentile (nearest rank) of the
// distances from each pixel of one outline to the nearest of the other, the larger of both directions. A pixel is on the
// outline of a class if one of its four neighbours is of another class or outside the picture. With several classes it is
// that of the worst. It is 0 for two empty masks. If one alone is empty there is no distance, and the diagonal of the
// picture stands for it, which is more than any two outlines can have. Masks of different sizes panic.
func HD95(a, b *Mask) float64 {
	if a.W != b.W || a.H != b.H {
		panic(fmt.Sprintf("vision: the distance of a mask of %d x %d from one of %d x %d", a.W, a.H, b.W, b.H))
	}
	var seen [256]bool
	for _, m := range []*Mask{a, b} {
		for _, c := range m.Pix {
			seen[c] = true
		}
	}
	worst := 0.0
	for c := 1; c < len(seen); c++ {
		if seen[c] {
			worst = max(worst, hd95(a, b, byte(c)))
		}
	}
	return worst
}

func hd95(a, b *Mask, class byte) float64 {
	p, q := outline(a, class), outline(b, class)
	if len(p) == 0 || len(q) == 0 {
		return math.Hypot(float64(a.W), float64(a.H))
	}
	// Nothing outside the frame around both outlines is asked for.
	frame := around(slices.Concat(p, q), a.W)
	return math.Sqrt(float64(max(frame.percentile(p, q), frame.percentile(q, p))))
}

// outline lists the pixels of a class that have a neighbour of another, or the border, on one of four sides.
func outline(m *Mask, class byte) (at []int) {
	for y := range m.H {
		for x := range m.W {
			if i := y*m.W + x; m.Pix[i] == class && m.Edge(x, y, 1) {
				at = append(at, i)
			}
		}
	}
	return at
}

// frame is a part of a picture that is stride wide.
type frame struct{ x, y, w, h, stride int }

func around(at []int, stride int) frame {
	x0, y0, x1, y1 := stride, at[0]/stride, 0, 0
	for _, i := range at {
		x, y := i%stride, i/stride
		x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x), max(y1, y)
	}
	return frame{x0, y0, x1 - x0 + 1, y1 - y0 + 1, stride}
}

// percentile is the 95th of the squared distances from each of p to the nearest of q.
func (f frame) percentile(p, q []int) int {
	near := f.distances(p, q)
	slices.Sort(near)
	return near[(95*len(near)+99)/100-1]
}

// distances gives the squared Euclidean distance of each of p, which ascend, from the nearest of q, exactly and in a time
// that grows with the pixels alone: down the columns first, then along the rows by the lower envelope of parabolas
// (Felzenszwalb and Huttenlocher, Theory of Computing 2012; in whole numbers as Meijster et al., 2000).
func (f frame) distances(p, q []int) []int {
	far := int32(f.w + f.h) // farther than any pixel is
	d := make([]int32, f.w*f.h)
	for i := range d {
		d[i] = far
	}
	for _, i := range q {
		d[(i/f.stride-f.y)*f.w+i%f.stride-f.x] = 0
	}
	for i := f.w; i < len(d); i++ {
		d[i] = min(d[i], d[i-f.w]+1)
	}
	for i := len(d) - 1 - f.w; i >= 0; i-- {
		d[i] = min(d[i], d[i+f.w]+1)
	}
	near := make([]int, 0, len(p))
	e := newEnvelope(f.w)
	for y := range f.h {
		until := (f.y + y + 1) * f.stride
		if len(near) == len(p) || p[len(near)] >= until {
			continue
		}
		e.build(d[y*f.w : (y+1)*f.w])
		for k := 0; len(near) < len(p) && p[len(near)] < until; {
			x := p[len(near)]%f.stride - f.x
			for k+1 < e.n && e.from[k+1] <= x {
				k++
			}
			near = append(near, e.height(e.apex[k], x))
		}
	}
	return near
}

// envelope is the lower envelope of the parabolas (x-u)^2 + g(u) over the columns of a row. The one with its apex above
// apex[k] is the lowest from column from[k] on.
type envelope struct {
	n                int
	apex, from, root []int
}

func newEnvelope(w int) *envelope {
	return &envelope{apex: make([]int, w), from: make([]int, w), root: make([]int, w)}
}

func (e *envelope) height(u, x int) int { return (x-u)*(x-u) + e.root[u]*e.root[u] }

// build takes the roots of g.
func (e *envelope) build(roots []int32) {
	for x, v := range roots {
		e.root[x] = int(v)
	}
	e.n, e.apex[0], e.from[0] = 1, 0, 0
	for u := 1; u < len(roots); u++ {
		for e.n > 0 && e.height(e.apex[e.n-1], e.from[e.n-1]) > e.height(u, e.from[e.n-1]) {
			e.n--
		}
		start := 0
		if e.n > 0 { // u is the lower one behind the column where both are equal
			v := e.apex[e.n-1]
			start = 1 + floorDiv(e.height(u, 0)-e.height(v, 0), 2*(u-v))
		}
		if start < len(roots) {
			e.apex[e.n], e.from[e.n] = u, start
			e.n++
		}
	}
}

func floorDiv(a, b int) int {
	q := a / b
	if a%b != 0 && a < 0 != (b < 0) {
		q--
	}
	return q
}
