// Package vision is what lies between image files and tensors: bytes to pixels ([Decode]), pixels to a model's input
// ([Spec.Prepare]), a model's logits to probabilities and a mask at the image's own size ([Spec.Probabilities],
// [Spec.Mask]), and the measures that compare masks ([Compare]).
//
// A [Spec] says what one model needs. It is written in the model's metadata and read by [ReadSpec]. The server and the
// pruner share this package, so that a model is judged on exactly the pixels it will serve.
package vision
