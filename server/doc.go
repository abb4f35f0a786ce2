// Package server serves segmentation models over gRPC and prunes them while it serves.
//
// A request goes: interceptors (request id, log, panics) → segment.go or stream.go → admission (a bounded queue) →
// vision.Decode → registry.Lookup → Runner.Predict → the mask's bytes. What changes a model goes through prune.go,
// operations.go and models.go to the registry, which swaps atomically: no request waits for a change, and each finishes on
// the version it began with. errors.go is the one place where errors become gRPC codes, metrics.go the one struct of
// metrics, status.go what the HTTP port shows.
package server
