package gorgonia

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// pool is the window of a pooling call.
func (s *site) pool() (window, error) {
	w, err := s.window(s.attrs("kernel_shape"), s.in[0].shape)
	if err != nil {
		return w, err
	}
	return w, w.slide(attr(s, "auto_pad", ""), s.integer("ceil_mode", 0) != 0)
}

// planes calls f for each tap of each channel of each image.
func (s *site) planes(w window, f func(fine, coarse int)) {
	for p := range s.in[0].shape[0] * s.in[0].shape[1] {
		w.taps(func(_, i, o int) { f(p*w.fine[0]*w.fine[1]+i, p*w.coarse[0]*w.coarse[1]+o) })
	}
}

func (s *site) maxPool() (value, error) {
	x := s.in[0]
	w, err := s.pool()
	if err != nil {
		return value{}, err
	}
	y := value{shape: on(x.shape[0], x.shape[1], w.coarse)}
	none := [2]int{}
	if w.pads == none && w.after == none && w.dilation == [2]int{1, 1} && s.integer("ceil_mode", 0) == 0 && !x.known() {
		y.node, err = G.MaxPool2D(x.node, tensor.Shape(w.kernel[:]), w.pads[:], w.stride[:])
		if err == nil && !y.node.Shape().Eq(y.shape) {
			err = fmt.Errorf("gorgonia makes it %v, not %v", y.node.Shape(), y.shape)
		}
		return y, err
	}
	return s.largest(s.name, x, y.shape, func(try func(i, j int)) { s.planes(w, try) })
}

// averagePool divides by the taps that lie on elements or, if it is to count padding, on elements and padding.
func (s *site) averagePool() (value, error) {
	w, err := s.pool()
	if err != nil {
		return value{}, err
	}
	all := w // over elements and padding, without padding of its own
	if s.integer("count_include_pad", 0) != 0 {
		for a := range 2 {
			all.pads[a], all.fine[a] = 0, w.fine[a]+w.pads[a]+w.after[a]
		}
	}
	count := make([]float64, w.coarse[0]*w.coarse[1])
	all.taps(func(_, _, o int) { count[o]++ })
	return s.sum(s.name, s.in[0], on(s.in[0].shape[0], s.in[0].shape[1], w.coarse), func(add func(i, j int, w float64)) {
		s.planes(w, func(i, j int) { add(i, j, 1/count[j%len(count)]) })
	})
}
