package gorgonia

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
)

// binaries lists arithmetic of two operands: gorgonia's, and that of numbers that are known.
var binaries = map[string]struct {
	node  func(a, b *G.Node) (*G.Node, error)
	known func(a, b float64) float64
}{
	"Add": {G.Add, func(a, b float64) float64 { return a + b }},
	"Sub": {G.Sub, func(a, b float64) float64 { return a - b }},
	"Mul": {G.HadamardProd, func(a, b float64) float64 { return a * b }},
	"Div": {G.HadamardDiv, func(a, b float64) float64 { return a / b }},
}

func (s *site) binary() (value, error) { return s.arith(s.op.Name, s.in[0], s.in[1]) }

// arith computes with operands that it expands to one shape first.
func (s *site) arith(name string, a, b value) (value, error) {
	shape, err := broadcast(a.shape, b.shape)
	if err != nil {
		return value{}, err
	}
	if a, err = s.expand(s.name, a, shape); err != nil {
		return value{}, err
	}
	if b, err = s.expand(s.name, b, shape); err != nil {
		return value{}, err
	}
	f := binaries[name]
	if !a.known() || !b.known() {
		n, err := f.node(s.node(a), s.node(b))
		return value{shape: shape, node: n}, err
	}
	y := value{shape: shape, array: make([]float64, len(a.array)), whole: a.whole && b.whole}
	for i, v := range a.array {
		if y.array[i] = f.known(v, b.array[i]); y.whole {
			y.array[i] = math.Trunc(y.array[i])
		}
	}
	return y, nil
}

// variadic goes through the inputs one by one. The larger of two is b + relu(a - b).
func (s *site) variadic() (value, error) {
	y := s.in[0]
	for _, x := range s.in[1:] {
		var err error
		switch s.op.Name {
		case "Sum", "Mean":
			y, err = s.arith("Add", y, x)
		case "Max":
			y, err = s.over(y, x, 1)
		case "Min":
			y, err = s.over(y, x, -1)
		}
		if err != nil {
			return value{}, err
		}
	}
	if s.op.Name == "Mean" {
		return s.scaled(y, 1/float64(len(s.in)))
	}
	return y, nil
}

// over is the larger of a and b, or the smaller with sign -1.
func (s *site) over(a, b value, sign float64) (value, error) {
	d, err := s.arith("Sub", a, b)
	if err != nil {
		return value{}, err
	}
	d, err = s.each(s.name, d, func(d float64) float64 {
		if d*sign > 0 {
			return d
		}
		return 0
	}, func(d float64) float64 {
		if d*sign > 0 {
			return 1
		}
		return 0
	})
	if err != nil {
		return value{}, err
	}
	return s.arith("Add", b, d)
}

// pow takes an exponent that is one known number.
func (s *site) pow() (value, error) {
	e, err := s.numbers(1)
	if err != nil {
		return value{}, err
	}
	if len(e) != 1 {
		return value{}, fmt.Errorf("only Pow with one exponent is lowered")
	}
	return s.each(s.name, s.in[0],
		func(x float64) float64 { return math.Pow(x, e[0]) },
		func(x float64) float64 { return e[0] * math.Pow(x, e[0]-1) })
}
