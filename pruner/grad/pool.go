package grad

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// span is what a window covers of one axis, at one output position: input positions first, first+step, … count of them.
type span struct {
	first, step, count int
	taps               int // taps that fall on the input or its padding
}

// spans lists the windows along each spatial axis, from the pool's attributes and the output's shape.
func spans(s *Site) ([][]span, error) {
	in, out := s.Shape(0), s.Out[0].Shape
	rank := len(in) - 2
	kernels := s.Attrs().Ints("kernel_shape")
	if rank < 1 || len(kernels) != rank || len(out) != len(in) {
		return nil, fmt.Errorf("kernel %v does not fit input %v", kernels, in)
	}
	strides, dils := ones(s.Attrs().Ints("strides"), rank), ones(s.Attrs().Ints("dilations"), rank)
	all := make([][]span, rank)
	for a := range rank {
		n, o := in[a+2], out[a+2]
		begin, end := padding(s, a, rank, n, o, kernels[a], strides[a], dils[a])
		for i := range o {
			w := span{step: dils[a]}
			for t := range kernels[a] {
				p := i*strides[a] - begin + t*dils[a]
				if p < n+end {
					w.taps++
				}
				if p >= 0 && p < n {
					if w.count == 0 {
						w.first = p
					}
					w.count++
				}
			}
			all[a] = append(all[a], w)
		}
	}
	return all, nil
}

// ones is v, or n ones if the attribute is absent.
func ones(v []int, n int) []int {
	if len(v) == n {
		return v
	}
	return slices.Repeat([]int{1}, n)
}

// padding is what lies before and after spatial axis a, of n elements going in and o coming out of a sliding window.
func padding(s *Site, a, rank, n, o, k, stride, dil int) (begin, end int) {
	total := max((o-1)*stride+(k-1)*dil+1-n, 0)
	switch s.Attrs().Str("auto_pad", "NOTSET") {
	case "SAME_UPPER":
		return total / 2, total - total/2
	case "SAME_LOWER":
		return total - total/2, total / 2
	case "VALID":
		return 0, 0
	}
	if p := s.Attrs().Ints("pads"); len(p) == 2*rank {
		return p[a], p[rank+a]
	}
	return 0, 0
}

// plane brings one or two spatial axes to two, rows and columns.
func plane(s *Site, sp [][]span) (h, w int, rows, cols []span, err error) {
	in := s.Shape(0)
	switch len(sp) {
	case 1:
		return 1, in[2], []span{{count: 1, step: 1, taps: 1}}, sp[0], nil
	case 2:
		return in[2], in[3], sp[0], sp[1], nil
	}
	return 0, 0, nil, nil, fmt.Errorf("%d spatial axes have no rule", len(sp))
}

// maxPool gives each output's gradient to the first of the largest elements in its window, found again in x.
func maxPool[T kernel.Float](s *Site) (Step, error) {
	sp, err := spans(s)
	if err != nil {
		return nil, err
	}
	h, w, rows, cols, err := plane(s, sp)
	if err != nil {
		return nil, err
	}
	quarters := halves(rows) && halves(cols) && h == 2*len(rows) && w == 2*len(cols)
	return func(in, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			dx := s.New(s.Shape(0))
			g, x, d := tensor.Of[T](dx), tensor.Of[T](in[0]), tensor.Of[T](dout[0])
			each(s.Pool, len(g)/max(h*w, 1), 1, func(lo, hi int) {
				for p := lo; p < hi; p++ {
					g, x := g[p*h*w:(p+1)*h*w], x[p*h*w:(p+1)*h*w]
					if quarters {
						n := h * w / 4
						largestOfFour(g, x, d[p*n:(p+1)*n], w)
						continue
					}
					clear(g)
					o := p * len(rows) * len(cols)
					for _, r := range rows {
						for _, c := range cols {
							best := -1
							for i := range r.count {
								at := (r.first+i*r.step)*w + c.first
								for range c.count {
									if best < 0 || x[at] > x[best] {
										best = at
									}
									at += c.step
								}
							}
							if best >= 0 {
								g[best] += d[o]
							}
							o++
						}
					}
				}
			})
			return dx
		})
	}, nil
}

// halves reports whether the windows are the pairs of positions in order.
func halves(sp []span) bool {
	for i, w := range sp {
		if w != (span{2 * i, 1, 2, 2}) {
			return false
		}
	}
	return true
}

// largestOfFour is maxPool by windows of 2 x 2 that do not overlap, on planes of width w. As there, the first of equal ones
// is the largest.
func largestOfFour[T kernel.Float](g, x, d []T, w int) {
	for o := 0; o < len(d); o += w / 2 {
		x0, x1, g0, g1 := x[4*o:4*o+w], x[4*o+w:4*o+2*w], g[4*o:4*o+w], g[4*o+w:4*o+2*w]
		for i, v := range d[o : o+w/2] {
			a, b, c, e := x0[2*i], x0[2*i+1], x1[2*i], x1[2*i+1]
			var k [4]T
			top, down := 0, 2
			if b > a {
				a, top = b, 1
			}
			if e > c {
				c, down = e, 3
			}
			if c > a {
				top = down
			}
			k[top] = v
			g0[2*i], g0[2*i+1], g1[2*i], g1[2*i+1] = k[0], k[1], k[2], k[3]
		}
	}
}

// averagePool spreads each output's gradient evenly over its window.
func averagePool[T kernel.Float](s *Site) (Step, error) {
	sp, err := spans(s)
	if err != nil {
		return nil, err
	}
	h, w, rows, cols, err := plane(s, sp)
	if err != nil {
		return nil, err
	}
	padded := s.Attrs().Int("count_include_pad", 0) != 0
	return func(_, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		return one(need, func() *tensor.Tensor {
			dx := s.New(s.Shape(0))
			g, d := tensor.Of[T](dx), tensor.Of[T](dout[0])
			each(s.Pool, len(g)/max(h*w, 1), 1, func(lo, hi int) {
				for p := lo; p < hi; p++ {
					g := g[p*h*w : (p+1)*h*w]
					clear(g)
					o := p * len(rows) * len(cols)
					for _, r := range rows {
						for _, c := range cols {
							n := r.count * c.count
							if padded {
								n = r.taps * c.taps
							}
							v := d[o] / T(max(n, 1))
							o++
							for i := range r.count {
								at := (r.first+i*r.step)*w + c.first
								for range c.count {
									g[at] += v
									at += c.step
								}
							}
						}
					}
				}
			})
			return dx
		})
	}, nil
}
