package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/secateur/secateur/engine/kernel/isa"
)

// version is set by the linker for releases.
var version = "dev"

type versionCmd struct{}

// Run implements the command.
func (versionCmd) Run() error {
	fmt.Printf("secateur %s %s/%s %s, kernels %v\n", buildVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version(), isa.Best())
	return nil
}

// buildVersion is the release, or what the Go toolchain recorded.
func buildVersion() string {
	if version != "dev" {
		return version
	}
	if i, ok := debug.ReadBuildInfo(); ok && i.Main.Version != "" && i.Main.Version != "(devel)" {
		return i.Main.Version
	}
	return version
}
