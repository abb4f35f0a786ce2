package main

import (
	"github.com/secateur/secateur/engine/gorgonia"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
)

// gorgoniaBackend runs models in the reference backend.
func gorgoniaBackend() (predict.Backend, error) {
	return func(g *graph.Graph, in []tensor.Type) (func() (predict.Runner, error), error) {
		return func() (predict.Runner, error) { return gorgonia.Compile(g, in, tensor.Float32) }, nil
	}, nil
}
