package gorgonia

import (
	"errors"
	"fmt"
	"math"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// value is what a call reads or gives: a node of gorgonia's, or numbers that are known when the model is lowered, as
// weights and shapes are.
type value struct {
	shape []int
	node  *G.Node   // nil: known. A scalar has shape [1] here: gorgonia's own are of another type
	array []float64 // if known, in row-major order
	whole bool      // known integers: division truncates
}

func (v value) known() bool { return v.node == nil }

// given tells an input that is there from one that is omitted.
func (v value) given() bool { return v.node != nil || v.array != nil }

// known makes a value of numbers.
func known(v []float64, shape ...int) value { return value{shape: shape, array: v} }

// maxElements bounds a tensor: what a graph asks for may be larger than any memory.
const maxElements = 1 << 26

var errTooLarge = errors.New("the result is too large")

// elements is the product of the dimensions.
func elements(shape []int) int {
	n := 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt/d {
			return math.MaxInt
		}
		n *= d
	}
	return n
}

// strides gives how far apart neighbours along each axis lie.
func strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for a := len(shape) - 1; a >= 0; a-- {
		s[a] = n
		n *= shape[a]
	}
	return s
}

// walk calls f for each element of shape with its coordinates, in order. f must not keep them.
func walk(shape []int, f func(i int, at []int)) {
	at := make([]int, len(shape))
	for i := range elements(shape) {
		f(i, at)
		for a := len(at) - 1; a >= 0; a-- {
			if at[a]++; at[a] < shape[a] {
				break
			}
			at[a] = 0
		}
	}
}

// axis is a, counted from the end if negative, of a tensor of the given rank.
func axis(a, rank int) (int, error) {
	if a < -rank || a >= rank {
		return 0, fmt.Errorf("axis %d of a tensor of rank %d", a, rank)
	}
	return (a + rank) % rank, nil
}

// axesOf is axis of each, or all axes if there are none.
func axesOf(as []int, rank int) ([]int, error) {
	out := []int{}
	for _, a := range as {
		b, err := axis(a, rank)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// from is the axes of a tensor from a on.
func from(a, rank int) []int {
	var out []int
	for ; a < rank; a++ {
		out = append(out, a)
	}
	return out
}

// numbers reads what onnx-go or gorgonia hold, in row-major order.
func numbers(data any) (v []float64, whole bool, err error) {
	switch d := data.(type) {
	case []float32:
		return convert(d), false, nil
	case []float64:
		return slices.Clone(d), false, nil
	case []int64:
		return convert(d), true, nil
	case []int32:
		return convert(d), true, nil
	case float32:
		return []float64{float64(d)}, false, nil
	case float64:
		return []float64{d}, false, nil
	case int64:
		return []float64{float64(d)}, true, nil
	case int32:
		return []float64{float64(d)}, true, nil
	}
	return nil, false, fmt.Errorf("elements of %T are not read", data)
}

func convert[T float32 | int32 | int64 | int](d []T) []float64 {
	v := make([]float64, len(d))
	for i, x := range d {
		v[i] = float64(x)
	}
	return v
}

// ints is convert's inverse. What no int holds, as the ends of slices are, becomes a number larger than any dimension.
func ints(v []float64) []int {
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(min(max(x, -1<<62), 1<<62))
	}
	return out
}

// dense copies values into a tensor of gorgonia's.
func dense(dt tensor.Dtype, v []float64, shape ...int) *tensor.Dense {
	if dt == tensor.Float64 {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(slices.Clone(v)))
	}
	f := make([]float32, len(v))
	for i, x := range v {
		f[i] = float32(x)
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(f))
}
