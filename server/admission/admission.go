// Package admission decides who computes when: so many at once, so many more waiting in the order they came, and no
// more. Who has waited past its deadline leaves without having cost anything.
package admission

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// Queue admits a bounded number of callers at once. A stream asks for each frame anew, so streams and single requests
// take turns in the order of their asking.
type Queue struct {
	inflight, depth int

	mu      sync.Mutex
	running int
	waiting list.List // of chan struct{}, each with room for one: a value in it is a place
	service time.Duration
}

// New returns a queue that admits inflight callers at once and lets depth more wait.
func New(inflight, depth int) *Queue {
	return &Queue{inflight: max(inflight, 1), depth: max(depth, 0)}
}

// FullError says that nobody more may wait.
type FullError struct {
	Depth int
	// RetryAfter is when a place may be free, by how long callers have kept theirs lately.
	RetryAfter time.Duration
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%d requests are waiting already", e.Depth)
}

// Acquire waits for a place. The caller must call release when it is done. It returns a *FullError at once if the queue
// is full, and the context's error if that ends before the caller has a place, or ended while it was given one.
func (q *Queue) Acquire(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	if q.running < q.inflight {
		q.running++
		q.mu.Unlock()
		return q.releaser(), nil
	}
	if q.waiting.Len() >= q.depth {
		err := &FullError{q.depth, q.retryAfter()}
		q.mu.Unlock()
		return nil, err
	}
	place := make(chan struct{}, 1)
	at := q.waiting.PushBack(place)
	q.mu.Unlock()

	select {
	case <-place:
		// Both may have happened: a deadline that has passed is honoured all the same.
		if err := ctx.Err(); err != nil {
			q.leave()
			return nil, err
		}
		return q.releaser(), nil
	case <-ctx.Done():
		q.mu.Lock()
		select {
		case <-place: // given in the meantime, and passed on
			q.mu.Unlock()
			q.leave()
		default:
			q.waiting.Remove(at)
			q.mu.Unlock()
		}
		return nil, ctx.Err()
	}
}

func (q *Queue) releaser() func() {
	start := time.Now()
	var once sync.Once
	return func() {
		once.Do(func() {
			q.mu.Lock()
			q.service += (time.Since(start) - q.service) / 8 // a mean that forgets
			q.mu.Unlock()
			q.leave()
		})
	}
}

// leave gives the caller's place to who waits longest.
func (q *Queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.waiting.Front(); e != nil {
		q.waiting.Remove(e).(chan struct{}) <- struct{}{}
		return
	}
	q.running--
}

func (q *Queue) retryAfter() time.Duration {
	d := q.service * time.Duration(q.waiting.Len()+q.inflight) / time.Duration(q.inflight) / 2
	return min(max(d, 10*time.Millisecond), 10*time.Second)
}

// Running is how many callers have a place.
func (q *Queue) Running() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running
}

// Waiting is how many callers wait.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.Len()
}
