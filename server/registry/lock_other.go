//go:build !unix

package registry

import "os"

// flock takes nothing: there is no lock on this system, and it is up to the user to start one server on a folder.
func flock(*os.File) error { return nil }
