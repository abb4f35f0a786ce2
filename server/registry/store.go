package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Files of a version's folder.
const (
	fileONNX       = "model.onnx"
	fileInfo       = "version.json"
	fileReportJSON = "report.json"
	fileReportHTML = "report.html"
	fileOverride   = "model.json"
)

// Names in a model's folder and in the root. What begins with a dot is ours and is no model and no version.
const (
	filePointer = "serving.json"
	prefixNew   = ".new-" // a version or pointer that is being written
	prefixGone  = ".gone-"
	fileLock    = ".lock"
	fileSeeding = ".seeding" // there while a new folder is being filled
)

// pointer is serving.json.
type pointer struct {
	Serving  uint64 `json:"serving"`
	Previous uint64 `json:"previous,omitempty"` // what Rollback makes serve
	Last     uint64 `json:"last,omitempty"`     // the largest version number ever given
}

// store is the folder. Its methods keep it whole; callers order them.
type store struct {
	dir      string
	maxBytes int64
	readOnly bool // pointers are kept in memory only
	lock     *os.File
	// step is called before each change of the folder that a crash could fall on; tests make it fail there.
	step func(what string) error
}

// openStore creates or opens the folder and locks it. A folder that cannot be written is opened read-only.
func openStore(dir string, maxBytes int64) (*store, error) {
	s := &store{dir: dir, maxBytes: maxBytes, step: func(string) error { return nil }}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		if st, serr := os.Stat(dir); serr != nil || !st.IsDir() {
			return nil, err
		}
		s.readOnly = true
		return s, nil
	}
	if err := flock(f); err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	s.lock = f
	return s, nil
}

func (s *store) close() error {
	if s.lock == nil {
		return nil
	}
	f := s.lock
	s.lock = nil
	return f.Close() // and with it goes the lock
}

func (s *store) folder(name string, version uint64) string {
	return filepath.Join(s.dir, name, strconv.FormatUint(version, 10))
}

// names lists the folders that may be models.
func (s *store) names() ([]string, error) {
	es, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range es {
		if checkName(e.Name()) == nil && isDir(filepath.Join(s.dir, e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// clean removes what a crash left half-written or half-deleted.
func (s *store) clean(name string) error {
	if s.readOnly {
		return nil
	}
	es, err := os.ReadDir(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), prefixNew) || strings.HasPrefix(e.Name(), prefixGone) {
			if err := os.RemoveAll(filepath.Join(s.dir, name, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// versions lists the versions of a model: its numbered folders with a model.onnx in them. last is the largest number of
// all its folders, whatever is in them.
func (s *store) versions(name string) (out map[uint64]Info, last uint64, err error) {
	es, err := os.ReadDir(filepath.Join(s.dir, name))
	if err != nil {
		return nil, 0, err
	}
	out = map[uint64]Info{}
	for _, e := range es {
		v, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil || v == 0 || strconv.FormatUint(v, 10) != e.Name() {
			continue
		}
		last = max(last, v)
		st, err := os.Stat(filepath.Join(s.folder(name, v), fileONNX))
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		info := Info{Source: SourceFolder, Created: st.ModTime().UTC()}
		b, err := s.readOptional(name, v, fileInfo)
		if err == nil && b != nil {
			err = json.Unmarshal(b, &info)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("version %d: read %s: %w", v, fileInfo, err)
		}
		info.Model, info.Version, info.Size = name, v, st.Size() // the folder says so, whatever a copied file says
		out[v] = info
	}
	return out, last, nil
}

// readPointer returns the zero pointer if there is none.
func (s *store) readPointer(name string) (pointer, error) {
	var p pointer
	b, err := os.ReadFile(filepath.Join(s.dir, name, filePointer))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	return p, err
}

// writePointer replaces serving.json: after a crash it is the old one or the new one.
func (s *store) writePointer(name string, p pointer) error {
	if s.readOnly {
		return nil
	}
	dir := filepath.Join(s.dir, name)
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, prefixNew+filePointer)
	if err := s.step("write pointer"); err != nil {
		return err
	}
	if !isDir(dir) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := syncDir(s.dir); err != nil {
			return err
		}
	}
	if err := writeSynced(tmp, append(b, '\n')); err != nil {
		return err
	}
	if err := s.step("rename pointer"); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, filePointer)); err != nil {
		return err
	}
	if err := s.step("sync pointer"); err != nil {
		return err
	}
	return syncDir(dir)
}

// mark, marked and unmark keep the note that the folder is being filled.
func (s *store) mark() error { return writeSynced(filepath.Join(s.dir, fileSeeding), []byte{}) }

func (s *store) marked() bool {
	_, err := os.Stat(filepath.Join(s.dir, fileSeeding))
	return err == nil
}

func (s *store) unmark() error {
	if err := s.step("unmark"); err != nil {
		return err
	}
	return os.Remove(filepath.Join(s.dir, fileSeeding))
}

// writeVersion writes all files of a version into a temporary folder and renames it into place. nil files are left out.
func (s *store) writeVersion(info Info, files map[string][]byte) error {
	dir := filepath.Join(s.dir, info.Model)
	if err := s.step("make folder"); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, prefixNew)
	if err != nil {
		return err
	}
	renamed := false
	defer func() {
		if !renamed {
			_ = os.RemoveAll(tmp) // what stays is cleaned at the next start
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	all := maps.Clone(files)
	all[fileInfo] = append(b, '\n')
	for _, f := range slices.Sorted(maps.Keys(all)) {
		if all[f] == nil {
			continue
		}
		if err := s.step("write " + f); err != nil {
			return err
		}
		if err := writeSynced(filepath.Join(tmp, f), all[f]); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := s.step("rename version"); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.folder(info.Model, info.Version)); err != nil {
		return err
	}
	renamed = true
	if err := s.step("sync version"); err != nil {
		return err
	}
	return syncDir(dir)
}

// remove deletes a version. The rename makes it one step.
func (s *store) remove(name string, version uint64) error {
	dir := filepath.Join(s.dir, name)
	gone := filepath.Join(dir, prefixGone+strconv.FormatUint(version, 10))
	if err := s.step("rename away"); err != nil {
		return err
	}
	if err := os.Rename(s.folder(name, version), gone); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := s.step("remove"); err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// read reads a file of a version, within the limit.
func (s *store) read(name string, version uint64, file string) ([]byte, error) {
	f, size, err := s.open(name, version, file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return b, nil
}

// open opens a file of a version that is not larger than the limit.
func (s *store) open(name string, version uint64, file string) (*os.File, int64, error) {
	path := filepath.Join(s.folder(name, version), file)
	st, err := os.Stat(path) // first: to open a pipe would wait for its writer
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() || st.Size() > s.maxBytes {
		return nil, 0, fmt.Errorf("%s is no regular file of at most %d bytes", file, s.maxBytes)
	}
	f, err := os.Open(path)
	return f, st.Size(), err
}

// readOptional is read, and nil if the file is not there.
func (s *store) readOptional(name string, version uint64, file string) ([]byte, error) {
	b, err := s.read(name, version, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
