package vision

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// model is a graph of one node with an input of the given shape.
func model(last string, shape ...int) *graph.Graph {
	x := &graph.Value{Name: "image", Type: tensor.Type{DType: tensor.Float32, Shape: shape}}
	y := &graph.Value{Name: "logits"}
	n := &graph.Node{Op: last, Inputs: []*graph.Value{x}, Outputs: []*graph.Value{y}}
	y.Def = n
	return &graph.Graph{Inputs: []*graph.Value{x}, Outputs: []*graph.Value{y}, Nodes: []*graph.Node{n}}
}

func TestReadSpecDefaults(t *testing.T) {
	plain := Spec{
		Preprocess{Color: "RGB", Layout: "NCHW", Resize: "area", Scale: 1.0 / 255, Multiple: 32, Channels: 3},
		Postprocess{Activation: "sigmoid", Threshold: 0.5},
	}
	with := func(f func(*Spec)) Spec { s := plain; f(&s); return s }
	u := tensor.Unknown
	for _, c := range []struct {
		name string
		g    *graph.Graph
		want Spec
	}{
		{"no graph", nil, plain},
		{"free size", model("Conv", u, 3, u, u), plain},
		{"nothing known", model("Conv", u, u, u, u), plain},
		{"fixed size", model("Conv", 1, 3, 64, 96), with(func(s *Spec) { s.Pre.Size = []int{64, 96} })},
		{"channels last", model("Conv", 1, 64, 96, 3), with(func(s *Spec) { s.Pre.Layout, s.Pre.Size = "NHWC", []int{64, 96} })},
		{"gray", model("Conv", u, 1, u, u), with(func(s *Spec) { s.Pre.Channels = 1 })},
		{"ends in Sigmoid", model("Sigmoid", u, 3, u, u), with(func(s *Spec) { s.Post.Activation, s.Post.Inside = "none", "sigmoid" })},
		{"ends in Softmax", model("Softmax", u, 3, u, u), with(func(s *Spec) { s.Post.Activation, s.Post.Inside = "none", "softmax" })},
	} {
		if got, err := ReadSpec(nil, c.g); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

func TestReadSpecMetadata(t *testing.T) {
	meta := map[string]string{
		MetaPreprocess: `{"color": "BGR", "layout": "NCHW", "size": [256, 320], "resize": "bilinear", "scale": 0.5,
			"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}`,
		MetaPostprocess:     `{"activation": "softmax", "classes": ["background", "polyp"]}`,
		"secateur.training": "in words",
	}
	got, err := ReadSpec(meta, model("Conv", -1, 3, -1, -1))
	want := Spec{
		Preprocess{Color: "BGR", Layout: "NCHW", Size: []int{256, 320}, Resize: "bilinear", Scale: 0.5,
			Mean: []float64{0.1, 0.2, 0.3}, Std: []float64{1, 2, 3}, Multiple: 32, Channels: 3},
		Postprocess{Activation: "softmax", Threshold: 0.5, Classes: []string{"background", "polyp"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v, want %+v", got, err, want)
	}

	over, err := got.Override([]byte(`{"preprocess": {"mean": [9, 9, 9]}, "postprocess": {"activation": "sigmoid", "threshold": 0.25}}`))
	if err != nil || over.Pre.Mean[0] != 9 || over.Post.Threshold != 0.25 || over.Pre.Resize != "bilinear" {
		t.Fatalf("override: %+v, %v", over, err)
	}
	if got.Pre.Mean[0] != 0.1 {
		t.Error("an override wrote into the settings it began from")
	}
	if same, err := got.Override([]byte(`{}`)); err != nil || !reflect.DeepEqual(same, got) {
		t.Errorf("an empty override gives %+v, %v", same, err)
	}
}

func TestSpecRefuses(t *testing.T) {
	for _, c := range []struct{ doc, field string }{
		{`{"preprocess": {"colour": "RGB"}}`, "preprocess.colour"},
		{`{"preprocess": {"Color": "RGB"}}`, "preprocess.Color"},
		{`{"prepare": {}}`, "model.json.prepare"},
		{`{"postprocess": {"Inside": "sigmoid"}}`, "postprocess.Inside"},
		{`{"preprocess": {"color": "HSV"}}`, "preprocess.color"},
		{`{"preprocess": {"color": 3}}`, "preprocess.color"},
		{`{"preprocess": {"layout": "CHWN"}}`, "preprocess.layout"},
		{`{"preprocess": {"size": [1, 2, 3]}}`, "preprocess.size"},
		{`{"preprocess": {"size": [0, 2]}}`, "preprocess.size"},
		{`{"preprocess": {"size": [100000, 100000]}}`, "preprocess.size"},
		{`{"preprocess": {"resize": "cubic"}}`, "preprocess.resize"},
		{`{"preprocess": {"scale": 0}}`, "preprocess.scale"},
		{`{"preprocess": {"mean": [1]}}`, "preprocess.mean"},
		{`{"preprocess": {"std": [1, 0, 1]}}`, "preprocess.std"},
		{`{"preprocess": {"multiple": 0}}`, "preprocess.multiple"},
		{`{"postprocess": {"activation": "relu"}}`, "postprocess.activation"},
		{`{"postprocess": {"threshold": 2}}`, "postprocess.threshold"},
		{`{"preprocess": `, "model.json"},
		{`[1]`, "model.json"},
	} {
		base, err := ReadSpec(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = base.Override([]byte(c.doc))
		fe := (*FormatError)(nil)
		if !errors.As(err, &fe) || fe.Field != c.field || fe.Reason == "" {
			t.Errorf("%s: %v, want a FormatError of field %s", c.doc, err, c.field)
		}
	}
	for name, meta := range map[string]string{"size": `{"size": [32, 32]}`, "layout": `{"layout": "NHWC"}`} {
		_, err := ReadSpec(map[string]string{MetaPreprocess: meta}, model("Conv", 1, 3, 64, 64))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a %s that contradicts the graph gives %v", name, err)
		}
	}
}

func FuzzOverride(f *testing.F) {
	f.Add([]byte(`{"preprocess": {"size": [256, 256], "mean": [0, 0, 0]}, "postprocess": {"classes": ["a"]}}`))
	f.Add([]byte(`{"preprocess": null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		base, err := ReadSpec(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := base.Override(doc)
		if fe := (*FormatError)(nil); err != nil {
			if !errors.As(err, &fe) {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		// What is accepted can be used.
		if n := s.InputType(&Image{W: 3, H: 2}).Shape.Elems(); n <= 0 {
			t.Fatalf("accepted %s, input of %d elements", doc, n)
		}
	})
}

func TestInputType(t *testing.T) {
	s, err := ReadSpec(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ w, h, tw, th int }{{622, 530, 608, 544}, {1, 1, 32, 32}, {64, 32, 64, 32}, {3840, 2160, 3840, 2176}} {
		got := s.InputType(&Image{W: c.w, H: c.h})
		if want := (tensor.Shape{1, 3, c.th, c.tw}); got.DType != tensor.Float32 || !reflect.DeepEqual(got.Shape, want) {
			t.Errorf("%dx%d becomes %v, want %v", c.w, c.h, got, want)
		}
	}
	s.Pre.Size, s.Pre.Layout = []int{7, 9}, "NHWC"
	if got := s.InputType(&Image{W: 100, H: 100}); !reflect.DeepEqual(got.Shape, tensor.Shape{1, 7, 9, 3}) {
		t.Errorf("a fixed size becomes %v", got)
	}
}

// Prepare by hand: two pixels, every layout and channel order.
func TestPrepare(t *testing.T) {
	img := &Image{W: 2, H: 1, Pix: []byte{10, 20, 30, 40, 50, 60}}
	mean, std := []float64{1, 2, 3}, []float64{2, 4, 5}
	for _, c := range []struct {
		color, layout string
		channels      int
		want          []float64
	}{
		{"RGB", "NCHW", 3, []float64{2, 9.5, 2, 5.75, 2.4, 5.4}},
		{"BGR", "NCHW", 3, []float64{7, 14.5, 2, 5.75, 0.4, 3.4}},
		{"RGB", "NHWC", 3, []float64{2, 2, 2.4, 9.5, 5.75, 5.4}},
		{"BGR", "NHWC", 3, []float64{7, 2, 0.4, 14.5, 5.75, 3.4}},
		// luma 18.15 and 48.15 are 18 and 48
		{"RGB", "NCHW", 1, []float64{4, 11.5}},
		{"RGB", "NHWC", 1, []float64{4, 11.5}},
	} {
		s := Spec{Pre: Preprocess{Color: c.color, Layout: c.layout, Channels: c.channels, Resize: "area", Scale: 0.5,
			Mean: mean[:c.channels], Std: std[:c.channels], Size: []int{1, 2}, Multiple: 1}}
		for _, dt := range []tensor.DType{tensor.Float32, tensor.Float64} {
			x := tensor.New(dt, s.InputType(img).Shape...)
			if err := s.Prepare(x, img); err != nil {
				t.Fatal(err)
			}
			got, _ := x.Float64s()
			for i, v := range c.want {
				if d := got[i] - v; d > 1e-6 || d < -1e-6 {
					t.Errorf("%s %s %d channels: %v, want %v", c.color, c.layout, c.channels, got, c.want)
					break
				}
			}
		}
		if s.Prepare(tensor.New(tensor.Float32, 1, 2, 3, 4), img) == nil {
			t.Error("an input of another shape is accepted")
		}
		if s.Prepare(tensor.New(tensor.Int32, s.InputType(img).Shape...), img) == nil {
			t.Error("an input of int32 is accepted")
		}
		if s.Prepare(tensor.New(tensor.Float32, s.InputType(img).Shape...), &Image{W: 2, H: 2}) == nil {
			t.Error("an image without pixels is accepted")
		}
	}
}
