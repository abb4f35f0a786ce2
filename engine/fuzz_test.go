package engine_test

import (
	"bytes"
	"context"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/tensor"
)

// FuzzCompile feeds models from strangers through Decode, Compile and Run. Whatever the bytes, there is an error or an
// output; no panic, no allocation beyond the limits, and no output that depends on what lay in the session's memory
// before. mutate, if not 0, seeds changes to the graph that keep it well-formed: bytes alone rarely get that far.
func FuzzCompile(f *testing.F) {
	for _, g := range seedGraphs() {
		b, err := onnx.Encode(g)
		if err != nil {
			f.Fatal(err)
		}
		for m := range uint64(4) {
			f.Add(b, m)
		}
	}
	if dir := os.Getenv("SECATEUR_NODE_TESTS"); dir != "" {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "model.onnx" {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil && len(b) < 1<<12 {
				f.Add(b, uint64(0))
			}
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, mutate uint64) {
		g, err := onnx.Decode(b, onnx.Options{MaxBytes: 1 << 24})
		if err != nil {
			return
		}
		if mutate != 0 {
			mutateGraph(g, rand.New(rand.NewPCG(mutate, 7)))
			if g.Validate() != nil {
				return
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		compileAndRun(t, g)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 6<<30 {
			t.Fatalf("%d bytes allocated", got)
		}
	})
}

// compileAndRun binds unknown dimensions to small numbers and runs twice over different leftovers.
func compileAndRun(t *testing.T, g *graph.Graph) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var in []*tensor.Tensor
	var ts []tensor.Type
	for i, v := range engine.Inputs(g) {
		shape := v.Type.Shape.Clone()
		if shape == nil {
			shape = tensor.Shape{1, 3, 4, 4}
		}
		for a, d := range shape {
			if d == tensor.Unknown {
				shape[a] = 1 + (i+3*a+len(g.Nodes))%8
			}
		}
		if n := shape.Elems(); n < 0 || n > 1<<16 || v.Type.DType.Bits() == 0 {
			return
		}
		x := tensor.New(v.Type.DType, shape...)
		for j := range x.Data { // small numbers in every type
			x.Data[j] = byte(j%3) & 1
		}
		in, ts = append(in, x), append(ts, x.Type())
	}
	m, err := engine.Compile(g, ts, engine.Options{Threads: 2, MaxBytes: 1 << 28})
	if err != nil {
		mustNotBeInternal(t, err)
		return
	}
	if m.Work() > 1<<27 {
		return // within the limits, and too slow for a fuzzer
	}
	s := m.NewSession()
	var first [][]byte
	for _, leftover := range []byte{0, 0x7f} {
		s.Poison(leftover)
		out, err := s.Run(ctx, in)
		if err != nil {
			mustNotBeInternal(t, err)
			return
		}
		for i, y := range out {
			if leftover == 0 {
				first = append(first, bytes.Clone(y.Data))
			} else if !bytes.Equal(first[i], y.Data) {
				t.Fatalf("output %d, %v, depends on what the session's memory held before\n% x\n% x", i, y.Type(), head(first[i]), head(y.Data))
			}
		}
	}
}

func head(b []byte) []byte { return b[:min(len(b), 256)] }

func mustNotBeInternal(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(err.Error(), "internal error") {
		t.Fatal(err)
	}
}

// odd are the numbers that bounds are checked for too late.
var odd = []int64{0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 17, 63, 255, -2, -3, 1 << 15, 1 << 16, 1 << 20, 1 << 31, 1<<31 - 1, 1 << 32, 1 << 40,
	1 << 62, 1<<63 - 1, -1 << 63, -1 << 31, 100, 1000}

// mutateGraph makes a few changes: attributes, constants, shapes and wiring.
func mutateGraph(g *graph.Graph, r *rand.Rand) {
	number := func() int64 {
		if r.IntN(3) > 0 {
			return int64(r.IntN(6))
		}
		return odd[r.IntN(len(odd))]
	}
	var values []*graph.Value
	for v := range g.Values() {
		values = append(values, v)
	}
	for range 1 + r.IntN(4) {
		switch r.IntN(7) {
		case 0, 1: // an attribute
			if len(g.Nodes) == 0 {
				continue
			}
			n := g.Nodes[r.IntN(len(g.Nodes))]
			if len(n.Attrs) == 0 {
				continue
			}
			a := &n.Attrs[r.IntN(len(n.Attrs))]
			a.Int = number()
			if len(a.Ints) > 0 {
				a.Ints[r.IntN(len(a.Ints))] = number()
				if r.IntN(8) == 0 {
					a.Ints = a.Ints[1:]
				}
			}
			if a.Float != 0 {
				a.Float = float32(number())
			}
		case 2: // an element of a constant that says a shape, a scale, an index
			if len(g.Inits) == 0 {
				continue
			}
			c := g.Inits[r.IntN(len(g.Inits))].Const
			if c.Elems() == 0 {
				continue
			}
			switch i := r.IntN(c.Elems()); c.DType {
			case tensor.Int64:
				tensor.Of[int64](c)[i] = number()
			case tensor.Int32:
				tensor.Of[int32](c)[i] = int32(number())
			case tensor.Float32:
				tensor.Of[float32](c)[i] = float32(number()) / 2
			}
		case 3: // the shape of a constant
			if len(g.Inits) == 0 {
				continue
			}
			v := g.Inits[r.IntN(len(g.Inits))]
			shape := v.Const.Shape.Clone()
			if len(shape) > 0 {
				shape[r.IntN(len(shape))] = int(number())
			}
			if r.IntN(4) == 0 {
				shape = append(shape, 1)
			}
			if n := shape.Elems(); n < 0 || n > 1<<16 {
				continue
			}
			v.Const = tensor.New(v.Const.DType, shape...)
			v.Type = tensor.Type{}
		case 4: // the shape of an input
			if len(g.Inputs) == 0 {
				continue
			}
			v := g.Inputs[r.IntN(len(g.Inputs))]
			if s := v.Type.Shape; len(s) > 0 && v.Const == nil {
				s[r.IntN(len(s))] = int(max(number(), -1))
			}
		case 5: // what a node reads
			if len(g.Nodes) == 0 || len(values) == 0 {
				continue
			}
			n := g.Nodes[r.IntN(len(g.Nodes))]
			if len(n.Inputs) == 0 {
				continue
			}
			n.Inputs[r.IntN(len(n.Inputs))] = values[r.IntN(len(values))]
			if r.IntN(6) == 0 {
				n.Inputs = append(n.Inputs, values[r.IntN(len(values))])
			}
		case 6: // what the graph yields, or its operator set
			if r.IntN(2) == 0 && len(values) > 0 {
				g.Outputs = append(g.Outputs, values[r.IntN(len(values))])
			} else {
				g.Opsets[""] = 6 + r.IntN(20)
			}
		}
	}
}
