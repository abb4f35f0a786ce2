package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
)

// taps says from where each output index of one axis comes: n positions and their weights.
type taps struct {
	axis, n int
	at      []int     // [out*n] positions, within the input
	weight  []float64 // [out*n]
	outside []bool    // [out]: beyond the region that tf_crop_and_resize may read; nil if none is
}

// source is where output index x of an axis lies in the input: coordinate_transformation_mode.
//
// It is computed in T. Nearest does so in float32, as ONNX Runtime does, because there a position that rounds to a whole
// number or not decides for one pixel or the other; the rest in float64, in which a long axis has exact weights.
func source[T kernel.Float](r *resize, axis, x int) (T, error) {
	in, out, s := T(r.in[axis]), T(r.length[axis]), T(r.scale[axis])
	p := T(x)
	switch r.transform {
	case "half_pixel":
		return (p+0.5)/s - 0.5, nil
	case "pytorch_half_pixel":
		if r.out[axis] > 1 {
			return (p+0.5)/s - 0.5, nil
		}
		return 0, nil
	case "half_pixel_symmetric":
		adjust := T(r.out[axis]) / out
		return in/2*(1-adjust) + (p+0.5)/s - 0.5, nil
	case "align_corners":
		// The width that the scale asks for, which may be fractional, as the specification's reference has it.
		if out != 1 {
			return p * (in - 1) / (out - 1), nil
		}
		return 0, nil
	case "asymmetric":
		return p / s, nil
	case "tf_half_pixel_for_nn":
		return (p + 0.5) / s, nil
	case "tf_crop_and_resize":
		b, e := T(r.begin[axis]), T(r.end[axis])
		if n := T(r.out[axis]); n > 1 {
			return b*(in-1) + p*(e-b)*(in-1)/(n-1), nil
		}
		return 0.5 * (b + e) * (in - 1), nil
	}
	return 0, fmt.Errorf("coordinate_transformation_mode %q is not defined", r.transform)
}

// maxTaps bounds the outputs of one axis, each of which has a row of a table.
const maxTaps = 1 << 22

// taps computes one axis.
func (r *resize) taps(axis int) (*taps, error) {
	t := &taps{axis: axis}
	at := source[float64]
	if r.mode == "nearest" {
		at = func(r *resize, axis, x int) (float64, error) {
			p, err := source[float32](r, axis, x)
			return float64(p), err
		}
	}
	for x := range r.out[axis] {
		p, err := at(r, axis, x)
		if err != nil {
			return nil, err
		}
		first, w, err := r.weights(p, r.scale[axis])
		if err != nil {
			return nil, err
		}
		t.n = len(w)
		var sum float64
		for i, v := range w {
			at := first + i
			inside := at >= 0 && at < r.in[axis]
			if r.exclude && !inside {
				v = 0
			}
			sum += v
			t.at = append(t.at, min(max(at, 0), r.in[axis]-1)) // the edge goes on beyond the input
			t.weight = append(t.weight, v)
		}
		if r.exclude && sum != 0 {
			for i := range t.n {
				t.weight[len(t.weight)-1-i] /= sum
			}
		}
		if r.transform == "tf_crop_and_resize" {
			t.outside = append(t.outside, p < 0 || p > float64(r.in[axis]-1))
		}
	}
	return t, nil
}

// weights gives the first position that is read for p, and the weights from there on.
func (r *resize) weights(p, scale float64) (first int, w []float64, err error) {
	base := math.Floor(p)
	f := p - base
	reach := min(scale, 1)
	switch {
	case r.mode == "nearest":
		n, err := r.round(p, scale)
		return n, []float64{1}, err
	case r.mode == "linear" && !r.antialias:
		return int(base), []float64{1 - f, f}, nil
	case r.mode == "linear":
		start := int(math.Floor(-1/reach)) + 1
		return int(base) + start, normalised(start, 2-2*start, f, reach, func(x float64) float64 { return max(0, 1-math.Abs(x)) }), nil
	case !r.antialias:
		return int(base) - 1, []float64{r.cubic(1 + f), r.cubic(f), r.cubic(1 - f), r.cubic(2 - f)}, nil
	}
	start := int(math.Floor(-2/reach)) + 1
	return int(base) + start, normalised(start, 2-2*start, f, reach, r.cubic), nil
}

// normalised samples a filter that is stretched by 1/reach at n positions from start, so that the weights add up to 1.
func normalised(start, n int, f, reach float64, filter func(float64) float64) []float64 {
	w := make([]float64, n)
	var sum float64
	for i := range w {
		w[i] = filter((float64(start+i) - f) * reach)
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

// cubic is Keys' kernel with parameter a.
func (r *resize) cubic(x float64) float64 {
	a := r.a
	x = math.Abs(x)
	switch {
	case x <= 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return ((a*x-5*a)*x+8*a)*x - 4*a
	}
	return 0
}

// round is nearest_mode. "simple" is what opset 10 and before do, where there was no such attribute.
func (r *resize) round(p, scale float64) (int, error) {
	switch r.nearest {
	case "round_prefer_floor":
		return int(math.Ceil(p - 0.5)), nil
	case "simple":
		if scale < 1 {
			return int(math.Ceil(p)), nil
		}
		return int(math.Floor(p)), nil
	case "round_prefer_ceil":
		return int(math.Floor(p + 0.5)), nil
	case "floor":
		return int(math.Floor(p)), nil
	case "ceil":
		return int(math.Ceil(p)), nil
	}
	return 0, fmt.Errorf("nearest_mode %q is not defined", r.nearest)
}

// identity reports whether every output is the input at the same index.
func (t *taps) identity(in int) bool {
	if len(t.at) != in*t.n || slices.Contains(t.outside, true) {
		return false
	}
	for x := range in {
		for i := x * t.n; i < (x+1)*t.n; i++ {
			if t.weight[i] != 0 && t.at[i] != x {
				return false
			}
		}
	}
	return true
}
