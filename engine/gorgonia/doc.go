// Package gorgonia is the reference backend: onnx-go decodes the model, gorgonia computes it and differentiates it.
//
// It shares no arithmetic with the native engine, which makes it the oracle for that engine's outputs and for the
// pruner's gradients. It is slow and obvious. [rules] has a row for each ONNX operator that is lowered, any other node is an
// error that names it.
//
//	decode.go    onnx-go: the calls of a file       lower.go     the table, and how a call becomes values
//	value.go     what a call gives                  function.go  our own gorgonia operators, all of a few kinds
//
// and a file for each family of operators. gorgonia's own operators serve where they are right: Conv of one group with
// symmetric padding, MaxPool without padding, Concat, Relu, LeakyRelu, Tanh and arithmetic of equal shapes. Its pools of averages,
// Softmax, normalisations and asymmetric padding are wrong, its Sigmoid is 1 from 19 on; ConvTranspose and Resize do not
// exist.
//
// onnx-go panics on malformed files and trusts sizes in them, so it is given only what our own encoder wrote; what
// still panics there or in gorgonia becomes an error.
package gorgonia
