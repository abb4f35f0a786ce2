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
	since(Def{Op: "InstanceNormalization", InPlace: true, Infer: inferInstanceNorm, New: newInstanceNorm}, 1, 6, 22),
	since(Def{Op: "GroupNormalization", InPlace: true, Infer: inferGroupNorm, New: newGroupNorm}, 18, 21),
	since(Def{Op: "LayerNormalization", InPlace: true, Infer: inferLayerNorm, New: newLayerNorm}, 17),
)

// channelParams checks that inputs 1 to n are one number for each channel.
func channelParams(s *Site, n int) error {
	if err := s.channels(n); err != nil {
		return err
	}
	return s.vectors(n, s.Shape(0)[1])
}

// channels checks that the node has inputs 0 to n, and that the first is floating point with an axis of channels.
func (s *Site) channels(n int) error {
	if err := s.require(n + 1); err != nil {
		return err
	}
	if err := s.floatOnly(); err != nil {
		return err
	}
	if len(s.Shape(0)) < 2 {
		return fmt.Errorf("input is %v, want batch and channels", s.Arg(0).Type)
	}
	return nil
}

// vectors checks that inputs 1 to n are lists of k numbers.
func (s *Site) vectors(n, k int) error {
	for i := 1; i <= n; i++ {
		if s.DType(i) != s.Float || !slices.Equal(s.Shape(i), tensor.Shape{k}) {
			return fmt.Errorf("input %d is %v, want [%d]", i, s.Arg(i).Type, k)
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

// affine is y = scale·x + shift; y may be x.
func affine[T kernel.Float](y, x []T, scale, shift T) {
	if x := floats32(x); x != nil {
		vec.Scale(floats32(y), x, float32(scale), float32(shift))
		return
	}
	for i, v := range x {
		y[i] = v*scale + shift
	}
}

func inferInstanceNorm(s *Site) ([]tensor.Type, error) {
	return []tensor.Type{s.Arg(0).Type}, channelParams(s, 2)
}

func newInstanceNorm(s *Site) (Kernel, error) { return newGroups(s, s.Shape(0)[1]) }

func inferGroupNorm(s *Site) ([]tensor.Type, error) {
	if err := s.channels(2); err != nil {
		return nil, err
	}
	c := s.Shape(0)[1]
	groups := s.Attrs().Int("num_groups", 0)
	if groups < 1 || c%groups != 0 {
		return nil, fmt.Errorf("num_groups %d does not divide %d channels", groups, c)
	}
	if s.Opset < 21 { // scale and bias were of groups, then of channels
		c = groups
	}
	return []tensor.Type{s.Arg(0).Type}, s.vectors(2, c)
}

func newGroupNorm(s *Site) (Kernel, error) { return newGroups(s, s.Attrs().Int("num_groups", 0)) }

func newGroups(s *Site, groups int) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return groupNorm[float32](s, groups), nil },
		func() (Kernel, error) { return groupNorm[float64](s, groups), nil })
}

// groupNorm normalises each group of channels of each image by its own mean and variance, summed in float64 whatever
// stash_type allows, then scales and shifts it, or each equal part of it, by numbers of its own: y = γ(x−μ)/√(σ²+ε)+β, Wu
// and He, ECCV 2018. InstanceNormalization has as many groups as channels.
func groupNorm[T kernel.Float](s *Site, groups int) Kernel {
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x, gamma, beta := tensor.Of[T](out[0]), tensor.Of[T](in[0]), tensor.Of[T](in[1]), tensor.Of[T](in[2])
		parts := len(gamma) / groups
		size := in[0].Shape[1:].Elems() / groups
		part := size / parts
		run := share(env, in[0].Shape[0]*groups, size, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				y, x := y[p*size:(p+1)*size], x[p*size:(p+1)*size]
				mean, variance := moments(x)
				for i := range parts {
					k := p%groups*parts + i
					scale := float64(gamma[k]) / math.Sqrt(variance+eps)
					affine(y[i*part:(i+1)*part], x[i*part:(i+1)*part], T(scale), T(float64(beta[k])-mean*scale))
				}
			}
		})
		return func() error { run(); return nil }
	})
}

// layerAxis gives the first of the axes that LayerNormalization normalises over, which are all from there on.
func (s *Site) layerAxis() (int, error) { return axisOf(s.Attrs().Int("axis", -1), len(s.Shape(0))) }

func inferLayerNorm(s *Site) ([]tensor.Type, error) {
	if err := s.require(2); err != nil {
		return nil, err
	}
	if err := s.floatOnly(); err != nil {
		return nil, err
	}
	axis, err := s.layerAxis()
	if err != nil {
		return nil, err
	}
	x := s.Shape(0)
	for i := 1; i < 3; i++ {
		if !s.Arg(i).Given() {
			continue
		}
		if p, err := broadcast(s.Shape(i), x); err != nil || !slices.Equal(p, x) || s.DType(i) != s.Float {
			return nil, fmt.Errorf("input %d is %v, the data %v", i, s.Arg(i).Type, s.Arg(0).Type)
		}
		if lead := len(s.Shape(i)) - len(x) + axis; s.Shape(i).Elems() != x[axis:].Elems() || lead > 0 && s.Shape(i)[:lead].Elems() != 1 {
			return nil, s.Unsupported("input %d is %v, which is broadcast; only one number for each of %v is run", i, s.Arg(i).Type, []int(x[axis:]))
		}
	}
	rows := x.Clone()
	for a := axis; a < len(rows); a++ {
		rows[a] = 1
	}
	mean, err := s.sized(s.Float, rows)
	if err != nil {
		return nil, err
	}
	return []tensor.Type{s.Arg(0).Type, mean[0], mean[0]}, nil
}

func newLayerNorm(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return layerNorm[float32](s) }, func() (Kernel, error) { return layerNorm[float64](s) })
}

// layerNorm normalises what lies behind the axis by its mean and variance, summed in float64 whatever stash_type allows,
// then scales and shifts each element by numbers of its own (Ba, Kiros and Hinton, 2016).
func layerNorm[T kernel.Float](s *Site) (Kernel, error) {
	eps := float64(s.Attrs().Float("epsilon", 1e-5))
	axis, err := s.layerAxis()
	if err != nil {
		return nil, err
	}
	rows, n := s.Shape(0)[:axis].Elems(), s.Shape(0)[axis:].Elems()
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		given := func(t []*tensor.Tensor, i int) []T {
			if i < len(t) && t[i] != nil {
				return tensor.Of[T](t[i])
			}
			return nil
		}
		y, means, inverses := given(out, 0), given(out, 1), given(out, 2)
		x, gamma, beta := given(in, 0), given(in, 1), given(in, 2)
		run := share(env, rows, n, func(lo, hi int) {
			for r := lo; r < hi; r++ {
				x := x[r*n : (r+1)*n]
				mean, variance := moments(x)
				inverse := 1 / math.Sqrt(variance+eps)
				if means != nil {
					means[r] = T(mean)
				}
				if inverses != nil {
					inverses[r] = T(inverse)
				}
				if y != nil {
					y := y[r*n : (r+1)*n]
					affine(y, x, T(inverse), T(-mean*inverse))
					affines(y, gamma, beta)
				}
			}
		})
		return func() error { run(); return nil }
	}), nil
}

// affines is y·gamma + beta for each element, in place; a nil beta is zero.
func affines[T kernel.Float](y, gamma, beta []T) {
	if y := floats32(y); y != nil {
		vec.Mul(y, y, floats32(gamma))
		if beta := floats32(beta); beta != nil {
			vec.Add(y, y, beta)
		}
		return
	}
	for i, g := range gamma {
		y[i] *= g
	}
	for i, b := range beta {
		y[i] += b
	}
}

// moments is the mean and the variance, divided by n, of v. The variance is that of the differences from the mean: the
// mean of squares less the square of the mean would lose a small variance about a large mean.
func moments[T kernel.Float](v []T) (mean, variance float64) {
	n := float64(len(v))
	var a, b, c, d float64 // four sums at a time hide the latency of an addition
	x := v
	for ; len(x) >= 4; x = x[4:] {
		a, b, c, d = a+float64(x[0]), b+float64(x[1]), c+float64(x[2]), d+float64(x[3])
	}
	for _, x := range x {
		a += float64(x)
	}
	mean = (a + b + c + d) / n
	a, b, c, d = 0, 0, 0, 0
	for x = v; len(x) >= 4; x = x[4:] {
		p, q, r, s := float64(x[0])-mean, float64(x[1])-mean, float64(x[2])-mean, float64(x[3])-mean
		a, b, c, d = a+p*p, b+q*q, c+r*r, d+s*s
	}
	for _, x := range x {
		a += (float64(x) - mean) * (float64(x) - mean)
	}
	return mean, (a + b + c + d) / n
}
