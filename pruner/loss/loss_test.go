package loss

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

func draw(seed uint64, classes, labels, h, w int, scale float64) (*tensor.Tensor, *vision.Mask) {
	r := rand.New(rand.NewPCG(seed, 1))
	x := tensor.New(tensor.Float64, 1, classes, h, w)
	for i := range tensor.Of[float64](x) {
		tensor.Of[float64](x)[i] = scale * r.NormFloat64()
	}
	m := &vision.Mask{W: w, H: h, Pix: make([]byte, w*h)}
	for i := range m.Pix {
		m.Pix[i] = byte(r.IntN(labels))
	}
	return x, m
}

// The gradient is the derivative of the value.
func TestGradientIsCentralDifference(t *testing.T) {
	for _, c := range []struct {
		classes int
		kind    Kind
	}{{1, Sigmoid}, {1, Softmax}, {2, Softmax}, {4, Softmax}, {2, Sigmoid}, {3, Sigmoid}} {
		classes, kind := c.classes, c.kind
		labels := max(classes, 2)
		if kind == Sigmoid {
			labels = classes + 1
		}
		x, m := draw(uint64(classes), classes, labels, 4, 5, 2)
		_, g, err := Loss(x, m, kind)
		if err != nil {
			t.Fatal(err)
		}
		const h = 1e-5
		v := tensor.Of[float64](x)
		for i := range v {
			was := v[i]
			v[i] = was + h
			up, _, _ := Loss(x, m, kind)
			v[i] = was - h
			down, _, _ := Loss(x, m, kind)
			v[i] = was
			if got, want := tensor.Of[float64](g)[i], (up-down)/(2*h); math.Abs(got-want) > 1e-9 {
				t.Fatalf("%d classes, kind %d: gradient[%d] = %.12g, central difference %.12g", classes, kind, i, got, want)
			}
		}
	}
}

// Logits of ±1e4 give the finite loss that their size says, and a gradient that still pulls wrong ones back.
func TestStableForLargeLogits(t *testing.T) {
	m := &vision.Mask{W: 2, H: 1, Pix: []byte{1, 0}}
	for _, c := range []struct {
		x    []float64
		k    int
		want float64
	}{
		{[]float64{1e4, -1e4}, 1, 0},
		{[]float64{-1e4, 1e4}, 1, 1e4 + 1 - 1./3},
		{[]float64{-1e4, 1e4, 1e4, -1e4}, 2, 0},
		{[]float64{1e4, -1e4, -1e4, 1e4}, 2, 2e4 + 1 - 1./3},
	} {
		v, g, err := Loss(tensor.From(c.x, 1, c.k, 1, 2), m, Softmax)
		if err != nil || math.Abs(v-c.want) > 1e-9 {
			t.Errorf("loss of %v is %g (%v), want %g", c.x, v, err, c.want)
			continue
		}
		for i, d := range tensor.Of[float64](g) {
			if math.IsNaN(d) || c.want > 0 && d*c.x[i] <= 0 {
				t.Errorf("gradient of %v at %d is %g", c.x, i, d)
			}
		}
	}
}

// An empty frame that is predicted empty costs nothing.
func TestEmptyTruth(t *testing.T) {
	m := &vision.Mask{W: 3, H: 3, Pix: make([]byte, 9)}
	x := tensor.New(tensor.Float32, 1, 1, 3, 3)
	for i := range tensor.Of[float32](x) {
		tensor.Of[float32](x)[i] = -50
	}
	v, g, err := Loss(x, m, Sigmoid)
	if err != nil || v > 1e-12 || g.DType != tensor.Float32 {
		t.Fatalf("loss %g, gradient %v, %v; want none", v, g, err)
	}
}

func TestRefuses(t *testing.T) {
	x, m := draw(1, 2, 2, 3, 4, 1)
	bad := &vision.Mask{W: 4, H: 3, Pix: []byte{0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
	high := &vision.Mask{W: 4, H: 3, Pix: []byte{0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0}}
	inf := tensor.From([]float64{math.Inf(1), math.NaN()}, 1, 2, 1, 1)
	for name, f := range map[string]func() error{
		"rank":               func() error { _, _, err := Loss(tensor.New(tensor.Float64, 3, 4), m, Softmax); return err },
		"class of no plane":  func() error { _, _, err := Loss(x, high, Sigmoid); return err },
		"no truth":           func() error { _, _, err := Loss(x, nil, Softmax); return err },
		"size":               func() error { _, _, err := Loss(x, &vision.Mask{W: 1, H: 1, Pix: []byte{0}}, Softmax); return err },
		"class out of range": func() error { _, _, err := Loss(x, bad, Softmax); return err },
		"not finite": func() error {
			_, _, err := Loss(inf, &vision.Mask{W: 1, H: 1, Pix: []byte{0}}, Softmax)
			return err
		},
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A mask made larger by a whole factor repeats its pixels; the way back is the identity.
func TestTruth(t *testing.T) {
	m := &vision.Mask{W: 2, H: 2, Pix: []byte{1, 0, 0, 1}}
	big := Truth(m, 6, 4)
	for y := range 4 {
		for x := range 6 {
			if got, want := big.Pix[y*6+x], m.Pix[y/2*2+x/3]; got != want {
				t.Fatalf("(%d,%d) is %d, want %d", x, y, got, want)
			}
		}
	}
	if back := Truth(big, 2, 2); string(back.Pix) != string(m.Pix) {
		t.Fatalf("there and back: %v, want %v", back.Pix, m.Pix)
	}
}

// Classes by sigmoid do not compete: what one plane costs does not depend on another's logits, and its gradient is that
// of the plane alone, shared by their number.
func TestSigmoidPlanesAreIndependent(t *testing.T) {
	x, m := draw(7, 3, 4, 4, 5, 2)
	_, g, err := Loss(x, m, Sigmoid)
	if err != nil {
		t.Fatal(err)
	}
	for k := range 3 {
		one := &vision.Mask{W: 5, H: 4, Pix: make([]byte, 20)}
		for i, v := range m.Pix {
			if int(v) == k+1 {
				one.Pix[i] = 1
			}
		}
		_, alone, err := Loss(tensor.From(tensor.Of[float64](x)[20*k:20*(k+1)], 1, 1, 4, 5), one, Sigmoid)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range tensor.Of[float64](alone) {
			if got := 3 * tensor.Of[float64](g)[20*k+i]; math.Abs(got-want) > 1e-12 {
				t.Fatalf("plane %d, pixel %d: 3 times the gradient is %g, alone it is %g", k, i, got, want)
			}
		}
	}
}
