package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/secateur/secateur/engine/onnx"
)

// Source says where a version came from.
type Source string

// Where versions come from.
const (
	SourceBuiltin Source = "builtin"
	SourceUpload  Source = "upload"
	SourcePrune   Source = "prune"
	SourceFolder  Source = "folder"
)

// New is what Add is told of a version besides its file.
type New struct {
	Source      Source
	Parent      uint64
	Verdict     string
	Calibration string
	Note        string
	ReportJSON  []byte // nil: none
	ReportHTML  []byte
	Override    []byte // model.json; nil: none
}

// CheckNew tells beforehand whether Add could make a version of a model of that name at all.
func (r *Registry) CheckNew(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if r.ReadOnly() {
		return &StateError{Model: name, Reason: "READ_ONLY", Text: "the folder of models cannot be written"}
	}
	return nil
}

// Add checks that the file is a model that runs, and stores it as a new version. The version does not serve until Swap.
func (r *Registry) Add(ctx context.Context, name string, file []byte, n New) (*Entry, error) {
	if err := r.CheckNew(name); err != nil {
		return nil, err
	}
	g, err := onnx.Decode(file, onnx.Options{MaxBytes: r.opt.MaxBytes})
	if err != nil {
		return nil, &ModelError{err}
	}
	run, err := r.load(ctx, g, n.Override)
	if err != nil {
		return nil, &ModelError{err}
	}
	info := Info{Model: name, Parent: n.Parent, Source: n.Source, Created: r.opt.Now().UTC(), Verdict: n.Verdict,
		Calibration: n.Calibration, Note: n.Note, HasReport: n.ReportJSON != nil}
	info.describe(g, file, run)

	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.models[name]
	if m == nil {
		m = &model{name: name, versions: map[uint64]Info{}}
	}
	// The pointer first: without one the newest version would serve after a restart, and a number could come twice.
	m.pointer.Last++
	info.Version = m.pointer.Last
	if err := r.store.writePointer(name, m.pointer); err != nil {
		return nil, fmt.Errorf("model %q: store version %d: %w", name, info.Version, err)
	}
	files := map[string][]byte{fileONNX: file, fileReportJSON: n.ReportJSON, fileReportHTML: n.ReportHTML, fileOverride: n.Override}
	if err := r.store.writeVersion(info, files); err != nil {
		return nil, fmt.Errorf("model %q: store version %d: %w", name, info.Version, err)
	}
	m.versions[info.Version] = info
	r.models[name] = m
	return &Entry{Name: name, Version: info.Version, SHA256: sha256.Sum256(file), Parent: n.Parent, Model: run, Info: info}, nil
}

// Delete removes a version that does not serve. Its number is not used again.
func (r *Registry) Delete(name string, version uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.resolve(name)
	if err != nil {
		return err
	}
	if _, ok := m.versions[version]; !ok {
		return &NotFoundError{Model: m.name, Version: version}
	}
	if m.pointer.Serving == version {
		return &StateError{Model: m.name, Reason: "VERSION_SERVING", Text: fmt.Sprintf("version %d serves; promote another one first", version)}
	}
	if r.store.readOnly {
		return &StateError{Model: m.name, Reason: "READ_ONLY", Text: "the folder of models cannot be written"}
	}
	next := m.pointer
	if next.Previous == version {
		next.Previous = 0
	}
	// The pointer first: it must never name what is gone.
	if next != m.pointer {
		if err := r.store.writePointer(m.name, next); err != nil {
			return fmt.Errorf("model %q: delete version %d: %w", m.name, version, err)
		}
		m.pointer = next
	}
	if err := r.store.remove(m.name, version); err != nil {
		return fmt.Errorf("model %q: delete version %d: %w", m.name, version, err)
	}
	delete(m.versions, version)
	if len(m.versions) == 0 {
		delete(r.models, m.name)
		delete(r.broken, m.name)
	}
	if m.previous != nil && m.previous.Version == version {
		m.previous = nil
	}
	r.opt.Log.Info("model version deleted", "model", m.name, "version", version)
	return nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func checkName(s string) error {
	ok := len(s) >= 1 && len(s) <= 64
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && (c == '.' || c == '_' || c == '-'))
	}
	if !ok {
		return &NameError{s}
	}
	return nil
}
