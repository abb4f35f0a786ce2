package op

import (
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// resizeKernel runs passes, each along one axis, through working memory.
type resizeKernel[T tensor.Number] struct {
	r      *resize
	passes []*taps
	pass   func(t *taps, y, x []T, outside T, inner int) func(lo, hi int)
}

func resizer[T tensor.Number](r *resize, passes []*taps, pass func(*taps, []T, []T, T, int) func(lo, hi int)) Kernel {
	return &resizeKernel[T]{r, passes, pass}
}

// sizes gives the shape after each pass.
func (k *resizeKernel[T]) shapes() []tensor.Shape {
	s := k.r.in.Clone()
	var all []tensor.Shape
	for _, p := range k.passes {
		s[p.axis] = k.r.out[p.axis]
		all = append(all, s.Clone())
	}
	return all
}

// Scratch implements Scratcher: room for what each pass but the last yields.
func (k *resizeKernel[T]) Scratch(int) int {
	n := 0
	for i, s := range k.shapes() {
		if i < len(k.passes)-1 {
			n += s.Elems()
		}
	}
	return tensor.DTypeOf[T]().Size(n)
}

// Bind implements Kernel.
func (k *resizeKernel[T]) Bind(env *Env, out, in []*tensor.Tensor) func() error {
	x, y, mem := tensor.View[T](in[0]), tensor.View[T](out[0]), scratchOf[T](env)
	if len(k.passes) == 0 {
		return func() error { copy(y, x); return nil }
	}
	var runs []func()
	for i, s := range k.shapes() {
		t := k.passes[i]
		dst := y
		if i < len(k.passes)-1 {
			dst, mem = mem[:s.Elems()], mem[s.Elems():]
		}
		inner := s[t.axis+1:].Elems()
		runs = append(runs, share(env, s[:t.axis].Elems(), s[t.axis:].Elems(), k.pass(t, dst, x, extrapolation[T](k.r), inner)))
		x = dst
	}
	return func() error {
		for _, f := range runs {
			f()
		}
		return nil
	}
}

// extrapolation is extrapolation_value as an element; only floating point ever needs it.
func extrapolation[T tensor.Number](r *resize) T {
	var z T
	switch p := any(&z).(type) {
	case *float32:
		*p = float32(r.extrapolated)
	case *float64:
		*p = r.extrapolated
	}
	return z
}

// nearestPass copies. y and x are [outer, out, inner] and [outer, in, inner]; it returns what does a range of outer.
func nearestPass[T tensor.Number](t *taps, y, x []T, _ T, inner int) func(lo, hi int) {
	out := len(t.at)
	in := axisLength(len(x), len(y), out, inner)
	return func(lo, hi int) {
		for o := lo; o < hi; o++ {
			src, dst := x[o*in*inner:(o+1)*in*inner], y[o*out*inner:(o+1)*out*inner]
			if inner == 1 {
				for i, a := range t.at {
					dst[i] = src[a]
				}
				continue
			}
			for i, a := range t.at {
				copy(dst[i*inner:(i+1)*inner], src[a*inner:(a+1)*inner])
			}
		}
	}
}

// blend is a row of linear interpolation: element i is between those at[2i] and at[2i+1].
func blend[T kernel.Float](y, x []T, at []int, w []T) {
	at, w = at[:2*len(y)], w[:2*len(y)]
	for i := range y {
		y[i] = w[2*i]*x[at[2*i]] + w[2*i+1]*x[at[2*i+1]]
	}
}

// weightedPass adds up weighted elements.
func weightedPass[T kernel.Float](t *taps, y, x []T, outside T, inner int) func(lo, hi int) {
	out := len(t.at) / t.n
	w := make([]T, len(t.weight))
	for i, v := range t.weight {
		w[i] = T(v)
	}
	in := axisLength(len(x), len(y), out, inner)
	if d, ok := doublingOf(t, w, in); ok && inner == 1 && floats32(x) != nil {
		return func(lo, hi int) { d.rows(t, w, y[lo*out:hi*out], x[lo*in:hi*in], in) }
	}
	return func(lo, hi int) {
		for o := lo; o < hi; o++ {
			src, dst := x[o*in*inner:(o+1)*in*inner], y[o*out*inner:(o+1)*out*inner]
			if inner == 1 && t.n == 2 && t.outside == nil {
				blend(dst, src, t.at, w)
				continue
			}
			for i := range out {
				row := dst[i*inner : (i+1)*inner]
				at, wt := t.at[i*t.n:(i+1)*t.n], w[i*t.n:(i+1)*t.n]
				switch {
				case t.outside != nil && t.outside[i]:
					for j := range row {
						row[j] = outside
					}
				case inner == 1:
					var sum T
					for k, a := range at {
						sum += wt[k] * src[a]
					}
					row[0] = sum
				case t.n == 2:
					a, b, u, v := src[at[0]*inner:][:inner], src[at[1]*inner:][:inner], wt[0], wt[1]
					if row := floats32(row); row != nil {
						vec.Mix(row, floats32(a), floats32(b), float32(u), float32(v))
						continue
					}
					for j := range row {
						row[j] = u*a[j] + v*b[j]
					}
				default:
					for j := range row {
						var sum T
						for k, a := range at {
							sum += wt[k] * src[a*inner+j]
						}
						row[j] = sum
					}
				}
			}
		}
	}
}

// axisLength is how many elements x has along the axis of which y has out, with inner behind it.
func axisLength(x, y, out, inner int) int {
	if y == 0 {
		return 0
	}
	return x / (y / (out * inner)) / inner
}
