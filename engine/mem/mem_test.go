package mem

import (
	"testing"
	"unsafe"
)

// Buffers of any size are zero, aligned, apart from each other, and readable Slack bytes past their end.
func TestBuffers(t *testing.T) {
	type span struct{ from, to uintptr }
	var spans []span
	var keep []any
	for _, n := range []int{1, 63, 64, 65, 1000, huge - 1, huge, huge + 1, 3 * huge, slabSize, 7, slabSize / 8, slabSize/8 + 1} {
		b, f := Bytes(n), Make[float32](n)
		keep = append(keep, b, f)
		for _, v := range b {
			if v != 0 {
				t.Fatalf("n=%d: not zero", n)
			}
		}
		for i := range f {
			if f[i] != 0 {
				t.Fatalf("n=%d: not zero", n)
			}
			f[i] = 1
		}
		if len(b) != n || len(f) != n {
			t.Fatalf("n=%d: %d bytes, %d floats", n, len(b), len(f))
		}
		for _, s := range []span{
			{uintptr(unsafe.Pointer(&b[0])), uintptr(n)}, {uintptr(unsafe.Pointer(&f[0])), uintptr(4 * n)},
		} {
			if s.from%Align != 0 {
				t.Errorf("n=%d: at %#x", n, s.from)
			}
			s.to += s.from
			for _, o := range spans {
				if s.from < o.to && o.from < s.to {
					t.Errorf("n=%d: overlaps another", n)
				}
			}
			spans = append(spans, s)
		}
		past := unsafe.Slice(&b[0], n+Slack)
		_ = past[n+Slack-1]
	}
	_ = keep
}
