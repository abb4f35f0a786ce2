package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a helper looks for the next loop of a run, and a loop's caller for its helpers to end, before it
// sleeps: some times what it takes to wake a thread, since a network's loops follow each other within microseconds.
const patience = 100 * time.Microsecond

// team is the process's helpers: one thread for each core the process may use, kept there, since a kernel that packs what
// wakes together onto one core would make two threads slower than one. Helpers that nobody calls are asleep in the kernel,
// not in Go's scheduler, which would have to hand every call from thread to thread.
type team struct {
	once    sync.Once
	helpers []*helper
	active  atomic.Int32 // runs that want helpers
}

var process team

// helper is one thread of the team.
type helper struct {
	cpu int // where it is kept; -1 anywhere
	sleeper
	taken  atomic.Bool          // by a crew
	crew   atomic.Pointer[crew] // nil if it is free
	worker atomic.Int32         // which worker it is in that crew
}

// crew is the helpers of one run, and the loop they are to help with.
type crew struct {
	helpers []*helper
	want    int
	entered bool
	pinned  pin
	loop    atomic.Pointer[Loop]
}

func newCrew(workers int) *crew { return &crew{helpers: make([]*helper, 0, workers)} }

// start makes the helpers, the first time anybody wants some.
func (t *team) start() {
	t.once.Do(func() {
		for _, cpu := range cores() {
			h := &helper{cpu: cpu}
			h.init()
			t.helpers = append(t.helpers, h)
			go h.serve()
		}
	})
}

// enter takes helpers, if fewer runs are active than there are cores. A caller that expects many loops is kept where it
// is, so that it does not move to a helper's core.
func (c *crew) enter(want int, keep bool) {
	t := &process
	t.start()
	c.want, c.entered = want, true
	t.active.Add(1)
	c.take()
	if keep && len(c.helpers) > 0 {
		c.pinned.set()
	}
}

// take takes as many free helpers as there are cores that no run uses, none on the caller's.
func (c *crew) take() {
	t := &process
	free := min(c.want, threads()-int(t.active.Load()))
	if free <= 0 {
		return
	}
	here := core()
	for _, h := range t.helpers {
		if len(c.helpers) == free {
			return
		}
		if h.cpu == here && here >= 0 || h.taken.Load() || !h.taken.CompareAndSwap(false, true) {
			continue
		}
		c.helpers = append(c.helpers, h)
		h.worker.Store(int32(len(c.helpers)))
		h.crew.Store(c)
	}
}

// adjust lets helpers go where more runs have come than there are cores, and takes some where runs have ended.
func (c *crew) adjust() {
	if n := int(process.active.Load()); n >= threads() {
		c.release()
	} else if len(c.helpers) == 0 {
		c.take()
	}
}

// publish calls the helpers to a loop.
func (c *crew) publish(l *Loop) {
	c.loop.Store(l)
	for _, h := range c.helpers {
		h.call()
	}
}

func (c *crew) release() {
	c.loop.Store(nil)
	for i, h := range c.helpers {
		h.crew.Store(nil)
		h.taken.Store(false)
		c.helpers[i] = nil
	}
	c.helpers = c.helpers[:0]
}

func (c *crew) leave() {
	c.release()
	c.pinned.reset()
	c.entered = false
	process.active.Add(-1)
}

func (h *helper) serve() {
	runtime.LockOSThread()
	stay(h.cpu)
	for seen := uint32(0); ; {
		seen = h.await(seen, patience)
		if c := h.crew.Load(); c != nil {
			if l := c.loop.Load(); l != nil {
				l.help(int(h.worker.Load()))
			}
		}
	}
}
