package predict

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/secateur/secateur/engine/tensor"
)

// cacheSize is how many input shapes stay compiled. Models with a size of their own need one; for the others a few cover
// the cameras of a site, and bound what a stream of odd sizes can hold in memory.
const cacheSize = 4

// cache compiles per input type. Requests that come for a type while it is being compiled wait for that one compilation.
type cache struct {
	compile func(tensor.Type) (func() (Runner, error), error)

	mu      sync.Mutex
	entries []*compiled // the last used last
}

// compiled is a model at one input type, and the runners that wait for work.
type compiled struct {
	key   string
	ready chan struct{} // closed when make and err are set
	make  func() (Runner, error)
	err   error

	mu   sync.Mutex
	idle []Runner
}

func newCache(compile func(tensor.Type) (func() (Runner, error), error)) *cache {
	return &cache{compile: compile}
}

func (c *cache) get(ctx context.Context, in tensor.Type) (*compiled, error) {
	key := in.String()
	c.mu.Lock()
	i := slices.IndexFunc(c.entries, func(e *compiled) bool { return e.key == key })
	if i >= 0 {
		e := c.entries[i]
		c.entries = append(slices.Delete(c.entries, i, i+1), e)
		c.mu.Unlock()
		select {
		case <-e.ready:
			return e, e.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	e := &compiled{key: key, ready: make(chan struct{})}
	// Those who use an entry that falls out keep it alive until they are done.
	if len(c.entries) >= cacheSize {
		c.entries = slices.Delete(c.entries, 0, 1)
	}
	c.entries = append(c.entries, e)
	c.mu.Unlock()

	c.fill(e, in)
	return e, e.err
}

// fill compiles, and opens the entry to those who wait, whatever happens.
func (c *cache) fill(e *compiled, in tensor.Type) {
	e.err = fmt.Errorf("compiling the model for %v: panic", in) // what waiters see if compile does not return
	defer func() {
		if e.err != nil { // not kept: a failure may be for want of memory, and must not hold a place
			c.mu.Lock()
			c.entries = slices.DeleteFunc(c.entries, func(x *compiled) bool { return x == e })
			c.mu.Unlock()
		}
		close(e.ready)
	}()
	made, err := c.compile(in)
	if err != nil {
		err = fmt.Errorf("compiling the model for %v: %w", in, err)
	}
	e.make, e.err = made, err
}

func (e *compiled) runner() (Runner, error) {
	e.mu.Lock()
	if n := len(e.idle); n > 0 {
		r := e.idle[n-1]
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		return r, nil
	}
	e.mu.Unlock()
	return e.make()
}

// release gives a runner back. More than a few are let go: a burst must not hold its memory for ever.
func (e *compiled) release(r Runner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.idle) < max(4, runtime.GOMAXPROCS(0)) {
		e.idle = append(e.idle, r)
	}
}
