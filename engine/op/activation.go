package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// activationFamily is the element-wise functions of one operand.
var activationFamily = slices.Concat(
	since(realDef("Relu", reluOf), 1, 6, 13, 14),
	since(realDef("Abs", absOf), 1, 6, 13),
	since(realDef("Neg", negOf), 1, 6, 13),
	since(clipDef(), 1, 6, 11, 12, 13),
	since(unaryDef("LeakyRelu", leakyRelu[float32], leakyRelu[float64]), 1, 6, 16),
	since(rowDef("Sigmoid", sigmoidRow[float32], sigmoidRow[float64]), 1, 6, 13),
	since(rowDef("Tanh", tanhRow[float32], tanhRow[float64]), 1, 6, 13),
	since(rowDef("Exp", expOf[float32], expOf[float64]), 1, 6, 13),
	since(scalarDef("Log", math.Log), 1, 6, 13),
	since(scalarDef("Sqrt", math.Sqrt), 1, 6, 13),
	since(scalarDef("Reciprocal", func(x float64) float64 { return 1 / x }), 1, 6, 13),
	since(rowDef("Erf", erfRow[float32], erfRow[float64]), 9, 13),
	since(scalarDef("Softplus", softplus), 1, 22),
	since(scalarDef("Softsign", func(x float64) float64 { return x / (1 + math.Abs(x)) }), 1, 22),
	since(unaryDef("HardSwish", hardSwish[float32](1.0/6), hardSwish[float64](1.0/6)), 14, 22),
	since(scalarDef("Mish", func(x float64) float64 { return x * math.Tanh(softplus(x)) }), 18, 22),
	since(scalarDef("Floor", math.Floor), 1, 6, 13),
	since(scalarDef("Ceil", math.Ceil), 1, 6, 13),
	since(scalarDef("Round", math.RoundToEven), 11, 22),
	since(unaryDef("HardSigmoid", hardSigmoid[float32], hardSigmoid[float64]), 1, 6, 22),
	since(attrDef("Elu", func(s *Site) func(float64) float64 {
		alpha := s.number("alpha", 1)
		return func(x float64) float64 {
			if x >= 0 {
				return x
			}
			return alpha * math.Expm1(x)
		}
	}), 1, 6, 22),
	since(attrDef("Selu", func(s *Site) func(float64) float64 {
		alpha, gamma := s.number("alpha", 1.67326319217681884765625), s.number("gamma", 1.05070102214813232421875)
		if s.Opset < 6 {
			alpha, gamma = s.number("alpha", 1.6732), s.number("gamma", 1.0507)
		}
		return func(x float64) float64 {
			if x > 0 {
				return gamma * x
			}
			return gamma * alpha * math.Expm1(x)
		}
	}), 1, 6, 22),
	since(attrDef("Celu", func(s *Site) func(float64) float64 {
		alpha := s.number("alpha", 1)
		return func(x float64) float64 { return max(0, x) + min(0, alpha*math.Expm1(x/alpha)) }
	}), 12),
	since(attrDef("ThresholdedRelu", func(s *Site) func(float64) float64 {
		alpha := s.number("alpha", 1)
		return func(x float64) float64 {
			if x > alpha {
				return x
			}
			return 0
		}
	}), 10, 22),
	since(unaryDef("Swish", swish[float32], swish[float64]), 24),
	since(private(unaryDef("Swish", swish[float32], swish[float64])), 1),
	since(private(unaryDef("HardSwish", hardSwish[float32](0.2), hardSwish[float64](0.2))), 1),
	since(unaryDef("Gelu", gelu[float32], gelu[float64]), 20),
	since(private(unaryDef("Gelu", gelu[float32], gelu[float64])), 1),
	since(Def{Op: "PRelu", InPlace: true, Infer: inferPRelu, New: newPRelu}, 1, 6, 7, 9, 16),
)

// number is a float attribute.
func (s *Site) number(name string, def float64) float64 {
	if !s.Attrs().Has(name) {
		return def
	}
	return float64(s.Attrs().Float(name, 0))
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// softplus is log(1+eˣ) without overflow.
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// elements makes a kernel of a loop over elements.
func elements[T tensor.Number](f func(y, x []T)) Kernel {
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		run := share(env, len(y), 1, func(lo, hi int) { f(y[lo:hi], x[lo:hi]) })
		return func() error { run(); return nil }
	})
}

// inferUnary gives the type of the first input, which must be floating point.
func inferUnary(s *Site) ([]tensor.Type, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	if err := s.floatOnly(); err != nil {
		return nil, err
	}
	return []tensor.Type{s.Arg(0).Type}, nil
}

// unaryDef is an operator on floating point, given as loops.
func unaryDef(name string, f32 func(*Site) func(y, x []float32), f64 func(*Site) func(y, x []float64)) Def {
	return Def{Op: name, InPlace: true, Infer: inferUnary, New: func(s *Site) (Kernel, error) {
		return byFloat(s, func() (Kernel, error) { return elements(f32(s)), nil }, func() (Kernel, error) { return elements(f64(s)), nil })
	}}
}

// rowDef is unaryDef for loops that no attribute changes.
func rowDef(name string, f32 func(y, x []float32), f64 func(y, x []float64)) Def {
	return unaryDef(name, func(*Site) func(y, x []float32) { return f32 }, func(*Site) func(y, x []float64) { return f64 })
}

// attrDef is an operator given as a function of one number that the attributes choose.
func attrDef(name string, f func(*Site) func(float64) float64) Def {
	return unaryDef(name,
		func(s *Site) func(y, x []float32) { return apply[float32](f(s)) },
		func(s *Site) func(y, x []float64) { return apply[float64](f(s)) })
}

func scalarDef(name string, f func(float64) float64) Def {
	return attrDef(name, func(*Site) func(float64) float64 { return f })
}

func apply[T kernel.Float](f func(float64) float64) func(y, x []T) {
	return func(y, x []T) {
		for i, v := range x {
			y[i] = T(f(float64(v)))
		}
	}
}

// realDef is an operator on floating point and integers alike.
func realDef(name string, of func(tensor.DType) (Kernel, bool)) Def {
	return Def{Op: name, InPlace: true,
		Infer: func(s *Site) ([]tensor.Type, error) {
			if err := s.require(1); err != nil {
				return nil, err
			}
			if !isReal(s.DType(0)) {
				return nil, s.Unsupported("elements of type %v", s.DType(0))
			}
			return []tensor.Type{s.Arg(0).Type}, nil
		},
		New: func(s *Site) (Kernel, error) {
			k, ok := of(s.DType(0))
			if !ok {
				return nil, s.Unsupported("elements of type %v", s.DType(0))
			}
			return k, nil
		},
	}
}

func reluOf(dt tensor.DType) (Kernel, bool) {
	return byReal(dt, elements(row(relu[float32], vec.Relu)), elements(relu[float64]), elements(relu[int8]), elements(relu[int16]), elements(relu[int32]),
		elements(relu[int64]), elements(relu[uint8]), elements(relu[uint16]), elements(relu[uint32]), elements(relu[uint64]))
}

func relu[T real](y, x []T) {
	for i, v := range x {
		y[i] = max(v, 0)
	}
}

// gelu is x·Φ(x) or, by tanh, what comes close to it: x·(1+tanh u)/2 = x·sigmoid(2u), u = √(2/π)·(x + 0.044715x³).
func gelu[T kernel.Float](s *Site) func(y, x []T) {
	if s.Attrs().Str("approximate", "none") != "tanh" {
		return geluRow[T]
	}
	return func(y, x []T) {
		var u [256]T
		for len(x) > 0 {
			n := min(len(x), len(u))
			for i, v := range x[:n] {
				u[i] = T(2*math.Sqrt2/math.SqrtPi) * (v + 0.044715*v*v*v)
			}
			sigmoidRow(u[:n], u[:n])
			for i, v := range x[:n] {
				y[i] = v * u[i]
			}
			y, x = y[n:], x[n:]
		}
	}
}

// expOf is y = eˣ.
func expOf[T kernel.Float](y, x []T) { expRow(y, x, 0) }

// private is an operator that passes make.
func private(d Def) Def {
	d.Domain = Private
	return d
}

// swish is x/(1+e^-αx), with α = 1 also called SiLU.
func swish[T kernel.Float](s *Site) func(y, x []T) {
	alpha := s.number("alpha", 1)
	slow := apply[T](func(x float64) float64 { return x * sigmoid(alpha*x) })
	if alpha != 1 {
		return slow
	}
	return row(slow, vec.SiLU)
}

func absOf(dt tensor.DType) (Kernel, bool) {
	return byReal(dt, elements(absolute[float32]), elements(absolute[float64]), elements(absolute[int8]), elements(absolute[int16]),
		elements(absolute[int32]), elements(absolute[int64]), elements(absolute[uint8]), elements(absolute[uint16]),
		elements(absolute[uint32]), elements(absolute[uint64]))
}

func absolute[T real](y, x []T) {
	for i, v := range x {
		y[i] = max(v, -v)
		if v >= 0 { // unsigned -v is large
			y[i] = v
		}
	}
}

func negOf(dt tensor.DType) (Kernel, bool) {
	return byReal(dt, elements(negate[float32]), elements(negate[float64]), elements(negate[int8]), elements(negate[int16]),
		elements(negate[int32]), elements(negate[int64]), elements(negate[uint8]), elements(negate[uint16]),
		elements(negate[uint32]), elements(negate[uint64]))
}

func negate[T real](y, x []T) {
	for i, v := range x {
		y[i] = -v
	}
}

func leakyRelu[T kernel.Float](s *Site) func(y, x []T) {
	alpha := T(s.Attrs().Float("alpha", 0.01))
	return row(func(y, x []T) {
		for i, v := range x {
			y[i] = max(v, 0) + alpha*min(v, 0) // signs come in no order, so a branch would cost more
		}
	}, func(y, x []float32) { vec.LeakyRelu(y, x, float32(alpha)) })
}

func hardSigmoid[T kernel.Float](s *Site) func(y, x []T) {
	alpha, beta := T(s.number("alpha", 0.2)), T(s.number("beta", 0.5))
	return func(y, x []T) {
		for i, v := range x {
			y[i] = max(0, min(1, alpha*v+beta))
		}
	}
}

// hardSwish is x·min(max(αx+β, 0), 1). That of passes is x·HardSigmoid(x), whose attributes and default slope it has.
func hardSwish[T kernel.Float](slope float64) func(s *Site) func(y, x []T) {
	return func(s *Site) func(y, x []T) {
		alpha, beta := T(s.number("alpha", slope)), T(s.number("beta", 0.5))
		return row(func(y, x []T) {
			for i, v := range x {
				y[i] = v * max(0, min(1, alpha*v+beta))
			}
		}, func(y, x []float32) { vec.HardSwish(y, x, float32(alpha), float32(beta)) })
	}
}

// clipDef: bounds are attributes before opset 11 and scalar inputs from then on, which may be computed.
func clipDef() Def {
	d := realDef("Clip", nil)
	infer := d.Infer
	d.Infer = func(s *Site) ([]tensor.Type, error) {
		for i := 1; i < len(s.In); i++ {
			if a := s.Arg(i); a.Given() && (a.Type.DType != s.DType(0) || a.Type.Shape.Elems() != 1) {
				return nil, fmt.Errorf("bound %d is %v, want one %v", i, a.Type, s.DType(0))
			}
		}
		return infer(s)
	}
	d.New = func(s *Site) (Kernel, error) {
		k, ok := byReal(s.DType(0), clip[float32], clip[float64], clip[int8], clip[int16], clip[int32], clip[int64], clip[uint8],
			clip[uint16], clip[uint32], clip[uint64])
		if !ok {
			return nil, s.Unsupported("elements of type %v", s.DType(0))
		}
		return k(s), nil
	}
	return d
}

// clip is min(max(x, lo), hi); where lo is above hi everything becomes hi, as the specification says.
func clip[T real](s *Site) Kernel {
	bounds := [2]T{emptyExtreme[T](true), emptyExtreme[T](false)}
	for i, name := range []string{"min", "max"} {
		if s.Opset < 11 && s.Attrs().Has(name) {
			bounds[i] = T(s.Attrs().Float(name, 0))
		}
	}
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		b := bounds
		run := share(env, len(y), 1, func(lo, hi int) {
			y, least, most := y[lo:hi], b[0], b[1]
			if y := floats32(y); y != nil && least == least && most == most {
				vec.Clip(y, floats32(x[lo:hi]), float32(least), float32(most))
				return
			}
			for i, v := range x[lo:hi] {
				y[i] = min(max(v, least), most)
			}
		})
		return func() error {
			for i := 1; i < len(in) && i < 3; i++ {
				if in[i] != nil {
					b[i-1] = tensor.Of[T](in[i])[0]
				}
			}
			run()
			return nil
		}
	})
}

// inferPRelu checks that the slope can be broadcast to the input and to nothing larger.
func inferPRelu(s *Site) ([]tensor.Type, error) {
	if err := s.require(2); err != nil {
		return nil, err
	}
	if s.DType(0) != s.DType(1) {
		return nil, fmt.Errorf("inputs are %v and %v, want the same type", s.DType(0), s.DType(1))
	}
	if err := s.floatOnly(); err != nil {
		return nil, err
	}
	if out, err := broadcast(s.Shape(0), slopeShape(s)); err != nil || !slices.Equal(out, s.Shape(0)) {
		return nil, fmt.Errorf("slope %v does not broadcast to %v", s.Arg(1).Type, s.Arg(0).Type)
	}
	return []tensor.Type{s.Arg(0).Type}, nil
}

// slopeShape aligns the slope for numpy's rule. Before opset 7 a slope of one dimension ran along the channels.
func slopeShape(s *Site) tensor.Shape {
	sl, x := s.Shape(1), s.Shape(0)
	if s.Opset >= 7 || len(sl) != 1 || len(x) < 2 {
		return sl
	}
	out := tensor.Shape{sl[0]}
	for range len(x) - 2 {
		out = append(out, 1)
	}
	return out
}

func newPRelu(s *Site) (Kernel, error) {
	x := s.Shape(0)
	st := broadcastStrides(slopeShape(s), x)
	n, err := newNest(x, offsets{}, x.Strides(), x.Strides(), st)
	if err != nil {
		return nil, err
	}
	return byFloat(s, func() (Kernel, error) { return prelu[float32](n), nil }, func() (Kernel, error) { return prelu[float64](n), nil })
}

func prelu[T kernel.Float](n *nest) Kernel {
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x, slope := tensor.Of[T](out[0]), tensor.Of[T](in[0]), tensor.Of[T](in[1])
		_, step := n.inner()
		run := n.bind(env, func(o offsets, length int) {
			// Input and output are contiguous, as the nest never splits them.
			y, x := y[o[0]:o[0]+length], x[o[1]:o[1]+length]
			if step[2] == 0 {
				a := slope[o[2]]
				for i, v := range x {
					y[i] = max(v, 0) + a*min(v, 0)
				}
				return
			}
			a := slope[o[2]:]
			for i, v := range x {
				y[i] = max(v, 0) + a[i*step[2]]*min(v, 0)
			}
		})
		return func() error { run(); return nil }
	})
}
