package group

import (
	"maps"
	"slices"
)

// Operators lists the operators that channels may pass, by name. All others pin what they read.
func Operators() []string { return slices.Sorted(maps.Keys(rules)) }
