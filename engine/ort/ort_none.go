//go:build !ort || !linux

package ort

import (
	"context"

	"github.com/secateur/secateur/engine/tensor"
)

// Library is an opened ONNX Runtime.
type Library struct{}

// Session is a model in ONNX Runtime.
type Session struct{}

// Open fails in this build.
func Open(string) (*Library, error) { return nil, ErrNotBuilt }

// Version is the library's own.
func (*Library) Version() string { return "" }

// NewSession fails in this build.
func (*Library) NewSession([]byte, int) (*Session, error) { return nil, ErrNotBuilt }

// Run fails in this build.
func (*Session) Run(context.Context, []*tensor.Tensor) ([]*tensor.Tensor, error) {
	return nil, ErrNotBuilt
}

// Close does nothing in this build.
func (*Session) Close() {}
