// Package engine runs ONNX segmentation models.
//
// A model goes through four steps: onnx.Decode makes a graph of bytes; [Compile] binds its shapes ([Infer]), rewrites a
// copy of it (package pass) and makes a kernel for every node (package op) into an immutable [Model]; [Model.NewSession]
// lays out the memory of one run at a time; [Session.Run] computes.
//
//	tensor   arrays          graph   the model           onnx      bytes <-> graph
//	op       the operators   pass    rewrites            kernel    the loops, and the assembly under them
//	vision   images, masks   predict images to masks     conform   ONNX's own tests
//
// What many goroutines share is immutable (Model), what one goroutine owns is scratch (Session).
package engine
