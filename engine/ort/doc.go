// Package ort runs models in ONNX Runtime, for comparison: an independent answer and the speed to beat.
//
// The library is opened at run time without cgo, which still makes the binary link libc. So it is compiled in only with
// the build tag ort (make bin/secateur-ort); without it, Open says how to get it.
package ort
