// Package registry keeps the models of a server: immutable versions on disk, and for each model one version that serves.
//
// The folder is NAME/VERSION/model.onnx, as Triton's, with a version.json beside it that says what the version is and
// where it came from, and the report of the prune that made it. NAME/serving.json is the pointer to the serving version.
// A version is written to a temporary folder, synced and renamed before any pointer may name it, and the pointer is
// replaced by renaming as well: after a crash at any moment the folder opens on complete versions. store.go does this.
//
// In memory a served version is an [Entry], immutable. [Registry.Lookup] is one atomic load; whoever holds an entry
// finishes on it, whatever serves by then, and the garbage collector frees it after the last.
package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// Runner is a loaded model. It is safe for concurrent use. *predict.Model is one.
type Runner interface {
	Predict(ctx context.Context, img *vision.Image) (*predict.Prediction, error)
	Spec() vision.Spec
	Warm(ctx context.Context) error
	Cost() (engine.Cost, tensor.Type, error)
}

// Entry is a version in memory. It is immutable.
type Entry struct {
	Name    string
	Version uint64
	SHA256  [32]byte
	Parent  uint64 // the version it was pruned from; 0 for others
	Model   Runner
	Info    Info
}

// Options tune a registry. The zero value loads models natively and seeds nothing.
type Options struct {
	// Load makes a runner of a graph. override is the content of the version's model.json, or nil. nil: predict.New with
	// Predict.
	Load    func(g *graph.Graph, override []byte) (Runner, error)
	Predict predict.Options
	// Seed fills a folder that holds no model yet.
	Seed []Seed
	// Default names the model that an empty name stands for; empty: the first of Seed that is there, else the first by
	// name.
	Default string
	// MaxBytes is the largest model file that is read; 0: 1 GiB.
	MaxBytes int64
	Log      *slog.Logger     // nil: silent
	Now      func() time.Time // nil: time.Now
	// Swapped is told after each change of what serves, in order; nil: nobody. It must not call the registry.
	Swapped func(Swapped)
}

// Seed is a model for a new folder.
type Seed struct {
	Name string
	ONNX []byte
}

// Swapped is a change of what serves.
type Swapped struct {
	Old, New *Entry // Old is nil for the first
	Reason   string
}

// Reasons of a swap. They are label values of a metric: few, and fixed.
const (
	ReasonOpen     = "open"
	ReasonUpload   = "upload"
	ReasonPromote  = "promote"
	ReasonPrune    = "prune"
	ReasonRollback = "rollback"
)

// Registry is a folder of models. All methods may be called from several goroutines.
type Registry struct {
	opt   Options
	store *store

	serving atomic.Pointer[map[string]*Entry] // never nil; copied on write

	mu     sync.Mutex // guards what follows, and orders writes
	models map[string]*model
	broken map[string]string // models that could not be loaded, and why
}

// model is what the registry knows of one name.
type model struct {
	name     string
	pointer  pointer
	versions map[uint64]Info
	previous *Entry // pointer.Previous, if it is still in memory
	// unreadable is why the pointer's file could not be read.
	unreadable error
}

// Lookup returns the serving version of a model, the default model's for the empty name. It is one atomic load.
func (r *Registry) Lookup(name string) (*Entry, error) {
	m := *r.serving.Load()
	e, ok := m[name]
	if !ok {
		return nil, &NotFoundError{Model: name}
	}
	return e, nil
}

// Swap makes e serve if version old serves now (0: none does); else it returns a *StaleError and changes nothing. e must
// come from Add or Load of this registry.
func (r *Registry) Swap(old uint64, e *Entry, reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.swap(old, e, reason)
}

func (r *Registry) swap(old uint64, e *Entry, reason string) error {
	m := r.models[e.Name]
	if m == nil {
		return &NotFoundError{Model: e.Name}
	}
	if _, ok := m.versions[e.Version]; !ok {
		return &NotFoundError{Model: e.Name, Version: e.Version}
	}
	if m.pointer.Serving != old {
		return &StaleError{Model: e.Name, Expected: old, Serving: m.pointer.Serving}
	}
	before := (*r.serving.Load())[e.Name]
	if before != nil && before.Version == e.Version {
		return nil // it serves already
	}
	next := m.pointer
	next.Serving, next.Previous = e.Version, m.pointer.Serving
	if next.Previous == e.Version { // a broken version that is loaded again
		next.Previous = m.pointer.Previous
	}
	if err := r.store.writePointer(e.Name, next); err != nil {
		return fmt.Errorf("model %q: serve version %d: %w", e.Name, e.Version, err)
	}
	m.pointer, m.previous = next, before
	delete(r.broken, e.Name)
	r.publish(e)
	r.opt.Log.Info("model swapped", "model", e.Name, "version", e.Version, "previous", next.Previous, "reason", reason, "sha256", e.Info.SHA256)
	if r.opt.Swapped != nil {
		r.opt.Swapped(Swapped{Old: before, New: e, Reason: reason})
	}
	return nil
}

// publish makes e visible to Lookup, under its name and, if it is the default model, the empty one.
func (r *Registry) publish(e *Entry) {
	next := maps.Clone(*r.serving.Load())
	next[e.Name] = e
	delete(next, "")
	if d, ok := next[r.defaultName()]; ok {
		next[""] = d
	}
	r.serving.Store(&next)
}

// defaultName is the model that the empty name stands for.
func (r *Registry) defaultName() string {
	names := []string{r.opt.Default}
	if r.opt.Default == "" {
		for _, s := range r.opt.Seed {
			names = append(names, s.Name)
		}
		names = append(names, slices.Sorted(maps.Keys(r.models))...)
	}
	for _, n := range names {
		if r.models[n] != nil {
			return n
		}
	}
	return ""
}

// resolve is the model of that name, the default one for the empty name. r.mu is held.
func (r *Registry) resolve(name string) (*model, error) {
	if name == "" {
		name = r.defaultName()
	}
	m := r.models[name]
	if m == nil {
		return nil, &NotFoundError{Model: name}
	}
	return m, nil
}

// Promote loads a version and makes it serve. expected is the version that the caller believes to be serving; 0: any. It
// returns what served before, 0 if nothing did.
func (r *Registry) Promote(ctx context.Context, name string, version, expected uint64) (*Entry, uint64, error) {
	for {
		e, before, err := r.serve(ctx, name, expected, ReasonPromote, func(m *model) (uint64, error) { return version, nil })
		var stale *StaleError
		if expected != 0 || !errors.As(err, &stale) {
			return e, before, err
		}
		// Something else was promoted meanwhile, and the caller does not mind.
	}
}

// Rollback makes the version serve that served before. expected is as in Promote.
func (r *Registry) Rollback(ctx context.Context, name string, expected uint64) (*Entry, uint64, error) {
	return r.serve(ctx, name, expected, ReasonRollback, func(m *model) (uint64, error) {
		if m.pointer.Previous == 0 {
			return 0, &StateError{Model: m.name, Reason: "NO_PREVIOUS_VERSION", Text: "no version served before the one that serves now"}
		}
		return m.pointer.Previous, nil
	})
}

func (r *Registry) serve(ctx context.Context, name string, expected uint64, reason string, choose func(*model) (uint64, error)) (*Entry, uint64, error) {
	r.mu.Lock()
	m, err := r.resolve(name)
	if err != nil {
		r.mu.Unlock()
		return nil, 0, err
	}
	before := m.pointer.Serving
	if expected != 0 && expected != before {
		r.mu.Unlock()
		return nil, before, &StaleError{Model: m.name, Expected: expected, Serving: before}
	}
	version, err := choose(m)
	if err != nil {
		r.mu.Unlock()
		return nil, before, err
	}
	e := (*r.serving.Load())[m.name]
	switch {
	case e != nil && e.Version == version:
		r.mu.Unlock()
		return e, before, nil
	case m.previous != nil && m.previous.Version == version: // still in memory: a rollback is instant
		e = m.previous
		err := r.swap(before, e, reason)
		r.mu.Unlock()
		return e, before, err
	}
	r.mu.Unlock()
	e, err = r.Load(ctx, m.name, version)
	if err != nil {
		return nil, before, err
	}
	return e, before, r.Swap(before, e, reason)
}

// Load reads a version from disk, checks its hash, compiles it and runs it once. It does not make it serve.
func (r *Registry) Load(ctx context.Context, name string, version uint64) (*Entry, error) {
	r.mu.Lock()
	m, err := r.resolve(name)
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	info, ok := m.versions[version]
	r.mu.Unlock()
	if !ok {
		return nil, &NotFoundError{Model: m.name, Version: version}
	}
	b, err := r.store.read(m.name, version, fileONNX)
	if err != nil {
		return nil, fmt.Errorf("model %q version %d: %w", m.name, version, err)
	}
	if got := sum(b); info.SHA256 != "" && got != info.SHA256 {
		return nil, &ModelError{fmt.Errorf("model %q version %d: the file's SHA-256 is %s, its version.json says %s", m.name, version, got, info.SHA256)}
	}
	override, err := r.store.readOptional(m.name, version, fileOverride)
	if err != nil {
		return nil, fmt.Errorf("model %q version %d: %w", m.name, version, err)
	}
	g, err := onnx.Decode(b, onnx.Options{Dir: r.store.folder(m.name, version), MaxBytes: r.opt.MaxBytes})
	if err != nil {
		return nil, &ModelError{fmt.Errorf("model %q version %d: %w", m.name, version, err)}
	}
	run, err := r.load(ctx, g, override)
	if err != nil {
		return nil, &ModelError{fmt.Errorf("model %q version %d: %w", m.name, version, err)}
	}
	e := &Entry{Name: m.name, Version: version, SHA256: sha256.Sum256(b), Parent: info.Parent, Model: run, Info: info}
	if info.Parameters == 0 { // a folder of Triton's: what version.json would say
		e.Info.describe(g, b, run)
		r.mu.Lock()
		if _, ok := m.versions[version]; ok {
			m.versions[version] = e.Info
		}
		r.mu.Unlock()
	}
	return e, nil
}

// load compiles a model and warms it up.
func (r *Registry) load(ctx context.Context, g *graph.Graph, override []byte) (Runner, error) {
	if r.opt.Load != nil {
		run, err := r.opt.Load(g, override)
		if err != nil {
			return nil, err
		}
		return run, run.Warm(ctx)
	}
	opt := r.opt.Predict
	if override != nil {
		spec, err := vision.ReadSpec(g.Meta, g)
		if err != nil {
			return nil, err
		}
		if opt.Spec != nil {
			spec = *opt.Spec
		}
		if spec, err = spec.Override(override); err != nil {
			return nil, fmt.Errorf("model.json: %w", err)
		}
		opt.Spec = &spec
	}
	m, err := predict.New(g, opt)
	if err != nil {
		return nil, err
	}
	if err := m.Warm(ctx); err != nil {
		return nil, err
	}
	settle(g)
	return m, nil
}

// settle gives back to the system what compiling a large model left behind, which is about as much as stays. Of small ones
// it would not be worth the collection.
func settle(g *graph.Graph) {
	bytes := 0
	for _, v := range g.Inits {
		if v.Const != nil {
			bytes += len(v.Const.Data)
		}
	}
	if bytes > 32<<20 {
		debug.FreeOSMemory()
	}
}

// Model is what is known of one name.
type Model struct {
	Name              string
	Serving, Previous uint64 // 0: none
	Default           bool
	Broken            string // why none serves; empty if one does
	Versions          []Info // the newest first
}

// List returns all models, the default first, then by name.
func (r *Registry) List() []Model {
	r.mu.Lock()
	defer r.mu.Unlock()
	def := r.defaultName()
	var out []Model
	for name, m := range r.models {
		v := slices.SortedFunc(maps.Values(m.versions), func(a, b Info) int { return cmp.Compare(b.Version, a.Version) })
		out = append(out, Model{name, m.pointer.Serving, m.pointer.Previous, name == def, r.broken[name], v})
	}
	slices.SortFunc(out, func(a, b Model) int {
		if a.Default != b.Default {
			if a.Default {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return out
}

// Get returns what is known of a version (0: the one that serves) and whether it serves.
func (r *Registry) Get(name string, version uint64) (info Info, serving bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.resolve(name)
	if err != nil {
		return Info{}, false, err
	}
	if version == 0 {
		version = m.pointer.Serving
	}
	info, ok := m.versions[version]
	if !ok {
		return Info{}, false, &NotFoundError{Model: m.name, Version: version}
	}
	return info, version == m.pointer.Serving, nil
}

// Kind is a file of a version.
type Kind int

// Files of a version.
const (
	KindONNX Kind = iota
	KindReportJSON
	KindReportHTML
	KindOverride
)

var kindFiles = [...]string{KindONNX: fileONNX, KindReportJSON: fileReportJSON, KindReportHTML: fileReportHTML, KindOverride: fileOverride}

// File reads a file of a version (0: the one that serves). A file that is not there is a *NotFoundError.
func (r *Registry) File(name string, version uint64, k Kind) ([]byte, Info, error) {
	info, _, err := r.Get(name, version)
	if err != nil {
		return nil, info, err
	}
	file := kindFiles[k]
	b, err := r.store.readOptional(info.Model, info.Version, file)
	if err != nil {
		return nil, info, fmt.Errorf("model %q version %d: %w", info.Model, info.Version, err)
	}
	if b == nil {
		return nil, info, &NotFoundError{Model: info.Model, Version: info.Version, File: file}
	}
	return b, info, nil
}

// Open is File for those who need not have it in memory. The file stays readable if the version is deleted.
func (r *Registry) Open(name string, version uint64, k Kind) (*os.File, Info, error) {
	info, _, err := r.Get(name, version)
	if err != nil {
		return nil, info, err
	}
	f, _, err := r.store.open(info.Model, info.Version, kindFiles[k])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, info, &NotFoundError{Model: info.Model, Version: info.Version, File: kindFiles[k]}
	}
	if err != nil {
		return nil, info, fmt.Errorf("model %q version %d: %w", info.Model, info.Version, err)
	}
	return f, info, nil
}

// ReadOnly reports whether the folder cannot be written: pointers are then kept in memory only.
func (r *Registry) ReadOnly() bool { return r.store.readOnly }

// Close lets go of the folder. Entries stay usable.
func (r *Registry) Close() error { return r.store.close() }

// Folder is where a version lies.
func (r *Registry) Folder(name string, version uint64) string { return r.store.folder(name, version) }
