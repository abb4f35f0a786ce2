package grad

import (
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// linear is a convolution, or its transpose, with packed weights.
type linear[T kernel.Float] interface {
	Scratch(workers int) int
	Bind(p *kernel.Pool, scratch, y []T, x ...[]T) func()
}

// conv's reverse is the transposed convolution of the gradient by the same weights: Conv keeps them as [M, C/G, ...],
// which read as a ConvTranspose's [its C, its M/G, ...] is exactly that. At stride 1 it is a plain convolution by the
// kernels turned around, which is the faster code.
func conv[T kernel.Float](s *Site) (Step, error) {
	c, w, err := geometry[T](s)
	if err != nil {
		return nil, err
	}
	extH, extW := (c.KH-1)*c.DilH+1, (c.KW-1)*c.DilW+1
	back := reversed(c)
	data := func() linear[T] { return kernel.NewConvTranspose(back, w, nil, kernel.NoClamp) }
	if c.StrideH == 1 && c.StrideW == 1 && c.PadTop < extH && c.PadLeft < extW && c.PadBottom < extH && c.PadRight < extW {
		back.PadTop, back.PadBottom = extH-1-c.PadTop, extH-1-c.PadBottom
		back.PadLeft, back.PadRight = extW-1-c.PadLeft, extW-1-c.PadRight
		data = func() linear[T] { return kernel.NewConv(back, turn(c, w), nil, kernel.NoClamp) }
	}
	return convolution(s, data, c, false), nil
}

// convTranspose's reverse is the convolution of the gradient by the same weights, [C, M/G, ...]. They are also that
// convolution's, so their gradient is what it would be if the gradient of the output were convolved to give the input.
func convTranspose[T kernel.Float](s *Site) (Step, error) {
	c, w, err := geometry[T](s)
	if err != nil {
		return nil, err
	}
	back := reversed(c)
	return convolution(s, func() linear[T] { return kernel.NewConv(back, w, nil, kernel.NoClamp) }, back, true), nil
}

// clamped is the reverse of a convolution whose result is kept between bounds. What is strictly between them was before.
func clamped[T kernel.Float](rule func(*Site) (Step, error)) Rule {
	return func(s *Site) (Step, error) {
		if sum, activation := op.Steps(s.Node); sum || activation || s.Attrs().Has("up") {
			return nil, fmt.Errorf("a convolution with more behind or before it than bounds has no rule")
		}
		step, err := rule(s)
		if err != nil {
			return nil, err
		}
		inf := float32(math.Inf(1))
		lo, hi := T(s.Attrs().Float("lo", -inf)), T(s.Attrs().Float("hi", inf))
		return func(in, out, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
			d, y := tensor.Of[T](dout[0]), tensor.Of[T](out[0])
			each(s.Pool, len(d), 1<<14, func(at, end int) { gate(d[at:end:end], y[at:end:end], lo, hi) })
			return step(in, out, dout, need)
		}, nil
	}
}

// reversed is a convolution from what c yields to what it reads.
func reversed(c kernel.ConvShape) kernel.ConvShape {
	back := c
	back.C, back.H, back.W, back.M, back.OH, back.OW = c.M, c.OH, c.OW, c.C, c.H, c.W
	return back
}

// turn gives, for a convolution's weights [M, C/G, KH, KW], those of its reverse, [C, M/G, KH, KW]: kernels turned by
// 180 degrees, the two channel axes exchanged within each group.
func turn[T kernel.Float](c kernel.ConvShape, w []T) []T {
	cg, mg, k := c.C/c.Group, c.M/c.Group, c.KH*c.KW
	r := make([]T, len(w))
	for m := range c.M {
		for i := range cg {
			from := w[(m*cg+i)*k:][:k]
			to := r[((m/mg*cg+i)*mg+m%mg)*k:][:k]
			for j, v := range from {
				to[k-1-j] = v
			}
		}
	}
	return r
}

// geometry reads a Conv or ConvTranspose with one or two spatial axes (one is a plane one row high), and its weights.
func geometry[T kernel.Float](s *Site) (c kernel.ConvShape, w []T, err error) {
	in, out, ws := s.Shape(0), s.Out[0].Shape, s.Shape(1)
	rank := len(in) - 2
	if rank != 1 && rank != 2 || len(ws) != len(in) || len(out) != len(in) {
		return c, nil, fmt.Errorf("input %v has no rule: want one or two spatial axes", in)
	}
	if s.Arg(1).Const == nil {
		return c, nil, fmt.Errorf("weights depend on the data")
	}
	t, err := s.Arg(1).Const.Float(s.Float)
	if err != nil {
		return c, nil, fmt.Errorf("weights: %w", err)
	}
	at := s.Attrs()
	stride, dil := ones(at.Ints("strides"), rank), ones(at.Ints("dilations"), rank)
	pads := [2][2]int{}
	for a := range rank {
		var begin, end int
		if s.Node.Op == "ConvTranspose" {
			begin, end = paddingTranspose(s, a, rank, in[a+2], out[a+2], ws[a+2], stride[a], dil[a])
		} else {
			begin, end = padding(s, a, rank, in[a+2], out[a+2], ws[a+2], stride[a], dil[a])
		}
		if begin < 0 {
			return c, nil, fmt.Errorf("negative padding has no rule")
		}
		pads[2-rank+a] = [2]int{begin, end}
	}
	wide := func(v []int, fill int) [2]int {
		if rank == 1 {
			return [2]int{fill, v[0]}
		}
		return [2]int{v[0], v[1]}
	}
	hw, ohw, k, st, d := wide(in[2:], 1), wide(out[2:], 1), wide(ws[2:], 1), wide(stride, 1), wide(dil, 1)
	return kernel.ConvShape{
		N: in[0], C: in[1], H: hw[0], W: hw[1], M: out[1], OH: ohw[0], OW: ohw[1],
		KH: k[0], KW: k[1], StrideH: st[0], StrideW: st[1], DilH: d[0], DilW: d[1],
		PadTop: pads[0][0], PadBottom: pads[0][1], PadLeft: pads[1][0], PadRight: pads[1][1],
		Group: at.Int("group", 1),
	}, tensor.Of[T](t), nil
}

// paddingTranspose is what a ConvTranspose cuts off before and after spatial axis a: given, or what the output's size
// leaves over, halved; an odd one goes to the end for SAME_UPPER, to the beginning otherwise.
func paddingTranspose(s *Site, a, rank, n, o, k, stride, dil int) (begin, end int) {
	auto, at := s.Attrs().Str("auto_pad", "NOTSET"), s.Attrs()
	full := (n-1)*stride + (k-1)*dil + 1
	if op := at.Ints("output_padding"); len(op) == rank {
		full += op[a]
	}
	total := full - o
	switch {
	case auto == "SAME_UPPER":
		return total / 2, total - total/2
	case auto == "SAME_LOWER" || at.Has("output_shape"):
		return total - total/2, total / 2
	case auto == "VALID":
		return 0, 0
	}
	if p := at.Ints("pads"); len(p) == 2*rank {
		return p[a], p[rank+a]
	}
	return 0, 0
}
