// Package loss gives the training loss that the pruner differentiates: its value and its gradient at the logits.
//
// One class is binary cross-entropy plus soft Dice behind a sigmoid. Several are cross-entropy plus the mean over the
// classes of soft Dice behind a softmax, or, if each has a sigmoid of its own, the mean of what each class alone costs. Everything is computed in float64 from the logits themselves, never from
// probabilities, so that |logit| in the hundreds costs neither an infinity nor a lost gradient.
package loss

import (
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// smooth is added to numerator and denominator of Dice: an empty truth met by an empty prediction scores 1.
const smooth = 1

// Kind is what lies between logits and probabilities.
type Kind int

// The kinds. A single plane is always by sigmoid.
const (
	Sigmoid Kind = iota // every plane by itself
	Softmax             // the planes share one
)

// Loss is the mean over pixels of cross-entropy, plus 1 - soft Dice, of logits [1,classes,H,W] (or [classes,H,W])
// against a truth of the logits' size. One plane takes a truth of zero and non-zero. Several by softmax take the plane's
// number, several by sigmoid that number plus one, 0 being the background: as vision.Spec.Mask writes them. The gradient
// has the logits' type and shape.
func Loss(logits *tensor.Tensor, truth *vision.Mask, kind Kind) (value float64, grad *tensor.Tensor, err error) {
	s := logits.Shape
	if len(s) == 4 && s[0] == 1 {
		s = s[1:]
	}
	if len(s) != 3 || s[0] < 1 {
		return 0, nil, fmt.Errorf("logits are %v, want [1,classes,height,width]", logits.Type())
	}
	classes := s[0]
	if truth == nil || truth.H != s[1] || truth.W != s[2] || len(truth.Pix) != s[1]*s[2] {
		return 0, nil, fmt.Errorf("truth does not fill logits of %dx%d", s[2], s[1])
	}
	if len(truth.Pix) == 0 {
		return 0, nil, fmt.Errorf("logits %v have no pixel", logits.Type())
	}
	x, ok := logits.Float64s()
	if !ok || !logits.DType.IsFloat() {
		return 0, nil, fmt.Errorf("logits are %v, want floating point", logits.DType)
	}
	var g []float64
	switch {
	case classes == 1:
		value, g = binary(x, truth.Pix)
	case kind == Sigmoid:
		value, g, err = independent(x, truth.Pix, classes)
	default:
		value, g, err = categorical(x, truth.Pix, classes)
	}
	if err != nil {
		return 0, nil, err
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return 0, nil, fmt.Errorf("loss is %g: the logits are not finite", value)
	}
	grad, err = tensor.From(g, logits.Shape...).Float(logits.DType)
	return value, grad, err
}

// binary is BCE + soft Dice of one class. With q = exp(-|x|): softplus(-|x|) = log1p(q), and sigmoid's derivative is
// q/(1+q)^2, neither of which can overflow.
func binary(x []float64, truth []byte) (float64, []float64) {
	n := float64(len(x))
	p, d := make([]float64, len(x)), make([]float64, len(x))
	var bce, inter, sp, st float64
	// The sum of logarithms is that of products, of few enough factors between 1 and 2 that they do not overflow.
	terms := 1.0
	for i, v := range x {
		q := math.Exp(-math.Abs(v))
		r := 1 / (1 + q)
		p[i] = r
		if v < 0 {
			p[i] = q * r
		}
		d[i] = q * r * r
		bce += max(v, 0)
		if terms *= 1 + q; terms > 1<<60 {
			bce += math.Log(terms)
			terms = 1
		}
		sp += p[i]
		if truth[i] != 0 {
			bce -= v
			inter += p[i]
			st++
		}
	}
	bce += math.Log(terms)
	num, den := 2*inter+smooth, sp+st+smooth
	g := make([]float64, len(x))
	for i := range g {
		var t float64
		if truth[i] != 0 {
			t = 1
		}
		// d(-num/den)/dp = (num - 2 t den) / den^2
		g[i] = (p[i]-t)/n + (num-2*t*den)/(den*den)*d[i]
	}
	return bce/n + 1 - num/den, g
}

// independent is the mean over the planes of binary: plane k finds the pixels of class k+1.
func independent(x []float64, truth []byte, classes int) (float64, []float64, error) {
	for i, t := range truth {
		if int(t) > classes {
			return 0, nil, fmt.Errorf("truth has class %d at pixel %d, the logits have %d classes", t, i, classes)
		}
	}
	n := len(truth)
	var value float64
	g := make([]float64, 0, len(x))
	is := make([]byte, n)
	for k := range classes {
		for i, t := range truth {
			is[i] = 0
			if int(t) == k+1 {
				is[i] = 1
			}
		}
		v, d := binary(x[k*n:(k+1)*n], is)
		value += v / float64(classes)
		for _, d := range d {
			g = append(g, d/float64(classes))
		}
	}
	return value, g, nil
}

// categorical is cross-entropy + mean soft Dice. x is planar: class k of pixel i is x[k*n+i].
func categorical(x []float64, truth []byte, classes int) (float64, []float64, error) {
	n := len(truth)
	p := make([]float64, len(x))
	inter, sp, st := make([]float64, classes), make([]float64, classes), make([]float64, classes)
	var ce float64
	for i, t := range truth {
		if int(t) >= classes {
			return 0, nil, fmt.Errorf("truth has class %d at pixel %d, the logits have %d classes", t, i, classes)
		}
		top := math.Inf(-1)
		for k := range classes {
			top = math.Max(top, x[k*n+i])
		}
		var sum float64
		for k := range classes {
			p[k*n+i] = math.Exp(x[k*n+i] - top)
			sum += p[k*n+i]
		}
		ce += math.Log(sum) + top - x[int(t)*n+i]
		for k := range classes {
			p[k*n+i] /= sum
			sp[k] += p[k*n+i]
		}
		inter[t] += p[int(t)*n+i]
		st[t]++
	}
	var dice float64
	for k := range classes {
		dice += (2*inter[k] + smooth) / (sp[k] + st[k] + smooth) / float64(classes)
	}
	g := make([]float64, len(x))
	dp := make([]float64, classes)
	for i, t := range truth {
		var mean float64 // of dp under p: the softmax's pull-back is p (dp - mean)
		for k := range classes {
			num, den := 2*inter[k]+smooth, sp[k]+st[k]+smooth
			dp[k] = num / (den * den)
			if k == int(t) {
				dp[k] -= 2 / den
			}
			dp[k] /= float64(classes)
			mean += dp[k] * p[k*n+i]
		}
		for k := range classes {
			ce := p[k*n+i]
			if k == int(t) {
				ce--
			}
			g[k*n+i] = ce/float64(n) + p[k*n+i]*(dp[k]-mean)
		}
	}
	return ce/float64(n) + 1 - dice, g, nil
}

// Truth is the mask at w x h, each pixel that of the mask nearest to its centre, as the loss wants it at the logits.
func Truth(m *vision.Mask, w, h int) *vision.Mask {
	if m.W == w && m.H == h {
		return m
	}
	r := &vision.Mask{W: w, H: h, Pix: make([]byte, w*h)}
	for y := range h {
		sy := min((2*y+1)*m.H/(2*h), m.H-1)
		for x := range w {
			r.Pix[y*w+x] = m.Pix[sy*m.W+min((2*x+1)*m.W/(2*w), m.W-1)]
		}
	}
	return r
}
