//go:build !linux

package kernel

import (
	"sync/atomic"
	"time"
)

// sleeper is what a helper waits on: a count of calls, and a channel to sleep on.
type sleeper struct {
	calls  atomic.Uint32
	asleep atomic.Bool
	woken  chan struct{}
}

func (s *sleeper) init() { s.woken = make(chan struct{}, 1) }

func (s *sleeper) call() {
	s.calls.Add(1)
	if s.asleep.Load() {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

func (s *sleeper) await(seen uint32, patience time.Duration) uint32 {
	for begin := time.Now(); time.Since(begin) < patience; {
		if n := s.calls.Load(); n != seen {
			return n
		}
	}
	for {
		s.asleep.Store(true)
		if s.calls.Load() == seen {
			<-s.woken
		}
		s.asleep.Store(false)
		if n := s.calls.Load(); n != seen {
			return n
		}
	}
}

// Threads are kept on cores on Linux alone.

func cores() []int {
	list := make([]int, threads())
	for i := range list {
		list[i] = -1
	}
	return list
}

func core() int { return -1 }
func stay(int)  {}

type pin struct{}

func (*pin) set()   {}
func (*pin) reset() {}
