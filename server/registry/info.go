package registry

import (
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// Info is version.json: what a version is and where it came from.
type Info struct {
	Model        string    `json:"model"`
	Version      uint64    `json:"version"`
	SHA256       string    `json:"sha256"` // of model.onnx, in hex
	Size         int64     `json:"size"`   // of model.onnx, in bytes
	Parent       uint64    `json:"parent,omitempty"`
	Source       Source    `json:"source"`
	Created      time.Time `json:"created"`
	Inputs       []Tensor  `json:"inputs"`
	Outputs      []Tensor  `json:"outputs"`
	Parameters   int64     `json:"parameters"`
	MACs         int64     `json:"macs"`          // multiply-adds at ServingShape
	ServingShape []int     `json:"serving_shape"` // of the input
	Verdict      string    `json:"verdict,omitempty"`
	Calibration  string    `json:"calibration,omitempty"`
	Note         string    `json:"note,omitempty"`
	HasReport    bool      `json:"has_report,omitempty"`
}

// Tensor is an input or output of a model.
type Tensor struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape []int  `json:"shape"` // -1 for a dimension that is free
}

// describe fills in what follows from the file.
func (i *Info) describe(g *graph.Graph, file []byte, run Runner) {
	i.SHA256, i.Size = sum(file), int64(len(file))
	i.Inputs, i.Outputs = nil, nil
	for _, v := range engine.Inputs(g) {
		i.Inputs = append(i.Inputs, signature(v))
	}
	for _, v := range g.Outputs {
		i.Outputs = append(i.Outputs, signature(v))
	}
	// A model whose cost cannot be counted serves all the same.
	if c, in, err := run.Cost(); err == nil {
		i.Parameters, i.MACs, i.ServingShape = c.Parameters, c.MACs, in.Shape
	}
}

func signature(v *graph.Value) Tensor {
	t := Tensor{Name: v.Name, Type: v.Type.DType.String()}
	for _, d := range v.Type.Shape {
		if d == tensor.Unknown {
			d = -1
		}
		t.Shape = append(t.Shape, d)
	}
	return t
}
