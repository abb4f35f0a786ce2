package kernel

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Float is what kernels compute in.
type Float interface{ float32 | float64 }

// Pool says on how many cores a loop may run. All pools share the process's helpers (see team): the goroutine that runs a
// loop is its worker 0 and helpers join if they are free, so a loop never waits for another session's, one request alone
// uses all cores, and many use one each.
type Pool struct {
	workers int
	crew    *crew // of the session whose view this is; nil otherwise
}

// NewPool makes a pool in which a loop runs on up to workers cores, the caller's included.
func NewPool(workers int) *Pool { return &Pool{workers: min(max(workers, 1), maxWorkers)} }

// Workers is the largest number of cores a loop runs on.
func (p *Pool) Workers() int { return p.workers }

// Session is a view of the pool for one goroutine at a time, whose loops share helpers between Enter and Leave.
func (p *Pool) Session() *Pool { return &Pool{p.workers, newCrew(p.workers)} }

// Enter says that loops of this view follow each other until Leave: helpers are called once, and look for the next loop
// rather than go to sleep after each.
func (p *Pool) Enter() {
	if p.crew != nil && p.workers > 1 {
		p.crew.enter(p.workers-1, true)
	}
}

// Leave lets the helpers go. It must follow Enter, on the same goroutine.
func (p *Pool) Leave() {
	if p.crew != nil && p.workers > 1 {
		p.crew.leave()
	}
}

// Loop is a parallel for, made once and run often without allocating. One goroutine runs it at a time.
type Loop struct {
	pool *Pool
	n    int
	body func(worker, i int)

	own    *crew         // helpers of a loop that runs outside of Enter and Leave
	parts  []part        // of [0,n), for each worker
	shared atomic.Int32  // workers that the run is divided among
	state  atomic.Uint64 // of the run: see below
	done   chan struct{} // told by the last helper, if the caller sleeps
	fault  atomic.Pointer[Fault]
}

// part is the indices that are left of a worker's share: the first, and behind it in the upper half the end. It is
// taken from the front by its worker, so that what one core wrote in one loop it reads in the next, and from the end by
// workers that have done theirs.
type part struct {
	atomic.Uint64
	_ [56]byte
}

// A run's state has a bit for each helper that has joined, and for each that has left. Helpers join only while it is
// open, each once.
const (
	maxWorkers = 31
	open       = 1 << 63
	asleep     = 1 << 62
	left       = maxWorkers // bits from joined to left
	bits       = 1<<maxWorkers - 1
)

// busy reports whether a helper is in the run.
func busy(s uint64) bool { return s&bits != s>>left&bits }

// Fault is a panic inside a loop's body, carried to the goroutine that ran the loop.
type Fault struct {
	Value any
	Stack []byte
}

func (f *Fault) Error() string { return fmt.Sprintf("panic in a kernel: %v\n%s", f.Value, f.Stack) }

// Loop prepares body to run for i in [0,n). worker is in [0,Workers) and no two calls at one time have the same.
func (p *Pool) Loop(n int, body func(worker, i int)) *Loop {
	return &Loop{pool: p, n: n, body: body, own: newCrew(p.workers), parts: make([]part, p.workers), done: make(chan struct{}, 1)}
}

// Run calls the body for every index and returns when all are done. If a call panics, the rest may be left out, and Run
// panics with a *Fault.
func (l *Loop) Run() {
	if l.n <= 0 {
		return
	}
	c := l.pool.crew
	if c == nil || !c.entered {
		c = l.own
		if l.pool.workers > 1 && l.n > 1 {
			c.enter(min(l.pool.workers, l.n)-1, false)
			defer c.leave()
		}
	} else {
		c.adjust()
	}
	l.fault.Store(nil)
	if k := min(1+len(c.helpers), l.n); k > 1 {
		l.shared.Store(int32(k))
		for w := range k {
			l.parts[w].Store(uint64(w*l.n/k) | uint64((w+1)*l.n/k)<<32)
		}
		l.state.Store(open)
		c.publish(l)
		l.work(0)
		l.finish()
	} else {
		l.alone()
	}
	if f := l.fault.Load(); f != nil {
		panic(f)
	}
}

// finish closes the run and waits for the helpers that have joined it.
func (l *Loop) finish() {
	l.state.And(^uint64(open))
	for begin := time.Now(); busy(l.state.Load()); {
		if time.Since(begin) > patience {
			break
		}
	}
	for {
		s := l.state.Load()
		if !busy(s) {
			return
		}
		if l.state.CompareAndSwap(s, s|asleep) {
			<-l.done
			return
		}
	}
}

// help joins the run as a worker, if it is still open and no other is that worker.
func (l *Loop) help(worker int) {
	bit := uint64(1) << (worker - 1)
	for {
		s := l.state.Load()
		if s&open == 0 || s&bit != 0 || worker >= int(l.shared.Load()) {
			return
		}
		if l.state.CompareAndSwap(s, s|bit) {
			break
		}
	}
	l.work(worker)
	if s := l.state.Or(bit<<left) | bit<<left; s&asleep != 0 && !busy(s) {
		l.done <- struct{}{}
	}
}

func (l *Loop) alone() {
	defer l.caught()
	for i := range l.n {
		l.body(0, i)
	}
}

func (l *Loop) work(worker int) {
	defer l.caught()
	for own := &l.parts[worker]; ; {
		s := own.Load()
		i, end := s&(1<<32-1), s>>32
		if i >= end {
			break
		}
		if own.CompareAndSwap(s, s+1) {
			l.body(worker, int(i))
		}
	}
	shared := int(l.shared.Load())
	for k := 1; k < shared; k++ {
		for other := &l.parts[(worker+k)%shared]; ; {
			s := other.Load()
			i, end := s&(1<<32-1), s>>32
			if i >= end {
				break
			}
			if other.CompareAndSwap(s, s-1<<32) {
				l.body(worker, int(end-1))
			}
		}
	}
}

// caught keeps the first panic of a run, whose rest need not run.
func (l *Loop) caught() {
	if v := recover(); v != nil {
		l.fault.CompareAndSwap(nil, &Fault{v, debug.Stack()})
		for w := range l.parts {
			l.parts[w].Store(0)
		}
	}
}

// threads is how many cores there are to share.
func threads() int { return runtime.GOMAXPROCS(0) }
