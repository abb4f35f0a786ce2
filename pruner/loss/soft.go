package loss

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// Soft is the loss of logits against another model's, of the same shape: what a pruned model is trained on without masks.
// It is cross-entropy against the other's probabilities q, less their entropy, plus 1 - soft Dice with squares in its
// denominator,
//
//	1 - (2 Σ p·q + 1) / (Σ p² + Σ q² + 1),
//
// so that it is zero, and least, where p is q. Planes are as for [Loss]; the gradient has the logits' type and shape.
func Soft(logits, target *tensor.Tensor, kind Kind) (value float64, grad *tensor.Tensor, err error) {
	s := logits.Shape
	if len(s) == 4 && s[0] == 1 {
		s = s[1:]
	}
	if len(s) != 3 || s[0] < 1 || s.Elems() == 0 || !slices.Equal(logits.Shape, target.Shape) {
		return 0, nil, fmt.Errorf("logits are %v and %v, want two of [1,classes,height,width]", logits.Type(), target.Type())
	}
	x, ok := logits.Float64s()
	t, ok2 := target.Float64s()
	if !ok || !ok2 || !logits.DType.IsFloat() {
		return 0, nil, fmt.Errorf("logits are %v and %v, want floating point", logits.DType, target.DType)
	}
	classes, n := s[0], s[1]*s[2]
	g := make([]float64, len(x))
	if classes == 1 || kind == Sigmoid {
		for k := range classes {
			value += softBinary(g[k*n:][:n], x[k*n:][:n], t[k*n:][:n], float64(classes))
		}
	} else {
		value = softCategorical(g, x, t, classes)
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return 0, nil, fmt.Errorf("loss is %g: the logits are not finite", value)
	}
	grad, err = tensor.From(g, logits.Shape...).Float(logits.DType)
	return value, grad, err
}

// entropyTerm is -q log q.
func entropyTerm(q float64) float64 {
	if q <= 0 {
		return 0
	}
	return -q * math.Log(q)
}

func sigmoidOf(v float64) float64 {
	q := math.Exp(-math.Abs(v))
	if v < 0 {
		return q / (1 + q)
	}
	return 1 / (1 + q)
}

// softBinary is one plane's loss, over so many planes, and writes its gradient.
func softBinary(g, x, t []float64, planes float64) float64 {
	n := float64(len(x))
	p, q := make([]float64, len(x)), make([]float64, len(x))
	var ce, inter, squares float64
	for i, v := range x {
		p[i], q[i] = sigmoidOf(v), sigmoidOf(t[i])
		ce += math.Max(v, 0) + math.Log1p(math.Exp(-math.Abs(v))) - q[i]*v - entropyTerm(q[i]) - entropyTerm(1-q[i])
		inter += p[i] * q[i]
		squares += p[i]*p[i] + q[i]*q[i]
	}
	num, den := 2*inter+smooth, squares+smooth
	for i := range g {
		g[i] = ((p[i]-q[i])/n + 2*(num*p[i]-q[i]*den)/(den*den)*p[i]*(1-p[i])) / planes
	}
	return (ce/n + 1 - num/den) / planes
}

// softCategorical is the loss of planes that share a softmax.
func softCategorical(g, x, t []float64, classes int) float64 {
	n := len(x) / classes
	p, q := softmaxPlanes(x, classes), softmaxPlanes(t, classes)
	var value float64
	num, den := make([]float64, classes), make([]float64, classes)
	for k := range classes {
		num[k], den[k] = smooth, smooth
		for i := k * n; i < (k+1)*n; i++ {
			value += (-q[i].p*p[i].log - entropyTerm(q[i].p)) / float64(n)
			num[k] += 2 * p[i].p * q[i].p
			den[k] += p[i].p*p[i].p + q[i].p*q[i].p
		}
		value += (1 - num[k]/den[k]) / float64(classes)
	}
	d := make([]float64, classes)
	for i := range n {
		var mean float64
		for k := range classes {
			a, b := p[k*n+i].p, q[k*n+i].p
			d[k] = 2 * (num[k]*a - b*den[k]) / (den[k] * den[k]) / float64(classes)
			mean += d[k] * a
		}
		for k := range classes {
			a := p[k*n+i].p
			g[k*n+i] = (a-q[k*n+i].p)/float64(n) + a*(d[k]-mean)
		}
	}
	return value
}

// probability is p with its logarithm, which is finite where p is zero by rounding.
type probability struct{ p, log float64 }

// softmaxPlanes is the softmax over planes of planar logits.
func softmaxPlanes(x []float64, classes int) []probability {
	n := len(x) / classes
	out := make([]probability, len(x))
	for i := range n {
		top := math.Inf(-1)
		for k := range classes {
			top = math.Max(top, x[k*n+i])
		}
		var sum float64
		for k := range classes {
			sum += math.Exp(x[k*n+i] - top)
		}
		for k := range classes {
			l := x[k*n+i] - top - math.Log(sum)
			out[k*n+i] = probability{math.Exp(l), l}
		}
	}
	return out
}
