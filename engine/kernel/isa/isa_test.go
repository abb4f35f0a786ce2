package isa

import "testing"

// The environment lowers the level and never raises it.
func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name       string
		have, want Level
	}{
		{"", AVX512, AVX512}, {"generic", AVX512, Generic}, {"avx2", AVX512, AVX2}, {"avx512", AVX2, AVX2},
		{"avx512", Generic, Generic}, {"nonsense", AVX2, AVX2},
	} {
		if got := choose(c.name, c.have); got != c.want {
			t.Errorf("choose(%q, %v) = %v, want %v", c.name, c.have, got, c.want)
		}
	}
}
