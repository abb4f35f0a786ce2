package op

import (
	"fmt"
	"math"
	"slices"

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
		return s.tooLarge("its output would be %v, more than %d elements", []int(r.out), maxElems)
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

func inferResize(s *Site) ([]tensor.Type, error) {
	r, err := resizeOf(s)
	if err != nil {
		return nil, err
	}
	return one(s.DType(0), r.out...), nil
}

// Doubles reports whether a Resize or Upsample of [N,C,H,W] makes 2x2 of each pixel: [N,C,2H,2W].
func Doubles(s *Site) bool {
	r, err := resizeOf(s)
	if err != nil || r.mode != "nearest" || r.transform == "tf_crop_and_resize" || s.DType(0) != s.Float || len(r.in) != 4 {
		return false
	}
	for a := range r.in {
		by := 1 + a/2
		if r.in[a] == 0 || r.out[a] != by*r.in[a] {
			return false
		}
		t, err := r.taps(a)
		if err != nil {
			return false
		}
		for x, at := range t.at {
			if at != x/by {
				return false
			}
		}
	}
	return true
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
