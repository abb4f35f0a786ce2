package kernel

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Float is what kernels compute in.
type Float interface{ float32 | float64 }

// Pool is a set of workers that loops of any number of sessions share. The goroutine that runs a loop is its worker 0;
// the pool's own goroutines help when they are free, so a loop never waits for another session's.
//
// Workers look for the next loop for a moment before they park: a network's loops follow each other within
// microseconds, and to wake a parked thread takes tens of them. An idle pool takes no CPU.
type Pool struct {
	workers int
	spin    time.Duration
	jobs    chan *Loop
	close   sync.Once
}

// spinFor is how long a worker looks for the next loop, and a loop's caller for its helpers to end: about as long as it
// takes to wake a thread, so that it costs at most twice the best choice.
const spinFor = 40 * time.Microsecond

// NewPool starts a pool in which a loop runs on up to workers cores, the caller's included.
func NewPool(workers int) *Pool {
	p := &Pool{workers: max(workers, 1)}
	if p.workers <= runtime.GOMAXPROCS(0) { // else spinning would hold up someone's work
		p.spin = spinFor
	}
	p.jobs = make(chan *Loop, p.workers)
	for range p.workers - 1 {
		go p.serve()
	}
	return p
}

func (p *Pool) serve() {
	for {
		p.wait(func() bool { return len(p.jobs) > 0 })
		l, ok := <-p.jobs
		if !ok {
			return
		}
		l.help()
	}
}

// wait returns when ready does, or after the pool's patience. It lets other goroutines run in between.
func (p *Pool) wait(ready func() bool) {
	if p.spin == 0 || ready() {
		return
	}
	for begin := time.Now(); time.Since(begin) < p.spin; {
		for range 16 {
			if ready() {
				return
			}
		}
		runtime.Gosched()
	}
}

// Close ends the workers. No loop may run or start afterwards.
func (p *Pool) Close() { p.close.Do(func() { close(p.jobs) }) }

// Workers is the largest number of cores a loop runs on.
func (p *Pool) Workers() int { return p.workers }

// Loop is a parallel for, made once and run often without allocating. One goroutine runs it at a time.
type Loop struct {
	pool *Pool
	n    int
	body func(worker, i int)

	next  atomic.Int64  // the next index to hand out
	state atomic.Uint64 // of the run: see below
	done  chan struct{} // told by the last helper, if the caller sleeps
	idle  func() bool   // no helper is in the run; kept so that Run need not allocate it
	fault atomic.Pointer[Fault]
}

// A run's state counts the helpers that have joined and those that have left. Helpers join only while it is open, so
// an entry that is still queued when its run is over means nothing; it may serve the loop's next run.
const (
	open   = 1 << 62
	asleep = 1 << 61
	joined = 1 << 20
	left   = 1
	count  = joined - 1
)

func present(s uint64) bool { return s/joined&count != s&count }

// Fault is a panic inside a loop's body, carried to the goroutine that ran the loop.
type Fault struct {
	Value any
	Stack []byte
}

func (f *Fault) Error() string { return fmt.Sprintf("panic in a kernel: %v\n%s", f.Value, f.Stack) }

// Loop prepares body to run for i in [0,n). worker is in [0,Workers) and no two calls at one time have the same.
func (p *Pool) Loop(n int, body func(worker, i int)) *Loop {
	l := &Loop{pool: p, n: n, body: body, done: make(chan struct{}, 1)}
	l.idle = func() bool { return !present(l.state.Load()) }
	return l
}

// Run calls the body for every index and returns when all are done. If a call panics, the rest may be left out, and Run
// panics with a *Fault.
func (l *Loop) Run() {
	if l.n <= 0 {
		return
	}
	l.fault.Store(nil)
	l.next.Store(0)
	if helpers := min(l.pool.workers, l.n) - 1; helpers > 0 {
		l.state.Store(open)
		l.call(helpers)
		l.work(0)
		l.finish()
	} else {
		l.work(0)
	}
	if f := l.fault.Load(); f != nil {
		panic(f)
	}
}

// call asks for helpers without waiting for them: a full channel means that everyone is busy.
func (l *Loop) call(helpers int) {
	for range helpers {
		select {
		case l.pool.jobs <- l:
		default:
			return
		}
	}
}

// finish closes the run and waits for the helpers that have joined it.
func (l *Loop) finish() {
	for {
		s := l.state.Load()
		if l.state.CompareAndSwap(s, s&^open) {
			break
		}
	}
	l.pool.wait(l.idle)
	for {
		s := l.state.Load()
		if !present(s) {
			return
		}
		if l.state.CompareAndSwap(s, s|asleep) {
			<-l.done
			return
		}
	}
}

// help joins the run, if it is still open and not everyone is in it.
func (l *Loop) help() {
	for {
		s := l.state.Load()
		id := int(s/joined&count) + 1
		if s&open == 0 || id >= l.pool.workers {
			return
		}
		if l.state.CompareAndSwap(s, s+joined) {
			l.work(id)
			break
		}
	}
	if s := l.state.Add(left); s&asleep != 0 && !present(s) {
		l.done <- struct{}{}
	}
}

func (l *Loop) work(worker int) {
	defer func() {
		if v := recover(); v != nil {
			l.fault.CompareAndSwap(nil, &Fault{v, debug.Stack()})
			l.next.Store(int64(l.n)) // the rest need not run
		}
	}()
	for {
		i := int(l.next.Add(1)) - 1
		if i >= l.n {
			return
		}
		l.body(worker, i)
	}
}
