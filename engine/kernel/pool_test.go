package kernel

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// Every index runs once, and no two calls at one time have the same worker, whoever else uses the pool.
func TestLoop(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 8} {
		p := NewPool(workers)
		var sessions sync.WaitGroup
		for s := range 4 {
			sessions.Go(func() {
				n := []int{0, 1, 7, 100}[s]
				seen := make([]atomic.Int32, n)
				busy := make([]atomic.Bool, workers)
				scratch := make([]int, workers) // unguarded: the race detector checks that workers are distinct
				l := p.Loop(n, func(w, i int) {
					if !busy[w].CompareAndSwap(false, true) {
						t.Errorf("worker %d is in two calls at once", w)
					}
					scratch[w]++
					seen[i].Add(1)
					busy[w].Store(false)
				})
				for run := range 200 {
					l.Run()
					for i := range seen {
						if got := seen[i].Load(); got != int32(run+1) {
							t.Errorf("workers=%d n=%d: index %d ran %d times in %d runs", workers, n, i, got, run+1)
							return
						}
					}
					total := 0
					for _, c := range scratch { // what helpers wrote is visible to the caller
						total += c
					}
					if total != n*(run+1) {
						t.Errorf("workers=%d n=%d: %d calls after %d runs", workers, n, total, run+1)
						return
					}
				}
			})
		}
		sessions.Wait()
	}
}

// A panic reaches the goroutine that runs the loop, and the loop and its pool can be used again.
func TestLoopPanic(t *testing.T) {
	p := NewPool(3)
	fail := true
	var ran atomic.Int32
	l := p.Loop(50, func(_, i int) {
		if fail && i == 20 {
			panic("bad index")
		}
		ran.Add(1)
	})
	func() {
		defer func() {
			err, _ := recover().(error)
			var f *Fault
			if !errors.As(err, &f) || f.Value != "bad index" {
				t.Fatalf("recovered %v, want a Fault of %q", err, "bad index")
			}
		}()
		l.Run()
	}()
	fail = false
	ran.Store(0)
	l.Run()
	if ran.Load() != 50 {
		t.Fatalf("%d of 50 indices ran after a panic", ran.Load())
	}
}

// A run allocates nothing.
func TestLoopAllocs(t *testing.T) {
	p := NewPool(4)
	l := p.Loop(20, func(_, _ int) {})
	if n := testing.AllocsPerRun(200, l.Run); n != 0 {
		t.Fatalf("a run allocates %g times", n)
	}
}

// A loop inside another's body does not wait for a worker that never comes.
func TestLoopNested(t *testing.T) {
	p := NewPool(2)
	var n atomic.Int32
	p.Loop(4, func(_, _ int) { p.Loop(5, func(_, _ int) { n.Add(1) }).Run() }).Run()
	if n.Load() != 20 {
		t.Fatalf("%d of 20 calls ran", n.Load())
	}
}

// BenchmarkLoop is the cost of a loop with nothing to do, on the second run and all later ones.
func BenchmarkLoop(b *testing.B) {
	p := NewPool(2)
	l := p.Loop(8, func(_, _ int) {})
	for b.Loop() {
		l.Run()
	}
}
