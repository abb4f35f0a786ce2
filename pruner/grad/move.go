package grad

import (
	"fmt"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// route says which elements of an input an output's elements are: runs of n from src on to dst on.
type route struct{ dst, src, n int }

// move is the reverse of operators that only move elements: copy, drop, repeat them, or add constants. Which
// goes where is asked of the operator itself, by letting it move the elements' own numbers: a rule for Slice or Pad
// then cannot disagree with the forward pass on what an axis, a step or a negative index means.
func move[T kernel.Float](s *Site) (Step, error) {
	if r := s.Attrs().Str("reduction", "none"); r != "none" && r != "add" {
		return nil, fmt.Errorf("reduction %q has no rule", r)
	}
	for i, a := range s.In {
		if a.Given() && a.Const == nil && !a.Type.DType.IsFloat() {
			return nil, fmt.Errorf("input %d depends on the data", i)
		}
	}
	base, err := probe(s, -1, nil)
	if err != nil {
		return nil, err
	}
	routes := make([][][]route, len(s.In)) // by input, then output
	for i, a := range s.In {
		if a.Type.DType != s.Float || a.Const != nil || i > 0 && s.Node.Op != "ScatterND" {
			continue
		}
		y, err := probe(s, i, func(j int) float64 { return float64(j + 1) })
		if err != nil {
			return nil, err
		}
		for o := range s.Out {
			r, err := trace(y[o], base[o], a.Type.Shape.Elems())
			if err != nil {
				return nil, fmt.Errorf("input %d: %w", i, err)
			}
			routes[i] = append(routes[i], r)
		}
	}
	return func(_, _, dout []*tensor.Tensor, need []bool) ([]*tensor.Tensor, error) {
		din := make([]*tensor.Tensor, len(need))
		for i, n := range need {
			if !n {
				continue
			}
			if routes[i] == nil {
				return nil, fmt.Errorf("there is no gradient of input %d, a parameter that depends on the data", i)
			}
			din[i] = s.New(s.Shape(i))
			g := tensor.Of[T](din[i])
			clear(g)
			for o, d := range dout {
				if d == nil {
					continue
				}
				d := tensor.Of[T](d)
				for _, r := range routes[i][o] {
					if r.n == 1 {
						g[r.src] += d[r.dst]
						continue
					}
					to := g[r.src : r.src+r.n]
					for j, v := range d[r.dst : r.dst+r.n] {
						to[j] += v
					}
				}
			}
		}
		return din, nil
	}, nil
}

// trace turns moved element numbers (from 1; y = base where an element is not the input's) into runs.
func trace(y, base []float64, elems int) ([]route, error) {
	var rs []route
	for o, v := range y {
		v -= base[o]
		if v == 0 || v != v { // NaN: infinite padding
			continue
		}
		src := int(v) - 1
		if float64(src+1) != v || src < 0 || src >= elems {
			return nil, fmt.Errorf("output element %d is no element of the input", o)
		}
		if k := len(rs) - 1; k >= 0 && rs[k].dst+rs[k].n == o && rs[k].src+rs[k].n == src {
			rs[k].n++
			continue
		}
		rs = append(rs, route{o, src, 1})
	}
	return rs, nil
}
