package onnx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

// externalOf reads where a tensor's elements lie. Length is -1 if the file leaves it open.
func externalOf(p *onnxpb.TensorProto) (*graph.External, error) {
	if len(p.RawData) > 0 {
		return nil, errors.New("the elements are said to be external and are in the file too")
	}
	e := &graph.External{Length: -1}
	for _, kv := range p.ExternalData {
		var err error
		switch kv.GetKey() {
		case "location":
			e.Location = kv.GetValue()
		case "offset":
			e.Offset, err = strconv.ParseInt(kv.GetValue(), 10, 64)
		case "length":
			e.Length, err = strconv.ParseInt(kv.GetValue(), 10, 64)
			if err == nil && e.Length < 0 {
				err = strconv.ErrRange
			}
		case "checksum":
			e.Checksum = kv.GetValue()
		}
		if err != nil {
			return nil, fmt.Errorf("external data: %s %q: %w", kv.GetKey(), kv.GetValue(), err)
		}
	}
	return e, nil
}

// external reads the elements of t from a file in the model's folder. The path may lead nowhere else: it is relative,
// without "..", and os.Root refuses symbolic links that leave the folder.
func (d *decoder) external(t *tensor.Tensor, e *graph.External) ([]byte, error) {
	size := int64(t.DType.Size(t.Elems()))
	switch {
	case d.dir == "":
		return nil, errors.New("the elements are in another file, which may not be read here")
	case t.DType == tensor.String:
		return nil, errors.New("strings cannot be external")
	case e.Location == "" || !filepath.IsLocal(e.Location):
		return nil, fmt.Errorf("external data: location %q is not inside of the model's folder", e.Location)
	case e.Length >= 0 && e.Length != size:
		return nil, fmt.Errorf("external data: length is %d, want %d", e.Length, size)
	}
	if err := d.open(e.Location); err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	fi, err := d.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	if e.Offset < 0 || e.Offset > fi.Size() || fi.Size()-e.Offset < size {
		return nil, fmt.Errorf("external data: %q has %d bytes, want %d from %d on", e.Location, fi.Size(), size, e.Offset)
	}
	if err := d.charge(size, "external data"); err != nil {
		return nil, err
	}
	b := tensor.Bytes(int(size))
	if size == 0 {
		return b, nil
	}
	if _, err := d.file.ReadAt(b, e.Offset); err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	e.Length = size
	return b, nil
}

// open makes the file at location d.file. Only one is open at a time, however many the model names.
func (d *decoder) open(location string) error {
	if d.file != nil && d.location == location {
		return nil
	}
	if d.root == nil {
		r, err := os.OpenRoot(d.dir)
		if err != nil {
			return err
		}
		d.root = r
	}
	fi, err := d.root.Stat(location)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() { // opening a pipe would wait for its other end
		return fmt.Errorf("%q is not a regular file", location)
	}
	f, err := d.root.Open(location)
	if err != nil {
		return err
	}
	if d.file != nil {
		_ = d.file.Close() // only read from
	}
	d.file, d.location = f, location
	return nil
}

func (d *decoder) close() {
	if d.file != nil {
		_ = d.file.Close() // only read from
	}
	if d.root != nil {
		_ = d.root.Close() // a folder
	}
}
