//go:build ort && linux

package ort

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/secateur/secateur/engine/tensor"
)

// The positions of functions in OrtApi, a table that only ever grows at its end (onnxruntime_c_api.h).
const (
	fnGetErrorMessage        = 2
	fnCreateEnv              = 3
	fnCreateSessionFromArray = 8
	fnRun                    = 9
	fnCreateSessionOptions   = 10
	fnSetGraphOptimization   = 23
	fnSetIntraOpNumThreads   = 24
	fnInputCount             = 30
	fnOutputCount            = 31
	fnInputName              = 36
	fnOutputName             = 37
	fnCreateTensorWithData   = 49
	fnGetTensorMutableData   = 51
	fnGetElementType         = 60
	fnGetDimensionsCount     = 61
	fnGetDimensions          = 62
	fnGetTypeAndShape        = 65
	fnCreateCPUMemoryInfo    = 69
	fnAllocatorFree          = 76
	fnDefaultAllocator       = 78
	fnReleaseStatus          = 93
	fnReleaseSession         = 95
	fnReleaseValue           = 96
	fnReleaseTypeAndShape    = 99
	fnReleaseSessionOptions  = 100

	apiVersion = 17 // old enough for any library in use, and all that is called here is in it
)

// Library is an opened ONNX Runtime. It stays open as long as the process.
type Library struct {
	table       uintptr
	env, memory uintptr
	version     string
}

// Session is a model in ONNX Runtime. Goroutines may run it at the same time. Its memory is freed by Close, or after the
// last use.
type Session struct {
	lib             *Library
	handle          uintptr
	inputs, outputs []*byte // names, as C strings
	cleanup         runtime.Cleanup
}

// Open loads the library from a path such as libonnxruntime.so.1.
func Open(path string) (*Library, error) {
	if path == "" {
		return nil, errors.New("the path of libonnxruntime.so.1 is missing; give it with --ort-lib")
	}
	h, err := purego.Dlopen(path, purego.RTLD_NOW)
	if err != nil {
		return nil, fmt.Errorf("open ONNX Runtime: %w", err)
	}
	getBase, err := purego.Dlsym(h, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("%s is not ONNX Runtime: %w", path, err)
	}
	base, _, _ := purego.SyscallN(getBase)
	version, _, _ := purego.SyscallN(word(base, 1))
	table, _, _ := purego.SyscallN(word(base, 0), apiVersion)
	l := &Library{table: table, version: goString(version)}
	if table == 0 {
		return nil, fmt.Errorf("ONNX Runtime %s has no API version %d", l.version, apiVersion)
	}
	name := cString("secateur")
	const quiet = 3 // log errors only
	if err := l.check(fnCreateEnv, quiet, addr(name), addr(&l.env)); err != nil {
		return nil, err
	}
	if err := l.check(fnCreateCPUMemoryInfo, 0, 0, addr(&l.memory)); err != nil {
		return nil, err
	}
	return l, nil
}

// Version is the library's own.
func (l *Library) Version() string { return l.version }

// NewSession loads a serialized model, to run on the given number of threads.
func (l *Library) NewSession(model []byte, threads int) (*Session, error) {
	if len(model) == 0 {
		return nil, errors.New("ONNX Runtime: the model is empty")
	}
	var opt uintptr
	if err := l.check(fnCreateSessionOptions, addr(&opt)); err != nil {
		return nil, err
	}
	defer l.call(fnReleaseSessionOptions, opt)
	const all = 99 // every graph optimization
	if err := l.check(fnSetGraphOptimization, opt, all); err != nil {
		return nil, err
	}
	if err := l.check(fnSetIntraOpNumThreads, opt, uintptr(threads)); err != nil {
		return nil, err
	}
	s := &Session{lib: l}
	if err := l.check(fnCreateSessionFromArray, l.env, addr(&model[0]), uintptr(len(model)), opt, addr(&s.handle)); err != nil {
		return nil, fmt.Errorf("ONNX Runtime: load model: %w", err)
	}
	runtime.KeepAlive(model)
	s.cleanup = runtime.AddCleanup(s, func(handle uintptr) { l.call(fnReleaseSession, handle) }, s.handle)
	var err error
	if s.inputs, err = s.names(fnInputCount, fnInputName); err == nil {
		s.outputs, err = s.names(fnOutputCount, fnOutputName)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) names(count, name int) ([]*byte, error) {
	var n, alloc uintptr
	if err := s.lib.check(count, s.handle, addr(&n)); err != nil {
		return nil, err
	}
	if err := s.lib.check(fnDefaultAllocator, addr(&alloc)); err != nil {
		return nil, err
	}
	names := make([]*byte, n)
	for i := range names {
		var p uintptr
		if err := s.lib.check(name, s.handle, uintptr(i), alloc, addr(&p)); err != nil {
			return nil, err
		}
		names[i] = cString(goString(p))
		s.lib.call(fnAllocatorFree, alloc, p)
	}
	return names, nil
}

// Run computes the outputs, which are the caller's to keep. A run cannot be stopped; ctx is looked at before it begins.
func (s *Session) Run(ctx context.Context, in []*tensor.Tensor) ([]*tensor.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(s)
	if len(in) != len(s.inputs) {
		return nil, fmt.Errorf("ONNX Runtime: the model takes %d inputs, %d given", len(s.inputs), len(in))
	}
	// C holds these addresses only during the calls, but Go may not move what they point to meanwhile.
	var pin runtime.Pinner
	defer pin.Unpin()
	handles := make([]uintptr, len(in))
	defer s.release(handles)
	for i, t := range in {
		dims := make([]int64, len(t.Shape)+1)
		for a, d := range t.Shape {
			dims[a] = int64(d)
		}
		data := unsafe.SliceData(t.Data)
		if data != nil {
			pin.Pin(data)
		}
		pin.Pin(&dims[0])
		if err := s.lib.check(fnCreateTensorWithData, s.lib.memory, addr(data), uintptr(len(t.Data)), addr(&dims[0]),
			uintptr(len(t.Shape)), uintptr(t.DType), addr(&handles[i])); err != nil {
			return nil, fmt.Errorf("ONNX Runtime: input %d: %w", i, err)
		}
	}
	results := make([]uintptr, len(s.outputs))
	defer s.release(results)
	for _, n := range append(append([]*byte{}, s.inputs...), s.outputs...) {
		pin.Pin(n)
	}
	if err := s.lib.check(fnRun, s.handle, 0, addr(unsafe.SliceData(s.inputs)), addr(unsafe.SliceData(handles)), uintptr(len(in)),
		addr(unsafe.SliceData(s.outputs)), uintptr(len(s.outputs)), addr(unsafe.SliceData(results))); err != nil {
		return nil, fmt.Errorf("ONNX Runtime: run: %w", err)
	}
	out := make([]*tensor.Tensor, len(results))
	for i, h := range results {
		t, err := s.lib.tensor(h)
		if err != nil {
			return nil, fmt.Errorf("ONNX Runtime: output %d: %w", i, err)
		}
		out[i] = t
	}
	return out, nil
}

// tensor copies a value of ONNX Runtime's.
func (l *Library) tensor(h uintptr) (*tensor.Tensor, error) {
	var info, rank, data uintptr
	if err := l.check(fnGetTypeAndShape, h, addr(&info)); err != nil {
		return nil, err
	}
	defer l.call(fnReleaseTypeAndShape, info)
	var dt int32
	if err := l.check(fnGetElementType, info, addr(&dt)); err != nil {
		return nil, err
	}
	if err := l.check(fnGetDimensionsCount, info, addr(&rank)); err != nil {
		return nil, err
	}
	dims := make([]int64, rank+1)
	if err := l.check(fnGetDimensions, info, addr(&dims[0]), rank); err != nil {
		return nil, err
	}
	if tensor.DType(dt).Bits() == 0 {
		return nil, fmt.Errorf("element type %v cannot be read", tensor.DType(dt))
	}
	shape := make([]int, rank)
	for i := range shape {
		shape[i] = int(dims[i])
	}
	t := tensor.New(tensor.DType(dt), shape...)
	if err := l.check(fnGetTensorMutableData, h, addr(&data)); err != nil {
		return nil, err
	}
	copy(t.Data, unsafe.Slice((*byte)(pointer(data)), len(t.Data)))
	return t, nil
}

func (s *Session) release(values []uintptr) {
	for _, v := range values {
		if v != 0 {
			s.lib.call(fnReleaseValue, v)
		}
	}
}

// Close frees the model.
func (s *Session) Close() {
	if s.handle != 0 {
		s.cleanup.Stop()
		s.lib.call(fnReleaseSession, s.handle)
		s.handle = 0
	}
}

// call calls a function of the table.
func (l *Library) call(fn int, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(word(l.table, fn), args...)
	return r
}

// check calls a function that returns an OrtStatus, and makes an error of it.
func (l *Library) check(fn int, args ...uintptr) error {
	st := l.call(fn, args...)
	if st == 0 {
		return nil
	}
	msg := goString(l.call(fnGetErrorMessage, st))
	l.call(fnReleaseStatus, st)
	return errors.New(msg)
}

// pointer turns an address of C's into a pointer. C's memory does not move, which go vet cannot know.
func pointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// word reads the i-th machine word behind a C pointer.
func word(p uintptr, i int) uintptr { return unsafe.Slice((*uintptr)(pointer(p)), i+1)[i] }

// addr is a pointer as C takes it. It makes what it points to live on the heap, which Go does not move, where a
// variable on the stack could move before the call.
func addr[T any](p *T) uintptr {
	if stackMoves {
		heap = unsafe.Pointer(p)
	}
	return uintptr(unsafe.Pointer(p))
}

// stackMoves is never set; that it might be is what sends addr's variables to the heap.
var (
	stackMoves bool
	heap       unsafe.Pointer
)

func cString(s string) *byte { return &append([]byte(s), 0)[0] }

func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	var b bytes.Buffer
	for c := (*byte)(pointer(p)); *c != 0; c = (*byte)(unsafe.Add(unsafe.Pointer(c), 1)) {
		b.WriteByte(*c)
	}
	return b.String()
}
