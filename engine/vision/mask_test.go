package vision

import (
	"bytes"
	"image"
	"image/png"
	"math"
	"testing"

	"github.com/secateur/secateur/engine/tensor"
)

func TestProbabilitiesAndMask(t *testing.T) {
	ln := func(p float64) float32 { return float32(math.Log(p)) }
	logit := func(p float64) float32 { return float32(math.Log(p / (1 - p))) }
	for _, c := range []struct {
		name    string
		pre     Preprocess
		post    Postprocess
		shape   []int
		x       []float32
		prob    []float32
		mask    []byte
		classes int
	}{
		{"sigmoid", Preprocess{}, Postprocess{Activation: "sigmoid", Threshold: 0.5}, []int{1, 1, 1, 3},
			[]float32{logit(0.25), 0, logit(0.75)}, []float32{0.25, 0.5, 0.75}, []byte{0, 0, 1}, 1},
		{"threshold", Preprocess{}, Postprocess{Activation: "none", Threshold: 0.2}, []int{1, 1, 3},
			[]float32{0.1, 0.3, 0.75}, []float32{0.1, 0.3, 0.75}, []byte{0, 1, 1}, 1},
		{"rank 2", Preprocess{}, Postprocess{Activation: "none", Threshold: 0.5}, []int{1, 2}, []float32{0.1, 0.6}, []float32{0.1, 0.6}, []byte{0, 1}, 1},
		{"softmax of two", Preprocess{}, Postprocess{Activation: "softmax", Threshold: 0.9}, []int{1, 2, 1, 2},
			[]float32{ln(3), ln(1), ln(1), ln(3)}, []float32{0.75, 0.25, 0.25, 0.75}, []byte{0, 1}, 1},
		{"softmax of three, channels last", Preprocess{Layout: "NHWC"}, Postprocess{Activation: "softmax"}, []int{1, 1, 2, 3},
			[]float32{ln(1), ln(2), ln(1), ln(1), ln(1), ln(8)}, []float32{0.25, 0.1, 0.5, 0.1, 0.25, 0.8}, []byte{1, 2}, 2},
		{"softmax in the graph", Preprocess{}, Postprocess{Activation: "none", Inside: "softmax", Threshold: 0.5}, []int{1, 3, 1, 1},
			[]float32{0.3, 0.3, 0.4}, []float32{0.3, 0.3, 0.4}, []byte{2}, 2},
		{"sigmoid of two", Preprocess{}, Postprocess{Activation: "sigmoid", Threshold: 0.5}, []int{1, 2, 1, 3},
			[]float32{logit(0.4), logit(0.6), logit(0.6), logit(0.45), logit(0.5), logit(0.7)},
			[]float32{0.4, 0.6, 0.6, 0.45, 0.5, 0.7}, []byte{0, 1, 2}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.pre.Layout == "" {
				c.pre.Layout = "NCHW"
			}
			s := Spec{c.pre, c.post}
			w := len(c.mask)
			p, err := s.Probabilities(tensor.From(c.x, c.shape...), w, 1)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range p.P {
				if math.Abs(float64(v-c.prob[i])) > 1e-6 {
					t.Fatalf("probabilities %v, want %v", p.P, c.prob)
				}
			}
			m := s.Mask(p)
			if !bytes.Equal(m.Pix, c.mask) || m.Classes != c.classes {
				t.Fatalf("mask %v of %d classes, want %v of %d", m.Pix, m.Classes, c.mask, c.classes)
			}
		})
	}
}

func TestProbabilitiesRefuse(t *testing.T) {
	s := Spec{Preprocess{Layout: "NCHW"}, Postprocess{Activation: "sigmoid", Classes: []string{"polyp"}}}
	for _, shape := range [][]int{{2, 1, 4, 4}, {1, 2, 4, 4}, {1, 300, 1, 1}, {5}, {1, 1, 1, 1, 1}, {1, 1, 0, 4}, {}} {
		if p, err := s.Probabilities(tensor.New(tensor.Float32, shape...), 4, 4); err == nil {
			t.Errorf("shape %v gives %d planes", shape, p.C)
		}
	}
	if _, err := s.Probabilities(tensor.New(tensor.Int64, 1, 1, 4, 4), 4, 4); err == nil {
		t.Error("integers are accepted")
	}
	if _, err := s.Probabilities(tensor.New(tensor.Float32, 1, 1, 4, 4), 1<<40, 1<<40); err == nil {
		t.Error("a huge size is accepted")
	}
}

// Logits that are far out stay numbers, and probabilities stay in [0,1].
func TestActivationsAreStable(t *testing.T) {
	x := []float32{-1e4, 1e4, 3e38, -3e38, 0, 88.8}
	for _, act := range []string{"sigmoid", "softmax"} {
		s := Spec{Preprocess{Layout: "NCHW"}, Postprocess{Activation: act}}
		p, err := s.Probabilities(tensor.From(x, 1, 2, 1, 3), 3, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range p.P {
			if !(v >= 0 && v <= 1) {
				t.Errorf("%s: p[%d] = %g", act, i, v)
			}
		}
	}
}

// A mask written as PNG is the same mask when it is read as ground truth.
func TestMaskPNG(t *testing.T) {
	m := &Mask{W: 3, H: 2, Pix: []byte{0, 1, 0, 1, 1, 0}}
	back, err := DecodeMask(m.PNG(), Limits{})
	if err != nil || !bytes.Equal(back.Pix, m.Pix) {
		t.Fatalf("%v, %v", back, err)
	}
	several := &Mask{W: 2, H: 1, Pix: []byte{3, 0}, Classes: 3}
	img, err := png.Decode(bytes.NewReader(several.PNG()))
	if g, ok := img.(*image.Gray); err != nil || !ok || !bytes.Equal(g.Pix, []byte{3, 0}) {
		t.Fatalf("several classes: %v, %v", img, err)
	}
}

func TestOverlay(t *testing.T) {
	img := NewImage(7, 7)
	for i := range img.Pix {
		img.Pix[i] = 100
	}
	m := NewMask(7, 7)
	for y := 1; y < 6; y++ {
		for x := 1; x < 6; x++ {
			m.Pix[7*y+x] = 1
		}
	}
	o := Overlay(img, m)
	if c := o.RGBAAt(0, 0); c.R != 100 || c.G != 100 || c.A != 255 {
		t.Errorf("outside: %v", c)
	}
	if c := o.RGBAAt(1, 3); c != tints[0] {
		t.Errorf("contour: %v, want %v", c, tints[0])
	}
	if c := o.RGBAAt(3, 3); c.G <= 100 || c.G > 150 {
		t.Errorf("inside: %v, want a light tint", c)
	}
	if o := Overlay(img, NewMask(3, 3)); o.RGBAAt(1, 1).R != 100 {
		t.Error("a mask of another size is drawn")
	}
}

// Counted by hand: of 8 pixels 2 are found, 1 is false, 2 are missed, 3 are rightly left alone.
func TestCompare(t *testing.T) {
	truth := &Mask{W: 4, H: 2, Pix: []byte{1, 1, 1, 1, 0, 0, 0, 0}}
	pred := &Mask{W: 4, H: 2, Pix: []byte{1, 1, 0, 0, 1, 0, 0, 0}}
	if got, want := Compare(pred, truth), (Metrics{Dice: 4.0 / 7, IoU: 2.0 / 5, Sensitivity: 0.5, Specificity: 0.75}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	none, all := NewMask(4, 2), &Mask{W: 4, H: 2, Pix: bytes.Repeat([]byte{1}, 8)}
	if got, want := Compare(none, none), (Metrics{1, 1, 1, 1, true}); got != want {
		t.Errorf("both empty: %+v, want %+v", got, want)
	}
	if got, want := Compare(pred, none), (Metrics{0, 0, 1, 5.0 / 8, true}); got != want {
		t.Errorf("truth empty: %+v, want %+v", got, want)
	}
	if got, want := Compare(none, truth), (Metrics{0, 0, 0, 1, false}); got != want {
		t.Errorf("nothing found: %+v, want %+v", got, want)
	}
	if got, want := Compare(all, all), (Metrics{1, 1, 1, 1, false}); got != want {
		t.Errorf("all: %+v, want %+v", got, want)
	}
	two := &Mask{W: 2, H: 1, Pix: []byte{2, 1}, Classes: 2}
	if got := Compare(two, &Mask{W: 2, H: 1, Pix: []byte{1, 1}, Classes: 2}); got.Dice != 0.5 {
		t.Errorf("a wrong class: Dice %g, want 0.5", got.Dice)
	}
}
