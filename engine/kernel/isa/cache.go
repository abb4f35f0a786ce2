package isa

import (
	"os"
	"strconv"
	"strings"
)

// SecondLevel is how many bytes a core's second-level cache has, or what most have where that is not told.
func SecondLevel() int { return secondLevel }

var secondLevel = readCache("/sys/devices/system/cpu/cpu0/cache/index2/size", 1<<20)

// readCache reads a size as Linux writes it: 2048K.
func readCache(name string, otherwise int) int {
	b, err := os.ReadFile(name)
	if err != nil {
		return otherwise
	}
	s, unit := strings.TrimSpace(string(b)), 1
	switch {
	case strings.HasSuffix(s, "K"):
		s, unit = s[:len(s)-1], 1<<10
	case strings.HasSuffix(s, "M"):
		s, unit = s[:len(s)-1], 1<<20
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1<<20 {
		return otherwise
	}
	return n * unit
}

// Name is the processor's, as Linux has it; empty elsewhere.
func Name() string { return name }

var name = readName("/proc/cpuinfo")

func readName(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	_, value, _ := strings.Cut(line, ":")
	return strings.TrimSpace(value)
}
