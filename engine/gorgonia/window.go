package gorgonia

import (
	"fmt"
	"slices"
)

// window is the geometry that convolutions and pools share, in two dimensions: tap k of the window at coarse position c lies on
// fine position s·c + d·k - p.
type window struct {
	kernel, stride, dilation, pads, fine, coarse [2]int
	after                                        [2]int // padding behind
}

// window reads the attributes of a call for a kernel over the last two axes of fine.
func (s *site) window(kernel, fine []int) (window, error) {
	if len(fine) != 4 || len(kernel) != 2 {
		return window{}, fmt.Errorf("only two-dimensional windows are lowered, not %v over %v", kernel, fine)
	}
	w := window{stride: [2]int{1, 1}, dilation: [2]int{1, 1}, kernel: [2]int(kernel), fine: [2]int(fine[2:])}
	for name, to := range map[string]*[2]int{"strides": &w.stride, "dilations": &w.dilation} {
		if v := s.attrs(name); v != nil {
			if len(v) != 2 || min(v[0], v[1]) < 1 {
				return w, fmt.Errorf("%s %v", name, v)
			}
			*to = [2]int(v)
		}
	}
	if min(kernel[0], kernel[1]) < 1 {
		return w, fmt.Errorf("kernel %v", kernel)
	}
	if p := s.attrs("pads"); p != nil {
		if len(p) != 4 {
			return w, fmt.Errorf("pads %v", p)
		}
		w.pads, w.after = [2]int(p[:2]), [2]int(p[2:])
	}
	return w, nil
}

// span is how far the window reaches along an axis.
func (w window) span(a int) int { return w.dilation[a]*(w.kernel[a]-1) + 1 }

// slide sets the coarse size, and the padding that auto_pad asks for. With ceil a window may hang over the end, but must
// begin before it.
func (w *window) slide(auto string, ceil bool) error {
	for a := range 2 {
		switch auto {
		case "NOTSET", "":
		case "VALID":
			w.pads[a], w.after[a] = 0, 0
		case "SAME_UPPER", "SAME_LOWER":
			out := (w.fine[a] + w.stride[a] - 1) / w.stride[a]
			all := max(0, (out-1)*w.stride[a]+w.span(a)-w.fine[a])
			w.pads[a] = all / 2
			if auto == "SAME_LOWER" {
				w.pads[a] = all - all/2
			}
			w.after[a] = all - w.pads[a]
		default:
			return fmt.Errorf("auto_pad %s", auto)
		}
		room := w.fine[a] + w.pads[a] + w.after[a] - w.span(a)
		if room < 0 {
			return fmt.Errorf("a window of %d over %d", w.span(a), w.fine[a]+w.pads[a]+w.after[a])
		}
		w.coarse[a] = room/w.stride[a] + 1
		if ceil && room%w.stride[a] != 0 && w.coarse[a]*w.stride[a] < w.fine[a]+w.pads[a] {
			w.coarse[a]++
		}
	}
	if elements(w.coarse[:]) > maxElements || elements(append(w.kernel[:], w.coarse[:]...)) > 64*maxElements {
		return fmt.Errorf("%v windows of %v: %w", w.coarse, w.kernel, errTooLarge)
	}
	return nil
}

// taps calls f for each tap of each position that lies on an element: the indices of tap, fine and coarse position.
func (w window) taps(f func(k, fine, coarse int)) {
	for cy := range w.coarse[0] {
		for cx := range w.coarse[1] {
			for ky := range w.kernel[0] {
				fy := cy*w.stride[0] + ky*w.dilation[0] - w.pads[0]
				if fy < 0 || fy >= w.fine[0] {
					continue
				}
				for kx := range w.kernel[1] {
					if fx := cx*w.stride[1] + kx*w.dilation[1] - w.pads[1]; fx >= 0 && fx < w.fine[1] {
						f(ky*w.kernel[1]+kx, fy*w.fine[1]+fx, cy*w.coarse[1]+cx)
					}
				}
			}
		}
	}
}

// symmetric reports whether there is as much padding behind as before.
func (w window) symmetric() bool { return w.pads == w.after }

// on is the shape of a batch of channels at a size.
func on(batch, channels int, size [2]int) []int {
	return slices.Concat([]int{batch, channels}, size[:])
}
