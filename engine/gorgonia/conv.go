package gorgonia

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// conv is y[n,m,c] = Σ x[n,i,f]·w[m,i,k] over the channels i of m's group and taps (k,f,c) of the window.
func (s *site) conv() (value, error) {
	x, weights := s.in[0], s.in[1]
	if len(weights.shape) != 4 {
		return value{}, fmt.Errorf("weights %v: only two-dimensional Conv is lowered", weights.shape)
	}
	w, err := s.window(weights.shape[2:], x.shape)
	if err != nil {
		return value{}, err
	}
	if err := w.slide(attr(s, "auto_pad", ""), false); err != nil {
		return value{}, err
	}
	groups, m, per := s.integer("group", 1), weights.shape[0], weights.shape[1]
	if groups < 1 || per*groups != x.shape[1] || m%groups != 0 {
		return value{}, fmt.Errorf("weights %v in %d groups over %v", weights.shape, groups, x.shape)
	}
	y := value{shape: on(x.shape[0], m, w.coarse)}
	if groups == 1 && w.symmetric() && !x.known() {
		y.node, err = G.Conv2d(x.node, s.node(weights), tensor.Shape(weights.shape[2:]), w.pads[:], w.stride[:], w.dilation[:])
		if err == nil && !y.node.Shape().Eq(y.shape) {
			err = fmt.Errorf("gorgonia makes it %v, not %v", y.node.Shape(), y.shape)
		}
	} else {
		y, err = s.product(s.name, x, weights, y.shape, s.channels(w, x.shape[0], groups, m/groups, per, false))
	}
	if err != nil {
		return value{}, err
	}
	return s.bias(y)
}

// channels goes through a convolution: for each image, group, output channel m and input channel i of the group, and tap.
// The weights lie as [group,m,i,tap]. If transposed, the inputs are at the coarse positions, and the weights lie as
// [group,i,m,tap].
func (s *site) channels(w window, batch, groups, ms, is int, transposed bool) products {
	taps, fine, coarse := w.kernel[0]*w.kernel[1], w.fine[0]*w.fine[1], w.coarse[0]*w.coarse[1]
	return func(add func(i, k, j int)) {
		for n := range batch {
			for g := range groups {
				for m := range ms {
					for i := range is {
						in, out := (n*groups+g)*is+i, (n*groups+g)*ms+m
						if transposed {
							at := ((g*is+i)*ms + m) * taps
							w.taps(func(k, f, c int) { add(in*coarse+c, at+k, out*fine+f) })
						} else {
							at := ((g*ms+m)*is + i) * taps
							w.taps(func(k, f, c int) { add(in*fine+f, at+k, out*coarse+c) })
						}
					}
				}
			}
		}
	}
}

// bias adds input 2, one number for each channel, if the convolution has it.
func (s *site) bias(y value) (value, error) {
	if !s.has(2) {
		return y, nil
	}
	b, err := s.numbers(2)
	if err != nil {
		return value{}, err
	}
	return s.affine(s.name, y, 1, nil, b)
}

// convTranspose is y[n,m,f] = Σ x[n,i,c]·w[i,m,k]: a convolution read backwards.
func (s *site) convTranspose() (value, error) {
	x, weights := s.in[0], s.in[1]
	if len(weights.shape) != 4 || len(x.shape) != 4 {
		return value{}, fmt.Errorf("weights %v: only two-dimensional ConvTranspose is lowered", weights.shape)
	}
	w, err := s.window(weights.shape[2:], x.shape)
	if err != nil {
		return value{}, err
	}
	groups, is, ms := s.integer("group", 1), weights.shape[0], weights.shape[1]
	if groups < 1 || is != x.shape[1] || is%groups != 0 {
		return value{}, fmt.Errorf("weights %v in %d groups over %v", weights.shape, groups, x.shape)
	}
	if auto := attr(s, "auto_pad", "NOTSET"); auto != "NOTSET" || s.attrs("output_shape") != nil {
		return value{}, fmt.Errorf("only ConvTranspose with explicit padding is lowered")
	}
	extra := [2]int{}
	if v := s.attrs("output_padding"); len(v) == 2 {
		extra = [2]int(v)
	}
	w.coarse = [2]int(x.shape[2:])
	for a := range 2 {
		w.fine[a] = (w.coarse[a]-1)*w.stride[a] + w.span(a) - w.pads[a] - w.after[a] + extra[a]
	}
	y, err := s.product(s.name, x, weights, on(x.shape[0], ms*groups, w.fine), s.channels(w, x.shape[0], groups, ms, is/groups, true))
	if err != nil {
		return value{}, err
	}
	return s.bias(y)
}

// matMul multiplies the matrices in the last two axes, for each index along those before.
func (s *site) matMul() (value, error) { return s.multiply(s.in[0], s.in[1]) }

func (s *site) multiply(a, b value) (value, error) {
	if len(a.shape) < 2 || len(b.shape) < 2 {
		return value{}, fmt.Errorf("MatMul of vectors is not lowered")
	}
	la, lb := len(a.shape)-2, len(b.shape)-2
	rows, inner, cols := a.shape[la], a.shape[la+1], b.shape[lb+1]
	if b.shape[lb] != inner {
		return value{}, fmt.Errorf("MatMul of %v and %v", a.shape, b.shape)
	}
	batch, err := broadcast(a.shape[:la], b.shape[:lb])
	if err != nil {
		return value{}, err
	}
	// Where a matrix is used again, its axis is gone through by steps of none.
	ofA, ofB := repeated(a.shape[:la], len(batch)), repeated(b.shape[:lb], len(batch))
	shape := append(append([]int{}, batch...), rows, cols)
	return s.product(s.name, a, b, shape, func(add func(i, k, j int)) {
		walk(batch, func(o int, at []int) {
			ma, mb := 0, 0
			for k, p := range at {
				ma, mb = ma+p*ofA[k], mb+p*ofB[k]
			}
			for r := range rows {
				for c := range cols {
					for k := range inner {
						add((ma*rows+r)*inner+k, (mb*inner+k)*cols+c, (o*rows+r)*cols+c)
					}
				}
			}
		})
	})
}

// repeated gives the strides of shape seen as of the given rank, none along axes that repeat.
func repeated(shape []int, rank int) []int {
	far, lead := make([]int, rank), rank-len(shape)
	for k, f := range strides(shape) {
		if shape[k] > 1 {
			far[lead+k] = f
		}
	}
	return far
}

// gemm is α·A·B + β·C, with A and B transposed at will.
func (s *site) gemm() (value, error) {
	var err error
	m := [2]value{s.in[0], s.in[1]}
	for i, name := range []string{"transA", "transB"} {
		if s.integer(name, 0) != 0 {
			if m[i], err = s.move(s.name, m[i], func(a array) (array, error) { return a.permute([]int{1, 0}) }); err != nil {
				return value{}, err
			}
		}
	}
	y, err := s.multiply(m[0], m[1])
	if err != nil {
		return value{}, err
	}
	if y, err = s.scaled(y, s.number("alpha", 1)); err != nil || !s.has(2) {
		return y, err
	}
	c, err := s.scaled(s.in[2], s.number("beta", 1))
	if err != nil {
		return value{}, err
	}
	return s.arith("Add", y, c)
}

// scaled is x times a number.
func (s *site) scaled(x value, by float64) (value, error) {
	if by == 1 {
		return x, nil
	}
	return s.each(s.name, x, func(x float64) float64 { return by * x }, func(float64) float64 { return by })
}
