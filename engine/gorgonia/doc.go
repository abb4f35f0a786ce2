// Package gorgonia is the reference backend: onnx-go decodes the model, gorgonia computes it and differentiates it.
//
// It shares no arithmetic with the native engine, which makes it the oracle for that engine's outputs and for the
// pruner's gradients. It is slow, and lowers what a classic U-Net needs: Conv (one group, symmetric padding),
// BatchNormalization as scale and shift, Relu, LeakyRelu, Sigmoid, Tanh, MaxPool, Add, Mul, Concat, Identity, Dropout,
// and ConvTranspose as an operator of our own. Any other node is an error that names it.
//
// onnx-go panics on malformed files and trusts sizes in them, so it is given only what our own encoder wrote; what
// still panics there or in gorgonia becomes an error.
package gorgonia
