package registry

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Open opens or creates a folder of models and loads the serving version of each. A model that cannot be loaded is logged
// and listed as broken; the others serve. A folder of Triton's opens as it is: without serving.json the newest version
// serves. ErrLocked is in the error if another server has the folder open.
func Open(ctx context.Context, dir string, opt Options) (*Registry, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 1 << 30
	}
	s, err := openStore(dir, opt.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("open folder of models %s: %w", dir, err)
	}
	r := &Registry{opt: opt, store: s, models: map[string]*model{}, broken: map[string]string{}}
	r.serving.Store(&map[string]*Entry{})
	if err := r.open(ctx); err != nil {
		_ = s.close() // nothing is kept in it
		return nil, fmt.Errorf("open folder of models %s: %w", dir, err)
	}
	return r, nil
}

func (r *Registry) open(ctx context.Context) error {
	names, err := r.store.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := r.read(name); err != nil {
			return fmt.Errorf("model %q: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.models)) {
		if err := r.start(ctx, r.models[name]); err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.opt.Log.Error("model does not serve", "model", name, "error", err)
			r.broken[name] = err.Error()
		}
	}
	return r.seed(ctx)
}

// seed fills a folder that holds no model. A crash in between is made good at the next start.
func (r *Registry) seed(ctx context.Context) error {
	if r.store.readOnly || len(r.opt.Seed) == 0 || len(r.models) > 0 && !r.store.marked() {
		return nil
	}
	if err := r.store.mark(); err != nil {
		return err
	}
	for _, seed := range r.opt.Seed {
		if m := r.models[seed.Name]; m != nil && m.pointer.Serving != 0 {
			continue
		}
		e, err := r.Add(ctx, seed.Name, seed.ONNX, New{Source: SourceBuiltin})
		if err != nil {
			return fmt.Errorf("model %q: %w", seed.Name, err)
		}
		if err := r.Swap(0, e, ReasonOpen); err != nil {
			return err
		}
	}
	return r.store.unmark()
}

// read learns what there is of a model, without loading any.
func (r *Registry) read(name string) error {
	if err := r.store.clean(name); err != nil {
		return err
	}
	versions, last, err := r.store.versions(name)
	if err != nil {
		return err
	}
	if len(versions) == 0 {
		return nil // no model: a folder of something else, or what is left of an upload that never came to its end
	}
	p, err := r.store.readPointer(name)
	m := &model{name: name, pointer: p, versions: versions}
	r.models[name] = m
	if err != nil {
		// No crash leaves it so, and to guess could serve a version that failed its gate.
		m.pointer, m.unreadable = pointer{}, fmt.Errorf("read %s: %w", filePointer, err)
	}
	m.pointer.Last = max(m.pointer.Last, last)
	return nil
}

// start loads the version that the pointer names; if that cannot be, the one that served before it; and the newest if
// the pointer names none. It does not change the pointer's file: what is wrong may be repaired.
func (r *Registry) start(ctx context.Context, m *model) error {
	if m.unreadable != nil {
		return m.unreadable
	}
	candidates := []uint64{m.pointer.Serving, m.pointer.Previous}
	if m.pointer.Serving == 0 {
		candidates = []uint64{slices.Max(slices.Collect(maps.Keys(m.versions)))}
	}
	var first error
	for _, v := range candidates {
		if v == 0 {
			continue
		}
		e, err := r.Load(ctx, m.name, v)
		if err != nil {
			if first == nil {
				first = err
			}
			r.opt.Log.Error("model version cannot be loaded", "model", m.name, "version", v, "error", err)
			continue
		}
		r.mu.Lock()
		if m.pointer.Serving != v {
			m.pointer.Serving = v
			if m.pointer.Previous == v {
				m.pointer.Previous = 0
			}
		}
		if _, ok := m.versions[m.pointer.Previous]; !ok {
			m.pointer.Previous = 0
		}
		r.publish(e)
		r.mu.Unlock()
		r.opt.Log.Info("model serves", "model", m.name, "version", v, "sha256", e.Info.SHA256)
		if r.opt.Swapped != nil {
			r.opt.Swapped(Swapped{New: e, Reason: ReasonOpen})
		}
		return nil
	}
	m.pointer.Serving = 0
	return first
}
