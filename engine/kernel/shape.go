package kernel

import (
	"fmt"
	"math"
	"slices"
)

// ConvShape is the geometry of a convolution, or of a transposed one: C, H, W are its input, M, OH, OW its output.
// Padding that ConvTranspose's output_padding adds is in OH and OW already.
type ConvShape struct {
	N, C, H, W                           int
	M, KH, KW                            int
	StrideH, StrideW, DilH, DilW         int
	PadTop, PadLeft, PadBottom, PadRight int
	Group                                int
	OH, OW                               int
	// Sources are the tensors that the input's channels come from, one after the other; none means one dense tensor.
	Sources []Source
}

// Source is a tensor [N, C, H, W] whose channels are part of a convolution's input. If Up, it is [N, C, H/2, W/2] and each
// of its pixels counts as 2x2.
type Source struct {
	C  int
	Up bool
}

// sources is Sources, of one tensor at least.
func (s *ConvShape) sources() []Source {
	if len(s.Sources) == 0 {
		return []Source{{C: s.C}}
	}
	return s.Sources
}

// anyUp reports whether a source is to be upsampled.
func (s *ConvShape) anyUp() bool {
	return slices.ContainsFunc(s.Sources, func(f Source) bool { return f.Up })
}

// elems is the elements of a source, of one image.
func (f Source) elems(s ConvShape) int {
	if f.Up {
		return f.C * (s.H / 2) * (s.W / 2)
	}
	return f.C * s.H * s.W
}

// maxPadded bounds the elements of an input with its padding and the reach of the kernel around it.
const maxPadded = 1 << 31

// Check reports what would make NewConv or NewConvTranspose panic, or take memory out of all proportion: sizes and
// strides must be positive, groups must divide channels, and the padded input must have fewer than 2^31 elements.
func (s ConvShape) Check() error {
	for _, v := range []struct {
		name string
		v    int
		min  int
	}{
		{"batch", s.N, 0}, {"channels", s.C, 1}, {"height", s.H, 0}, {"width", s.W, 0}, {"output channels", s.M, 1},
		{"kernel height", s.KH, 1}, {"kernel width", s.KW, 1}, {"stride", min(s.StrideH, s.StrideW), 1},
		{"dilation", min(s.DilH, s.DilW), 1}, {"group", s.Group, 1}, {"output height", s.OH, 0}, {"output width", s.OW, 0},
		{"padding", min(s.PadTop, s.PadLeft), 0}, // at the end it may be negative: OH and OW say how far the output goes
	} {
		if v.v < v.min {
			return fmt.Errorf("%s is %d", v.name, v.v)
		}
	}
	if s.C%s.Group != 0 || s.M%s.Group != 0 {
		return fmt.Errorf("%d groups do not divide %d input and %d output channels", s.Group, s.C, s.M)
	}
	if len(s.Sources) > 0 {
		c := 0
		for _, f := range s.Sources {
			if f.C < 1 || f.Up && (s.H%2 != 0 || s.W%2 != 0) {
				return fmt.Errorf("%d channels of %dx%d pixels, upsampled: %v", f.C, s.H, s.W, f.Up)
			}
			c += f.C
		}
		if c != s.C {
			return fmt.Errorf("the sources have %d channels in all, the input %d", c, s.C)
		}
	}
	// In floating point, where nothing overflows.
	h := float64(s.H) + float64(s.PadTop) + float64(s.PadBottom) + 2*float64(s.KH)*float64(s.DilH) + float64(s.StrideH)
	w := float64(s.W) + float64(s.PadLeft) + float64(s.PadRight) + 2*float64(s.KW)*float64(s.DilW) + float64(s.StrideW)
	if n := float64(s.C) * h * w; n >= maxPadded {
		return fmt.Errorf("the padded input would have %.3g elements", n)
	}
	return nil
}

// Clamp bounds results: min(max(y, Lo), Hi). A NaN stays one.
type Clamp struct{ Lo, Hi float64 }

// NoClamp leaves results as they are.
var NoClamp = Clamp{math.Inf(-1), math.Inf(1)}

// need panics unless an operand has the elements that it should: assembly trusts its caller.
func need(name string, have, want int) {
	if have < want {
		panic(fmt.Sprintf("kernel: %s has %d elements, needs %d", name, have, want))
	}
}
