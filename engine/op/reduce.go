package op

import (
	"math"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

var reduceFamily = slices.Concat(
	// axes became an input at 18, for ReduceSum at 13.
	since(reduceDef("ReduceMean", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceSum", 13), 1, 11, 13),
	since(reduceDef("ReduceMax", 18), 1, 11, 12, 13, 18, 20),
	since(reduceDef("ReduceMin", 18), 1, 11, 12, 13, 18, 20),
	since(reduceDef("ReduceProd", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceL1", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceL2", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceSumSquare", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceLogSum", 18), 1, 11, 13, 18),
	since(reduceDef("ReduceLogSumExp", 18), 1, 11, 13, 18),
)

// reduceDef is a reduction; axes are an input from opset asInput on.
func reduceDef(name string, asInput int) Def {
	return Def{Op: name,
		Infer: func(s *Site) ([]tensor.Type, error) {
			r, err := reductionOf(s, asInput)
			if err != nil {
				return nil, err
			}
			return one(s.DType(0), r.out...), nil
		},
		New: func(s *Site) (Kernel, error) {
			r, err := reductionOf(s, asInput)
			if err != nil {
				return nil, err
			}
			switch s.DType(0) {
			case tensor.Float32:
				return newReduce[float32, float64](s, r, name)
			case tensor.Float64:
				return newReduce[float64, float64](s, r, name)
			case tensor.Int32:
				return newReduce[int32, int64](s, r, name)
			case tensor.Int64:
				return newReduce[int64, int64](s, r, name)
			case tensor.Int8:
				return newReduce[int8, int64](s, r, name)
			case tensor.Uint8, tensor.Bool:
				return newReduce[uint8, int64](s, r, name)
			case tensor.Uint32:
				return newReduce[uint32, int64](s, r, name)
			}
			return nil, s.Unsupported("elements of type %v", s.DType(0))
		},
	}
}

// reduction says which axes stay and which go.
type reduction struct {
	out            tensor.Shape
	kept, gone     []int // dimensions
	keptSt, goneSt []int // their strides in the input
}

func reductionOf(s *Site, asInput int) (*reduction, error) {
	if err := s.require(1); err != nil {
		return nil, err
	}
	axes := s.Attrs().Ints("axes")
	if s.Opset >= asInput {
		var err error
		if axes, err = s.ConstInts(1); err != nil {
			return nil, err
		}
	}
	none := len(axes) == 0 && s.Opset >= asInput && s.Attrs().Int("noop_with_empty_axes", 0) != 0
	r, err := s.reduce(axes, none, s.Attrs().Int("keepdims", 1) != 0)
	if err != nil {
		return nil, err
	}
	extreme := s.Node.Op == "ReduceMax" || s.Node.Op == "ReduceMin"
	switch dt := s.DType(0); {
	case dt == s.Float, dt == tensor.Int32, dt == tensor.Int64, dt == tensor.Uint32:
	case extreme && (dt == tensor.Int8 || dt == tensor.Uint8):
	case extreme && dt == tensor.Bool && !slices.Contains(r.gone, 0):
	default:
		return nil, s.Unsupported("elements of type %v", dt)
	}
	return r, nil
}

// reduce splits the axes of the first input. An empty list of axes is all of them, unless none is set.
func (s *Site) reduce(axes []int, none, keep bool) (*reduction, error) {
	x := s.Shape(0)
	axes, err := axesOf(axes, len(x))
	if err != nil {
		return nil, err
	}
	r, st := &reduction{out: tensor.Shape{}}, x.Strides()
	for i, d := range x {
		if none || len(axes) > 0 && !slices.Contains(axes, i) {
			r.out, r.kept, r.keptSt = append(r.out, d), append(r.kept, d), append(r.keptSt, st[i])
			continue
		}
		r.gone, r.goneSt = append(r.gone, d), append(r.goneSt, st[i])
		if keep {
			r.out = append(r.out, 1)
		}
	}
	return r, nil
}

// sum is what numbers are gathered in: wide enough that only the result is rounded.
type sum interface{ int64 | float64 }

// reducer is a reduction of elements T, gathered in A.
type reducer[T real, A sum] struct {
	name       string
	kept, gone *nest
	count      int // of elements that become one
	start      A
}

func newReduce[T real, A sum](s *Site, r *reduction, name string) (Kernel, error) {
	k := &reducer[T, A]{name: name, count: tensor.Shape(r.gone).Elems()}
	var err error
	if k.kept, err = newNest(r.kept, offsets{}, r.keptSt); err != nil {
		return nil, s.Unsupported("%v", err)
	}
	if k.gone, err = newNest(r.gone, offsets{}, r.goneSt); err != nil {
		return nil, s.Unsupported("%v", err)
	}
	switch name {
	case "ReduceMax":
		k.start = A(emptyExtreme[T](true))
	case "ReduceMin":
		k.start = A(emptyExtreme[T](false))
	case "ReduceProd":
		k.start = 1
	}
	return k, nil
}

// columns is how many neighbouring results are gathered at once, so that memory is read in order.
const columns = 64

// Bind implements Kernel.
func (k *reducer[T, A]) Bind(env *Env, out, in []*tensor.Tensor) func() error {
	y, x := tensor.View[T](out[0]), tensor.View[T](in[0])
	length, step := k.kept.inner()
	run := share(env, len(y), k.count, func(lo, hi int) {
		var acc, top [columns]A
		var at [maxLoops]int
		for lo < hi {
			col := lo % length
			n := 1
			if step[0] == 1 {
				n = min(hi-lo, length-col, columns)
			}
			base := k.kept.seek(lo/length, &at)[0] + col*step[0]
			if k.name == "ReduceLogSumExp" { // about the largest, so that nothing overflows
				k.gather("ReduceMax", A(emptyExtreme[T](true)), top[:n], nil, x, base)
			}
			k.gather(k.name, k.start, acc[:n], top[:n], x, base)
			k.finish(y[lo:lo+n], acc[:n], top[:n])
			lo += n
		}
	})
	return func() error { run(); return nil }
}

// gather reduces, for each acc[j], the elements that begin at base+j.
func (k *reducer[T, A]) gather(name string, start A, acc, top []A, x []T, base int) {
	for j := range acc {
		acc[j] = start
	}
	if k.count == 0 {
		return
	}
	length, step := k.gone.inner()
	var at [maxLoops]int
	o := k.gone.seek(0, &at)
	for range k.gone.outer() {
		row := x[base+o[0]:]
		if len(acc) == 1 && step[0] == 1 && name != "ReduceLogSumExp" {
			acc[0] = gatherRow(name, acc[0], row[:length])
		} else {
			for i := range length {
				gatherColumns(name, acc, top, row[i*step[0]:][:len(acc)])
			}
		}
		k.gone.next(&o, &at)
	}
}

// gatherRow reduces a run of elements to one.
func gatherRow[T real, A sum](name string, acc A, x []T) A {
	switch name {
	case "ReduceMax":
		for _, v := range x {
			acc = max(acc, A(v))
		}
	case "ReduceMin":
		for _, v := range x {
			acc = min(acc, A(v))
		}
	case "ReduceProd":
		for _, v := range x {
			acc *= A(v)
		}
	case "ReduceL1":
		for _, v := range x {
			acc += max(A(v), -A(v))
		}
	case "ReduceL2", "ReduceSumSquare":
		for _, v := range x {
			acc += A(v) * A(v)
		}
	default:
		var b, c, d A // four sums at a time hide the latency of an addition
		for ; len(x) >= 4; x = x[4:] {
			acc, b, c, d = acc+A(x[0]), b+A(x[1]), c+A(x[2]), d+A(x[3])
		}
		for _, v := range x {
			acc += A(v)
		}
		acc += b + c + d
	}
	return acc
}

// gatherColumns adds one element to each of several results.
func gatherColumns[T real, A sum](name string, acc, top []A, x []T) {
	x = x[:len(acc)]
	switch name {
	case "ReduceMax":
		for j, v := range x {
			acc[j] = max(acc[j], A(v))
		}
	case "ReduceMin":
		for j, v := range x {
			acc[j] = min(acc[j], A(v))
		}
	case "ReduceProd":
		for j, v := range x {
			acc[j] *= A(v)
		}
	case "ReduceL1":
		for j, v := range x {
			acc[j] += max(A(v), -A(v))
		}
	case "ReduceL2", "ReduceSumSquare":
		for j, v := range x {
			acc[j] += A(v) * A(v)
		}
	case "ReduceLogSumExp":
		for j, v := range x {
			acc[j] += A(math.Exp(float64(A(v) - top[j])))
		}
	default:
		for j, v := range x {
			acc[j] += A(v)
		}
	}
}

// finish turns what was gathered into results.
func (k *reducer[T, A]) finish(y []T, acc, top []A) {
	for j, a := range acc {
		switch k.name {
		case "ReduceMean":
			a = A(float64(a) / float64(k.count))
		case "ReduceL2":
			a = A(math.Sqrt(float64(a)))
		case "ReduceLogSum":
			a = A(math.Log(float64(a)))
		case "ReduceLogSumExp":
			a = A(math.Log(float64(a)))
			if !math.IsInf(float64(top[j]), 0) {
				a += top[j]
			} else {
				a = top[j]
			}
		}
		y[j] = T(a)
	}
}

// emptyExtreme is the maximum or minimum of nothing: the least or greatest value of the type.
func emptyExtreme[T real](largest bool) (v T) {
	lo, hi := math.Inf(-1), math.Inf(1)
	switch p := any(&v).(type) {
	case *int64:
		if *p = math.MaxInt64; largest {
			*p = math.MinInt64
		}
		return v
	case *uint64:
		if *p = math.MaxUint64; largest {
			*p = 0
		}
		return v
	case *int16:
		lo, hi = math.MinInt16, math.MaxInt16
	case *uint16:
		lo, hi = 0, math.MaxUint16
	case *uint32:
		lo, hi = 0, math.MaxUint32
	case *int32:
		lo, hi = math.MinInt32, math.MaxInt32
	case *int8:
		lo, hi = math.MinInt8, math.MaxInt8
	case *uint8:
		lo, hi = 0, math.MaxUint8
	}
	if largest {
		return T(lo)
	}
	return T(hi)
}
