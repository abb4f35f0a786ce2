package mem

import "syscall"

// advise asks for huge pages. It is advice: what the kernel answers changes nothing but the speed.
func advise(b []byte) { _ = syscall.Madvise(b, syscall.MADV_HUGEPAGE) }
