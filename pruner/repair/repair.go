// Package repair refits the weights that read what a cut has left, so that they make up for what is gone.
//
// [Ridge] goes through the consumers of the cut graph in topological order. For each it collects what the consumer now
// reads, X' (im2col of the input in the cut and so far repaired graph, with a column of ones for the bias), and what it
// yielded in the original at the same places, Z (before normalisation and activation, channels that are left only), and
// solves for weights and bias together
//
//	(X'ᵀX' + λI) W = X'ᵀZ + λ W_old,   λ = 1e-3 · tr(X'ᵀX') / D,
//
// that is W = W_old + (X'ᵀX' + λI)⁻¹ X'ᵀ(Z - X' W_old), which is how it is computed. No labels are used.
package repair

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

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
	Images    int     // how many images to use at most; 0: 60
	Positions int     // places sampled in each image and layer at most; 0: 160
	Lambda    float64 // 0: 1e-3
	MaxD      int     // layers with more inputs than this (channels times kernel, plus one) are left alone; 0: 4608
	Memory    int     // bytes for the samples of the original; fewer places are taken to keep to it; 0: 192 MB
	Seed      uint64
	Pool      *kernel.Pool // nil: one core
	Progress  func(done, total int)
}

func (o Options) withDefaults() Options {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&o.Images, 60)
	set(&o.Positions, 160)
	set(&o.MaxD, 4608)
	set(&o.Memory, 192<<20)
	if o.Lambda <= 0 {
		o.Lambda = 1e-3
	}
	if o.Pool == nil {
		o.Pool = kernel.NewPool(1)
	}
	return o
}

// Stats says what a repair did.
type Stats struct {
	Solved  []string `json:"solved"`            // layers refitted
	Skipped []string `json:"skipped,omitempty"` // layers left alone, each with the reason
	Images  int      `json:"images"`
	Samples int      `json:"samples"` // rows of each system
}

// consumer is a layer to refit: in the original, and in the cut graph.
type consumer struct {
	orig, cut *graph.Node
	geo       geometry
	kept      []int // of the original's output channels
	rng       uint64
	z         [][]float32 // by image: [positions][columns]
}

// Ridge returns a copy of cut in which every consumer downstream of a removed channel is refitted on the images. orig is
// the graph that cut was made from, in one step or several, and kept lists the channels of orig that each layer still
// yields, by the name of its output. The same seed gives the same bytes at any number of threads.
//
// Memory: the samples of the original (Options.Memory), and for the largest layer of D inputs about 12·D² bytes.
func Ridge(ctx context.Context, orig, cut *graph.Graph, kept map[string][]int, in []tensor.Type, images Images, opt Options) (*graph.Graph, *Stats, error) {
	opt = opt.withDefaults()
	images.N = min(images.N, opt.Images)
	h := cut.Clone()
	stats := &Stats{Images: images.N, Solved: []string{}}
	cs, err := consumers(orig, h, kept, in, opt, stats)
	if err != nil {
		return nil, nil, fmt.Errorf("repair: %w", err)
	}
	if len(cs) == 0 || images.N == 0 {
		return h, stats, nil
	}
	positions := opt.Positions
	columns := 0
	for _, c := range cs {
		columns += len(c.kept) * c.geo.phases()
	}
	positions = max(min(positions, opt.Memory/(4*images.N*max(columns, 1))), 8)
	stats.Samples = positions * images.N
	total := len(cs) + 1
	report := func(done int) {
		if opt.Progress != nil {
			opt.Progress(done, total)
		}
	}
	if err := sampleOriginal(ctx, orig, in, images, cs, positions, opt); err != nil {
		return nil, nil, fmt.Errorf("repair: run the original: %w", err)
	}
	report(1)
	for i, c := range cs {
		if err := c.solve(ctx, h, in, images, positions, opt); err != nil {
			return nil, nil, fmt.Errorf("repair: node %v: %w", c.cut, err)
		}
		c.z = nil
		stats.Solved = append(stats.Solved, c.cut.String())
		report(i + 2)
	}
	return h, stats, nil
}

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
		c.geo.channels = geo.channelsOf(w.Const)
		if c.geo.columns() > opt.MaxD {
			skip(fmt.Sprintf("%d inputs are more than %d", c.geo.columns(), opt.MaxD))
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

// positions are the places sampled in image i, the same for X' and Z.
func (c *consumer) positions(i, n int, seed uint64) []int {
	rng := rand.New(rand.NewPCG(seed^uint64(i)*0x9e3779b97f4a7c15, c.rng+1))
	ps := make([]int, n)
	for j := range ps {
		ps[j] = rng.IntN(c.geo.places())
	}
	return ps
}

// sampleOriginal runs the original once on each image and keeps Z of every consumer at its places.
func sampleOriginal(ctx context.Context, orig *graph.Graph, in []tensor.Type, images Images, cs []*consumer, positions int, opt Options) error {
	g := orig.Clone()
	byName := map[string]*graph.Value{}
	for v := range g.Values() {
		byName[v.Name] = v
	}
	g.Outputs = nil
	for _, c := range cs {
		g.Outputs = append(g.Outputs, byName[c.orig.Outputs[0].Name])
	}
	return eachImage(ctx, g, in, images, opt, func(i int, out []*tensor.Tensor) {
		for j, c := range cs {
			c.z = append(c.z, c.geo.targets(tensor.Of[float32](out[j]), c.positions(i, positions, opt.Seed), c.kept))
		}
	})
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

// chunk is how many rows go into one product of float32; products are added up in float64.
const chunk = 1024

// solve refits c's weights in h.
func (c *consumer) solve(ctx context.Context, h *graph.Graph, in []tensor.Type, images Images, positions int, opt Options) error {
	d, cols := c.geo.columns(), len(c.kept)*c.geo.phases()
	old := c.geo.matrix(c)
	sys := newSystem(d, cols, old, opt.Pool)
	err := eachImage(ctx, upTo(h, c.cut.Inputs[0]), in, images, opt, func(i int, out []*tensor.Tensor) {
		data := tensor.Of[float32](out[0])
		for j, p := range c.positions(i, positions, opt.Seed) {
			c.geo.row(sys.next(c.z[i][j*cols:(j+1)*cols]), data, p)
		}
	})
	if err != nil {
		return err
	}
	w, err := sys.solve(opt.Lambda)
	if err != nil {
		return err
	}
	return c.geo.write(h, c, w)
}

// system gathers XᵀX and Xᵀ(Z - X·old).
type system struct {
	d, m int
	old  []float32 // [d][m]
	pool *kernel.Pool
	rows int
	x, z []float32 // [chunk][d], [chunk][m]
	xt   []float32 // [d][chunk]
	g, b []float64 // [d][d], [d][m]
}

func newSystem(d, m int, old []float32, pool *kernel.Pool) *system {
	f := func(n int) []float32 { return tensor.Of[float32](tensor.New(tensor.Float32, n)) }
	return &system{
		d: d, m: m, old: old, pool: pool, x: f(chunk * d), z: f(chunk * m), xt: f(chunk * d),
		g: make([]float64, d*d), b: make([]float64, d*m),
	}
}

// next takes a row of targets and returns where the row of inputs is to be written.
func (s *system) next(z []float32) []float32 {
	if s.rows == chunk {
		s.flush()
	}
	copy(s.z[s.rows*s.m:], z)
	row := s.x[s.rows*s.d : (s.rows+1)*s.d]
	s.rows++
	return row
}

// product is y[m,n] = a[m,k]·b[k,n].
func product(p *kernel.Pool, m, k, n int, y, a, b []float32) {
	scratch := tensor.Of[float32](tensor.New(tensor.Float32, kernel.ScratchAB(p.Workers(), m, k, n)))
	kernel.MatMulAB(p, m, k, n, scratch, y, a, b)()
}

// flush adds the rows gathered to the sums. The order of all additions is fixed.
func (s *system) flush() {
	r, d, m := s.rows, s.d, s.m
	if r == 0 {
		return
	}
	out := tensor.Of[float32](tensor.New(tensor.Float32, max(r*m, d*m)))
	product(s.pool, r, d, m, out, s.x[:r*d], s.old)
	for i := range r * m {
		s.z[i] -= out[i]
	}
	s.pool.Loop((d+63)/64, func(_, t int) {
		for i := range r {
			for j := t * 64; j < min((t+1)*64, d); j++ {
				s.xt[j*r+i] = s.x[i*d+j]
			}
		}
	}).Run()
	product(s.pool, d, r, m, out, s.xt[:d*r], s.z[:r*m])
	for i := range d * m {
		s.b[i] += float64(out[i])
	}
	// In bands of rows, so that the product takes little memory beside the sums.
	const band = 256
	gram := tensor.Of[float32](tensor.New(tensor.Float32, min(band, d)*d))
	for from := 0; from < d; from += band {
		n := min(band, d-from)
		product(s.pool, n, r, d, gram[:n*d], s.xt[from*r:(from+n)*r], s.x[:r*d])
		sum := s.g[from*d : (from+n)*d]
		for i := range sum {
			sum[i] += float64(gram[i])
		}
	}
	s.rows = 0
}

// solve gives the new weights [d][m]. It works in place.
func (s *system) solve(lambda float64) ([]float64, error) {
	s.flush()
	trace := 0.0
	for i := range s.d {
		trace += s.g[i*s.d+i]
	}
	l := lambda * trace / float64(s.d)
	if !(l > 0) { // nothing was read: all inputs are zero
		return widen(s.old), nil
	}
	for i := range s.d {
		s.g[i*s.d+i] += l
	}
	u, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Upper, N: s.d, Stride: s.d, Data: s.g})
	if !ok {
		return nil, fmt.Errorf("the normal equations of %d unknowns are not positive definite", s.d)
	}
	lapack64.Potrs(u, blas64.General{Rows: s.d, Cols: s.m, Stride: s.m, Data: s.b})
	w := widen(s.old)
	for i, v := range s.b {
		w[i] += v
	}
	return w, nil
}

func widen(x []float32) []float64 {
	w := make([]float64, len(x))
	for i, v := range x {
		w[i] = float64(v)
	}
	return w
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
