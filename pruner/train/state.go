package train

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A state is how a training stands after an epoch: Stats, then of each weight its elements, their running mean and Adam's two
// moments, unless training is over, then of each weight the elements of the best epoch, if there is one. All is little-endian;
// how many elements there are is the graph's to say. Nothing random is in it: orders of examples are the seed's.

// state writes how t stands. best are the weights of the best epoch.
func (t *trainer) state(stats *Stats, best [][]float32, over bool) ([]byte, error) {
	b := make([]byte, 0, t.stateBytes(len(stats.Epochs), stats.Best > 0, over))
	put := func(v uint64) { b = binary.LittleEndian.AppendUint64(b, v) }
	put(uint64(stats.Steps))
	put(math.Float64bits(stats.Before))
	put(uint64(stats.Best))
	put(uint64(len(stats.Epochs)))
	for _, e := range stats.Epochs {
		put(math.Float64bits(e.Loss))
		put(math.Float64bits(e.Quality))
	}
	var err error
	all := func(v any) {
		if err == nil {
			b, err = binary.Append(b, binary.LittleEndian, v)
		}
	}
	if !over {
		for _, w := range t.weights {
			all(w.x)
			all(w.mean)
			all(w.m)
			all(w.v)
		}
	}
	for _, x := range best {
		all(x)
	}
	return b, err
}

func (t *trainer) stateBytes(epochs int, best, over bool) int {
	n := 8 * (4 + 2*epochs)
	if !over {
		n += t.elems() * (4 + 3*8)
	}
	if best {
		n += t.elems() * 4
	}
	return n
}

// resume sets t to a state of a training of so many examples, and gives what else is known of it.
func (t *trainer) resume(b []byte, n int, opt Options) (*Stats, [][]float32, error) {
	stats := &Stats{Weights: t.elems()}
	size := len(b)
	bad := func() (*Stats, [][]float32, error) {
		return nil, nil, fmt.Errorf("train: the state to go on from, of %d bytes, is not one of this graph and these options", size)
	}
	next := func() (v uint64) {
		if len(b) >= 8 {
			v, b = binary.LittleEndian.Uint64(b), b[8:]
		}
		return v
	}
	steps, before, best, epochs := next(), next(), next(), next()
	if epochs > uint64(opt.Epochs) || best > epochs || steps != epochs*uint64(opt.stepsOf(n)) || uint64(len(b)) < 16*epochs {
		return bad()
	}
	stats.Steps, stats.Before, stats.Best = int(steps), math.Float64frombits(before), int(best)
	for range epochs {
		stats.Epochs = append(stats.Epochs, Epoch{math.Float64frombits(next()), math.Float64frombits(next())})
	}
	over := stats.over(opt)
	if size != t.stateBytes(int(epochs), best > 0, over) {
		return bad()
	}
	var err error
	all := func(v any) {
		if err == nil {
			var k int
			k, err = binary.Decode(b, binary.LittleEndian, v)
			b = b[k:]
		}
	}
	if !over {
		for _, w := range t.weights {
			all(w.x)
			all(w.mean)
			all(w.m)
			all(w.v)
		}
	}
	var weights [][]float32
	if best > 0 {
		for _, w := range t.weights {
			x := make([]float32, len(w.x))
			all(x)
			weights = append(weights, x)
		}
	}
	return stats, weights, err
}
