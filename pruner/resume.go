package pruner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/pruner/latency"
)

// ErrResume is wrapped by the error of bytes in Options.Resume that are damaged, or of another run.
var ErrResume = errors.New("the saved state does not serve")

// saved is what a run that is broken off leaves for the next one: the latency table that it measured, and each training as
// it stood after its last epoch. What comes before these is computed again, to the same bits.
//
// It is kept as magic, SHA-256 of all that follows, the run's key, and parts: each a key, a length and as many bytes.
type saved struct {
	run   [32]byte
	order [][32]byte
	parts map[[32]byte][]byte
}

const savedMagic = "secateur resume 1\n"

// keyOf names a run or a part of it by all that decides what comes of it.
func keyOf(of ...[]byte) [32]byte {
	h := sha256.New()
	for _, b := range of {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

func (s *saved) put(key [32]byte, b []byte) {
	if s.parts[key] == nil {
		s.order = append(s.order, key)
	}
	s.parts[key] = b
}

func (s *saved) bytes() []byte {
	var b bytes.Buffer
	b.WriteString(savedMagic)
	b.Write(make([]byte, sha256.Size))
	b.Write(s.run[:])
	for _, k := range s.order {
		b.Write(k[:])
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s.parts[k]))))
		b.Write(s.parts[k])
	}
	all := b.Bytes()
	sum := sha256.Sum256(all[len(savedMagic)+sha256.Size:])
	copy(all[len(savedMagic):], sum[:])
	return all
}

// readSaved reads what an earlier run of this key has left.
func readSaved(b []byte, run [32]byte) (*saved, error) {
	damaged := fmt.Errorf("%w: it is damaged, or nothing that a run has saved; without it the run begins anew", ErrResume)
	body, ok := bytes.CutPrefix(b, []byte(savedMagic))
	if !ok || len(body) < 2*sha256.Size || sha256.Sum256(body[sha256.Size:]) != [32]byte(body[:sha256.Size]) {
		return nil, damaged
	}
	body = body[sha256.Size:]
	if [32]byte(body[:32]) != run {
		return nil, fmt.Errorf("%w: it is of another run, with another model, other images or other options; name another file, or remove this one to begin anew", ErrResume)
	}
	s := &saved{run: run, parts: map[[32]byte][]byte{}}
	for body = body[32:]; len(body) > 0; {
		if len(body) < 40 {
			return nil, damaged
		}
		key, n := [32]byte(body[:32]), binary.LittleEndian.Uint64(body[32:])
		if body = body[40:]; n > uint64(len(body)) {
			return nil, damaged
		}
		s.put(key, body[:n:n])
		body = body[n:]
	}
	return s, nil
}

// resume reads what an earlier run has left, if there is any.
func (r *run) resume(context.Context) error {
	// All options count but for those that change nothing of the result. A table is told by what it says, and regular
	// expressions by their text, which is how they are printed.
	o := r.opt
	o.Threads, o.Progress, o.Log, o.Resume, o.Save, o.Baselines, o.Sensitivity, o.Latency = 0, nil, nil, nil, nil, false, false, nil
	var table []byte
	if r.opt.Latency != nil {
		table = r.opt.Latency.JSON()
	}
	model, err := onnx.Encode(r.g)
	if err != nil {
		return err
	}
	held := ""
	if r.val != nil {
		held = r.val.Hash()
	}
	key := keyOf(model, table, fmt.Appendf(nil, "%+v", o), []byte(r.calibration), []byte(held), []byte(isa.Best().String()))
	r.saved = &saved{run: key, parts: map[[32]byte][]byte{}}
	if r.opt.Resume != nil {
		r.saved, err = readSaved(r.opt.Resume, key)
	}
	return err
}

// save adds a part to what is left for the next run.
func (r *run) save(key [32]byte, part []byte) error {
	if r.opt.Save == nil {
		return nil
	}
	r.saved.put(key, part)
	return r.opt.Save(r.saved.bytes())
}

// tableKey names the latency table among the parts; there is one.
var tableKey = keyOf([]byte("latency table"))

// measured is the latency table that an earlier run of this one has measured; nil if there is none.
func (r *run) measured() (*latency.Table, error) {
	b := r.saved.parts[tableKey]
	if b == nil {
		return nil, nil
	}
	return latency.Read(b)
}

// trainingKey names a training by what it does and what it starts from.
func trainingKey(method string, g *graph.Graph) ([32]byte, error) {
	b, err := onnx.Encode(g)
	return keyOf([]byte("training"), []byte(method), b), err
}
