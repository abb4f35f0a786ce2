package server

import (
	"os"
	"path/filepath"
)

// prefixTemp begins the names of files that are being written.
const prefixTemp = ".new-"

// replaceFile writes a file so that after a crash it is the old one or the new one.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), prefixTemp+"*")
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
	if err == nil {
		err = moveFile(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what stays is cleaned at the next start
	}
	return err
}

// moveFile renames a file that has been synced, and syncs the folder it goes to.
func moveFile(from, path string) error {
	if err := os.Rename(from, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = dir.Sync()
	if cerr := dir.Close(); err == nil {
		err = cerr
	}
	return err
}

// cleanFolder makes a folder, and removes what a crash left half-written in it.
func cleanFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, prefixTemp+"*"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}
