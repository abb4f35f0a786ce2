package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/pass"
	"github.com/secateur/secateur/engine/tensor"
)

// Tuner knows from measurements how layers are computed fastest on this processor. Compile asks it where Options.Tune has
// one. It is safe for concurrent use: a server measures in the background what later compilations use.
type Tuner struct {
	file      string
	measuring sync.Mutex // one at a time: two would disturb each other's figures
	mu        sync.Mutex
	choices   map[string]kernel.Choice
}

// OpenTuner makes a Tuner that keeps what it learns in a folder, by processor, instruction set, cores and shape. A file
// there that is missing, damaged or of another processor is nothing known; a folder that cannot be written is no error:
// what is learnt is lost with the process. An empty dir keeps nothing.
func OpenTuner(dir string) *Tuner {
	t := &Tuner{choices: map[string]kernel.Choice{}}
	if dir == "" {
		return t
	}
	t.file = filepath.Join(dir, "tuning.json")
	t.choices = readTuning(t.file)
	return t
}

// maxTuning bounds the file that is read.
const maxTuning = 16 << 20

func readTuning(file string) map[string]kernel.Choice {
	choices := map[string]kernel.Choice{}
	if st, err := os.Stat(file); err != nil || st.Size() > maxTuning {
		return choices
	}
	b, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(b, &choices) != nil || choices == nil {
		return map[string]kernel.Choice{}
	}
	return choices
}

// key says where a measurement holds.
func key(workers int, s kernel.ConvShape) string {
	return fmt.Sprintf("%s, %v, L2 %d, %d cores: %+v", isa.Name(), isa.Best(), isa.SecondLevel(), workers, s)
}

func (t *Tuner) choice(workers int, s kernel.ConvShape) kernel.Choice {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.choices[key(workers, s)]
}

func (t *Tuner) known(k string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.choices[k]
	return ok
}

// Measure times the ways to compute each convolution of g that is not known yet, for so many threads (0: all), and keeps
// the fastest. It takes some tens of runs of the model, and all of its cores; progress, if not nil, is told of each
// convolution. It returns how many were measured. If ctx ends, it stops after the convolution it is at, and keeps what it
// has.
func (t *Tuner) Measure(ctx context.Context, g *graph.Graph, in []tensor.Type, threads int, progress func(done, total int)) (n int, err error) {
	defer guard(&err)
	t.measuring.Lock()
	defer t.measuring.Unlock()
	g = g.Clone()
	info, err := Infer(g, in, tensor.Float32)
	if err != nil {
		return 0, err
	}
	pass.Optimize(g, info)
	if info, err = Infer(g, in, tensor.Float32); err != nil {
		return 0, err
	}
	pool := poolFor(threads)
	var shapes []kernel.ConvShape
	seen := map[string]bool{}
	for _, node := range g.Nodes {
		s, ok := op.ConvShape(site(g, node, tensor.Float32, info))
		if k := key(pool.Workers(), s); ok && len(kernel.Choices(s)) > 0 && !seen[k] && !t.known(k) {
			seen[k] = true
			shapes = append(shapes, s)
		}
	}
	for i, s := range shapes {
		if ctx.Err() != nil {
			break
		}
		c := kernel.Measure(pool, s)
		t.mu.Lock()
		t.choices[key(pool.Workers(), s)] = c
		t.mu.Unlock()
		n++
		if progress != nil {
			progress(i+1, len(shapes))
		}
	}
	if n > 0 {
		t.save()
	}
	return n, ctx.Err()
}

// save writes what is known, with what another process may have written meanwhile. That it cannot is no error.
func (t *Tuner) save() {
	if t.file == "" {
		return
	}
	all := readTuning(t.file)
	t.mu.Lock()
	for k, c := range t.choices {
		all[k] = c
	}
	t.mu.Unlock()
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil || os.MkdirAll(filepath.Dir(t.file), 0o755) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(t.file), "tuning-*")
	if err != nil {
		return
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if f.Close() == nil && err == nil {
		_ = os.Rename(f.Name(), t.file)
	}
}
