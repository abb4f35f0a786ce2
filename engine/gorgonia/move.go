package gorgonia

import (
	"fmt"
	"slices"

	G "gorgonia.org/gorgonia"
)

// An operator that only moves elements is written for arrays of numbers. Done to the array of indices 0, 1, 2 ... it tells
// where each element comes from, which is all that gorgonia needs to know; indices below 0 stand for zeros.

// array is a tensor of numbers.
type array struct {
	shape []int
	v     []float64
}

// move does f to x.
func (l *lowering) move(name string, x value, f func(a array) (array, error)) (value, error) {
	index := array{x.shape, make([]float64, elements(x.shape))}
	for i := range index.v {
		index.v[i] = float64(i)
	}
	to, err := f(index)
	if err != nil {
		return value{}, err
	}
	y, err := l.sum(name, x, to.shape, func(add func(i, j int, w float64)) {
		for j, i := range to.v {
			if i >= 0 {
				add(int(i), j, 1)
			}
		}
	})
	y.whole = x.whole
	return y, err
}

// pick makes an array of the given shape, whose element at the coordinates at is what index says.
func (a array) pick(shape []int, index func(at []int) int) (array, error) {
	if elements(shape) > maxElements {
		return array{}, fmt.Errorf("%v: %w", shape, errTooLarge)
	}
	to := array{shape, make([]float64, elements(shape))}
	walk(shape, func(j int, at []int) {
		to.v[j] = -1
		if i := index(at); i >= 0 {
			to.v[j] = a.v[i]
		}
	})
	return to, nil
}

// permute orders axes anew.
func (a array) permute(perm []int) (array, error) {
	if len(perm) != len(a.shape) {
		return array{}, fmt.Errorf("permutation %v of %v", perm, a.shape)
	}
	far, shape := strides(a.shape), make([]int, len(perm))
	for i, p := range perm {
		shape[i] = a.shape[p]
	}
	return a.pick(shape, func(at []int) int {
		i := 0
		for k, p := range perm {
			i += at[k] * far[p]
		}
		return i
	})
}

func (s *site) transpose() (value, error) {
	perm := s.attrs("perm")
	if perm == nil {
		perm = from(0, s.rank())
		slices.Reverse(perm)
	}
	return s.move(s.name, s.in[0], func(a array) (array, error) { return a.permute(perm) })
}

func (s *site) slice() (value, error) {
	var p [4][]int // starts, ends, axes, steps
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		var err error
		if p[i], err = s.list(name, i+1, 10); err != nil {
			return value{}, err
		}
	}
	starts, ends, axes, steps := p[0], p[1], p[2], p[3]
	if axes == nil {
		axes = from(0, len(starts))
	}
	if steps == nil {
		steps = slices.Repeat([]int{1}, len(starts))
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || len(steps) != len(starts) || slices.Contains(steps, 0) {
		return value{}, fmt.Errorf("slice from %v to %v of axes %v by %v", starts, ends, axes, steps)
	}
	shape := s.in[0].shape
	begin, step, size := make([]int, len(shape)), slices.Repeat([]int{1}, len(shape)), slices.Clone(shape)
	for k := range starts {
		a, err := axis(axes[k], len(shape))
		if err != nil {
			return value{}, err
		}
		d, b, e := shape[a], starts[k], ends[k]
		if b < 0 {
			b += d
		}
		if e < 0 {
			e += d
		}
		step[a] = steps[k]
		if steps[k] > 0 {
			begin[a] = min(max(b, 0), d)
			size[a] = max(0, (min(max(e, 0), d)-begin[a]+steps[k]-1)/steps[k])
		} else {
			begin[a] = min(max(b, 0), d-1)
			size[a] = max(0, (begin[a]-min(max(e, -1), d-1)-steps[k]-1)/-steps[k])
		}
	}
	return s.sliced(s.name, s.in[0], begin, step, size)
}

// sliced takes every step-th element from begin on.
func (l *lowering) sliced(name string, x value, begin, step, size []int) (value, error) {
	far := strides(x.shape)
	return l.move(name, x, func(a array) (array, error) {
		return a.pick(size, func(at []int) int {
			i := 0
			for k := range at {
				i += (begin[k] + at[k]*step[k]) * far[k]
			}
			return i
		})
	})
}

func (s *site) split() ([]value, error) {
	x := s.in[0]
	a, err := axis(s.integer("axis", 0), s.rank())
	if err != nil {
		return nil, err
	}
	sizes, err := s.list("split", 1, 13)
	if err != nil {
		return nil, err
	}
	if sizes == nil {
		each := (x.shape[a] + s.outs - 1) / s.outs
		sizes = slices.Repeat([]int{each}, s.outs)
		sizes[s.outs-1] = x.shape[a] - each*(s.outs-1)
	}
	var out []value
	begin := make([]int, s.rank())
	for _, n := range sizes {
		size := slices.Clone(x.shape)
		size[a] = n
		if n < 0 || begin[a]+n > x.shape[a] {
			return nil, fmt.Errorf("split of %v into %v", x.shape, sizes)
		}
		v, err := s.sliced(s.name, x, slices.Clone(begin), slices.Repeat([]int{1}, s.rank()), size)
		if err != nil {
			return nil, err
		}
		begin[a] += n
		out = append(out, v)
	}
	return out, nil
}

func (s *site) concat() (value, error) {
	a, err := axis(s.integer("axis", 1), s.rank())
	if err != nil {
		return value{}, err
	}
	shape := slices.Clone(s.in[0].shape)
	shape[a] = 0
	var nodes G.Nodes
	var parts []value
	all := true
	for i, x := range s.in {
		if !x.given() || len(x.shape) != len(shape) {
			return value{}, fmt.Errorf("input %d of Concat is %v", i, x.shape)
		}
		shape[a] += x.shape[a]
		if elements(x.shape) == 0 {
			continue
		}
		parts = append(parts, x)
		all = all && x.known()
	}
	if all {
		return joined(parts, a, shape), nil
	}
	for _, x := range parts {
		nodes = append(nodes, s.node(x))
	}
	if len(nodes) == 1 {
		return value{shape: shape, node: nodes[0]}, nil
	}
	n, err := G.Concat(a, nodes...)
	return value{shape: shape, node: n}, err
}

// joined puts known parts behind each other along an axis.
func joined(parts []value, a int, shape []int) value {
	y := value{shape: shape, array: make([]float64, 0, elements(shape)), whole: true}
	for o := range elements(shape[:a]) {
		for _, x := range parts {
			n := elements(x.shape[a:])
			y.array = append(y.array, x.array[o*n:(o+1)*n]...)
		}
	}
	for _, x := range parts {
		y.whole = y.whole && x.whole
	}
	return y
}

func (s *site) gather() (value, error) {
	index, err := s.ints(1)
	if err != nil {
		return value{}, err
	}
	x := s.in[0]
	a, err := axis(s.integer("axis", 0), s.rank())
	if err != nil {
		return value{}, err
	}
	n := x.shape[a]
	for i, k := range index {
		if k < -n || k >= n {
			return value{}, fmt.Errorf("index %d of %d", k, n)
		}
		index[i] = (k + n) % n
	}
	inner := elements(x.shape[a+1:])
	to := slices.Concat(x.shape[:a], s.in[1].shape, x.shape[a+1:])
	if elements(to) > maxElements {
		return value{}, fmt.Errorf("%v: %w", to, errTooLarge)
	}
	return s.move(s.name, x, func(v array) (array, error) {
		y := array{to, make([]float64, 0, elements(to))}
		for o := range elements(x.shape[:a]) {
			for _, k := range index {
				at := (o*n + k) * inner
				y.v = append(y.v, v.v[at:at+inner]...)
			}
		}
		return y, nil
	})
}

// expand repeats x along the axes where it has one element and shape more.
func (l *lowering) expand(name string, x value, shape []int) (value, error) {
	if slices.Equal(x.shape, shape) {
		return x, nil
	}
	lead := len(shape) - len(x.shape)
	if lead < 0 {
		return value{}, fmt.Errorf("%v does not expand to %v", x.shape, shape)
	}
	far := strides(x.shape)
	for k, d := range x.shape {
		if d != shape[lead+k] && d != 1 {
			return value{}, fmt.Errorf("%v does not expand to %v", x.shape, shape)
		}
		if d == 1 {
			far[k] = 0
		}
	}
	return l.move(name, x, func(a array) (array, error) {
		return a.pick(shape, func(at []int) int {
			i := 0
			for k, f := range far {
				i += at[lead+k] * f
			}
			return i
		})
	})
}

// broadcast is the shape that both expand to.
func broadcast(a, b []int) ([]int, error) {
	if len(a) < len(b) {
		a, b = b, a
	}
	out, lead := slices.Clone(a), len(a)-len(b)
	for k, d := range b {
		switch {
		case out[lead+k] == 1:
			out[lead+k] = d
		case d != 1 && d != out[lead+k]:
			return nil, fmt.Errorf("%v and %v do not broadcast", a, b)
		}
	}
	return out, nil
}

func (s *site) expandTo() (value, error) {
	shape, err := s.ints(1)
	if err != nil {
		return value{}, err
	}
	if shape, err = broadcast(s.in[0].shape, shape); err != nil {
		return value{}, err
	}
	return s.expand(s.name, s.in[0], shape)
}

func (s *site) tile() (value, error) {
	times, err := s.ints(1)
	if err != nil {
		return value{}, err
	}
	from := s.in[0].shape
	if len(times) != len(from) {
		return value{}, fmt.Errorf("%v repeated %v times", from, times)
	}
	far, shape := strides(from), slices.Clone(from)
	for k, n := range times {
		shape[k] *= n
	}
	return s.move(s.name, s.in[0], func(a array) (array, error) {
		return a.pick(shape, func(at []int) int {
			i := 0
			for k, f := range far {
				i += at[k] % from[k] * f
			}
			return i
		})
	})
}

func (s *site) pad() (value, error) {
	x := s.in[0]
	pads, err := s.list("pads", 1, 11)
	if err != nil {
		return value{}, err
	}
	fill := []float64{s.number("value", 0)}
	if s.has(2) {
		if fill, err = s.numbers(2); err != nil {
			return value{}, err
		}
	}
	axes := from(0, s.rank())
	if s.has(3) {
		given, err := s.ints(3)
		if err != nil {
			return value{}, err
		}
		if axes, err = axesOf(given, s.rank()); err != nil {
			return value{}, err
		}
	}
	if len(pads) != 2*len(axes) {
		return value{}, fmt.Errorf("pads %v for %d axes", pads, len(axes))
	}
	begin, shape := make([]int, s.rank()), slices.Clone(x.shape)
	for k, a := range axes {
		begin[a] = pads[k]
		shape[a] += pads[k] + pads[len(axes)+k]
	}
	outside, ok := map[string]func(i, n int) int{
		"constant": func(int, int) int { return -1 },
		"edge":     func(i, n int) int { return min(max(i, 0), n-1) },
		"wrap":     func(i, n int) int { return (i%n + n) % n },
		"reflect": func(i, n int) int {
			if i = max(i, -i); i >= n {
				i = 2*(n-1) - i
			}
			return i
		},
	}[attr(s, "mode", "constant")]
	if !ok {
		return value{}, fmt.Errorf("padding of mode %s is not lowered", attr(s, "mode", ""))
	}
	far := strides(x.shape)
	source := func(at []int) int {
		i := 0
		for k := range at {
			p := at[k] - begin[k]
			if p < 0 || p >= x.shape[k] {
				if p = outside(p, x.shape[k]); p < 0 {
					return -1
				}
			}
			i += p * far[k]
		}
		return i
	}
	y, err := s.move(s.name, x, func(a array) (array, error) { return a.pick(shape, source) })
	if err != nil || fill[0] == 0 {
		return y, err
	}
	border := make([]float64, elements(shape))
	walk(shape, func(j int, at []int) {
		if source(at) < 0 {
			border[j] = fill[0]
		}
	})
	return s.arith("Add", y, known(border, shape...))
}

// blocks splits and joins axes: x is seen in one shape, its axes are ordered anew, and what comes out is seen in another.
func (s *site) blocks(as, perm []int, to ...int) (value, error) {
	return s.move(s.name, s.in[0], func(a array) (array, error) {
		if elements(as) != len(a.v) {
			return array{}, fmt.Errorf("%v does not divide into blocks of %d", a.shape, s.integer("blocksize", 1))
		}
		y, err := array{as, a.v}.permute(perm)
		return array{to, y.v}, err
	})
}

func (s *site) depthToSpace() (value, error) {
	d, b := s.in[0].shape, s.integer("blocksize", 1)
	if len(d) != 4 || b < 1 {
		return value{}, fmt.Errorf("DepthToSpace of %v by %d", d, b)
	}
	c := d[1] / (b * b)
	if attr(s, "mode", "DCR") == "CRD" {
		return s.blocks([]int{d[0], c, b, b, d[2], d[3]}, []int{0, 1, 4, 2, 5, 3}, d[0], c, d[2]*b, d[3]*b)
	}
	return s.blocks([]int{d[0], b, b, c, d[2], d[3]}, []int{0, 3, 4, 1, 5, 2}, d[0], c, d[2]*b, d[3]*b)
}

func (s *site) spaceToDepth() (value, error) {
	d, b := s.in[0].shape, s.integer("blocksize", 1)
	if len(d) != 4 || b < 1 {
		return value{}, fmt.Errorf("SpaceToDepth of %v by %d", d, b)
	}
	return s.blocks([]int{d[0], d[1], d[2] / b, b, d[3] / b, b}, []int{0, 3, 5, 1, 2, 4}, d[0], d[1]*b*b, d[2]/b, d[3]/b)
}
