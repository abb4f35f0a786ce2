// Package isa says which instruction set kernels may use. It is the only place that asks the CPU.
//
// SECATEUR_ISA=generic, avx2 or avx512 lowers the level, to compare or to get round a fault; it never raises it above
// what the CPU has.
package isa

import "os"

// Level is an instruction set, each including those before it.
type Level int

// The levels that kernels are written for.
const (
	Generic Level = iota // portable Go
	AVX2                 // AVX2, FMA
	AVX512               // AVX-512 F, VL, BW, DQ; FMA, BMI2
)

var names = []string{"generic", "avx2", "avx512"}

func (l Level) String() string { return names[l] }

var best = choose(os.Getenv("SECATEUR_ISA"), detect())

// Best is the highest level that may be used here.
func Best() Level { return best }

// Detected is the highest level that the CPU has, whatever the environment asks for.
func Detected() Level { return detect() }

func choose(name string, have Level) Level {
	for l, n := range names {
		if n == name {
			return min(Level(l), have)
		}
	}
	return have
}
