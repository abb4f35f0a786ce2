// Package mem allocates memory for what kernels stream through: weights, and the values of a run.
//
// Vector kernels load whole registers at the end of a row, so every buffer has room behind it that may be read. And a
// network's weights and values lie in thousands of small pages, which a core cannot remember all: large buffers ask for
// huge pages, and small ones are carved from large ones.
package mem

import (
	"sync"
	"unsafe"
)

// Align is the alignment of every buffer: a cache line, and the widest vector register.
const Align = 64

// Slack is how many bytes past its length a buffer may be read, never written.
const Slack = 1024

// huge is the size of a huge page. Buffers of at least that get some.
const huge = 2 << 20

// Bytes returns n zeroed bytes, aligned to Align, with Slack readable bytes behind them.
func Bytes(n int) []byte {
	if n < huge {
		return aligned(make([]byte, n+Align+Slack), n, Align)
	}
	b := aligned(make([]byte, n+huge+Slack), n, huge)
	// Whole pages only: the rest of the last one may belong to others.
	advise(b[: n/huge*huge : n/huge*huge])
	return b
}

func aligned(b []byte, n, align int) []byte {
	o := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & uintptr(align-1))
	return b[o : o+n : o+n]
}

// slab is what small buffers are carved from. It lives as long as one of them does.
var slab struct {
	sync.Mutex
	left []byte
}

const slabSize = 2 * huge

// Make returns n zeroed elements as Bytes does, next to others that were made at about the same time.
func Make[T float32 | float64](n int) []T {
	var z T
	if n == 0 {
		return nil
	}
	b := carve(n * int(unsafe.Sizeof(z)))
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func carve(n int) []byte {
	if n > slabSize/8 {
		return Bytes(n)
	}
	need := (n + Slack + Align - 1) &^ (Align - 1)
	slab.Lock()
	defer slab.Unlock()
	if len(slab.left) < need {
		slab.left = Bytes(slabSize)
	}
	b := slab.left[:n:n]
	slab.left = slab.left[need:]
	return b
}
