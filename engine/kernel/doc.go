// Package kernel computes on plain slices: convolutions and products over one micro-kernel, and the loops that spread
// them over cores. It knows no graph and no tensor.
//
// The micro-kernel (tile.go, _asm) multiplies a tile of output channels by a few vectors of pixels. Tensors stay in
// NCHW: lanes run along pixels and weights are broadcast, so an odd number of channels, which pruning leaves, costs
// what it is worth, and Concat, Slice and Add need no other layout. A table of offsets says where each step reads, which
// makes dilation, stride, groups and transposition (layer.go) the same product. Work is cut into bands of rows that
// stay in a core's cache (bands.go), copied there with their padding (fill.go). 3x3 convolutions of enough channels go
// by Winograd's algorithm, lanes along tiles (winograd.go what, winograd_plan.go how it is cut, winograd_run.go). [Conv], [ConvTranspose],
// [MatMul] and [MatMulAB] are immutable plans; Bind ties one to buffers and returns what runs it, without allocating.
// [Pool] shares the cores, on the process's helpers (team.go).
//
// Everything is defined for float32 and float64 in *_generic.go; float32 has assembly for AVX2 and AVX-512, chosen by
// package isa.
package kernel
