package op

import (
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// floatOnly refuses other element types of the first input.
func (s *Site) floatOnly() error {
	if s.DType(0) != s.Float {
		return s.Unsupported("element type %v is not run, only floating point is", s.DType(0))
	}
	return nil
}

// one is the result of an operator with one output.
func one(dt tensor.DType, shape ...int) []tensor.Type {
	return []tensor.Type{{DType: dt, Shape: append(tensor.Shape{}, shape...)}}
}

// spatial is the geometry of a sliding window over the axes behind batch and channel.
type spatial struct {
	in, kernel, stride, dilation, begin, end, out []int
}

// window reads the attributes that Conv and the pools share. out is left to the caller.
func (s *Site) window(kernel []int) (spatial, error) {
	x := s.Shape(0)
	n := len(x) - 2
	if n < 1 {
		return spatial{}, fmt.Errorf("input is %v, want batch, channels and at least one axis more", s.Arg(0).Type)
	}
	w := spatial{in: x[2:], kernel: kernel}
	if k := s.Attrs().Ints("kernel_shape"); k != nil {
		if kernel != nil && fmt.Sprint(k) != fmt.Sprint(kernel) {
			return w, fmt.Errorf("kernel_shape %v, the weights have %v", k, kernel)
		}
		w.kernel = k
	}
	var err error
	if w.stride, err = s.perAxis("strides", n, 1); err != nil {
		return w, err
	}
	if w.dilation, err = s.perAxis("dilations", n, 1); err != nil {
		return w, err
	}
	if len(w.kernel) != n {
		return w, fmt.Errorf("kernel %v does not fit input %v", w.kernel, s.Arg(0).Type)
	}
	pads := make([]int, 2*n)
	if p := s.Attrs().Ints("pads"); p != nil {
		if len(p) != 2*n {
			return w, fmt.Errorf("pads %v do not fit input %v", p, s.Arg(0).Type)
		}
		pads = p
	}
	w.begin, w.end = pads[:n:n], pads[n:]
	for i := range n {
		if w.kernel[i] < 1 || w.kernel[i] > maxWindow || w.stride[i] < 1 || w.stride[i] > maxWindow || w.dilation[i] < 1 ||
			w.dilation[i] > maxWindow || min(pads[i], pads[n+i]) < 0 || max(pads[i], pads[n+i]) > maxWindow {
			return w, fmt.Errorf("kernel %v, strides %v, dilations %v or pads %v out of range", w.kernel, w.stride, w.dilation, pads)
		}
	}
	return w, nil
}

// maxWindow bounds kernels, strides, dilations and pads.
const maxWindow = 1 << 16

// perAxis is an attribute of one number for each of n axes, def where it is absent.
func (s *Site) perAxis(name string, n, def int) ([]int, error) {
	v := s.Attrs().Ints(name)
	if v == nil {
		v = make([]int, n)
		for i := range v {
			v[i] = def
		}
	}
	if len(v) != n {
		return nil, fmt.Errorf("%s %v do not fit input %v", name, v, s.Arg(0).Type)
	}
	return v, nil
}

// extent is how far the dilated kernel reaches on axis i.
func (w *spatial) extent(i int) int { return (w.kernel[i]-1)*w.dilation[i] + 1 }

// slide computes pads (auto_pad) and output sizes of a convolution or pool.
func (w *spatial) slide(attrs graph.Attrs, ceil bool) error {
	auto := attrs.Str("auto_pad", "NOTSET")
	w.begin, w.end = append([]int(nil), w.begin...), append([]int(nil), w.end...)
	w.out = make([]int, len(w.in))
	for i, n := range w.in {
		k, st := w.extent(i), w.stride[i]
		switch auto {
		case "NOTSET", "":
			span := n + w.begin[i] + w.end[i] - k
			w.out[i] = floorDiv(span, st) + 1
			if ceil {
				w.out[i] = floorDiv(span+st-1, st) + 1
				// A window that would begin in the padding behind the input is left out.
				if (w.out[i]-1)*st >= n+w.begin[i] {
					w.out[i]--
				}
			}
		case "VALID":
			w.begin[i], w.end[i] = 0, 0
			w.out[i] = floorDiv(n-k, st) + 1
		case "SAME_UPPER", "SAME_LOWER":
			w.out[i] = (n + st - 1) / st
			pad := max((w.out[i]-1)*st+k-n, 0)
			w.begin[i] = pad / 2
			if auto == "SAME_LOWER" {
				w.begin[i] = pad - pad/2
			}
			w.end[i] = pad - w.begin[i]
		default:
			return fmt.Errorf("auto_pad %q is not defined", auto)
		}
		if w.out[i] < 0 {
			return fmt.Errorf("a kernel of %d does not fit into %d with pads %d and %d", k, n, w.begin[i], w.end[i])
		}
	}
	return nil
}

func floorDiv(a, b int) int {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// byFloat makes the float32 or the float64 form of a kernel.
func byFloat(s *Site, f32, f64 func() (Kernel, error)) (Kernel, error) {
	if s.Float == tensor.Float64 {
		return f64()
	}
	return f32()
}
