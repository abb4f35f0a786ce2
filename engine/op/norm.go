package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var normFamily = slices.Concat(
	since(Def{Op: "BatchNormalization", InPlace: true, Infer: inferBatchNorm, New: newBatchNorm}, 1, 6, 7, 9, 14, 15),
	since(Def{Op: "InstanceNormalization", Infer: inferInstanceNorm, New: newInstanceNorm}, 1, 6, 22),
)

// channelParams checks that inputs 1 to n are one number for each channel.
func channelParams(s *Site, n int) error {
	if err := s.require(n + 1); err != nil {
		return err
	}
	if err := s.floatOnly(); err != nil {
		return err
	}
	x := s.Shape(0)
	if len(x) < 2 {
		return fmt.Errorf("input is %v, want batch and channels", s.Arg(0).Type)
	}
	for i := 1; i <= n; i++ {
		if s.DType(i) != s.Float || !slices.Equal(s.Shape(i), tensor.Shape{x[1]}) {
			return fmt.Errorf("input %d is %v, want [%d]", i, s.Arg(i).Type, x[1])
		}
	}
	return nil
}

func inferBatchNorm(s *Site) ([]tensor.Type, error) {
	if err := channelParams(s, 4); err != nil {
		return nil, err
	}
	training := s.Opset >= 14 && s.Attrs().Int("training_mode", 0) != 0
	if s.Opset < 7 {
		training = s.Attrs().Int("is_test", 0) == 0 && len(s.Node.Outputs) > 1
	}
	if training {
		return nil, s.Unsupported("it is in training mode")
	}
	if s.Opset < 9 && s.Attrs().Int("spatial", 1) == 0 {
		return nil, s.Unsupported("spatial=0 normalises every pixel by itself")
	}
	for _, v := range s.Node.Outputs[1:] {
		if v != nil {
			return nil, s.Unsupported("it yields running statistics, which only training does")
		}
	}
	return slices.Repeat([]tensor.Type{s.Arg(0).Type}, max(1, len(s.Node.Outputs))), nil
}

func newBatchNorm(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return batchNorm[float32](s), nil }, func() (Kernel, error) { return batchNorm[float64](s), nil })
}

// batchNorm is y = γ(x−μ)/√(σ²+ε)+β, per channel.
func batchNorm[T kernel.Float](s *Site) Kernel {
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		shape := in[0].Shape
		c := shape[1]
		plane := shape[2:].Elems()
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		gamma, beta, mean, variance := tensor.Of[T](in[1]), tensor.Of[T](in[2]), tensor.Of[T](in[3]), tensor.Of[T](in[4])
		run := share(env, shape[0]*c, plane, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				k := p % c
				scale := float64(gamma[k]) / math.Sqrt(float64(variance[k])+eps)
				affine(y[p*plane:(p+1)*plane], x[p*plane:(p+1)*plane], T(scale), T(float64(beta[k])-float64(mean[k])*scale))
			}
		})
		return func() error { run(); return nil }
	})
}

func affine[T kernel.Float](y, x []T, scale, shift T) {
	for i, v := range x {
		y[i] = v*scale + shift
	}
}

func inferInstanceNorm(s *Site) ([]tensor.Type, error) {
	return []tensor.Type{s.Arg(0).Type}, channelParams(s, 2)
}

func newInstanceNorm(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return instanceNorm[float32](s), nil }, func() (Kernel, error) { return instanceNorm[float64](s), nil })
}

// instanceNorm normalises each channel of each image by its own mean and variance, summed in float64.
func instanceNorm[T kernel.Float](s *Site) Kernel {
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		shape := in[0].Shape
		c := shape[1]
		plane := shape[2:].Elems()
		y, x, gamma, beta := tensor.Of[T](out[0]), tensor.Of[T](in[0]), tensor.Of[T](in[1]), tensor.Of[T](in[2])
		run := share(env, shape[0]*c, plane, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				v := x[p*plane : (p+1)*plane]
				mean, variance := moments(v)
				scale := float64(gamma[p%c]) / math.Sqrt(variance+eps)
				affine(y[p*plane:(p+1)*plane], v, T(scale), T(float64(beta[p%c])-mean*scale))
			}
		})
		return func() error { run(); return nil }
	})
}

// moments is the mean and the variance, divided by n, of v.
func moments[T kernel.Float](v []T) (mean, variance float64) {
	for _, a := range v {
		mean += float64(a)
	}
	mean /= float64(len(v))
	for _, a := range v {
		d := float64(a) - mean
		variance += d * d
	}
	return mean, variance / float64(len(v))
}
