package kernel

import (
	"math/rand/v2"
	"time"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// Choice is a way to compute a convolution. The zero Choice is what the cost model says.
type Choice struct {
	Form    string `json:"form,omitempty"`    // direct or winograd F4
	Mode    int    `json:"mode,omitempty"`    // of Winograd: how it is cut into tasks
	Vectors int    `json:"vectors,omitempty"` // and the vectors of tiles of a block
}

const formDirect, formWinograd = "direct", "winograd F4"

// Choices lists the ways worth measuring, the cost model's first; there are none where there is but one.
func Choices(s ConvShape) []Choice {
	if !winogradFits(s) {
		return nil
	}
	lanes := microFor[float32](isa.Best()).lanes
	list := []Choice{{}, {Form: formDirect}}
	for n := 1; n <= 64/lanes; n++ {
		list = append(list, Choice{formWinograd, int(byBlocks), n})
	}
	return append(list, Choice{formWinograd, int(byPanels), 32 / lanes}, Choice{formWinograd, int(byPoints), 48 / lanes},
		Choice{formWinograd, int(byWeights), thinVectors})
}

// NewConvBy is NewConv in a chosen way. A Winograd form that would spoil the results is not taken. Results of two choices
// differ by rounding.
func NewConvBy[T Float](s ConvShape, w, bias []T, c Clamp, by Choice) *Conv[T] {
	switch {
	case by.Form == formDirect:
		return newConv(isa.Best(), direct, s, w, bias, c)
	case by.Form == formWinograd && winogradFits(s) && sizeOf[T]() == 4 && by.Vectors > 0 && by.Mode >= int(byBlocks) && by.Mode <= int(byWeights):
		if d := newTunedWinograd(isa.Best(), s, w, bias, c, winoTuning{winoMode(by.Mode), by.Vectors}); d.estimateError(w) <= winogradBudget {
			return &Conv[T]{w: d}
		}
		return newConv(isa.Best(), direct, s, w, bias, c)
	}
	return NewConv(s, w, bias, c)
}

// Measure gives the fastest of Choices on the pool's cores, on random numbers, some runs of each. The cost model's is
// taken if it is within a few percent.
func Measure(p *Pool, s ConvShape) Choice {
	choices := Choices(s)
	if len(choices) == 0 {
		return Choice{}
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	random := func(n int) []float32 {
		v := make([]float32, n+256)
		for i := range v {
			v[i] = rnd.Float32() - 0.5
		}
		return v[:n]
	}
	w, y := random(s.M*s.C*s.KH*s.KW), random(s.N*s.M*s.OH*s.OW)
	var x [][]float32
	for _, f := range s.sources() {
		x = append(x, random(s.N*f.elems(s)))
	}
	var best Choice
	var least time.Duration
	for i, c := range choices {
		k := NewConvBy(s, w, nil, NoClamp, c)
		run := k.Bind(p, random(k.Scratch(p.Workers())), y, x...)
		run()
		took := time.Hour
		for range 5 {
			t := time.Now()
			run()
			took = min(took, time.Since(t))
		}
		if i == 0 {
			took = took * 97 / 100
		}
		if i == 0 || took < least {
			best, least = c, took
		}
	}
	return best
}
