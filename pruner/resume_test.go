package pruner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/unet"
)

// A run that is broken off within a training goes on behind its last epoch, and ends with the same bytes as one that was
// not; what it was given is refused by any other run.
func TestResume(t *testing.T) {
	net := func(seed uint64) *graph.Graph {
		g := unet.Classic(4, seed)
		g.Meta["secateur.preprocess"] = strings.Replace(g.Meta["secateur.preprocess"], "[256,256]", "[32,32]", 1)
		return g
	}
	g, fit, val := net(1), phantoms(t, 100, 6, true), phantoms(t, 200, 3, true)
	var states [][]byte
	options := func() Options {
		return Options{Target: Target{"macs", 0.4}, Seed: 3, Distil: 3, Finetune: 2, Keep: regexp.MustCompile("^Conv_3$"), GroupBy: regexp.MustCompile("x$")}
	}
	opt := options()
	opt.Save = func(b []byte) error { states = append(states, b); return nil }
	want, err := Prune(t.Context(), g, fit, val, opt)
	if err != nil {
		t.Fatal(err)
	}
	epochs := 0
	for _, s := range want.Report.Repair.Steps {
		if s.Train != nil {
			epochs += len(s.Train.Epochs)
		}
	}
	if epochs < 3 || len(states) != epochs {
		t.Fatalf("%d epochs, saved %d times", epochs, len(states))
	}
	for _, at := range []int{2, epochs} { // within the first training, and behind the last epoch of all
		var last []byte
		ctx, cancel := context.WithCancel(t.Context())
		opt := options()
		opt.Resume = states[at-2]
		opt.Save = func(b []byte) error {
			last = b
			cancel()
			return nil
		}
		if _, err := Prune(ctx, g, fit, val, opt); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled after epoch %d: %v", at, err)
		}
		cancel()
		if !bytes.Equal(last, states[at-1]) {
			t.Errorf("epoch %d: saved other bytes than a run that began at once", at)
		}
		saves := 0
		opt.Resume, opt.Threads = last, 1
		opt.Save = func([]byte) error { saves++; return nil }
		got, err := Prune(t.Context(), g, fit, val, opt)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.ONNX, want.ONNX) || saves != epochs-at {
			t.Errorf("broken off after %d of %d epochs: %d more, the same bytes %v", at, epochs, saves, bytes.Equal(got.ONNX, want.ONNX))
		}
	}

	state := states[len(states)-1]
	for name, change := range map[string]func(*Options){
		"another seed":          func(o *Options) { o.Seed++ },
		"another target":        func(o *Options) { o.Target.Value = 0.3 },
		"other layers kept":     func(o *Options) { o.Keep = regexp.MustCompile("^Conv_7$") },
		"other groups":          func(o *Options) { o.GroupBy = nil },
		"more epochs":           func(o *Options) { o.Distil++ },
		"nothing":               func(o *Options) { o.Resume = []byte{} },
		"a part":                func(o *Options) { o.Resume = state[:len(state)-1] },
		"a bit flipped":         func(o *Options) { o.Resume = bytes.Clone(state); o.Resume[len(state)/2] ^= 4 },
		"something else":        func(o *Options) { o.Resume = want.ONNX },
		"no more than its name": func(o *Options) { o.Resume = state[:len(savedMagic)] },
	} {
		opt := options()
		opt.Resume = state
		change(&opt)
		if _, err := Prune(t.Context(), g, fit, val, opt); !errors.Is(err, ErrResume) {
			t.Errorf("%s: %v", name, err)
		}
	}
	opt = options()
	opt.Resume = state
	if _, err := Prune(t.Context(), g, fit, phantoms(t, 300, 3, true), opt); !errors.Is(err, ErrResume) {
		t.Errorf("other images: %v", err)
	}
	if _, err := Prune(t.Context(), net(2), fit, val, opt); !errors.Is(err, ErrResume) {
		t.Errorf("another model: %v", err)
	}
}

// No bytes bring down what reads them, also where the sum over them is right.
func FuzzReadSaved(f *testing.F) {
	s := &saved{run: [32]byte{1}, parts: map[[32]byte][]byte{}}
	s.put([32]byte{2}, []byte("part"))
	s.put([32]byte{3}, nil)
	good := s.bytes()
	f.Add(good[len(savedMagic)+32:])
	f.Add(good[len(savedMagic)+32 : len(good)-20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		sum := sha256.Sum256(body)
		b := append(append([]byte(savedMagic), sum[:]...), body...)
		got, err := readSaved(b, [32]byte{1})
		if err != nil {
			if !errors.Is(err, ErrResume) {
				t.Fatal(err)
			}
			return
		}
		again, err := readSaved(got.bytes(), [32]byte{1})
		if err != nil || len(again.parts) != len(got.parts) {
			t.Fatalf("%d parts became %d: %v", len(got.parts), len(again.parts), err)
		}
	})
}
