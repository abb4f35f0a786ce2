package engine_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/tensor"
)

// What a tape gives at its stops is what a trace has, to the bit, however little is kept and however often it is read.
func TestTapeIsTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, x := drawGraph(t)
		m, err := engine.Compile(b.g, []tensor.Type{x.Type}, engine.Options{Verbatim: true, Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		var stops []engine.Stop
		for _, n := range slices.Backward(b.g.Nodes) {
			s := engine.Stop{Node: n}
			if rapid.Bool().Draw(t, "inputs") {
				s.Reads = append(s.Reads, n.Inputs...)
			}
			if rapid.Bool().Draw(t, "outputs") {
				s.Reads = append(s.Reads, n.Outputs...)
			}
			stops = append(stops, s)
		}
		session := m.NewSession()
		for _, most := range []int64{math.MaxInt64, int64(m.SessionBytes() / 2), 0} {
			once := rapid.Bool().Draw(t, "once")
			tape, err := m.NewTape(b.g.Outputs, stops, once, most)
			if err != nil {
				t.Fatal(err)
			}
			if most == math.MaxInt64 && (tape.Again() != 0 || tape.Bytes() > m.SessionBytes()) {
				t.Fatalf("%g is done again and %d bytes are taken, a trace takes %d", tape.Again(), tape.Bytes(), m.SessionBytes())
			}
			backs := 2
			if once {
				backs = 1
			}
			for run := range 2 { // the second over what the first has left
				in := []*tensor.Tensor{randomInput(uint64(run), x.Type.Shape...)}
				want, err := session.Trace(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				check := func(got engine.Trace) {
					for v, y := range got {
						if !tensor.Equal(y, want[v]) {
							t.Fatalf("most %d: value %q differs\n%v", most, v.Name, b.g.Nodes)
						}
					}
				}
				got, err := tape.Run(t.Context(), in)
				if err != nil {
					t.Fatal(err)
				}
				check(got)
				for range backs {
					for i, s := range stops {
						if rapid.IntRange(0, 3).Draw(t, "skip") == 0 {
							continue
						}
						got, err := tape.Halt(t.Context(), i)
						if err != nil {
							t.Fatal(err)
						}
						for _, v := range s.Reads {
							if got[v] == nil {
								t.Fatalf("stop %d has no value %q", i, v.Name)
							}
						}
						check(got)
					}
				}
				if _, err := tape.Halt(t.Context(), len(stops)-1); err != nil {
					t.Fatal(err)
				}
				if _, err := tape.Halt(t.Context(), 0); once && len(stops) > 1 && err == nil {
					t.Fatal("it is gone back over again")
				}
			}
		}
	})
}
