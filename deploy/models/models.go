// Package models embeds the default models, so that one binary serves without a download. MODEL_CARD.md says what they
// are, how good they are and on what terms they may be used.
package models

import (
	_ "embed"
	"slices"
)

// Model is an embedded ONNX file.
type Model struct {
	Name string
	ONNX []byte // must not be written to
}

//go:embed polyp-lite0.onnx
var lite0 []byte

//go:embed polyp-unet.onnx
var unet []byte

var all = []Model{{"polyp-lite0", lite0}, {"polyp-unet", unet}}

// All lists the embedded models, the default first.
func All() []Model { return slices.Clone(all) }

// Default is the more accurate of them, polyp-lite0.
func Default() Model { return all[0] }
