package registry

import (
	"errors"
	"fmt"
)

// NotFoundError says what is not there.
type NotFoundError struct {
	Model   string
	Version uint64 // 0: the model itself
	File    string // empty: the version itself
}

func (e *NotFoundError) Error() string {
	switch {
	case e.File != "":
		return fmt.Sprintf("model %q version %d has no %s", e.Model, e.Version, e.File)
	case e.Version != 0:
		return fmt.Sprintf("model %q has no version %d", e.Model, e.Version)
	case e.Model == "":
		return "there is no model"
	}
	return fmt.Sprintf("there is no model %q that serves", e.Model)
}

// StaleError says that another version serves than the caller believed: the compare-and-swap was lost.
type StaleError struct {
	Model             string
	Expected, Serving uint64
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("model %q: version %d serves, not version %d", e.Model, e.Serving, e.Expected)
}

// StateError says that the model is not in the state the call needs. Reason is in upper snake case, for programs.
type StateError struct{ Model, Reason, Text string }

func (e *StateError) Error() string { return fmt.Sprintf("model %q: %s", e.Model, e.Text) }

// ModelError says that a file is not a model that runs here.
type ModelError struct{ Err error }

func (e *ModelError) Error() string { return e.Err.Error() }

// Unwrap gives what is wrong with it.
func (e *ModelError) Unwrap() error { return e.Err }

// NameError says that a model cannot have this name.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%q cannot be a model's name: 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit", e.Name)
}

// ErrLocked is in Open's error if another server has the folder open.
var ErrLocked = errors.New("another server has it open")
