package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var resizeFamily = slices.Concat(
	since(Def{Op: "Resize", Infer: inferResize, New: newResize}, 10, 11, 13, 18, 19),
	since(Def{Op: "Upsample", Infer: inferResize, New: newResize}, 7, 9),
)

// resize is what Resize and Upsample say of each axis, whatever their version.
type resize struct {
	in, out      tensor.Shape
	scale        []float64
	length       []float64 // in·scale, which out is rounded from
	begin, end   []float64 // region of interest, for tf_crop_and_resize
	mode         string    // nearest, linear, cubic
	transform    string    // coordinate_transformation_mode
	nearest      string    // nearest_mode
	a            float64   // cubic_coeff_a
	exclude      bool      // exclude_outside
	antialias    bool
	aspect       bool    // keep_aspect_ratio_policy is not stretch
	extrapolated float64 // extrapolation_value
}

// resizeOf reads the attributes and inputs of any version.
func resizeOf(s *Site) (*resize, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	at := s.Attrs()
	r := &resize{in: s.Shape(0), mode: at.Str("mode", "nearest"), transform: at.Str("coordinate_transformation_mode", "half_pixel"),
		nearest: at.Str("nearest_mode", "round_prefer_floor"), a: s.number("cubic_coeff_a", -0.75),
		exclude: at.Int("exclude_outside", 0) != 0, antialias: at.Int("antialias", 0) != 0, extrapolated: s.number("extrapolation_value", 0)}
	if s.Node.Op == "Upsample" || s.Opset < 11 {
		r.transform, r.nearest = "asymmetric", "simple"
	}
	if r.mode == "bilinear" || r.mode == "trilinear" { // as written by early exporters
		r.mode = "linear"
	}
	r.exclude = r.exclude && r.mode != "nearest" // its one sample is never outside
	if !slices.Contains([]string{"nearest", "linear", "cubic"}, r.mode) {
		return nil, fmt.Errorf("mode %q is not defined", r.mode)
	}
	if r.mode != "nearest" && s.DType(0) != s.Float {
		return nil, s.Unsupported("mode %s on elements of type %v", r.mode, s.DType(0))
	}
	if _, err := s.movable(0); err != nil {
		return nil, err
	}
	rank := len(r.in)
	r.scale, r.begin, r.end = make([]float64, rank), make([]float64, rank), make([]float64, rank)
	for i := range rank {
		r.scale[i], r.end[i] = 1, 1
	}
	return r, r.target(s)
}

// target reads scales or sizes and computes the output's shape.
func (r *resize) target(s *Site) error {
	rank := len(r.in)
	axes, err := axesOf(resizeAxes(s, rank), rank)
	if err != nil {
		return err
	}
	scales, sizes, err := s.resizeInputs(r, axes)
	if err != nil {
		return err
	}
	r.out = r.in.Clone()
	switch {
	case scales != nil:
		if len(scales) != len(axes) {
			return fmt.Errorf("%d scales for %d axes", len(scales), len(axes))
		}
		for i, a := range axes {
			if !(scales[i] > 0) || scales[i] > 1<<20 {
				return fmt.Errorf("scale %g is out of range", scales[i])
			}
			r.scale[a] = scales[i]
			// In float32, in which scales are given: 5·2.6 is 13 there, and less than 13 in float64.
			span := float32(r.in[a])
			if r.transform == "tf_crop_and_resize" {
				span *= float32(r.end[a] - r.begin[a])
			}
			r.out[a] = int(math.Floor(float64(span * float32(scales[i]))))
		}
	case sizes != nil:
		if len(sizes) != len(axes) {
			return fmt.Errorf("%d sizes for %d axes", len(sizes), len(axes))
		}
		for i, a := range axes {
			if sizes[i] < 0 || r.in[a] == 0 {
				return fmt.Errorf("size %d from %d is out of range", sizes[i], r.in[a])
			}
			r.out[a] = sizes[i]
			r.scale[a] = float64(sizes[i]) / float64(r.in[a])
		}
		r.keepAspect(s.Attrs().Str("keep_aspect_ratio_policy", "stretch"), axes)
	default:
		return fmt.Errorf("neither scales nor sizes are given")
	}
	for a := range r.in {
		r.length = append(r.length, float64(r.out[a]))
		if scales != nil || r.aspect {
			r.length[a] = r.scale[a] * float64(r.in[a])
		}
	}
	if n := r.out.Elems(); n < 0 || n > maxElems {
		return s.Unsupported("its output would be %v, more than %d elements", []int(r.out), maxElems)
	}
	if n := slices.Max(append([]int{0}, r.out...)); n > maxTaps {
		return s.Unsupported("%d outputs along one axis", n)
	}
	return nil
}

// keepAspect makes one scale of all: the least (not_larger) or the greatest (not_smaller).
func (r *resize) keepAspect(policy string, axes []int) {
	if policy != "not_larger" && policy != "not_smaller" || len(axes) == 0 {
		return
	}
	r.aspect = true
	s := r.scale[axes[0]]
	for _, a := range axes {
		if policy == "not_larger" {
			s = min(s, r.scale[a])
		} else {
			s = max(s, r.scale[a])
		}
	}
	for _, a := range axes {
		r.scale[a] = s
		r.out[a] = int(math.Floor(s*float64(r.in[a]) + 0.5))
	}
}

func resizeAxes(s *Site, rank int) []int {
	if axes := s.Attrs().Ints("axes"); axes != nil && s.Opset >= 18 {
		return axes
	}
	all := make([]int, rank)
	for i := range all {
		all[i] = i
	}
	return all
}

// resizeInputs gives scales or sizes, whichever the node has, and puts the region of interest into r.
func (s *Site) resizeInputs(r *resize, axes []int) (scales []float64, sizes []int, err error) {
	switch {
	case s.Node.Op == "Upsample" && s.Opset < 9:
		for _, f := range s.Attrs().Floats("scales") {
			scales = append(scales, float64(f))
		}
		return scales, nil, nil
	case s.Node.Op == "Upsample" || s.Opset < 11:
		scales, err = s.constFloats(1)
		return scales, nil, err
	}
	if scales, err = s.constFloats(2); err != nil {
		return nil, nil, err
	}
	if len(scales) == 0 {
		scales = nil
		if sizes, err = s.ConstInts(3); err != nil {
			return nil, nil, err
		}
	}
	if r.transform != "tf_crop_and_resize" {
		return scales, sizes, nil
	}
	roi, err := s.constFloats(1)
	if err != nil {
		return nil, nil, err
	}
	if len(roi) != 2*len(axes) {
		return nil, nil, fmt.Errorf("roi has %d numbers, want %d", len(roi), 2*len(axes))
	}
	for i, a := range axes {
		r.begin[a], r.end[a] = roi[i], roi[len(axes)+i]
	}
	return scales, sizes, nil
}

// constFloats is an input that must be a constant list of numbers; nil if it is omitted.
func (s *Site) constFloats(i int) ([]float64, error) {
	a := s.Arg(i)
	if !a.Given() {
		return nil, nil
	}
	if a.Const == nil {
		return nil, s.Unsupported("input %d depends on the data; it must be constant once shapes are known", i)
	}
	v, ok := a.Const.Float64s()
	if !ok {
		return nil, fmt.Errorf("input %d is %v, want numbers", i, a.Type.DType)
	}
	return v, nil
}

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

func inferResize(s *Site) ([]tensor.Type, error) {
	r, err := resizeOf(s)
	if err != nil {
		return nil, err
	}
	return one(s.DType(0), r.out...), nil
}

func newResize(s *Site) (Kernel, error) {
	r, err := resizeOf(s)
	if err != nil {
		return nil, err
	}
	// Axis by axis, the last one first, while there is least to read. Axes that stay as they are need no pass.
	var passes []*taps
	if r.out.Elems() > 0 {
		if r.in.Elems() == 0 {
			return nil, fmt.Errorf("input %v has no elements", s.Arg(0).Type)
		}
		for a := len(r.in) - 1; a >= 0; a-- {
			t, err := r.taps(a)
			if err != nil {
				return nil, err
			}
			if !t.identity(r.in[a]) {
				passes = append(passes, t)
			}
		}
	}
	if r.mode == "nearest" && r.transform != "tf_crop_and_resize" {
		switch s.DType(0).Bits() {
		case 8:
			return resizer(r, passes, nearestPass[uint8]), nil
		case 16:
			return resizer(r, passes, nearestPass[uint16]), nil
		case 32:
			return resizer(r, passes, nearestPass[uint32]), nil
		}
		return resizer(r, passes, nearestPass[uint64]), nil
	}
	if s.DType(0) != s.Float {
		return nil, s.Unsupported("elements of type %v", s.DType(0))
	}
	return byFloat(s, func() (Kernel, error) { return resizer(r, passes, weightedPass[float32]), nil },
		func() (Kernel, error) { return resizer(r, passes, weightedPass[float64]), nil })
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

// resizeKernel runs passes, each along one axis, through working memory.
type resizeKernel[T tensor.Number] struct {
	r      *resize
	passes []*taps
	pass   func(t *taps, y, x []T, outside T, inner int) func(lo, hi int)
}

func resizer[T tensor.Number](r *resize, passes []*taps, pass func(*taps, []T, []T, T, int) func(lo, hi int)) Kernel {
	return &resizeKernel[T]{r, passes, pass}
}

// sizes gives the shape after each pass.
func (k *resizeKernel[T]) shapes() []tensor.Shape {
	s := k.r.in.Clone()
	var all []tensor.Shape
	for _, p := range k.passes {
		s[p.axis] = k.r.out[p.axis]
		all = append(all, s.Clone())
	}
	return all
}

// Scratch implements Scratcher: room for what each pass but the last yields.
func (k *resizeKernel[T]) Scratch(int) int {
	n := 0
	for i, s := range k.shapes() {
		if i < len(k.passes)-1 {
			n += s.Elems()
		}
	}
	return tensor.DTypeOf[T]().Size(n)
}

// Bind implements Kernel.
func (k *resizeKernel[T]) Bind(env *Env, out, in []*tensor.Tensor) func() error {
	x, y, mem := tensor.View[T](in[0]), tensor.View[T](out[0]), scratchOf[T](env)
	if len(k.passes) == 0 {
		return func() error { copy(y, x); return nil }
	}
	var runs []func()
	for i, s := range k.shapes() {
		t := k.passes[i]
		dst := y
		if i < len(k.passes)-1 {
			dst, mem = mem[:s.Elems()], mem[s.Elems():]
		}
		inner := s[t.axis+1:].Elems()
		runs = append(runs, share(env, s[:t.axis].Elems(), s[t.axis:].Elems(), k.pass(t, dst, x, extrapolation[T](k.r), inner)))
		x = dst
	}
	return func() error {
		for _, f := range runs {
			f()
		}
		return nil
	}
}

// extrapolation is extrapolation_value as an element; only floating point ever needs it.
func extrapolation[T tensor.Number](r *resize) T {
	var z T
	switch p := any(&z).(type) {
	case *float32:
		*p = float32(r.extrapolated)
	case *float64:
		*p = r.extrapolated
	}
	return z
}

// nearestPass copies. y and x are [outer, out, inner] and [outer, in, inner]; it returns what does a range of outer.
func nearestPass[T tensor.Number](t *taps, y, x []T, _ T, inner int) func(lo, hi int) {
	out := len(t.at)
	return func(lo, hi int) {
		in := len(x) / (len(y) / (out * inner)) / inner
		for o := lo; o < hi; o++ {
			src, dst := x[o*in*inner:(o+1)*in*inner], y[o*out*inner:(o+1)*out*inner]
			if inner == 1 {
				for i, a := range t.at {
					dst[i] = src[a]
				}
				continue
			}
			for i, a := range t.at {
				copy(dst[i*inner:(i+1)*inner], src[a*inner:(a+1)*inner])
			}
		}
	}
}

// blend is a row of linear interpolation: element i is between those at[2i] and at[2i+1].
func blend[T kernel.Float](y, x []T, at []int, w []T) {
	at, w = at[:2*len(y)], w[:2*len(y)]
	for i := range y {
		y[i] = w[2*i]*x[at[2*i]] + w[2*i+1]*x[at[2*i+1]]
	}
}

// weightedPass adds up weighted elements.
func weightedPass[T kernel.Float](t *taps, y, x []T, outside T, inner int) func(lo, hi int) {
	out := len(t.at) / t.n
	w := make([]T, len(t.weight))
	for i, v := range t.weight {
		w[i] = T(v)
	}
	return func(lo, hi int) {
		in := len(x) / (len(y) / (out * inner)) / inner
		for o := lo; o < hi; o++ {
			src, dst := x[o*in*inner:(o+1)*in*inner], y[o*out*inner:(o+1)*out*inner]
			if inner == 1 && t.n == 2 && t.outside == nil {
				blend(dst, src, t.at, w)
				continue
			}
			for i := range out {
				row := dst[i*inner : (i+1)*inner]
				at, wt := t.at[i*t.n:(i+1)*t.n], w[i*t.n:(i+1)*t.n]
				switch {
				case t.outside != nil && t.outside[i]:
					for j := range row {
						row[j] = outside
					}
				case inner == 1:
					var sum T
					for k, a := range at {
						sum += wt[k] * src[a]
					}
					row[0] = sum
				case t.n == 2:
					a, b, u, v := src[at[0]*inner:][:inner], src[at[1]*inner:][:inner], wt[0], wt[1]
					for j := range row {
						row[j] = u*a[j] + v*b[j]
					}
				default:
					for j := range row {
						var sum T
						for k, a := range at {
							sum += wt[k] * src[a*inner+j]
						}
						row[j] = sum
					}
				}
			}
		}
	}
}
