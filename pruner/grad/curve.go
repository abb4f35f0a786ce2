package grad

import (
	"math"

	"github.com/secateur/secateur/engine/kernel"
)

// curve is the reverse of a smooth function of one number by its derivative at x, where the function is y.
func curve[T kernel.Float](f func(x, y float64) float64) Rule {
	return func(s *Site) (Step, error) {
		return pointwise(s, func(d, x, y []T) {
			for i, v := range x {
				d[i] = T(float64(d[i]) * f(float64(v), float64(y[i])))
			}
		})
	}
}

func exp(_, y float64) float64 { return y }

func log(x, _ float64) float64 { return 1 / x }

func sqrt(_, y float64) float64 { return 0.5 / y }

func reciprocal(_, y float64) float64 { return -y * y }

func neg(_, _ float64) float64 { return -1 }

func erf(x, _ float64) float64 { return 2 / math.Sqrt(math.Pi) * math.Exp(-x*x) }

func abs(x, _ float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

// softplus has the logistic function as its derivative, here without overflow.
func softplus(x, _ float64) float64 {
	q := math.Exp(-math.Abs(x))
	if x < 0 {
		return q / (1 + q)
	}
	return 1 / (1 + q)
}

func softsign(x, _ float64) float64 { return 1 / ((1 + math.Abs(x)) * (1 + math.Abs(x))) }

// mish is x tanh(softplus(x)).
func mish(x, _ float64) float64 {
	t := math.Tanh(math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))))
	return t + x*(1-t*t)*softplus(x, 0)
}

func elu[T kernel.Float](s *Site) (Step, error) {
	alpha := float64(s.Attrs().Float("alpha", 1))
	return curve[T](func(x, y float64) float64 {
		if x > 0 {
			return 1
		}
		return y + alpha
	})(s)
}

func selu[T kernel.Float](s *Site) (Step, error) {
	alpha, gamma := float64(s.Attrs().Float("alpha", 1.6732632)), float64(s.Attrs().Float("gamma", 1.0507010))
	return curve[T](func(x, y float64) float64 {
		if x > 0 {
			return gamma
		}
		return y + gamma*alpha
	})(s)
}

// celu is max(0,x) + min(0, alpha (exp(x/alpha) - 1)).
func celu[T kernel.Float](s *Site) (Step, error) {
	alpha := float64(s.Attrs().Float("alpha", 1))
	return curve[T](func(x, _ float64) float64 {
		if x > 0 {
			return 1
		}
		return math.Exp(x / alpha)
	})(s)
}

func thresholdedRelu[T kernel.Float](s *Site) (Step, error) {
	alpha, inf := T(s.Attrs().Float("alpha", 1)), T(math.Inf(1))
	return pointwise(s, func(d, x, _ []T) { gate(d, x, alpha, inf) })
}

// swish is x σ(alpha x), and σ is softplus's derivative.
func swish[T kernel.Float](s *Site) (Step, error) {
	alpha := float64(s.Attrs().Float("alpha", 1))
	return curve[T](func(x, _ float64) float64 {
		q := softplus(alpha*x, 0)
		return q + alpha*x*q*(1-q)
	})(s)
}

// gelu is x Φ(x), exactly or by its approximation with tanh.
func gelu[T kernel.Float](s *Site) (Step, error) {
	if s.Attrs().Str("approximate", "none") == "tanh" {
		return curve[T](func(x, _ float64) float64 {
			k := math.Sqrt(2 / math.Pi)
			t := math.Tanh(k * (x + 0.044715*x*x*x))
			return 0.5*(1+t) + 0.5*x*(1-t*t)*k*(1+3*0.044715*x*x)
		})(s)
	}
	return curve[T](func(x, _ float64) float64 {
		return 0.5*(1+math.Erf(x/math.Sqrt2)) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	})(s)
}
