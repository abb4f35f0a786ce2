package gorgonia

import (
	"fmt"
	"math"
	"slices"
)

// A reducer makes one element of many: to[i] is the index of the one that element i of x goes to, of n each.
type reducer func(s *site, x value, shape []int, to []int, n int) (value, error)

func weighted(s *site, x value, shape, to []int, w float64) (value, error) {
	return s.sum(s.name, x, shape, func(add func(i, j int, w float64)) {
		for i, j := range to {
			add(i, j, w)
		}
	})
}

func reduceSum(s *site, x value, shape, to []int, _ int) (value, error) {
	return weighted(s, x, shape, to, 1)
}

func reduceMean(s *site, x value, shape, to []int, n int) (value, error) {
	return weighted(s, x, shape, to, 1/float64(n))
}

func reduceMax(s *site, x value, shape, to []int, _ int) (value, error) {
	return s.largest(s.name, x, shape, func(try func(i, j int)) {
		for i, j := range to {
			try(i, j)
		}
	})
}

func reduceMin(s *site, x value, shape, to []int, n int) (value, error) {
	x, err := s.scaled(x, -1)
	if err != nil {
		return value{}, err
	}
	if x, err = reduceMax(s, x, shape, to, n); err != nil {
		return value{}, err
	}
	return s.scaled(x, -1)
}

func reduceL1(s *site, x value, shape, to []int, n int) (value, error) {
	f, slope := absolute(s)
	x, err := s.each(s.name, x, f, slope)
	if err != nil {
		return value{}, err
	}
	return reduceSum(s, x, shape, to, n)
}

func reduceSumSquare(s *site, x value, shape, to []int, n int) (value, error) {
	x, err := s.squared(x)
	if err != nil {
		return value{}, err
	}
	return reduceSum(s, x, shape, to, n)
}

func reduceL2(s *site, x value, shape, to []int, n int) (value, error) {
	x, err := reduceSumSquare(s, x, shape, to, n)
	if err != nil {
		return value{}, err
	}
	f, slope := sqrt(s)
	return s.each(s.name, x, f, slope)
}

func (s *site) squared(x value) (value, error) {
	return s.each(s.name, x, func(x float64) float64 { return x * x }, func(x float64) float64 { return 2 * x })
}

// reduction is a rule for a reducer whose axes are an input from an opset on.
func reduction(r reducer, since int) func(s *site) (value, error) {
	return func(s *site) (value, error) {
		as, err := s.list("axes", 1, since)
		if err != nil {
			return value{}, err
		}
		axes, err := axesOf(as, s.rank())
		if err != nil {
			return value{}, err
		}
		if len(axes) == 0 {
			if s.integer("noop_with_empty_axes", 0) != 0 {
				return value{}, fmt.Errorf("reduction of no axes is not lowered")
			}
			axes = from(0, s.rank())
		}
		return s.reduce(r, axes, s.integer("keepdims", 1) != 0)
	}
}

// reduce does r to the first input.
func (s *site) reduce(r reducer, axes []int, keep bool) (value, error) {
	return s.reduced(s.in[0], r, axes, keep)
}

func (s *site) reduced(x value, r reducer, axes []int, keep bool) (value, error) {
	kept, shape := slices.Clone(x.shape), []int{}
	for a, d := range x.shape {
		if slices.Contains(axes, a) {
			kept[a] = 1
			if !keep {
				continue
			}
			d = 1
		}
		shape = append(shape, d)
	}
	far := strides(kept)
	to := make([]int, elements(x.shape))
	walk(x.shape, func(i int, at []int) {
		for a, p := range at {
			if kept[a] > 1 {
				to[i] += p * far[a]
			}
		}
	})
	return r(s, x, shape, to, len(to)/max(1, elements(kept)))
}

// softmax is exp(x - m) / Σ exp(x - m), m the largest along the axis, or its logarithm. Before opset 13 the axis and all
// that follow it were one.
func softmax(log bool) func(s *site) (value, error) {
	return func(s *site) (value, error) {
		def := -1
		if s.opset < 13 {
			def = 1
		}
		a, err := axis(s.integer("axis", def), s.rank())
		if err != nil {
			return value{}, err
		}
		x := s.in[0]
		n, inner := x.shape[a], elements(x.shape[a+1:])
		if s.opset < 13 {
			n, inner = elements(x.shape[a:]), 1
		}
		// rows calls f with the place of element k of each row.
		rows := func(f func(at func(k int) int)) {
			for r := range elements(x.shape) / max(1, n) {
				f(func(k int) int { return (r/inner*n+k)*inner + r%inner })
			}
		}
		share := func(x []float64) []float64 {
			y := make([]float64, len(x))
			rows(func(at func(k int) int) {
				top, all := math.Inf(-1), 0.0
				for k := range n {
					top = max(top, x[at(k)])
				}
				for k := range n {
					y[at(k)] = math.Exp(x[at(k)] - top)
					all += y[at(k)]
				}
				for k := range n {
					y[at(k)] /= all
				}
			})
			return y
		}
		// Of y = share(x) the gradient is y·(dy - Σ y·dy), of its logarithm dy - y·Σ dy.
		return s.all(s.name, x, func(x []float64) []float64 {
			y := share(x)
			for i := range y {
				if log {
					y[i] = math.Log(y[i])
				}
			}
			return y
		}, func(x, dy []float64) []float64 {
			y, dx := share(x), make([]float64, len(x))
			rows(func(at func(k int) int) {
				var all float64
				for k := range n {
					if log {
						all += dy[at(k)]
					} else {
						all += y[at(k)] * dy[at(k)]
					}
				}
				for k := range n {
					if log {
						dx[at(k)] = dy[at(k)] - y[at(k)]*all
					} else {
						dx[at(k)] = y[at(k)] * (dy[at(k)] - all)
					}
				}
			})
			return dx
		})
	}
}
