// Command zoo writes the networks of package zoo, with weights from a seed, as ONNX files into a folder.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/zoo"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: zoo DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "zoo:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range zoo.Names() {
		g, err := zoo.Load(name, 1)
		if err != nil {
			return err
		}
		b, err := onnx.Encode(g)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".onnx"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
