package gorgonia

import (
	"math"

	G "gorgonia.org/gorgonia"
)

// real is a function of one number.
type real = func(x float64) float64

// formula is a rule for an operator that does the same to every element: a function and its derivative.
func formula(of func(s *site) (f, slope real)) func(s *site) (value, error) {
	return func(s *site) (value, error) {
		f, slope := of(s)
		return s.each(s.name, s.in[0], f, slope)
	}
}

func (s *site) leakyRelu() (value, error) {
	alpha := s.number("alpha", 0.01)
	return gorgonias(func(x *G.Node) (*G.Node, error) { return G.LeakyRelu(x, alpha) })(s)
}

// prelu is relu(x) + slope·min(x, 0).
func (s *site) prelu() (value, error) {
	positive, err := s.each(s.name, s.in[0], func(x float64) float64 { return max(x, 0) }, step)
	if err != nil {
		return value{}, err
	}
	negative, err := s.each(s.name, s.in[0], func(x float64) float64 { return min(x, 0) }, func(x float64) float64 { return 1 - step(x) })
	if err != nil {
		return value{}, err
	}
	if negative, err = s.arith("Mul", negative, s.in[1]); err != nil {
		return value{}, err
	}
	return s.arith("Add", positive, negative)
}

// step is 1 above 0.
func step(x float64) float64 { return within(x, 0, math.Inf(1)) }

// within is 1 between lo and hi.
func within(x, lo, hi float64) float64 {
	if x > lo && x < hi {
		return 1
	}
	return 0
}

// clip's bounds were attributes before opset 11.
func (s *site) clip() (value, error) {
	lo, hi := s.number("min", -math.MaxFloat32), s.number("max", math.MaxFloat32)
	for i, to := range map[int]*float64{1: &lo, 2: &hi} {
		if s.has(i) {
			v, err := s.numbers(i)
			if err != nil {
				return value{}, err
			}
			*to = v[0]
		}
	}
	return s.each(s.name, s.in[0],
		func(x float64) float64 { return min(max(x, lo), hi) },
		func(x float64) float64 { return within(x, lo, hi) })
}

func hardSigmoid(s *site) (f, slope real) {
	a, b := s.number("alpha", 0.2), s.number("beta", 0.5)
	return func(x float64) float64 { return min(max(a*x+b, 0), 1) }, func(x float64) float64 { return a * within(a*x+b, 0, 1) }
}

func hardSwish(*site) (f, slope real) {
	gate := func(x float64) float64 { return min(max(x/6+0.5, 0), 1) }
	return func(x float64) float64 { return x * gate(x) }, func(x float64) float64 { return gate(x) + x/6*within(x, -3, 3) }
}

// exponential is x above 0 and scale·α·(e^(x/β) - 1) below.
func exponential(scale, alpha, beta float64) (f, slope real) {
	return func(x float64) float64 {
			if x > 0 {
				return scale * x
			}
			return scale * alpha * math.Expm1(x/beta)
		}, func(x float64) float64 {
			if x > 0 {
				return scale
			}
			return scale * alpha / beta * math.Exp(x/beta)
		}
}

func elu(s *site) (f, slope real) { return exponential(1, s.number("alpha", 1), 1) }

func selu(s *site) (f, slope real) {
	return exponential(s.number("gamma", 1.0507009873554805), s.number("alpha", 1.6732632423543772), 1)
}

func celu(s *site) (f, slope real) {
	a := s.number("alpha", 1)
	return exponential(1, a, a)
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func sigmoid(*site) (f, slope real) {
	return logistic, func(x float64) float64 { return logistic(x) * logistic(-x) }
}

func softplus(*site) (f, slope real) {
	return softplusOf, logistic
}

// softplusOf is log(1 + e^x), written so that e^x does not overflow.
func softplusOf(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func softsign(*site) (f, slope real) {
	return func(x float64) float64 { return x / (1 + math.Abs(x)) }, func(x float64) float64 { return 1 / ((1 + math.Abs(x)) * (1 + math.Abs(x))) }
}

func thresholdedRelu(s *site) (f, slope real) {
	a := s.number("alpha", 1)
	above := func(x float64) float64 { return within(x, a, math.Inf(1)) }
	return func(x float64) float64 { return x * above(x) }, above
}

func mish(*site) (f, slope real) {
	return func(x float64) float64 { return x * math.Tanh(softplusOf(x)) }, func(x float64) float64 {
		t := math.Tanh(softplusOf(x))
		return t + x*(1-t*t)*logistic(x)
	}
}

func gelu(s *site) (f, slope real) {
	if attr(s, "approximate", "none") == "tanh" {
		c := math.Sqrt(2 / math.Pi)
		inner := func(x float64) float64 { return math.Tanh(c * (x + 0.044715*x*x*x)) }
		return func(x float64) float64 { return x / 2 * (1 + inner(x)) }, func(x float64) float64 {
			t := inner(x)
			return (1+t)/2 + x/2*(1-t*t)*c*(1+3*0.044715*x*x)
		}
	}
	normal := func(x float64) float64 { return (1 + math.Erf(x/math.Sqrt2)) / 2 }
	return func(x float64) float64 { return x * normal(x) }, func(x float64) float64 {
		return normal(x) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	}
}

func erf(*site) (f, slope real) {
	return math.Erf, func(x float64) float64 { return 2 / math.Sqrt(math.Pi) * math.Exp(-x*x) }
}

func exp(*site) (f, slope real) { return math.Exp, math.Exp }

func log(*site) (f, slope real) { return math.Log, func(x float64) float64 { return 1 / x } }

func sqrt(*site) (f, slope real) {
	return math.Sqrt, func(x float64) float64 { return 1 / (2 * math.Sqrt(x)) }
}

func reciprocal(*site) (f, slope real) {
	return func(x float64) float64 { return 1 / x }, func(x float64) float64 { return -1 / (x * x) }
}

func absolute(*site) (f, slope real) {
	return math.Abs, func(x float64) float64 { return step(x) - step(-x) }
}

func negative(*site) (f, slope real) {
	return func(x float64) float64 { return -x }, func(float64) float64 { return -1 }
}

func floor(*site) (f, slope real) { return math.Floor, func(float64) float64 { return 0 } }

func ceil(*site) (f, slope real) { return math.Ceil, func(float64) float64 { return 0 } }
