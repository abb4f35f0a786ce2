package server

import (
	"cmp"
	"slices"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
)

// encodeMask writes a mask as asked for.
func encodeMask(f secateurv1.MaskFormat, m *vision.Mask, p *vision.Prob) *secateurv1.Mask {
	out := &secateurv1.Mask{Format: f, Width: uint32(m.W), Height: uint32(m.H), Planes: 1}
	switch f {
	case secateurv1.MaskFormat_MASK_FORMAT_NONE:
		out.Planes = 0
	case secateurv1.MaskFormat_MASK_FORMAT_RAW8:
		out.Data = m.Pix // nobody else holds it: a mask belongs to its request
	case secateurv1.MaskFormat_MASK_FORMAT_PROBABILITY8:
		out.Planes = uint32(p.C)
		out.Data = make([]byte, len(p.P))
		for i, v := range p.P {
			out.Data[i] = byte(min(max(v, 0), 1)*255 + 0.5)
		}
	default:
		out.Format = secateurv1.MaskFormat_MASK_FORMAT_PNG
		out.Data = m.PNG()
	}
	return out
}

// maxComponents is how many components are told.
const maxComponents = 1000

// regions is what measure finds.
type regions struct {
	classes    []*secateurv1.ClassSummary
	components []*secateurv1.Component
}

// region sums up pixels. Its box is from (x0,y0) to before (x1,y1).
type region struct {
	class          byte
	x0, y0, x1, y1 int
	area           int
	confidence     float64
}

func (a *region) join(b region) {
	a.x0, a.y0, a.x1, a.y1 = min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1)
	a.area += b.area
	a.confidence += b.confidence
}

func (a *region) mean() float32 {
	if a.area == 0 {
		return 0
	}
	return float32(a.confidence / float64(a.area))
}

// plane is where the probabilities of a class of the mask lie: the mask of independent classes counts from 1, the one of
// classes with a background from 0, which is the background's plane.
func plane(m *vision.Mask, p *vision.Prob, class int) int {
	if max(m.Classes, 1) >= p.C {
		return class - 1
	}
	return class
}

// measure sums up the classes of a mask, and its connected components if they are asked for.
func measure(m *vision.Mask, p *vision.Prob, names []string, opt *secateurv1.SegmentOptions) regions {
	var out regions
	classes := make([]region, max(m.Classes, 1)+1)
	l := labeller{least: int(opt.GetMinComponentArea())}
	for y := range m.H {
		row := m.Pix[y*m.W : (y+1)*m.W]
		for x := 0; x < m.W; {
			c, from := row[x], x
			for x < m.W && row[x] == c {
				x++
			}
			if c == 0 || int(c) >= len(classes) {
				continue
			}
			r := region{class: c, x0: from, x1: x, y0: y, y1: y + 1, area: x - from}
			for _, v := range p.Plane(plane(m, p, int(c)))[y*m.W+from : y*m.W+x] {
				r.confidence += float64(v)
			}
			classes[c].area += r.area
			classes[c].confidence += r.confidence
			if opt.GetComponents() {
				l.add(r)
			}
		}
		if opt.GetComponents() {
			l.nextRow()
		}
	}
	for i := range classes[1:] {
		c := i + 1
		s := &secateurv1.ClassSummary{Index: uint32(c), Area: uint64(classes[c].area), MeanConfidence: classes[c].mean()}
		if at := plane(m, p, c); at < len(names) {
			s.Name = names[at]
		}
		out.classes = append(out.classes, s)
	}
	for _, r := range l.finish() {
		out.components = append(out.components, &secateurv1.Component{ClassIndex: uint32(r.class), Area: uint64(r.area), MeanConfidence: r.mean(),
			Box: &secateurv1.BoundingBox{X: uint32(r.x0), Y: uint32(r.y0), Width: uint32(r.x1 - r.x0), Height: uint32(r.y1 - r.y0)}})
	}
	return out
}

// labeller joins runs of pixels into components, corners included, row by row. It keeps only the components that touch
// the last row and the largest of the others, so that a noisy mask cannot make it large.
type labeller struct {
	least      int      // smaller components are left out
	open       []region // by label; joined ones are empty
	parent     []int    // of labels, a union-find
	last, this []run    // of the row above and of this one, from left to right
	at         int      // in last: the first run that may still touch a run of this row
	done       []region
}

type run struct{ x0, x1, label int }

func (l *labeller) root(i int) int {
	for l.parent[i] != i {
		l.parent[i] = l.parent[l.parent[i]]
		i = l.parent[i]
	}
	return i
}

// add takes the next run of this row.
func (l *labeller) add(r region) {
	label := -1
	for l.at < len(l.last) && l.last[l.at].x1 < r.x0 {
		l.at++
	}
	for i := l.at; i < len(l.last) && l.last[i].x0 <= r.x1; i++ {
		a := l.root(l.last[i].label)
		switch {
		case l.open[a].class != r.class:
		case label < 0:
			label = a
			l.open[a].join(r)
		case a != label:
			l.open[label].join(l.open[a])
			l.open[a] = region{}
			l.parent[a] = label
		}
	}
	if label < 0 {
		label = len(l.open)
		l.open = append(l.open, r)
		l.parent = append(l.parent, label)
	}
	l.this = append(l.this, run{r.x0, r.x1, label})
}

// nextRow closes the components that do not reach this row, and numbers the others anew.
func (l *labeller) nextRow() {
	l.last, l.this, l.at = l.this, l.last[:0], 0
	if len(l.open) < 4096 || len(l.open) < 4*len(l.last) {
		return
	}
	l.compact()
}

func (l *labeller) compact() {
	fresh := map[int]int{}
	var open []region
	var parent []int
	for i := range l.last {
		a := l.root(l.last[i].label)
		n, ok := fresh[a]
		if !ok {
			n = len(open)
			fresh[a] = n
			open, parent = append(open, l.open[a]), append(parent, n)
			l.open[a] = region{}
		}
		l.last[i].label = n
	}
	for _, r := range l.open {
		if r.area > 0 && r.area >= l.least {
			l.done = append(l.done, r)
		}
	}
	if len(l.done) > 4*maxComponents {
		l.done = largest(l.done)
	}
	l.open, l.parent = open, parent
}

// finish returns the components, the largest first.
func (l *labeller) finish() []region {
	l.last = l.last[:0]
	l.compact()
	return largest(l.done)
}

func largest(r []region) []region {
	slices.SortFunc(r, func(a, b region) int {
		return cmp.Or(cmp.Compare(b.area, a.area), cmp.Compare(a.y0, b.y0), cmp.Compare(a.x0, b.x0), cmp.Compare(a.class, b.class))
	})
	return r[:min(len(r), maxComponents)]
}
