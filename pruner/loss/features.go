package loss

import (
	"fmt"

	"github.com/secateur/secateur/engine/tensor"
)

// Features is how far channels that one model computes are from those of another: of x [1,len(kept),…] and channels kept
// of want [1,channels,…], both of float32,
//
//	weight · Σ (x - want)² / Σ want²,
//
// which is zero where they are the same and near weight where x says nothing of want. It is the hint of FitNets (Romero et
// al., ICLR 2015) without a layer in between, since what a cut leaves are channels of the original. The gradient
// is nil where want is zero.
func Features(x, want *tensor.Tensor, kept []int, weight float64) (value float64, grad *tensor.Tensor, err error) {
	if x.DType != tensor.Float32 || want.DType != tensor.Float32 || len(x.Shape) < 2 || len(x.Shape) != len(want.Shape) ||
		x.Shape[0] != 1 || want.Shape[0] != 1 || x.Shape[1] != len(kept) || x.Shape[2:].Elems() != want.Shape[2:].Elems() {
		return 0, nil, fmt.Errorf("features are %v, want %d channels of %v", x.Type(), len(kept), want.Type())
	}
	n := x.Shape[2:].Elems()
	xs, ys := tensor.Of[float32](x), tensor.Of[float32](want)
	var off, all float64
	for i, k := range kept {
		if k < 0 || k >= want.Shape[1] {
			return 0, nil, fmt.Errorf("features have no channel %d", k)
		}
		y := ys[k*n:][:n]
		for j, x := range xs[i*n:][:n] {
			d, y := float64(x)-float64(y[j]), float64(y[j])
			off += d * d
			all += y * y
		}
	}
	if all == 0 {
		return 0, nil, nil
	}
	grad = tensor.New(tensor.Float32, x.Shape...)
	for i, k := range kept {
		y, g := ys[k*n:][:n], tensor.Of[float32](grad)[i*n:][:n]
		for j, x := range xs[i*n:][:n] {
			g[j] = float32(2 * weight / all * (float64(x) - float64(y[j])))
		}
	}
	return weight * off / all, grad, nil
}
