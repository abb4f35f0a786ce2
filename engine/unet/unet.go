// Package unet makes the classic U-Net with random weights: the network that segmentation engines are compared on, at any
// size, without a file.
package unet

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// levels is how often the image is halved.
const levels = 4

// Classic is a U-Net (Ronneberger et al., MICCAI 2015) as it is trained today: base channels at full size and twice as
// many at each of four levels down, two 3x3 convolutions with padding, BatchNormalization and Relu at each, MaxPool down,
// ConvTranspose up, Concat with what went down, and a 1x1 convolution to one logit. Input image [batch, 3, height, width],
// height and width multiples of 16; output logits. The weights follow from the seed, scaled so that activations neither
// grow nor fade (He et al., 2015).
func Classic(base int, seed uint64) *graph.Graph {
	b := &builder{rnd: rand.New(rand.NewPCG(seed, uint64(base))), g: &graph.Graph{
		Name: fmt.Sprintf("unet-%d", base), IR: 8, Opsets: map[string]int{"": 17}, Producer: graph.Producer{Name: "secateur"},
		Meta: map[string]string{
			"secateur.preprocess": `{"color":"RGB","layout":"NCHW","size":[256,256],"resize":"area","scale":0.00392156862745098,` +
				`"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}`,
			"secateur.postprocess": `{"activation":"sigmoid","threshold":0.5,"classes":["foreground"]}`,
		},
	}}
	x := &graph.Value{Name: "image", Type: floats(3)}
	b.g.Inputs = []*graph.Value{x}
	var skips []*graph.Value
	v, c := x, 3
	for level := range levels + 1 {
		m := base << level
		v = b.block(b.block(v, c, m), m, m)
		if c = m; level < levels {
			skips = append(skips, v)
			v = b.node("MaxPool", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)}, v)
		}
	}
	for level := levels - 1; level >= 0; level-- {
		m := base << level
		up := b.node("ConvTranspose", graph.Attrs{graph.IntsAttr("kernel_shape", 2, 2), graph.IntsAttr("strides", 2, 2)},
			v, b.normal(math.Sqrt(1/float64(c)), c, m, 2, 2), b.uniform(-0.1, 0.1, m))
		v = b.node("Concat", graph.Attrs{graph.IntAttr("axis", 1)}, skips[level], up)
		v = b.block(b.block(v, 2*m, m), m, m)
		c = m
	}
	v = b.node("Conv", graph.Attrs{graph.IntsAttr("kernel_shape", 1, 1)}, v, b.normal(math.Sqrt(1/float64(c)), 1, c, 1, 1), b.uniform(-0.1, 0.1, 1))
	v.Name, v.Type = "logits", floats(1)
	b.g.Outputs = []*graph.Value{v}
	return b.g
}

// floats is the type of an image of c channels.
func floats(c int) tensor.Type {
	return tensor.Type{DType: tensor.Float32, Shape: tensor.Shape{tensor.Unknown, c, tensor.Unknown, tensor.Unknown},
		Symbols: []string{"batch", "", "height", "width"}}
}

type builder struct {
	g   *graph.Graph
	rnd *rand.Rand
}

// block is a 3x3 convolution of c channels to m, normalised and rectified.
func (b *builder) block(x *graph.Value, c, m int) *graph.Value {
	v := b.node("Conv", graph.Attrs{graph.IntsAttr("kernel_shape", 3, 3), graph.IntsAttr("pads", 1, 1, 1, 1)},
		x, b.normal(math.Sqrt(2/float64(9*c)), m, c, 3, 3))
	v = b.node("BatchNormalization", nil, v, b.uniform(0.8, 1.2, m), b.uniform(-0.2, 0.2, m), b.uniform(-0.2, 0.2, m), b.uniform(0.5, 1.5, m))
	return b.node("Relu", nil, v)
}

func (b *builder) node(op string, attrs graph.Attrs, in ...*graph.Value) *graph.Value {
	name := fmt.Sprintf("%s_%d", op, len(b.g.Nodes))
	n := &graph.Node{Op: op, Name: name, Inputs: in, Attrs: attrs}
	v := &graph.Value{Name: name + "_output", Def: n}
	n.Outputs = []*graph.Value{v}
	b.g.Nodes = append(b.g.Nodes, n)
	return v
}

func (b *builder) normal(deviation float64, shape ...int) *graph.Value {
	return b.constant(shape, func() float64 { return deviation * b.rnd.NormFloat64() })
}

func (b *builder) uniform(lo, hi float64, shape ...int) *graph.Value {
	return b.constant(shape, func() float64 { return lo + (hi-lo)*b.rnd.Float64() })
}

func (b *builder) constant(shape []int, next func() float64) *graph.Value {
	t := tensor.New(tensor.Float32, shape...)
	for i, v := 0, tensor.Of[float32](t); i < len(v); i++ {
		v[i] = float32(next())
	}
	v := &graph.Value{Name: fmt.Sprintf("weight_%d", len(b.g.Inits)), Const: t}
	b.g.Inits = append(b.g.Inits, v)
	return v
}
