package repair

import (
	"context"
	"fmt"
	"math"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// Recalibrate returns a copy of g in which every BatchNormalization's running mean and variance are those that it meets
// on the images: what it reads has moved since they were recorded. They are taken in topological order, each after those
// before it have been replaced. It says how many there are; there may be none.
func Recalibrate(ctx context.Context, g *graph.Graph, in []tensor.Type, images Images, opt Options) (*graph.Graph, int, error) {
	opt = opt.withDefaults()
	images.N = min(images.N, 32)
	h := g.Clone()
	uses := h.Uses()
	var norms []*graph.Node
	for _, n := range h.Nodes {
		if n.Op != "BatchNormalization" || n.Domain != "" || n.Input(4) == nil || n.Attrs.Int("training_mode", 0) != 0 {
			continue
		}
		mean, variance := n.Inputs[3], n.Inputs[4]
		if mean.Const != nil && variance.Const != nil && mean != variance && len(uses[mean]) == 1 && len(uses[variance]) == 1 {
			norms = append(norms, n)
		}
	}
	if images.N == 0 {
		return h, 0, nil
	}
	for i, n := range norms {
		if err := recalibrate(ctx, h, n, in, images, opt); err != nil {
			return nil, 0, fmt.Errorf("recalibrate %v: %w", n, err)
		}
		if opt.Progress != nil {
			opt.Progress(i+1, len(norms))
		}
	}
	return h, len(norms), nil
}

// recalibrate sets the statistics of one node of h.
func recalibrate(ctx context.Context, h *graph.Graph, n *graph.Node, in []tensor.Type, images Images, opt Options) error {
	c := n.Inputs[3].Const.Elems()
	sum, squares, count := make([]float64, c), make([]float64, c), 0
	err := eachImage(ctx, upTo(h, n.Inputs[0]), in, images, opt, func(_ int, out []*tensor.Tensor) {
		v := tensor.Of[float32](out[0])
		inner := len(v) / c
		count += inner
		opt.Pool.Loop(c, func(_, k int) {
			for _, v := range v[k*inner : (k+1)*inner] {
				sum[k] += float64(v)
				squares[k] += float64(v) * float64(v)
			}
		}).Run()
	})
	if err != nil {
		return err
	}
	for k := range c {
		sum[k] /= float64(count)
		squares[k] = max(squares[k]/float64(count)-sum[k]*sum[k], 0)
		if math.IsNaN(sum[k]) || math.IsInf(sum[k], 0) || math.IsInf(squares[k], 0) {
			return fmt.Errorf("channel %d is not finite", k)
		}
	}
	for i, v := range map[int][]float64{3: sum, 4: squares} {
		old := n.Inputs[i].Const
		t, err := tensor.FromFloat64s(v, old.DType, old.Shape...)
		if err != nil {
			return err
		}
		if err := setConst(h, n, i, t); err != nil {
			return err
		}
	}
	return nil
}
