package kernel

import (
	"runtime"
	"sync"
	"unsafe"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/mem"
)

// points is how many products a tile of F(4x4,3x3) takes for each pair of channels, for 4·4·9 of the definition. A channel
// of an upsampled tensor takes upPoints of them, from upValues distinct values.
const points, upPoints, upValues = 36, 25, 16

// winograd is a convolution by Winograd's F(4x4,3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", 2016): y = Aᵀ[Σ_c (G·g·Gᵀ) ⊙ (Bᵀ·d·B)]A for tiles of 4x4 results, which 6x6 pixels d give.
//
// Lanes run along tiles, so channels may be of any number, as everywhere in this package. The sums over channels are 36
// products of matrices; their panels of output channels are as those of a layer.
//
// Where the input is a tensor upsampled by two (nearest neighbour), rows of a tile come in pairs, d = (a b b c c d), and
// Bᵀ makes a zero of one combination and multiples of each other of two: 25 of the 36 products remain, of 16 distinct
// values, and the large tensor never exists. This is exact, for 1.56 products a pixel where the definition has 9.
//
// The points to interpolate at are 0, ±1/√2, ±√2 and infinity, which halve the error of 0, ±1, ±2 and infinity; where a
// tensor is upsampled it is the latter, for whose sake products vanish. Results of finite inputs are off by some 1e-6 of
// the largest; an infinite input makes NaNs of all that its tile gives.
type winograd[T Float] struct {
	k          *micro[T]
	s          ConvShape
	ty, tx     int // rows and columns of tiles
	sources    []winoSource
	ups, plain int // channels of upsampled tensors, and of others
	points     winoPoints
	panels     []panel
	u          []T             // packed [panel][point][c][r], channels of upsampled tensors first and only where they count
	thin       *thinWeights[T] // instead of u
	bias       []T
	lo, hi     T
	clamp      int64
	tuning     winoTuning
}

// winoSource is a tensor that the convolution reads.
type winoSource struct {
	Source
	first int // its channels' place in the convolution's input
	at    int // their place among the upsampled channels, or among the others
}

// winogradFits reports whether F(4x4,3x3) is defined here for the shape. Wide padding is left to the direct form.
func winogradFits(s ConvShape) bool {
	if s.KH != 3 || s.KW != 3 || s.StrideH != 1 || s.StrideW != 1 || s.DilH != 1 || s.DilW != 1 || s.Group != 1 ||
		s.PadTop > 3 || s.PadLeft > 3 || s.OH <= 0 || s.OW <= 0 || s.H <= 0 || s.W <= 0 {
		return false
	}
	for _, f := range s.Sources {
		if f.Up && (s.PadTop != 1 || s.PadLeft != 1) {
			return false
		}
	}
	return true
}

func newWinograd[T Float](level isa.Level, s ConvShape, w, bias []T, cl Clamp) *winograd[T] {
	return newTunedWinograd(level, s, w, bias, cl, winoTuning{})
}

// newTunedWinograd cuts the work as told, or if that is nothing as the caches want it.
func newTunedWinograd[T Float](level isa.Level, s ConvShape, w, bias []T, cl Clamp, tuning winoTuning) *winograd[T] {
	d := &winograd[T]{k: microFor[T](level), s: s, ty: (s.OH + 3) / 4, tx: (s.OW + 3) / 4}
	d.lo, d.hi = T(cl.Lo), T(cl.Hi)
	switch {
	case cl.Hi < NoClamp.Hi:
		d.clamp = 2
	case cl.Lo > NoClamp.Lo:
		d.clamp = 1
	}
	d.bias = make([]T, s.M)
	copy(d.bias, bias)
	first := 0
	for _, f := range s.sources() {
		n := &d.plain
		if f.Up {
			n = &d.ups
		}
		d.sources = append(d.sources, winoSource{f, first, *n})
		*n += f.C
		first += f.C
	}
	if d.ups == 0 {
		d.points = balancedPoints
	}
	if d.tuning = tuning; tuning.vectors == 0 || tuning.mode == byWeights && !d.thinFits() {
		d.tuning = d.tune()
	}
	d.choose()
	if d.tuning.mode == byWeights {
		d.thin = newThinWeights(d, w)
	} else {
		d.pack(w)
	}
	return d
}

// perChannel is how many weights an output channel has.
func (d *winograd[T]) perChannel() int { return upPoints*d.ups + points*d.plain }

// pack transforms the weights, in float64.
func (d *winograd[T]) pack(w []T) {
	d.u = mem.Make[T](d.s.M * d.perChannel())
	// offset[p] is where point p begins in a panel, in weights of one output channel.
	var offset [points]int
	n := 0
	for p := range points {
		offset[p] = n
		if d.upAt(p) >= 0 {
			n += d.ups
		}
		n += d.plain
	}
	one := func(pn panel) {
		u := d.u[pn.first*d.perChannel():]
		for _, f := range d.sources {
			for c := range f.C {
				for k := range pn.r {
					for i, r := range transformWeights(d.points, w[((pn.first+k)*d.s.C+f.first+c)*9:][:9]) {
						for j, v := range r {
							at := offset[6*i+j] + f.at + c
							switch {
							case !f.Up && d.upAt(6*i+j) >= 0:
								at += d.ups
							case f.Up && d.upAt(6*i+j) < 0:
								continue
							case f.Up:
								v *= upPoint[i].factor * upPoint[j].factor
							}
							u[at*pn.r+k] = T(v)
						}
					}
				}
			}
		}
	}
	// Large models have tens of millions of weights.
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), len(d.panels), 1+d.s.C*d.s.M>>12)
	for i := range workers {
		wg.Go(func() {
			for k := i; k < len(d.panels); k += workers {
				one(d.panels[k])
			}
		})
	}
	wg.Wait()
}

// upAt is which of the distinct values of an upsampled channel point p reads; negative if none.
func (d *winograd[T]) upAt(p int) int {
	i, j := upPoint[p/6].row, upPoint[p%6].row
	if i < 0 || j < 0 {
		return -1
	}
	return 4*i + j
}

// values is how many elements a tile of all channels has in V.
func (d *winograd[T]) values() int { return upValues*d.ups + points*d.plain }

// bytes of one element.
func sizeOf[T Float]() int64 {
	var z T
	return int64(unsafe.Sizeof(z))
}
