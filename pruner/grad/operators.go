package grad

import (
	"maps"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/op"
)

// Operators lists ONNX's operators that have a gradient, by name.
func Operators() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(rules[float32]())), func(name string) bool { return strings.HasPrefix(name, op.Private+".") })
}
