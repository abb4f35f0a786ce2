//go:build !amd64 || noasm

package kernel

import "github.com/secateur/secateur/engine/kernel/isa"

func microFloat32(isa.Level) *micro[float32] { return nil }

func vectorsFor(isa.Level) *vectors { return nil }
