package server

import (
	"bufio"
	"context"
	"errors"
	"os"
	"time"

	"google.golang.org/grpc"
)

// uploads bounds what files on their way in cost. They arrive in temporary files, so many at a time; taking one apart
// (decoding images, compiling a model) happens in memory, one at a time.
type uploads struct {
	dir     string
	places  chan struct{}
	working chan struct{}
}

func openUploads(dir string, most int) (*uploads, error) {
	if err := cleanFolder(dir); err != nil {
		return nil, err
	}
	return &uploads{dir: dir, places: make(chan struct{}, most), working: make(chan struct{}, 1)}, nil
}

// busyError says that as many uploads are under way as may be.
type busyError struct{ Uploads int }

func (e *busyError) Error() string {
	return "as many uploads are under way as this server takes at a time"
}

// retryUpload is what a caller is told to wait for a place. Uploads take seconds.
const retryUpload = 5 * time.Second

// upload is a file on its way in.
type upload struct {
	file *os.File
	*bufio.Writer
	kept  bool
	leave func()
}

// begin takes a place. The caller must call end.
func (u *uploads) begin() (*upload, error) {
	select {
	case u.places <- struct{}{}:
	default:
		return nil, &busyError{cap(u.places)}
	}
	leave := func() { <-u.places }
	f, err := os.CreateTemp(u.dir, prefixTemp+"*")
	if err != nil {
		leave()
		return nil, err
	}
	return &upload{file: f, Writer: bufio.NewWriterSize(f, 256<<10), leave: leave}, nil
}

// end closes the file and removes it, unless keep has put it somewhere.
func (u *upload) end() {
	_ = u.file.Close() // what was to be kept has been synced
	if !u.kept {
		_ = os.Remove(u.file.Name()) // what stays is cleaned at the next start
	}
	u.leave()
}

// keep puts the file where it stays: after a crash it is there whole or not at all.
func (u *upload) keep(path string) error {
	if err := u.file.Sync(); err != nil {
		return err
	}
	if err := moveFile(u.file.Name(), path); err != nil {
		return err
	}
	u.kept = true
	return nil
}

// content is the whole file, in memory.
func (u *upload) content() ([]byte, error) {
	if err := u.Flush(); err != nil {
		return nil, err
	}
	return os.ReadFile(u.file.Name())
}

// work waits for the turn to do what takes memory.
func (u *uploads) work(ctx context.Context) (done func(), err error) {
	select {
	case u.working <- struct{}{}:
		return func() { <-u.working }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errStalled ends an upload that does not go on.
var errStalled = errors.New("nothing has come for too long")

// lastWords is how long a stopping server waits for the next message of a stream.
const lastWords = time.Second

// patientStream is a stream whose caller must keep sending. grpc-go itself ends a receive only with the connection: an
// upload that stops half-way would keep its place, and an idle stream of reflection the server from stopping.
type patientStream struct {
	grpc.ServerStream
	patience time.Duration // 0: without end
	closing  <-chan struct{}
}

// RecvMsg implements grpc.ServerStream. Once it has failed m must not be used.
func (s *patientStream) RecvMsg(m any) error {
	done := make(chan error, 1)
	go func() { done <- s.ServerStream.RecvMsg(m) }() // ends with the call at the latest
	var stalled <-chan time.Time
	if s.patience > 0 {
		timer := time.NewTimer(s.patience)
		defer timer.Stop()
		stalled = timer.C
	}
	select {
	case err := <-done:
		return err
	case <-stalled:
		return errStalled
	case <-s.closing:
	}
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errDraining
	}
}
