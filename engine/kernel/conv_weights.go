package kernel

import (
	"github.com/secateur/secateur/engine/kernel/isa"
)

// ConvWeights is the gradient of a convolution's weights: from the input x [N,C,H,W] and the gradient dy [N,M,OH,OW] at
// the output it gives
//
//	dw[m,c,i,j] = Σ_{n,y,x} dy[n,m,y,x] · x[n, c, y·stride + i·dilation - pad, x·stride + j·dilation - pad].
//
// Lanes run along input channels, so x is laid pixel by pixel first, with its padding: then every tap reads the same memory
// from another place on, and nothing is copied for each tap. Results are summed in runs that stay in the cache. A
// depthwise convolution, whose groups read one channel, is products of rows instead.
type ConvWeights[T Float] struct {
	k      *micro[T]
	s      ConvShape
	c, m   int // channels of a group
	hp, wp int // rows and columns of the padded input that are read
	panels []panel
	off    []int64 // where the first tap of each result lies, in bytes
	chunk  int     // results that are summed in one go
}

// NewConvWeights prepares the gradient for a convolution of one dense source.
func NewConvWeights[T Float](s ConvShape) *ConvWeights[T] { return newConvWeights[T](isa.Best(), s) }

func newConvWeights[T Float](level isa.Level, s ConvShape) *ConvWeights[T] {
	g := &ConvWeights[T]{k: microFor[T](level), s: s, c: s.C / s.Group, m: s.M / s.Group}
	if g.depthwise() {
		return g
	}
	g.hp, g.wp = (s.OH-1)*s.StrideH+(s.KH-1)*s.DilH+1, (s.OW-1)*s.StrideW+(s.KW-1)*s.DilW+1
	g.panels = split(g.m, min(8, g.k.maxChannels()))
	g.chunk = min(max(1<<16/max(g.c, g.m), 128), 4096)
	g.off = make([]int64, s.OH*s.OW)
	for i := range g.off {
		g.off[i] = int64((i/s.OW*s.StrideH*g.wp+i%s.OW*s.StrideW)*g.c) * sizeOf[T]()
	}
	return g
}

func (g *ConvWeights[T]) depthwise() bool { return g.c == 1 && g.s.Group > 1 }

// sizes are those of the parts of the scratch: the input pixel by pixel, a run of dy by panels, and sums [tap][m][c].
func (g *ConvWeights[T]) sizes() (xt, run, sums int) {
	return g.hp*g.wp*g.c + maxLanes, g.chunk * g.m, g.s.KH * g.s.KW * g.m * g.c
}

// Scratch is how many elements of working memory Bind needs.
func (g *ConvWeights[T]) Scratch() int {
	if g.depthwise() {
		return 0
	}
	xt, run, sums := g.sizes()
	return xt + run + sums
}

// Bind returns what computes dw [M, C/Group, KH, KW]. It gives the same bits for any number of workers.
func (g *ConvWeights[T]) Bind(p *Pool, scratch, dw, x, dy []T) func() {
	s := g.s
	need("x", len(x), s.N*s.C*s.H*s.W)
	need("dy", len(dy), s.N*s.M*s.OH*s.OW)
	need("dw", len(dw), s.M*g.c*s.KH*s.KW)
	need("scratch", len(scratch), g.Scratch())
	if s.N*s.OH*s.OW == 0 {
		return func() { clear(dw) }
	}
	if g.depthwise() {
		return p.Loop(s.M, func(_, m int) { g.channel(dw[m*s.KH*s.KW:], x, dy, m) }).Run
	}
	return g.bindGroups(p, scratch, dw, x, dy)
}

// bindGroups makes the loops for one group of one image, and runs them for all.
func (g *ConvWeights[T]) bindGroups(p *Pool, scratch, dw, x, dy []T) func() {
	s, size, taps := g.s, sizeOf[T](), g.s.KH*g.s.KW
	nx, nr, ns := g.sizes()
	xt, run, sums := scratch[:nx], scratch[nx:nx+nr], scratch[nx+nr:nx+nr+ns]
	calls := make([]paddedCall[T], p.Workers())
	for i := range calls {
		c := &calls[i].call
		c.lo, c.hi, c.rows, c.cstride = T(NoClamp.Lo), T(NoClamp.Hi), 1, int64(g.c)*size
	}
	var in, out []T // of the group and image under way
	var from, steps int
	pixels := p.Loop(g.hp, func(_, y int) { g.layRow(xt, in, y) })
	pack := p.Loop(len(g.panels), func(_, i int) {
		pn := g.panels[i]
		w := run[pn.first*g.chunk:]
		for n := range pn.r {
			row := out[(pn.first+n)*s.OH*s.OW+from:][:steps]
			for k, v := range row {
				w[k*pn.r+n] = v
			}
		}
	})
	mul := p.Loop(len(g.panels)*taps, func(worker, i int) {
		pn, tap := g.panels[i/taps], i%taps
		c := &calls[worker].call
		c.a = &xt[(tap/s.KW*s.DilH*g.wp+tap%s.KW*s.DilW)*g.c]
		c.off, c.steps = &g.off[from], int64(steps)
		c.w, c.c, c.bias = &run[pn.first*g.chunk], &sums[(tap*g.m+pn.first)*g.c], nil
		g.k.rows(c, pn.r, g.c)
	})
	return func() {
		for group := range s.Group {
			clear(sums)
			for n := range s.N {
				in, out = x[(n*s.C+group*g.c)*s.H*s.W:], dy[(n*s.M+group*g.m)*s.OH*s.OW:]
				pixels.Run()
				for from = 0; from < len(g.off); from += g.chunk {
					steps = min(g.chunk, len(g.off)-from)
					pack.Run()
					mul.Run()
				}
			}
			to := dw[group*g.m*g.c*taps:]
			for tap := range taps {
				for i, v := range sums[tap*g.m*g.c:][:g.m*g.c] {
					to[i*taps+tap] = v
				}
			}
		}
	}
}

// layRow lays row y of the padded input pixel by pixel.
func (g *ConvWeights[T]) layRow(xt, in []T, y int) {
	s, c := g.s, g.c
	row := xt[y*g.wp*c:][:g.wp*c]
	y -= s.PadTop
	if y < 0 || y >= s.H {
		clear(row)
		return
	}
	lo, hi := min(s.PadLeft, g.wp), min(s.PadLeft+s.W, g.wp) // columns that are there
	clear(row[:lo*c])
	clear(row[hi*c:])
	for k := range c {
		at := lo*c + k
		for _, v := range in[(k*s.H+y)*s.W:][:hi-lo] {
			row[at] = v
			at += c
		}
	}
}

// channel is output channel m of a depthwise convolution.
func (g *ConvWeights[T]) channel(dw, x, dy []T, m int) {
	s := g.s
	clear(dw[:s.KH*s.KW])
	for n := range s.N {
		in, out := x[(n*s.C+m/g.m)*s.H*s.W:][:s.H*s.W], dy[(n*s.M+m)*s.OH*s.OW:][:s.OH*s.OW]
		for tap := range s.KH * s.KW {
			top, left := tap/s.KW*s.DilH-s.PadTop, tap%s.KW*s.DilW-s.PadLeft
			// Results whose tap lies in a row: from the first with left + o·stride >= 0 on.
			first := max(0, (-left+s.StrideW-1)/s.StrideW)
			last := min(s.OW, (s.W-1-left)/s.StrideW+1)
			if s.W-1-left < 0 || first >= last {
				continue
			}
			var sum T
			for o := range s.OH {
				y := o*s.StrideH + top
				if y < 0 || y >= s.H {
					continue
				}
				sum += dotStride(out[o*s.OW+first:o*s.OW+last], in[y*s.W+left+first*s.StrideW:(y+1)*s.W], s.StrideW)
			}
			dw[tap] += sum
		}
	}
}

// dotStride is Σ a[i]·b[i·stride], in four chains.
func dotStride[T Float](a, b []T, stride int) T {
	var s0, s1, s2, s3 T
	i := 0
	if stride == 1 {
		b = b[:len(a)]
		for ; i+3 < len(a); i += 4 {
			s0 += a[i] * b[i]
			s1 += a[i+1] * b[i+1]
			s2 += a[i+2] * b[i+2]
			s3 += a[i+3] * b[i+3]
		}
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i*stride]
	}
	return s0 + s1 + s2 + s3
}
