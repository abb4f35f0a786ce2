package gorgonia

import (
	"fmt"
	"math"
	"slices"
)

// tap is an element that a resized one takes a share of.
type tap struct {
	i int
	w float64
}

// resize goes axis by axis: what is done along one does not depend on the others.
func (s *site) resize() (value, error) {
	x := s.in[0]
	at := 2 // the input with scales; sizes follow
	if s.opset < 11 {
		at = 1
	}
	axes, err := axesOf(s.attrs("axes"), s.rank())
	if err != nil {
		return value{}, err
	}
	if len(axes) == 0 {
		axes = from(0, s.rank())
	}
	size := slices.Clone(x.shape)
	scale := slices.Repeat([]float64{1}, s.rank())
	switch {
	case s.has(at) && len(s.in[at].array) > 0:
		v, err := s.numbers(at)
		if err != nil || len(v) != len(axes) {
			return value{}, fmt.Errorf("scales %v for %d axes (%w)", v, len(axes), err)
		}
		for k, a := range axes {
			scale[a], size[a] = v[k], int(math.Floor(float64(x.shape[a])*v[k]))
		}
	case s.has(at + 1):
		v, err := s.ints(at + 1)
		if err != nil || len(v) != len(axes) {
			return value{}, fmt.Errorf("sizes %v for %d axes (%w)", v, len(axes), err)
		}
		if p := attr(s, "keep_aspect_ratio_policy", "stretch"); p != "stretch" {
			return value{}, fmt.Errorf("keep_aspect_ratio_policy %s is not lowered", p)
		}
		for k, a := range axes {
			scale[a], size[a] = float64(v[k])/float64(x.shape[a]), v[k]
		}
	default:
		return value{}, fmt.Errorf("neither scales nor sizes are given")
	}
	if s.integer("antialias", 0) != 0 {
		return value{}, fmt.Errorf("antialias is not lowered")
	}
	mode := attr(s, "coordinate_transformation_mode", "half_pixel")
	if s.opset < 11 {
		mode = "asymmetric"
	}
	return s.resample(scale, size, mode, attr(s, "mode", "nearest"), attr(s, "nearest_mode", "round_prefer_floor"))
}

// upsample is Resize of opset 10, which went by this name before.
func (s *site) upsample() (value, error) {
	scale := convert(append([]float32{}, attr(s, "scales", []float32{})...))
	if s.opset >= 9 {
		var err error
		if scale, err = s.numbers(1); err != nil {
			return value{}, err
		}
	}
	if len(scale) != s.rank() {
		return value{}, fmt.Errorf("scales %v for %d axes", scale, s.rank())
	}
	size := make([]int, s.rank())
	for a, d := range s.in[0].shape {
		size[a] = int(math.Floor(float64(d) * scale[a]))
	}
	return s.resample(scale, size, "asymmetric", attr(s, "mode", "nearest"), "floor")
}

func (s *site) resample(scale []float64, size []int, coordinates, mode, nearest string) (value, error) {
	x := s.in[0]
	for a := range size {
		if size[a] == x.shape[a] && scale[a] == 1 {
			continue
		}
		if elements(size) > maxElements || size[a] < 1 {
			return value{}, fmt.Errorf("%v: %w", size, errTooLarge)
		}
		rows := make([][]tap, size[a])
		for o := range rows {
			p, err := source(float64(o), scale[a], x.shape[a], size[a], coordinates)
			if err != nil {
				return value{}, err
			}
			if mode == "nearest" {
				rows[o], err = nearestTap(p, x.shape[a], nearest)
			} else {
				rows[o], err = s.taps(p, x.shape[a], mode)
			}
			if err != nil {
				return value{}, err
			}
		}
		var err error
		if x, err = s.along(x, a, rows); err != nil {
			return value{}, err
		}
	}
	return x, nil
}

// along makes each element along an axis of the shares that rows lists.
func (s *site) along(x value, a int, rows [][]tap) (value, error) {
	inner, n := elements(x.shape[a+1:]), x.shape[a]
	shape := slices.Clone(x.shape)
	shape[a] = len(rows)
	return s.sum(s.name, x, shape, func(add func(i, j int, w float64)) {
		for outer := range elements(x.shape[:a]) {
			for o, row := range rows {
				for _, t := range row {
					for k := range inner {
						add((outer*n+t.i)*inner+k, (outer*len(rows)+o)*inner+k, t.w)
					}
				}
			}
		}
	})
}

// source is where in the input the output's element o lies.
func source(o, scale float64, in, out int, mode string) (float64, error) {
	switch mode {
	case "half_pixel":
		return (o+0.5)/scale - 0.5, nil
	case "half_pixel_symmetric":
		middle := float64(in) / 2 * (1 - float64(out)/(scale*float64(in)))
		return middle + (o+0.5)/scale - 0.5, nil
	case "pytorch_half_pixel":
		if out == 1 {
			return 0, nil
		}
		return (o+0.5)/scale - 0.5, nil
	case "align_corners":
		if out == 1 {
			return 0, nil
		}
		// The size that the scale asks for, which may be fractional, as the specification's reference has it.
		return o * float64(in-1) / (scale*float64(in) - 1), nil
	case "asymmetric":
		return o / scale, nil
	}
	return 0, fmt.Errorf("coordinate_transformation_mode %s is not lowered", mode)
}

func nearestTap(p float64, n int, mode string) ([]tap, error) {
	var i float64
	switch mode {
	case "round_prefer_floor":
		i = math.Ceil(p - 0.5)
	case "round_prefer_ceil":
		i = math.Floor(p + 0.5)
	case "floor":
		i = math.Floor(p)
	case "ceil":
		i = math.Ceil(p)
	default:
		return nil, fmt.Errorf("nearest_mode %s is not lowered", mode)
	}
	return []tap{{min(max(int(i), 0), n-1), 1}}, nil
}

// taps are the neighbours of position p among n elements; those beyond the ends are the ends.
func (s *site) taps(p float64, n int, mode string) ([]tap, error) {
	low := math.Floor(p)
	t := p - low
	var first int
	var w []float64
	switch mode {
	case "linear", "bilinear":
		first, w = 0, []float64{1 - t, t}
	case "cubic": // Keys, 1981
		c := s.number("cubic_coeff_a", -0.75)
		near := func(d float64) float64 { return ((c+2)*d-(c+3))*d*d + 1 }
		far := func(d float64) float64 { return ((c*d-5*c)*d+8*c)*d - 4*c }
		first, w = -1, []float64{far(1 + t), near(t), near(1 - t), far(2 - t)}
	default:
		return nil, fmt.Errorf("mode %s is not lowered", mode)
	}
	var row []tap
	var all float64
	for k, v := range w {
		i := int(low) + first + k
		if s.integer("exclude_outside", 0) != 0 && (i < 0 || i >= n) {
			continue
		}
		row = append(row, tap{min(max(i, 0), n-1), v})
		all += v
	}
	for k := range row {
		row[k].w /= all
	}
	return row, nil
}
