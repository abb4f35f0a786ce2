package admission

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitFor lets other goroutines run until n callers wait.
func waitFor(t *testing.T, q *Queue, n int) {
	t.Helper()
	for t.Context().Err() == nil && q.Waiting() != n {
		runtime.Gosched()
	}
}

func TestNeverMoreThanInflight(t *testing.T) {
	const inflight, callers = 3, 200
	q := New(inflight, callers)
	var now, most atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			release, err := q.Acquire(t.Context())
			if err != nil {
				t.Errorf("acquire: %v", err)
				return
			}
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			now.Add(-1)
			release()
			release() // a second call changes nothing
		})
	}
	wg.Wait()
	if most.Load() > inflight {
		t.Errorf("%d ran at once, want at most %d", most.Load(), inflight)
	}
	if q.Running() != 0 || q.Waiting() != 0 {
		t.Errorf("%d run and %d wait after all are done", q.Running(), q.Waiting())
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	q := New(1, 10)
	release, err := q.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			release, err := q.Acquire(t.Context())
			if err != nil {
				t.Errorf("acquire %d: %v", i, err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			release()
		})
		waitFor(t, q, i+1)
	}
	release()
	wg.Wait()
	for i, v := range order {
		if i != v {
			t.Fatalf("order %v, want that of arrival", order)
		}
	}
}

func TestFull(t *testing.T) {
	q := New(1, 0)
	release, err := q.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.Acquire(t.Context())
	var full *FullError
	if !errors.As(err, &full) || full.RetryAfter <= 0 {
		t.Errorf("got %v, want a FullError with a time", err)
	}
	release()
	release, err = q.Acquire(t.Context())
	if err != nil {
		t.Errorf("after release: %v", err)
	}
	release()
}

func TestExpired(t *testing.T) {
	q := New(1, 5)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Acquire(over); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended got %v", err)
	}
	release, err := q.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := q.Acquire(ctx)
		got <- err
	}()
	waitFor(t, q, 1)
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while it waited: got %v", err)
	}
	if q.Waiting() != 0 {
		t.Errorf("%d wait, want none", q.Waiting())
	}
	release()
	if q.Running() != 0 {
		t.Errorf("%d run, want none: a place was lost", q.Running())
	}
}

// A place that is given at the moment its taker leaves must not be lost.
func TestNoPlaceIsLost(t *testing.T) {
	q := New(1, 100)
	for range 300 {
		release, err := q.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if r, err := q.Acquire(ctx); err == nil {
				r()
			}
		})
		waitFor(t, q, 1)
		wg.Go(cancel)
		wg.Go(release)
		wg.Wait()
		if q.Running() != 0 || q.Waiting() != 0 {
			t.Fatalf("%d run and %d wait after all have left", q.Running(), q.Waiting())
		}
	}
}
