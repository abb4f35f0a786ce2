package onnx

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"

	"github.com/secateur/secateur/engine/graph"
)

// External asks WriteFile to put initializers into a file of their own. The zero External keeps everything in the model.
type External struct {
	// Location is the name of that file in the model's folder.
	Location string
	// Threshold is the fewest bytes a tensor must have to go there; 0 is 1024.
	Threshold int
}

// externalAlign is where tensors begin in an external file: a page, so that readers may map them.
const externalAlign = 4096

// WriteFile encodes g and puts it at path. The file appears whole or not at all: it is written under another name,
// flushed to disk and renamed. External data is renamed into place first; a name that no other model uses keeps a crash
// in between harmless.
func WriteFile(path string, g *graph.Graph, ext External) error {
	if err := writeFile(path, g, ext); err != nil {
		return fmt.Errorf("write ONNX model: %w", err)
	}
	return nil
}

func writeFile(path string, g *graph.Graph, ext External) error {
	if ext.Location == "" {
		b, err := (&encoder{}).encode(g)
		if err != nil {
			return err
		}
		return replace(path, func(w *bufio.Writer) error {
			_, err := w.Write(b)
			return err
		})
	}
	if !filepath.IsLocal(ext.Location) || filepath.Base(ext.Location) != ext.Location || ext.Location == filepath.Base(path) {
		return fmt.Errorf("external data: %q is not the name of another file in the model's folder", ext.Location)
	}
	threshold := ext.Threshold
	if threshold == 0 {
		threshold = 1024
	}
	var b []byte
	err := replace(filepath.Join(filepath.Dir(path), ext.Location), func(w *bufio.Writer) error {
		var at int64
		e := &encoder{outside: func(data []byte) (*graph.External, error) {
			if len(data) < threshold {
				return nil, nil
			}
			for ; at%externalAlign != 0; at++ {
				if err := w.WriteByte(0); err != nil {
					return nil, err
				}
			}
			x := &graph.External{Location: ext.Location, Offset: at, Length: int64(len(data))}
			n, err := w.Write(data)
			at += int64(n)
			return x, err
		}}
		var err error
		b, err = e.encode(g)
		return err
	})
	if err != nil {
		return err
	}
	return replace(path, func(w *bufio.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// replace writes a file beside path and renames it to path once it is on disk.
func replace(path string, write func(*bufio.Writer) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // the first error is the one to report
			_ = os.Remove(f.Name()) // best effort
		}
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	if err = write(w); err != nil {
		return err
	}
	if err = w.Flush(); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync() // not every file system can; the rename itself is done
	return d.Close()
}
