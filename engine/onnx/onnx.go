// Package onnx turns ONNX model files into graphs and graphs into ONNX model files.
//
//	onnx.go      Options, Decode, ReadFile: the way in
//	budget.go    what a message would cost in memory, counted before anything is allocated
//	decode.go    messages to graph, names to values; sort.go puts nodes in dependency order
//	types.go     value infos; tensor.go elements, of every type and in every place the format knows
//	external.go  elements outside of the file, never outside of its folder
//	encode.go    graph to messages; file.go to disk
//
// The law is Decode(Encode(g)) == g, as [graph.Diff] compares: for IR versions 3 to 13 and operator sets 6 to 25,
// whatever a reader of the file would see survives, known operator or not. Fields that the graph has no place for are
// kept serialized in the graph's Extra fields. What is free in the format is ours: elements are written as raw_data,
// nodes in dependency order, types of inner values in node order.
//
// Bytes come from strangers. Each size is checked against the bytes that are there before memory is asked for, and the
// worst that a hostile file can do is to get an error.
package onnx

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
)

// The versions that Decode reads and Encode writes.
const (
	MinIR, MaxIR       = 3, 13
	MinOpset, MaxOpset = 6, 25
)

// maxMessage is the largest message that protobuf defines.
const maxMessage = 1<<31 - 1

// recursionLimit bounds nested messages. A graph in an attribute is three levels, so graphs nest about 80 deep.
const recursionLimit = 256

// Options says what Decode may read and how much. The zero value reads up to 2 GiB and no external data.
type Options struct {
	// Dir is the folder that external data is read from. If it is empty, a model that has external data is refused.
	Dir string
	// MaxBytes bounds the model and its external data together; 0 is 2 GiB.
	MaxBytes int64
}

func (o Options) maxBytes() int64 {
	if o.MaxBytes > 0 {
		return o.MaxBytes
	}
	return maxMessage
}

// ErrTooLarge is in the error for a model that exceeds Options.MaxBytes, or would need far more memory than its size.
var ErrTooLarge = errors.New("too large")

// ErrVersion is in the error for a model of an IR or operator set version outside of the range that is read.
var ErrVersion = errors.New("version is not supported")

// Decode reads a serialized ModelProto. The graph it returns has passed Validate, its nodes are in dependency order,
// and it keeps no reference to b.
func Decode(b []byte, opt Options) (*graph.Graph, error) {
	d := &decoder{dir: opt.Dir, left: opt.maxBytes(), informed: map[*graph.Value]bool{}}
	defer d.close()
	g, err := d.decode(b)
	if err != nil {
		return nil, fmt.Errorf("decode ONNX model: %w", err)
	}
	return g, nil
}

func (d *decoder) decode(b []byte) (*graph.Graph, error) {
	if err := d.charge(int64(len(b)), "the model"); err != nil {
		return nil, err
	}
	m := new(onnxpb.ModelProto)
	slack, err := checkBudget(b, m)
	if err != nil {
		return nil, err
	}
	d.slack = slack
	if err := (proto.UnmarshalOptions{RecursionLimit: recursionLimit}).Unmarshal(b, m); err != nil {
		return nil, err
	}
	g, err := d.model(m)
	if err != nil {
		return nil, err
	}
	return g, g.Validate()
}

// ReadFile is Decode of a file of at most 2 GiB, with external data from the file's own folder.
func ReadFile(path string) (*graph.Graph, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read ONNX model: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	b, err := io.ReadAll(io.LimitReader(f, maxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("read ONNX model: %w", err)
	}
	g, err := Decode(b, Options{Dir: filepath.Dir(path)})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return g, nil
}

// charge takes n bytes off what Options.MaxBytes still allows.
func (d *decoder) charge(n int64, what string) error {
	if n > d.left {
		return fmt.Errorf("%s has %d bytes, %d are left of the limit: %w", what, n, d.left, ErrTooLarge)
	}
	d.left -= n
	return nil
}
