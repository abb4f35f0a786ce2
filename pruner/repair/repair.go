// Package repair refits the weights that read what a cut has left, so that they make up for what is gone.
//
// [Samples.Ridge] goes through the consumers of the cut graph in topological order. For each it collects what the consumer now
// reads, X' (im2col of the input in the cut and so far repaired graph, with a column of ones for the bias), and what it
// yielded in the original at the same places, Z (before normalisation and activation, channels that are left only), and
// solves for weights and bias together
//
//	(X'ᵀX' + λI) W = X'ᵀZ + λ W_old,   λ = ρ · tr(X'ᵀX') / D,
//
// that is W = W_old + (X'ᵀX' + λI)⁻¹ X'ᵀ(Z - X' W_old), which is how it is computed. No labels are used. What ρ is best
// differs from model to model by orders of magnitude, and how well a layer is fitted on its own does not tell: whoever calls
// tries several and looks at what the whole model does.
package repair

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/group"
)

// Images gives the inputs of the model, all of one shape, batch 1. At may decode when it is called.
type Images struct {
	N  int
	At func(i int) (*tensor.Tensor, error)
}

// Options of a repair. The zero value has the defaults given.
type Options struct {
	Images    int // how many images to use at most; 0: 40
	Positions int // places sampled in each image and layer at most; 0: 160
	Block     int // inputs of a layer (channels times kernel, plus one) that are solved for at once; 0: 4608
	Memory    int // bytes for the samples of the original; fewer places are taken to keep to it; 0: 192 MB
	Seed      uint64
	Pool      *kernel.Pool          // nil: one core
	Progress  func(done, total int) // of Recalibrate
}

func (o Options) withDefaults() Options {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&o.Images, 40)
	set(&o.Positions, 160)
	set(&o.Block, 4608)
	set(&o.Memory, 192<<20)
	if o.Pool == nil {
		o.Pool = kernel.NewPool(1)
	}
	return o
}

// Stats says what a repair did.
type Stats struct {
	Solved  []string `json:"solved"`            // layers refitted
	Lambda  float64  `json:"lambda"`            // ρ
	Skipped []string `json:"skipped,omitempty"` // layers left alone, each with the reason
	Images  int      `json:"images"`
	Samples int      `json:"samples"` // rows of each system
	// Bytes is what the samples and the largest system took, beside the models themselves.
	Bytes int64 `json:"bytes"`
}

// consumer is a layer to refit: in the original, and in the cut graph.
type consumer struct {
	orig, cut *graph.Node
	geo       geometry
	kept      []int // of the original's output channels
	rng       uint64
	places    int // sampled in each image
}

// Samples is what the original yields at the places where its layers are looked at. It serves any number of strengths.
type Samples struct {
	orig, cut *graph.Graph
	kept      map[string][]int
	in        []tensor.Type
	images    Images
	opt       Options
	rows      int
	bytes     int64
	z         [][][]float32 // of each consumer, by image: [positions][columns]
}

// Sample runs the original once on each image. orig is the graph that cut was made from, in one step or several, and kept
// lists the channels of orig that each layer still yields, by the name of its output.
//
// Memory: the samples (Options.Memory), and in Ridge for the largest layer of D inputs about 8·D² bytes, with at most
// Options.Block for D: what is larger is solved block by block.
func Sample(ctx context.Context, orig, cut *graph.Graph, kept map[string][]int, in []tensor.Type, images Images, opt Options) (*Samples, error) {
	opt = opt.withDefaults()
	images.N = min(images.N, opt.Images)
	s := &Samples{orig: orig, cut: cut, kept: kept, in: in, images: images, opt: opt}
	cs, err := consumers(orig, cut.Clone(), kept, in, opt, &Stats{})
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	if len(cs) == 0 || images.N == 0 {
		return s, nil
	}
	s.rows, s.bytes = sample(cs, images.N, opt)
	if s.z, err = sampleOriginal(ctx, orig, in, images, cs, opt); err != nil {
		return nil, fmt.Errorf("repair: run the original: %w", err)
	}
	return s, nil
}

// Ridge returns a copy of the cut graph in which every consumer downstream of a removed channel is refitted on the images,
// with lambda for ρ. The same seed gives the same bytes at any number of threads.
func (s *Samples) Ridge(ctx context.Context, lambda float64, progress func(done, total int)) (*graph.Graph, *Stats, error) {
	h := s.cut.Clone()
	stats := &Stats{Images: s.images.N, Solved: []string{}, Lambda: lambda, Samples: s.rows, Bytes: s.bytes}
	cs, err := consumers(s.orig, h, s.kept, s.in, s.opt, stats)
	if err != nil {
		return nil, nil, fmt.Errorf("repair: %w", err)
	}
	for i, z := range s.z {
		c := cs[i]
		c.places = s.rows / s.images.N
		if err := c.solve(ctx, h, s.in, s.images, z, lambda, s.opt); err != nil {
			return nil, nil, fmt.Errorf("repair: node %v: %w", c.cut, err)
		}
		stats.Solved = append(stats.Solved, c.cut.String())
		if progress != nil {
			progress(i+1, len(s.z))
		}
	}
	return h, stats, nil
}

// outs is how many channels a group yields.
func (c *consumer) outs() int { return len(c.kept) / c.geo.groups }

// consumers lists what is to be refitted, in topological order: every layer that reads something which the cut has
// changed, directly or through others.
func consumers(orig, h *graph.Graph, kept map[string][]int, in []tensor.Type, opt Options, stats *Stats) ([]*consumer, error) {
	info, err := engine.Infer(orig, in, tensor.Float32)
	if err != nil {
		return nil, err
	}
	byOutput := map[string]*graph.Node{}
	for _, n := range h.Nodes {
		for _, v := range n.Outputs {
			if v != nil {
				byOutput[v.Name] = n
			}
		}
	}
	changed := map[*graph.Value]bool{}
	var cs []*consumer
	for i, n := range orig.Nodes {
		m := byOutput[n.Outputs[0].Name]
		hit := m != nil && reads(n) != reads(m)
		for _, v := range n.Inputs {
			hit = hit || changed[v]
		}
		if !hit {
			continue
		}
		for _, v := range n.Outputs {
			changed[v] = true
		}
		left, isLayer := kept[n.Outputs[0].Name]
		if !isLayer || m == nil {
			continue
		}
		skip := func(why string) { stats.Skipped = append(stats.Skipped, fmt.Sprintf("%v: %s", n, why)) }
		if group.WeightTensor(n.Input(1)) == nil {
			skip("its weights are stored quantised")
			continue
		}
		geo, why := newGeometry(n, info[n.Inputs[0]].Type.Shape, info[n.Outputs[0]].Type.Shape, group.WeightTensor(n.Input(1)))
		if why != "" {
			skip(why)
			continue
		}
		w := m.Input(1)
		if w.Const == nil || len(h.Uses()[w]) > 1 {
			skip("its weights are shared or no initializer")
			continue
		}
		c := &consumer{orig: n, cut: m, geo: geo, kept: left, rng: uint64(i)}
		c.geo.groups = max(m.Attrs.Int("group", 1), 1)
		if c.geo.channels = c.geo.channelsOf(w.Const); c.geo.groups > 1 && c.geo.channels == 1 {
			skip("it mixes no channels") // measured: refitting depthwise layers takes as long as all others and gives nothing
			continue
		}
		cs = append(cs, c)
	}
	return cs, nil
}

// reads is how many channels n's weights read; 0 if n has none.
func reads(n *graph.Node) int {
	axis := 0
	switch {
	case n.Op == "Conv", n.Op == "Gemm" && n.Attrs.Int("transB", 0) != 0:
		axis = 1
	case n.Op != "ConvTranspose" && n.Op != "Gemm" && n.Op != "MatMul":
		return 0
	}
	w := group.WeightTensor(n.Input(1))
	if w == nil || len(w.Shape) <= axis {
		return 0
	}
	return w.Shape[axis]
}

// sample decides how many places of an image each layer is sampled at, and says how many rows the systems have and what
// memory all takes.
func sample(cs []*consumer, images int, opt Options) (rows int, bytes int64) {
	columns := 0
	for _, c := range cs {
		columns += len(c.kept) * c.geo.phases()
	}
	n := max(min(opt.Positions, opt.Memory/(4*images*max(columns, 1))), 8)
	for _, c := range cs {
		c.places = n
		bytes = max(bytes, c.bytes(images, opt))
	}
	return n * images, bytes + int64(4*images*n*columns)
}

// positions are the places sampled in image i, the same for X' and Z.
func (c *consumer) positions(i int, seed uint64) []int {
	n := c.places
	rng := rand.New(rand.NewPCG(seed^uint64(i)*0x9e3779b97f4a7c15, c.rng+1))
	ps := make([]int, n)
	for j := range ps {
		ps[j] = rng.IntN(c.geo.places())
	}
	return ps
}

// sampleOriginal runs the original once on each image and gives Z of every consumer at its places.
func sampleOriginal(ctx context.Context, orig *graph.Graph, in []tensor.Type, images Images, cs []*consumer, opt Options) ([][][]float32, error) {
	g := orig.Clone()
	byName := map[string]*graph.Value{}
	for v := range g.Values() {
		byName[v.Name] = v
	}
	g.Outputs = nil
	for _, c := range cs {
		g.Outputs = append(g.Outputs, byName[c.orig.Outputs[0].Name])
	}
	z := make([][][]float32, len(cs))
	err := eachImage(ctx, g, in, images, opt, func(i int, out []*tensor.Tensor) {
		for j, c := range cs {
			z[j] = append(z[j], c.geo.targets(tensor.Of[float32](out[j]), out[j].Shape[len(out[j].Shape)-1], c.positions(i, opt.Seed), c.kept))
		}
	})
	return z, err
}

// eachImage runs g on every image and calls f with what comes out, which is the session's until f returns.
func eachImage(ctx context.Context, g *graph.Graph, in []tensor.Type, images Images, opt Options, f func(i int, out []*tensor.Tensor)) error {
	m, err := engine.Compile(g, in, engine.Options{Pool: opt.Pool})
	if err != nil {
		return err
	}
	s := m.NewSession()
	for i := range images.N {
		x, err := images.At(i)
		if err != nil {
			return err
		}
		out, err := s.Run(ctx, []*tensor.Tensor{x})
		if err != nil {
			return err
		}
		f(i, out)
	}
	return nil
}

// upTo is a copy of g that yields v, a value of g, alone.
func upTo(g *graph.Graph, v *graph.Value) *graph.Graph {
	sub, of := g.CloneMap()
	sub.Outputs = []*graph.Value{of[v]}
	return sub
}

// setConst puts t in the place of input i of n, which is an initializer; where others read it too, in its own.
func setConst(h *graph.Graph, n *graph.Node, i int, t *tensor.Tensor) error {
	v := n.Inputs[i]
	if v.Const == nil || len(h.Uses()[v]) > 1 || slices.Contains(h.Outputs, v) {
		return fmt.Errorf("input %q is not its own initializer", v.Name)
	}
	v.Const, v.External = t, nil
	return nil
}
