package kernel

import "github.com/secateur/secateur/engine/kernel/isa"

// Conv is a convolution with packed weights. It is immutable: sessions share it.
type Conv[T Float] struct {
	l *layer[T]
	w *winograd[T]
	m *MatMul[T] // where there is one pixel: lanes run along channels
	d *depthwise[T]
}

// form is how a convolution is computed.
type form int

const (
	automatic  form = iota // as the estimate says
	direct                 // products of the definition
	winogradF4             // F(4x4,3x3), where it is defined
)

// NewConv prepares y = clamp(conv(x, w) + bias), as ONNX defines Conv, for w [M, C/Group, KH, KW] and bias [M] or nil.
// It keeps neither.
func NewConv[T Float](s ConvShape, w, bias []T, c Clamp) *Conv[T] {
	return newConv(isa.Best(), automatic, s, w, bias, c)
}

// NewDirectConv is NewConv by the definition, for weights that change too often to be transformed.
func NewDirectConv[T Float](s ConvShape, w, bias []T, c Clamp) *Conv[T] {
	return newConv(isa.Best(), direct, s, w, bias, c)
}

func newConv[T Float](level isa.Level, f form, s ConvShape, w, bias []T, c Clamp) *Conv[T] {
	cg := s.C / s.Group
	s, w = trim(s, w)
	if winogradFits(s) && (f == winogradF4 || f == automatic && winogradPays[T](level, s)) {
		d := newWinograd(level, s, w, bias, c)
		if f == winogradF4 || d.estimateError(w) <= winogradBudget {
			return &Conv[T]{w: d}
		}
	}
	if f == automatic && depthwiseFits[T](level, s) {
		return &Conv[T]{d: newDepthwise(level, s, w, bias, c)}
	}
	pointwise := s.KH == 1 && s.KW == 1 && s.StrideH == 1 && s.StrideW == 1 && s.OH == s.H && s.OW == s.W &&
		s.PadTop == 0 && s.PadLeft == 0
	if pointwise {
		if s.H*s.W == 1 && s.Group == 1 && len(s.Sources) == 0 {
			wt := make([]T, s.C*s.M)
			for m := range s.M {
				for k := range s.C {
					wt[k*s.M+m] = w[m*s.C+k]
				}
			}
			mm := newMatMul(level, s.N, s.C, s.M, wt)
			mm.bias, mm.lo, mm.hi = append([]T(nil), bias...), T(c.Lo), T(c.Hi)
			return &Conv[T]{m: mm}
		}
		if !s.anyUp() { // pixels are all alike, so bands need not end at the end of a row
			s.H, s.W = s.H*s.W, 1
			s.OH, s.OW = s.H, 1
		}
	}
	return &Conv[T]{l: convPhases[T](s).finish(level, bias, c, func(m, k, kh, kw int) T {
		return w[((m*cg+k)*s.KH+kh)*s.KW+kw]
	})}
}

// trim leaves out rows and columns of a kernel that lie in the padding wherever the kernel is, as those of wide dilations do
// on small maps.
func trim[T Float](s ConvShape, w []T) (ConvShape, []T) {
	// reads gives the first and the last of k taps that read one of n pixels for one of so many outputs.
	reads := func(k, dil, stride, pad, outs, n int) (first, last int) {
		first, last = k, -1
		for i := range k {
			for o := range outs {
				if at := o*stride + i*dil - pad; at >= 0 && at < n {
					first, last = min(first, i), i
					break
				}
			}
		}
		if first > last || first*dil > pad {
			return 0, k - 1
		}
		return first, last
	}
	h0, h1 := reads(s.KH, s.DilH, s.StrideH, s.PadTop, s.OH, s.H)
	w0, w1 := reads(s.KW, s.DilW, s.StrideW, s.PadLeft, s.OW, s.W)
	kh, kw := h1-h0+1, w1-w0+1
	if kh == s.KH && kw == s.KW {
		return s, w
	}
	kept := make([]T, 0, s.M*s.C/s.Group*kh*kw)
	for at := 0; at < len(w); at += s.KH * s.KW {
		for i := h0; i <= h1; i++ {
			kept = append(kept, w[at+i*s.KW+w0:][:kw]...)
		}
	}
	s.PadTop, s.PadLeft, s.KH, s.KW = s.PadTop-h0*s.DilH, s.PadLeft-w0*s.DilW, kh, kw
	return s, kept
}

// Form says how the convolution is computed: "direct", "winograd F4", "pointwise", "depthwise", "grouped" or, where there
// is one pixel, "product".
func (c *Conv[T]) Form() string {
	switch {
	case c.m != nil:
		return "product"
	case c.w != nil:
		return "winograd F4"
	case c.d != nil:
		return "depthwise"
	case c.l.s.Group > 1 && c.l.cg == 1 && c.l.mg == 1:
		return "depthwise"
	case c.l.s.Group > 1:
		return "grouped"
	case c.l.flat && c.l.width == 1 && c.l.direct:
		return "pointwise"
	}
	return "direct"
}

// Products is how many multiply-adds a run takes, of the definition's MACs. Those of lanes that hold nothing do not count.
func (c *Conv[T]) Products() int64 {
	switch {
	case c.m != nil:
		return int64(c.m.m) * int64(c.m.depth) * int64(c.m.n)
	case c.w != nil:
		return int64(c.w.s.N*c.w.ty*c.w.tx) * int64(c.w.perChannel()) * int64(c.w.s.M)
	case c.d != nil:
		s := c.d.s
		return int64(s.N*s.M*s.OH*s.OW) * int64(s.KH*s.KW)
	}
	return c.l.products()
}

// Scratch is how many elements of working memory Bind needs for a pool of so many workers.
func (c *Conv[T]) Scratch(workers int) int {
	if c.m != nil {
		return c.m.Scratch(workers)
	}
	if c.w != nil {
		return c.w.scratch(workers)
	}
	if c.d != nil {
		return 0
	}
	return c.l.scratch(workers)
}

// Bind returns what computes y [N,M,OH,OW] from x [N,C,H,W], or from the sources that the shape names, all dense. The
// buffers may be read, never written, tensor.Slack bytes past their ends. A run allocates nothing; one goroutine at a
// time may run it.
func (c *Conv[T]) Bind(p *Pool, scratch, y []T, x ...[]T) func() {
	return c.BindFinish(p, nil, scratch, y, x...)
}

// BindFinish is Bind, with f to finish what was computed and clamped.
func (c *Conv[T]) BindFinish(p *Pool, f Finish[T], scratch, y []T, x ...[]T) func() {
	if c.m != nil {
		return f.finishPixels(c.m.Bind(p, scratch, y, x[0], nil), ConvShape{N: c.m.m, M: c.m.n, OH: 1, OW: 1}, y)
	}
	if c.w != nil {
		return c.w.bind(p, f, scratch, y, x)
	}
	if c.d != nil {
		return c.d.bind(p, f, y, x[0])
	}
	return c.l.bind(p, f, scratch, y, x)
}

// ConvTranspose is a transposed convolution with packed weights. It is immutable: sessions share it.
type ConvTranspose[T Float] struct{ l *layer[T] }

// NewConvTranspose prepares y = clamp(convTranspose(x, w) + bias), as ONNX defines ConvTranspose, for
// w [C, M/Group, KH, KW] and bias [M] or nil. It keeps neither.
func NewConvTranspose[T Float](s ConvShape, w, bias []T, c Clamp) *ConvTranspose[T] {
	return newConvTranspose(isa.Best(), s, w, bias, c)
}

func newConvTranspose[T Float](level isa.Level, s ConvShape, w, bias []T, c Clamp) *ConvTranspose[T] {
	cg, mg := s.C/s.Group, s.M/s.Group
	return &ConvTranspose[T]{transposePhases[T](s).finish(level, bias, c, func(m, k, kh, kw int) T {
		return w[(((m/mg*cg+k)*mg+m%mg)*s.KH+kh)*s.KW+kw]
	})}
}

// Form says how it is computed: "transposed", or "transposed pairs" where even and odd pixels of a row share a tile.
func (c *ConvTranspose[T]) Form() string {
	if c.l.paired {
		return "transposed pairs"
	}
	return "transposed"
}

// Products is how many multiply-adds a run takes.
func (c *ConvTranspose[T]) Products() int64 { return c.l.products() }

// Scratch is how many elements of working memory Bind needs for a pool of so many workers.
func (c *ConvTranspose[T]) Scratch(workers int) int { return c.l.scratch(workers) }

// Bind returns what computes y [N,M,OH,OW] from x [N,C,H,W]; see [Conv.Bind].
func (c *ConvTranspose[T]) Bind(p *Pool, scratch, y []T, x ...[]T) func() {
	return c.l.bind(p, nil, scratch, y, x)
}

// BindFinish is Bind, with f to finish what was computed and clamped.
func (c *ConvTranspose[T]) BindFinish(p *Pool, f Finish[T], scratch, y []T, x ...[]T) func() {
	return c.l.bind(p, f, scratch, y, x)
}
