package gorgonia

import (
	"fmt"
	"hash"
	"hash/fnv"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// window is the geometry of a transposed convolution: x[1,C,H,W] -> y[1,M,OH,OW] with weights W[C,M,KH,KW],
// y[m, s·i+k-p] += x[c,i]·W[c,m,k].
type window struct {
	C, M, KH, KW, SH, SW, PH, PW, H, W, OH, OW int
}

// each calls f for every product: the index into x, into the weights, into y.
func (w window) each(f func(x, k, y int)) {
	for c := range w.C {
		for m := range w.M {
			for kh := range w.KH {
				for kw := range w.KW {
					k := ((c*w.M+m)*w.KH+kh)*w.KW + kw
					for i := range w.H {
						oy := i*w.SH + kh - w.PH
						if oy < 0 || oy >= w.OH {
							continue
						}
						for j := range w.W {
							if ox := j*w.SW + kw - w.PW; ox >= 0 && ox < w.OW {
								f((c*w.H+i)*w.W+j, k, (m*w.OH+oy)*w.OW+ox)
							}
						}
					}
				}
			}
		}
	}
}

// convTranspose is an operator for gorgonia, with constant weights; adjoint makes it its own gradient, a convolution.
type convTranspose struct {
	window
	weights []float64
	adjoint bool
	name    string
}

var (
	_ G.Op   = convTranspose{}
	_ G.SDOp = convTranspose{}
)

// Arity implements gorgonia.Op.
func (convTranspose) Arity() int { return 1 }

// Type implements gorgonia.Op.
func (convTranspose) Type() hm.Type {
	t := G.TensorType{Dims: 4, Of: hm.TypeVariable('a')}
	return hm.NewFnType(t, t)
}

// InferShape implements gorgonia.Op.
func (o convTranspose) InferShape(...G.DimSizer) (tensor.Shape, error) {
	if o.adjoint {
		return tensor.Shape{1, o.C, o.H, o.W}, nil
	}
	return tensor.Shape{1, o.M, o.OH, o.OW}, nil
}

// ReturnsPtr implements gorgonia.Op.
func (convTranspose) ReturnsPtr() bool { return false }

// CallsExtern implements gorgonia.Op.
func (convTranspose) CallsExtern() bool { return false }

// OverwritesInput implements gorgonia.Op.
func (convTranspose) OverwritesInput() int { return -1 }

// String implements gorgonia.Op. The name makes operators of equal geometry and other weights differ.
func (o convTranspose) String() string {
	return fmt.Sprintf("ConvTranspose{%s %v %v}", o.name, o.window, o.adjoint)
}

// WriteHash implements gorgonia.Op.
func (o convTranspose) WriteHash(h hash.Hash) { _, _ = fmt.Fprint(h, o.String()) } // a hash never fails to write

// Hashcode implements gorgonia.Op.
func (o convTranspose) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

// Do implements gorgonia.Op.
func (o convTranspose) Do(in ...G.Value) (G.Value, error) {
	shape, err := o.InferShape()
	if err != nil {
		return nil, err
	}
	switch x := in[0].Data().(type) {
	case []float32:
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(product(o, x, shape.TotalSize()))), nil
	case []float64:
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(product(o, x, shape.TotalSize()))), nil
	}
	return nil, fmt.Errorf("ConvTranspose of %T", in[0].Data())
}

func product[T float32 | float64](o convTranspose, in []T, n int) []T {
	out := make([]T, n)
	if o.adjoint {
		o.each(func(x, k, y int) { out[x] += T(o.weights[k]) * in[y] })
	} else {
		o.each(func(x, k, y int) { out[y] += T(o.weights[k]) * in[x] })
	}
	return out
}

// DiffWRT implements gorgonia.SDOp.
func (convTranspose) DiffWRT(int) []bool { return []bool{true} }

// SymDiff implements gorgonia.SDOp.
func (o convTranspose) SymDiff(_ G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	o.adjoint = !o.adjoint
	n, err := G.ApplyOp(o, grad)
	return G.Nodes{n}, err
}
