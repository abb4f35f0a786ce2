package repair

import (
	"context"
	"fmt"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

const (
	// chunk is how many rows go into one product of float32; products are added up in float64.
	chunk = 1024
	// sweeps is how often a system of several blocks goes through them all.
	sweeps = 3
)

// solve refits c's weights in h so that it yields z. Each group is a system of its own. What is too large to be solved at once is solved by
// blocks of columns, one behind the other, each for what the others leave (block Gauss-Seidel): every step lowers what is
// minimised. A block takes a pass over the images, and the residual takes the place of a copy of the targets.
func (c *consumer) solve(ctx context.Context, h *graph.Graph, in []tensor.Type, images Images, targets [][]float32, lambda float64, opt Options) error {
	left := make([][]float32, len(targets))
	for i, z := range targets {
		left[i] = slices.Clone(z)
	}
	d, ph := c.geo.columns(), c.geo.phases()
	cols := c.outs() * ph
	blocks := split(d, opt.Block)
	gathered := min(max(chunk/c.geo.groups, c.places), images.N*c.places)
	systems := make([]*system, c.geo.groups)
	for q := range systems {
		systems[q] = newSystem(d, cols, gathered, c.geo.matrix(c, q), opt.Pool)
	}
	g := upTo(h, c.cut.Inputs[0])
	passes := sweeps * len(blocks)
	if len(blocks) == 1 {
		passes = 1
	}
	for pass := range passes {
		block := blocks[pass%len(blocks)]
		for _, s := range systems {
			s.begin(block)
		}
		err := eachImage(ctx, g, in, images, opt, func(i int, out []*tensor.Tensor) {
			data := tensor.Of[float32](out[0])
			for j, p := range c.positions(i, opt.Seed) {
				z := left[i][j*cols*len(systems) : (j+1)*cols*len(systems)]
				for q, s := range systems {
					c.geo.row(s.next(z[q*cols:(q+1)*cols]), data, q, p)
				}
			}
		})
		if err != nil {
			return err
		}
		for _, s := range systems {
			if err := s.solve(lambda); err != nil {
				return err
			}
		}
	}
	w := make([][]float64, len(systems))
	for q, s := range systems {
		w[q] = s.weights()
	}
	return c.geo.write(h, c, w)
}

// bytes is what solve takes.
func (c *consumer) bytes(images int, opt Options) int64 {
	d, m := c.geo.columns(), c.outs()*c.geo.phases()
	b := min(d, opt.Block)
	rows := max(chunk/c.geo.groups, c.places)
	return int64(c.geo.groups) * int64(8*b*b+4*rows*(d+2*b+2*m)+4*min(256, b)*b+24*d*m+4*images*c.places*m)
}

// split divides [0,d) into as few runs as possible of at most most, as equal as they can be.
func split(d, most int) [][2]int {
	n := (d + most - 1) / most
	var runs [][2]int
	for i := range n {
		runs = append(runs, [2]int{d * i / n, d * (i + 1) / n})
	}
	return runs
}

// system gathers, of a block of X's columns, XᵀX and Xᵀ times the residual, and solves for the change of their weights.
type system struct {
	d, m  int
	old   []float32 // [d][m]
	delta []float64 // [d][m], the change so far
	pool  *kernel.Pool

	block [2]int    // the columns under way
	last  [2]int    // the columns whose weights have changed since the residual was computed
	step  []float32 // by how much, [last][m]

	rows  int
	x     []float32   // [chunk][d]
	z     []float32   // [chunk][m]
	back  [][]float32 // where each row of z came from
	xt    []float32   // [block][chunk]
	g, b  []float64   // XᵀX, [block][block], and Xᵀ(Z-X·W), [block][m]
	trace float64     // of the XᵀX of all columns
}

func newSystem(d, m, n int, old []float32, pool *kernel.Pool) *system {
	return &system{
		d: d, m: m, old: old, delta: make([]float64, d*m), pool: pool,
		x: floats(n * d), z: floats(n * m), back: make([][]float32, n),
		last: [2]int{0, d}, step: old, // the residual of the first pass is Z - X·W_old
	}
}

func floats(n int) []float32 { return tensor.Of[float32](tensor.New(tensor.Float32, n)) }

func (s *system) width() int { return s.block[1] - s.block[0] }

// begin starts a pass for a block of columns.
func (s *system) begin(block [2]int) {
	s.block, s.rows, s.trace = block, 0, 0
	if n := s.width(); len(s.g) != n*n {
		s.g, s.b, s.xt = make([]float64, n*n), make([]float64, n*s.m), floats(n*len(s.back))
	}
	clear(s.g)
	clear(s.b)
}

// next takes a row of targets, or of what is left of them, and returns where the row of inputs is to be written. The row of
// targets becomes the residual.
func (s *system) next(z []float32) []float32 {
	if s.rows == len(s.back) {
		s.flush()
	}
	copy(s.z[s.rows*s.m:], z)
	s.back[s.rows] = z
	row := s.x[s.rows*s.d : (s.rows+1)*s.d]
	s.rows++
	return row
}

// product is y[m,n] = a[m,k]·b[k,n].
func product(p *kernel.Pool, m, k, n int, y, a, b []float32) {
	scratch := floats(kernel.ScratchAB(p.Workers(), m, k, n))
	kernel.MatMulAB(p, m, k, n, scratch, y, a, b)()
}

// columns is the rows gathered, of some columns.
func (s *system) columns(run [2]int) []float32 {
	n := run[1] - run[0]
	if n == s.d {
		return s.x[:s.rows*s.d]
	}
	x := floats(s.rows * n)
	for i := range s.rows {
		copy(x[i*n:(i+1)*n], s.x[i*s.d+run[0]:])
	}
	return x
}

// flush brings the rows gathered up to date and adds them to the sums. The order of all additions is fixed.
func (s *system) flush() {
	r, m, n := s.rows, s.m, s.width()
	if r == 0 {
		return
	}
	out := floats(max(r, n) * m)
	product(s.pool, r, s.last[1]-s.last[0], m, out, s.columns(s.last), s.step)
	for i := range r * m {
		s.z[i] -= out[i]
	}
	for i, z := range s.back[:r] {
		copy(z, s.z[i*m:(i+1)*m])
	}
	for _, v := range s.x[:r*s.d] {
		s.trace += float64(v) * float64(v)
	}
	x := s.columns(s.block)
	s.pool.Loop((n+63)/64, func(_, t int) {
		for i := range r {
			for j := t * 64; j < min((t+1)*64, n); j++ {
				s.xt[j*r+i] = x[i*n+j]
			}
		}
	}).Run()
	product(s.pool, n, r, m, out, s.xt[:n*r], s.z[:r*m])
	for i := range n * m {
		s.b[i] += float64(out[i])
	}
	// In bands of rows, so that the product takes little memory beside the sums.
	const band = 256
	gram := floats(min(band, n) * n)
	for from := 0; from < n; from += band {
		k := min(band, n-from)
		product(s.pool, k, r, n, gram[:k*n], s.xt[from*r:(from+k)*r], x)
		sum := s.g[from*n : (from+k)*n]
		for i := range sum {
			sum[i] += float64(gram[i])
		}
	}
	s.rows = 0
}

// solve changes the weights of the block for what is left of the targets. It works in place.
func (s *system) solve(lambda float64) error {
	s.flush()
	n := s.width()
	s.last, s.step = s.block, floats(n*s.m)
	l := lambda * s.trace / float64(s.d)
	if !(l > 0) { // nothing was read: all inputs are zero
		return nil
	}
	for i := range n {
		s.g[i*n+i] += l
	}
	delta := s.delta[s.block[0]*s.m : s.block[1]*s.m]
	for i, v := range delta {
		s.b[i] -= l * v
	}
	u, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Upper, N: n, Stride: n, Data: s.g})
	if !ok {
		return fmt.Errorf("the normal equations of %d unknowns are not positive definite", n)
	}
	lapack64.Potrs(u, blas64.General{Rows: n, Cols: s.m, Stride: s.m, Data: s.b})
	for i, v := range s.b {
		delta[i] += v
		s.step[i] = float32(v)
	}
	return nil
}

// weights gives the new ones, [d][m].
func (s *system) weights() []float64 {
	w := make([]float64, len(s.old))
	for i, v := range s.old {
		w[i] = float64(v) + s.delta[i]
	}
	return w
}
