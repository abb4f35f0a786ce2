package pruner

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
)

// colours is a model that finds red (class 1) and blue (class 2) on gray: two convolutions of 8 channels, of which
// channels 0 and 1 carry red, 2 and 3 blue and the others noise, and a head with one plane a class; with background the first
// plane is that. end is the graph's last operator, if it has one; layout that of input and output.
func colours(background bool, activation, end, layout string) *graph.Graph {
	rng := rand.New(rand.NewPCG(5, 5))
	g := &graph.Graph{Name: "colours", IR: 8, Opsets: map[string]int{"": 17}, Meta: map[string]string{
		"secateur.preprocess":  `{"size": [32, 32], "resize": "nearest", "layout": "` + layout + `"}`,
		"secateur.postprocess": `{"activation": "` + activation + `"}`,
	}}
	value := func(name string, shape ...int) *graph.Value {
		return &graph.Value{Name: name, Type: tensor.Type{DType: tensor.Float32, Shape: shape}}
	}
	constant := func(name string, v []float32, shape ...int) *graph.Value {
		c := &graph.Value{Name: name, Const: tensor.From(v, shape...)}
		g.Inits = append(g.Inits, c)
		return c
	}
	node := func(op, name string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
		n := &graph.Node{Op: op, Name: name, Attrs: attrs, Inputs: in}
		n.Outputs = []*graph.Value{{Name: name, Def: n}}
		g.Nodes = append(g.Nodes, n)
		return n.Outputs[0]
	}
	planes := 2
	if background {
		planes = 3
	}
	in, out := []int{1, 3, 32, 32}, []int{1, planes, 32, 32}
	if layout == "NHWC" {
		in, out = []int{1, 32, 32, 3}, []int{1, 32, 32, planes}
	}
	x := value("image", in...)
	g.Inputs = []*graph.Value{x}
	if layout == "NHWC" {
		x = node("Transpose", "first", graph.Attrs{graph.IntsAttr("perm", 0, 3, 1, 2)}, x)
	}
	noise := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(0.02 * rng.NormFloat64())
		}
		return v
	}
	w1, w2, w3 := noise(8*3), noise(8*8), noise(planes*8)
	for c := range 4 {
		w1[3*c+c/2*2] += 1 // red or blue
		w1[3*c+1]--        // minus green
		w2[8*c+c] += 1
		k := c / 2
		if background {
			k++
		}
		w3[8*k+c] += 8
	}
	bias := make([]float32, planes)
	if background {
		bias[0] = 3
	} else {
		bias[0], bias[1] = -3, -3
	}
	y := node("Relu", "r1", nil, node("Conv", "c1", nil, x, constant("w1", w1, 8, 3, 1, 1)))
	y = node("Relu", "r2", nil, node("Conv", "c2", nil, y, constant("w2", w2, 8, 8, 1, 1)))
	y = node("Conv", "head", nil, y, constant("w3", w3, planes, 8, 1, 1), constant("b3", bias, planes))
	axis := 1
	if layout == "NHWC" {
		y, axis = node("Transpose", "last", graph.Attrs{graph.IntsAttr("perm", 0, 2, 3, 1)}, y), 3
	}
	switch end {
	case "Softmax":
		y = node(end, "p", graph.Attrs{graph.IntAttr("axis", axis)}, y)
	case "Sigmoid":
		y = node(end, "p", nil, y)
	}
	y.Type = tensor.Type{DType: tensor.Float32, Shape: out}
	g.Outputs = []*graph.Value{y}
	return g
}

// blocks are images of a red and a blue rectangle on gray, with masks of indices: gray or of a palette.
func blocks(t *testing.T, seed uint64, n int) *calib.Set {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	var items []calib.Item
	for i := range n {
		const size = 40
		img := image.NewRGBA(image.Rect(0, 0, size, size))
		mask := image.NewPaletted(img.Rect, color.Palette{color.Black, color.RGBA{250, 0, 0, 255}, color.RGBA{0, 0, 250, 255}})
		for p := range size * size {
			g := byte(80 + rng.IntN(30))
			copy(img.Pix[4*p:], []byte{g, g, g, 255})
		}
		for class := 1; class <= 2; class++ {
			x0, y0 := rng.IntN(20)*(2-class)+20*(class-1), rng.IntN(20)
			for y := y0; y < y0+14; y++ {
				for x := x0; x < min(x0+14, 20*class); x++ {
					c := color.RGBA{60, 50, 60, 255}
					if class == 1 {
						c.R = 220
					} else {
						c.B = 220
					}
					img.Set(x, y, c)
					mask.SetColorIndex(x, y, uint8(class))
				}
			}
		}
		encode := func(m image.Image) []byte {
			var b bytes.Buffer
			if err := png.Encode(&b, m); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		it := calib.Item{Name: "blocks", Image: encode(img), Mask: encode(mask)}
		if i%2 == 1 {
			it.Mask = encode(&image.Gray{Pix: mask.Pix, Stride: mask.Stride, Rect: mask.Rect})
		}
		items = append(items, it)
	}
	s, err := calib.New(items)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Models of several classes, however they end and lie, are pruned by labels and without: what carries no class goes, and
// the classes stay told apart.
func TestSeveralClasses(t *testing.T) {
	fit, val := blocks(t, 1, 10), blocks(t, 2, 12)
	for _, c := range []struct {
		name       string
		background bool
		activation string
		end        string
		layout     string
	}{
		{"softmax", true, "softmax", "", "NCHW"},
		{"softmax in the graph", true, "none", "Softmax", "NCHW"},
		{"softmax, channels last", true, "softmax", "", "NHWC"},
		{"softmax in the graph, channels last", true, "none", "Softmax", "NHWC"},
		{"sigmoid", false, "sigmoid", "", "NCHW"},
		{"sigmoid in the graph", false, "none", "Sigmoid", "NCHW"},
		{"sigmoid, channels last", false, "sigmoid", "", "NHWC"},
	} {
		for _, unlabelled := range []bool{false, true} {
			g := colours(c.background, c.activation, c.end, c.layout)
			r, err := Prune(t.Context(), g, fit, val, Options{Target: Target{"filters", 0.4}, Unlabelled: unlabelled, Seed: 1, NoRepair: true})
			if err != nil {
				t.Fatalf("%s, unlabelled %v: %v", c.name, unlabelled, err)
			}
			v := r.Report.Gate
			if v.Labelled == unlabelled || v.N != 12 || v.Verdict != "pass" || v.Agreement.Mean < 0.97 {
				t.Errorf("%s, unlabelled %v: %s", c.name, unlabelled, v.Sentence)
			}
			if !unlabelled && v.Original.Dice < 0.9 {
				t.Errorf("%s: Dice of the original %g", c.name, v.Original.Dice)
			}
		}
	}
}

// A wrong class is as bad as none: masks with the classes exchanged take the Dice away.
func TestClassesAreToldApart(t *testing.T) {
	val := blocks(t, 2, 12)
	var items []calib.Item
	for _, it := range val.Items {
		m, err := vision.DecodeLabels(it.Mask, 2, vision.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range m.Pix {
			m.Pix[i] = (3 - v) % 3
		}
		items = append(items, calib.Item{Name: it.Name, Image: it.Image, Mask: m.PNG()})
	}
	swapped, err := calib.New(items)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Prune(t.Context(), colours(true, "softmax", "", "NCHW"), blocks(t, 1, 10), swapped, Options{Target: Target{"filters", 0.2}})
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Report.Gate.Original.Dice; d > 0.05 {
		t.Errorf("Dice %g against masks of the other classes", d)
	}
}

func TestMasksOfOtherClassesAreRefused(t *testing.T) {
	good := blocks(t, 1, 6)
	with := func(mask []byte) *calib.Set {
		items := append([]calib.Item{}, good.Items...)
		for i := range items {
			items[i].Mask = mask
		}
		s, err := calib.New(items)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	white := image.NewGray(image.Rect(0, 0, 40, 40))
	white.Pix[7] = 255
	var b bytes.Buffer
	if err := png.Encode(&b, white); err != nil {
		t.Fatal(err)
	}
	for want, set := range map[string]*calib.Set{
		"class 255":           with(b.Bytes()),
		"the image 40 x 40":   with(vision.NewMask(39, 40).PNG()),
		"mask of image \"blo": with([]byte("no picture")),
	} {
		_, err := Prune(t.Context(), colours(true, "softmax", "", "NCHW"), set, nil, Options{Target: Target{"filters", 0.2}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}

// What scoring is given as truth are the indices of the mask.
func TestTruthHasClasses(t *testing.T) {
	r := &run{g: colours(true, "softmax", "", "NHWC"), labels: true}
	if err := r.analyze(t.Context()); err != nil {
		t.Fatal(err)
	}
	ex, err := r.example(&blocks(t, 1, 1).Items[0])
	if err != nil {
		t.Fatal(err)
	}
	if ex.Truth.Area(1) == 0 || ex.Truth.Area(2) == 0 || ex.Truth.Classes != 2 {
		t.Errorf("truth of %d classes with %d pixels of the first and %d of the second", ex.Truth.Classes, ex.Truth.Area(1), ex.Truth.Area(2))
	}
}
