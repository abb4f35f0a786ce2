package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/op"
)

var update = flag.Bool("update", false, "write docs/OPERATORS.md instead of checking it")

// TestOperatorsPage: the page lists exactly the operators of the engine's table. `make generate` writes it.
func TestOperatorsPage(t *testing.T) {
	since := map[string][]int{}
	for _, d := range op.Table {
		if d.Domain == "" {
			since[d.Op] = append(since[d.Op], d.Since)
		}
	}
	var b strings.Builder
	b.WriteString("# Operators\n\nGenerated from the engine's table; `make generate` brings it up to date.\n\n" +
		"The ONNX operators that the engine runs, and the opsets at which their definitions begin; the newest that is not above\n" +
		"the model's opset applies. Any other operator is kept in the file, and refused by name when the model is to run.\n\n| operator | since opset |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(since)) {
		slices.Sort(since[name])
		fmt.Fprintf(&b, "| %s | %s |\n", name, strings.Trim(fmt.Sprint(since[name]), "[]"))
	}
	path := filepath.Join("..", "..", "docs", "OPERATORS.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/OPERATORS.md does not list what the engine's table has; run: make generate")
	}
}
