// Package ort runs models in ONNX Runtime, for comparison: an independent answer and the speed to beat.
//
// The library is opened at run time without cgo, which still makes the binary link libc. So it is compiled in only with
// the build tag ort (make bin/secateur-ort); without it, Open says how to get it.
package ort

import "errors"

// ErrNotBuilt says that this binary was built without ONNX Runtime.
var ErrNotBuilt = errors.New("this binary is built without ONNX Runtime; `make bin/secateur-ort` builds one with it")
