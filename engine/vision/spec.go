package vision

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// Spec is what one model needs done before and after it runs.
type Spec struct {
	Pre  Preprocess
	Post Postprocess
}

// Preprocess says how pixels become the model's input: resize, pixel*Scale, minus Mean, over Std, channel by channel.
type Preprocess struct {
	Color    string    `json:"color"`    // RGB or BGR: the order of the channels, of Mean and of Std
	Layout   string    `json:"layout"`   // NCHW or NHWC
	Size     []int     `json:"size"`     // [height, width]; absent: the image's own size, rounded to Multiple
	Resize   string    `json:"resize"`   // area, bilinear, bilinear-antialias or nearest
	Scale    float64   `json:"scale"`    // multiplies the 0-255 value
	Mean     []float64 `json:"mean"`     // one a channel; absent: 0
	Std      []float64 `json:"std"`      // one a channel; absent: 1
	Multiple int       `json:"multiple"` // what height and width must be a multiple of where Size is absent

	// Channels is 3, or 1 for a model that takes gray (the luma of ITU-R BT.601). It follows from the graph.
	Channels int `json:"-"`
}

// Postprocess says how logits become probabilities and a mask.
type Postprocess struct {
	Activation string   `json:"activation"` // sigmoid, softmax or none
	Threshold  float64  `json:"threshold"`  // a pixel belongs to a class if its probability is greater; not for softmax
	Classes    []string `json:"classes"`    // the index is the channel; with softmax the first is the background

	// Inside is the activation that the graph itself ends in, sigmoid or softmax, where Activation is none; else empty.
	Inside string `json:"-"`
}

// The keys of metadata_props that hold a Spec, as JSON.
const (
	MetaPreprocess  = "secateur.preprocess"
	MetaPostprocess = "secateur.postprocess"
)

// ReadSpec reads a model's metadata. What the metadata does not say is RGB, 1/255, no mean or deviation, area, layout,
// channels and size as far as the graph's input declares them, and a sigmoid with threshold 0.5, unless the graph ends in
// Sigmoid or Softmax. Unknown keys and impossible values are a *FormatError that names them.
func ReadSpec(meta map[string]string, g *graph.Graph) (Spec, error) {
	s := Spec{
		Pre:  Preprocess{Color: "RGB", Layout: "NCHW", Resize: "area", Scale: 1.0 / 255, Multiple: 32, Channels: 3},
		Post: Postprocess{Activation: "sigmoid", Threshold: 0.5},
	}
	var declared tensor.Shape
	if g != nil {
		declared = s.fromGraph(g)
	}
	if err := strict(meta[MetaPreprocess], "preprocess", &s.Pre); err != nil {
		return Spec{}, err
	}
	if err := strict(meta[MetaPostprocess], "postprocess", &s.Post); err != nil {
		return Spec{}, err
	}
	s, err := s.settle()
	if err != nil {
		return Spec{}, err
	}
	return s, s.agree(declared)
}

// fromGraph takes from the graph what it says, and returns the declared shape of its image input.
func (s *Spec) fromGraph(g *graph.Graph) tensor.Shape {
	var shape tensor.Shape
	for _, v := range g.Inputs {
		if v.Const == nil && len(v.Type.Shape) == 4 {
			shape = v.Type.Shape
			break
		}
	}
	if shape != nil {
		few := func(d int) bool { return d == 1 || d == 3 }
		if !few(shape[1]) && few(shape[3]) {
			s.Pre.Layout = "NHWC"
		}
		if shape[channelAxis(s.Pre.Layout)] == 1 {
			s.Pre.Channels = 1
		}
		if h, w := sides(shape, s.Pre.Layout); h > 0 && w > 0 {
			s.Pre.Size = []int{h, w}
		}
	}
	if len(g.Outputs) > 0 {
		n := g.Outputs[0].Def
		for n != nil && n.Op == "Identity" && n.Input(0) != nil {
			n = n.Input(0).Def
		}
		if n == nil {
			return shape
		}
		switch op := n.Op; op {
		case "Sigmoid", "Softmax":
			s.Post.Activation, s.Post.Inside = "none", strings.ToLower(op)
		}
	}
	return shape
}

func channelAxis(layout string) int {
	if layout == "NHWC" {
		return 3
	}
	return 1
}

func sides(shape tensor.Shape, layout string) (h, w int) {
	if layout == "NHWC" {
		return shape[1], shape[2]
	}
	return shape[2], shape[3]
}

// agree checks the settings against the shape that the graph declares, where it declares one.
func (s Spec) agree(shape tensor.Shape) error {
	if shape == nil {
		return nil
	}
	h, w := sides(shape, s.Pre.Layout)
	if c := shape[channelAxis(s.Pre.Layout)]; c > 0 && c != s.Pre.Channels {
		return &FormatError{"preprocess.layout", fmt.Sprintf("layout %s gives the model's input %v %d channels, want 1 or 3", s.Pre.Layout, []int(shape), c)}
	}
	if s.Pre.Size != nil && (h > 0 && h != s.Pre.Size[0] || w > 0 && w != s.Pre.Size[1]) {
		return &FormatError{"preprocess.size", fmt.Sprintf("%v does not fit the model's input %v", s.Pre.Size, []int(shape))}
	}
	return nil
}

// Override replaces settings by those in a document {"preprocess": {…}, "postprocess": {…}}, the content of a model.json.
// Keys that are absent keep their value. Every error is a *FormatError that names the key.
func (s Spec) Override(doc []byte) (Spec, error) {
	var parts struct {
		Pre  json.RawMessage `json:"preprocess"`
		Post json.RawMessage `json:"postprocess"`
	}
	if err := strict(string(doc), "model.json", &parts); err != nil {
		return Spec{}, err
	}
	// The document must not write into the slices that s shares with its copies.
	s.Pre.Size, s.Pre.Mean, s.Pre.Std = slices.Clone(s.Pre.Size), slices.Clone(s.Pre.Mean), slices.Clone(s.Pre.Std)
	s.Post.Classes = slices.Clone(s.Post.Classes)
	if err := strict(string(parts.Pre), "preprocess", &s.Pre); err != nil {
		return Spec{}, err
	}
	if err := strict(string(parts.Post), "postprocess", &s.Post); err != nil {
		return Spec{}, err
	}
	return s.settle()
}

// settle checks the settings and drops what the graph ends in where the model is said to need an activation of its own.
func (s Spec) settle() (Spec, error) {
	if s.Post.Activation != "none" {
		s.Post.Inside = ""
	}
	if err := s.check(); err != nil {
		return Spec{}, err
	}
	return s, nil
}

// strict decodes one JSON object over v. Nothing at all leaves v as it is.
func strict(doc, field string, v any) error {
	if doc == "" {
		return nil
	}
	// encoding/json matches keys in any case; these are to be written one way, as in every model file.
	var keys map[string]json.RawMessage
	err := json.Unmarshal([]byte(doc), &keys)
	if err == nil {
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			if !slices.Contains(jsonKeys(v), k) {
				return &FormatError{field + "." + k, fmt.Sprintf("unknown key %q; %s are known", k, strings.Join(jsonKeys(v), ", "))}
			}
		}
		err = json.Unmarshal([]byte(doc), v)
	}
	if err == nil {
		return nil
	}
	if te := (*json.UnmarshalTypeError)(nil); errors.As(err, &te) && te.Field != "" {
		return &FormatError{field + "." + te.Field, fmt.Sprintf("want %v, got %s", te.Type, te.Value)}
	}
	return &FormatError{field, fmt.Sprintf("reading JSON: %v", err)}
}

func jsonKeys(v any) []string {
	var keys []string
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		if k := t.Field(i).Tag.Get("json"); k != "-" {
			keys = append(keys, k)
		}
	}
	return keys
}

// maxSide bounds what settings may ask of the engine.
const maxSide = 16384

func (s Spec) check() error {
	p, q := s.Pre, s.Post
	for _, c := range []struct {
		field, v string
		known    []string
	}{
		{"preprocess.color", p.Color, []string{"RGB", "BGR"}},
		{"preprocess.layout", p.Layout, []string{"NCHW", "NHWC"}},
		{"preprocess.resize", p.Resize, []string{"area", "bilinear", "bilinear-antialias", "nearest"}},
		{"postprocess.activation", q.Activation, []string{"sigmoid", "softmax", "none"}},
	} {
		if !slices.Contains(c.known, c.v) {
			return &FormatError{c.field, fmt.Sprintf("unknown value %q; %s are known", c.v, strings.Join(c.known, ", "))}
		}
	}
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	switch {
	case p.Size != nil && (len(p.Size) != 2 || p.Size[0] < 1 || p.Size[1] < 1 || p.Size[0] > maxSide || p.Size[1] > maxSide || p.Size[0]*p.Size[1] > DefaultMaxPixels):
		return &FormatError{"preprocess.size", fmt.Sprintf("want [height, width], each 1 to %d, got %v", maxSide, p.Size)}
	case p.Multiple < 1 || p.Multiple > maxSide:
		return &FormatError{"preprocess.multiple", fmt.Sprintf("want 1 to %d, got %d", maxSide, p.Multiple)}
	case !finite(p.Scale) || p.Scale == 0:
		return &FormatError{"preprocess.scale", fmt.Sprintf("want a number other than 0, got %g", p.Scale)}
	case p.Channels != 1 && p.Channels != 3:
		return &FormatError{"preprocess", fmt.Sprintf("the model takes %d channels, want 1 or 3", p.Channels)}
	case len(p.Mean) != 0 && len(p.Mean) != p.Channels:
		return &FormatError{"preprocess.mean", fmt.Sprintf("want %d numbers, got %d", p.Channels, len(p.Mean))}
	case len(p.Std) != 0 && len(p.Std) != p.Channels:
		return &FormatError{"preprocess.std", fmt.Sprintf("want %d numbers, got %d", p.Channels, len(p.Std))}
	case slices.Contains(p.Std, 0):
		return &FormatError{"preprocess.std", "a deviation is 0"}
	case !finite(q.Threshold) || q.Threshold < 0 || q.Threshold > 1:
		return &FormatError{"postprocess.threshold", fmt.Sprintf("want 0 to 1, got %g", q.Threshold)}
	case len(q.Classes) > maxClasses:
		return &FormatError{"postprocess.classes", fmt.Sprintf("%d classes, a mask holds %d", len(q.Classes), maxClasses)}
	}
	return nil
}

// maxClasses is what the 8-bit index of a Mask can tell apart.
const maxClasses = 255
