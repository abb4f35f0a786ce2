package op

import (
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var softmaxFamily = slices.Concat(
	since(Def{Op: "Softmax", InPlace: true, Infer: inferSoftmax, New: newSoftmax}, 1, 11, 13),
	since(Def{Op: "LogSoftmax", InPlace: true, Infer: inferSoftmax, New: newSoftmax}, 1, 11, 13),
)

func inferSoftmax(s *Site) ([]tensor.Type, error) {
	t, err := inferUnary(s)
	if err == nil {
		_, _, _, err = softmaxDims(s)
	}
	return t, err
}

// softmaxDims gives the shape as [outer, n, inner], of which n is normalised. Before opset 13 everything from the axis
// on was; since then the axis alone is.
func softmaxDims(s *Site) (outer, n, inner int, err error) {
	x := s.Shape(0)
	def := -1
	if s.Opset < 13 {
		def = 1
	}
	a := s.Attrs().Int("axis", def)
	if len(x) == 0 {
		return 1, 1, 1, nil
	}
	if s.Opset < 13 && a == len(x) {
		return x.Elems(), 1, 1, nil
	}
	if a, err = axisOf(a, len(x)); err != nil {
		return 0, 0, 0, err
	}
	if s.Opset < 13 {
		return x[:a].Elems(), x[a:].Elems(), 1, nil
	}
	return x[:a].Elems(), x[a], x[a+1:].Elems(), nil
}

func newSoftmax(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return softmax[float32](s) }, func() (Kernel, error) { return softmax[float64](s) })
}

// softmax is e^(x−max) over its sum, or its logarithm.
func softmax[T kernel.Float](s *Site) (Kernel, error) {
	outer, n, inner, err := softmaxDims(s)
	if err != nil {
		return nil, err
	}
	log := s.Node.Op == "LogSoftmax"
	groups := (inner + columns - 1) / columns
	return BindFunc(func(env *Env, out, in []*tensor.Tensor) func() error {
		y, x := tensor.Of[T](out[0]), tensor.Of[T](in[0])
		run := share(env, outer*groups, n*min(columns, inner), func(lo, hi int) {
			for p := lo; p < hi; p++ {
				first := p % groups * columns
				at := p/groups*n*inner + first
				if inner == 1 {
					softmaxRow(y[at:at+n], x[at:at+n], log)
					continue
				}
				softmaxColumns(y[at:], x[at:], n, inner, min(columns, inner-first), log)
			}
		})
		return func() error { run(); return nil }
	}), nil
}

func softmaxRow[T kernel.Float](y, x []T, log bool) {
	top := T(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	var sum T
	if log {
		var e [columns]T
		for i := 0; i < len(x); i += columns {
			part := x[i:min(i+columns, len(x))]
			expRow(e[:], part, top)
			sum += total(e[:len(part)])
		}
		shift := T(math.Log(float64(sum)))
		for i, v := range x {
			y[i] = v - top - shift
		}
		return
	}
	expRow(y, x, top)
	for i := 0; i < len(x); i += columns {
		sum += total(y[i:min(i+columns, len(x))])
	}
	for i := range y {
		y[i] /= sum
	}
}

// total is the sum of v, which is short: long sums are made of parts, so that their error stays small.
func total[T kernel.Float](v []T) (s T) {
	for _, x := range v {
		s += x
	}
	return s
}

// softmaxColumns32 is softmaxColumns, and no logarithm, by loops over elements.
func softmaxColumns32(y, x []float32, n, inner, w int) {
	var top, sum [columns]float32
	copy(top[:w], x[:w])
	for i := 1; i < n; i++ {
		vec.Max(top[:w], top[:w], x[i*inner:][:w])
	}
	for i := range n {
		e := y[i*inner:][:w]
		vec.Sub(e, x[i*inner:][:w], top[:w])
		vec.Exp(e, e, 0)
		vec.Add(sum[:w], sum[:w], e)
	}
	for i := range n {
		row := y[i*inner:][:w]
		vec.Div(row, row, sum[:w])
	}
}

// softmaxColumns works on w neighbouring columns at once, inner elements from row to row, so that memory is read in order.
func softmaxColumns[T kernel.Float](y, x []T, n, inner, w int, log bool) {
	if x := floats32(x); x != nil && !log {
		softmaxColumns32(floats32(y), x, n, inner, w)
		return
	}
	var top, sum, e [columns]T
	copy(top[:w], x[:w])
	for i := 1; i < n; i++ {
		for j, v := range x[i*inner:][:w] {
			top[j] = max(top[j], v)
		}
	}
	for i := range n {
		row := x[i*inner:][:w]
		for j, v := range row {
			e[j] = v - top[j]
		}
		if log {
			copy(y[i*inner:][:w], e[:w])
		}
		expRow(e[:w], e[:w], 0)
		if !log {
			copy(y[i*inner:][:w], e[:w])
		}
		for j, v := range e[:w] {
			sum[j] += v
		}
	}
	for j, v := range sum[:w] {
		if log {
			sum[j] = T(math.Log(float64(v)))
		}
	}
	for i := range n {
		row := y[i*inner:][:w]
		for j, v := range row {
			if log {
				row[j] = v - sum[j]
			} else {
				row[j] = v / sum[j]
			}
		}
	}
}
