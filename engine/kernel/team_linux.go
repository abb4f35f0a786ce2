package kernel

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sleeper is what a helper waits on: a count of calls, on which the kernel lets it sleep.
type sleeper struct {
	calls  atomic.Uint32
	asleep atomic.Bool
}

func (s *sleeper) init() {}

// call wakes the helper if it sleeps.
func (s *sleeper) call() {
	s.calls.Add(1)
	if s.asleep.Load() {
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&s.calls)), futexWake, 1, 0, 0, 0)
	}
}

// await returns the count when it is no longer seen: it looks for it as long as told, then sleeps.
func (s *sleeper) await(seen uint32, patience time.Duration) uint32 {
	for begin := time.Now(); ; {
		for range 64 {
			if n := s.calls.Load(); n != seen {
				return n
			}
		}
		if time.Since(begin) > patience {
			break
		}
	}
	for {
		s.asleep.Store(true)
		if s.calls.Load() == seen {
			// Not RawSyscall: Go's scheduler must know, or its garbage collector would wait for this thread.
			_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&s.calls)), futexWait, uintptr(seen), 0, 0, 0)
		}
		s.asleep.Store(false)
		if n := s.calls.Load(); n != seen {
			return n
		}
	}
}

const futexWait, futexWake = 128, 129 // FUTEX_WAIT and FUTEX_WAKE, of this process's threads alone

// cores lists the cores that the process may use, at most as many as it runs goroutines on.
func cores() []int {
	var set unix.CPUSet
	var list []int
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		for c := 0; len(list) < threads() && c < 8*len(set)*int(unsafe.Sizeof(set[0])); c++ {
			if set.IsSet(c) {
				list = append(list, c)
			}
		}
	}
	for len(list) < threads() {
		list = append(list, -1)
	}
	return list
}

// core is where the caller's thread runs; -1 if the kernel does not say.
func core() int {
	var cpu uint32
	if _, _, err := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); err != 0 {
		return -1
	}
	return int(cpu)
}

// stay keeps the caller's thread on a core. If the kernel refuses, it goes where it likes.
func stay(cpu int) {
	if cpu < 0 {
		return
	}
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
}

// pin keeps the goroutine and its thread where they are, and remembers where they may go otherwise.
type pin struct {
	was    unix.CPUSet
	active bool
}

func (p *pin) remember() bool { return unix.SchedGetaffinity(0, &p.was) == nil }

func (p *pin) set() {
	runtime.LockOSThread()
	if cpu := core(); cpu >= 0 && p.remember() {
		stay(cpu)
		p.active = true
		return
	}
	runtime.UnlockOSThread()
}

func (p *pin) reset() {
	if p.active {
		p.active = false
		_ = unix.SchedSetaffinity(0, &p.was)
		runtime.UnlockOSThread()
	}
}
