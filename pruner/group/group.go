// Package group finds which channels of a model stand or fall together.
//
// Every layer of weights mints a channel id for each channel it yields; operators carry ids along, tie them (an Add
// needs both its operands' channels) or pin them (a Softmax over channels reads all of them together). What is tied is a
// [Class], the unit of removal. [Analyze] also notes what a removal has to rewrite: axes of constants ([Slice]), numbers
// that count channels ([Count]) and lists of channels ([Pick]). Package rewrite applies these notes, package pruner counts costs by them.
//
// The rules are a table, one row per operator (rules.go); an operator without a row pins what it reads.
package group

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/grad"
)

// Class is a set of channels that can only be removed together.
type Class struct {
	ID      int
	Members []Member
	Pinned  string // why it cannot be removed, in words; empty if it can
}

// Member is one channel of what a layer yields.
type Member struct {
	Value    *graph.Value
	Axis     int
	Position int
}

// Slice says that axis Axis of a constant input has one entry per channel; Class gives the class of each, -1 where it
// is pinned.
type Slice struct {
	Node  *graph.Node
	Input int
	Axis  int
	Class []int
	Of    *graph.Node // the layer whose weights these are, where they are
}

// Count says that a number counts channels: element Index of the input Input, or of the attribute Attr (Index
// -1: the attribute is one integer), is to be the number of entries of Class[:Of] that stay, once any of Class goes. One of
// Class[From:Of] must, if there are any.
type Count struct {
	Node  *graph.Node
	Input int
	Attr  string
	Index int
	Class []int
	From  int
	Of    int
	// Computed is the list where the graph computes it, which a constant is to replace; nil where it is one already.
	Computed *tensor.Tensor
}

// Pick says that the constant input Input lists channels by number, from Class: those that go leave the list, and the
// others get the numbers that they have afterwards.
type Pick struct {
	Node  *graph.Node
	Input int
	Class []int // of every channel that could be listed
	Takes []int // of those that are
}

// Layer is a node that yields channels.
type Layer struct {
	Node     *graph.Node
	Name     string
	Op       string
	Channels int
	// Prunable is how many of the channels are in a class that can be removed.
	Prunable int
	// Pinned says in words why the other channels cannot be removed; empty if all can.
	Pinned string
	// Follows: the layer has no channels of its own, a depthwise convolution keeps those it reads.
	Follows bool
	// Class is the class of each channel, -1 where it is pinned.
	Class []int
}

// Analysis is what Analyze found. It is immutable and belongs to the graph it was made from.
type Analysis struct {
	Classes []Class
	Slices  []Slice
	Counts  []Count
	Picks   []Pick
	layers  []Layer
	edges   []grad.Edge
	class   map[grad.Edge][]int
	axis    map[grad.Edge]int
	along   map[string][]int
	reads   map[string][]int
}

// Layers lists the nodes that yield channels, in graph order.
func (a *Analysis) Layers() []Layer { return a.layers }

// Edges lists where channels are read by weights: the data inputs of Conv, ConvTranspose, Gemm and MatMul. Masking a class
// means zeroing its positions there.
func (a *Analysis) Edges() []grad.Edge { return a.edges }

// Channels gives the class of each channel of the value of that name, -1 where it is pinned; nil if it has no channels of
// any layer, or there is no such value.
func (a *Analysis) Channels(value string) []int { return a.along[value] }

// Reads gives the class of each channel that the layer reads which yields the value of that name; nil if there is none.
func (a *Analysis) Reads(value string) []int { return a.reads[value] }

// EdgeClasses gives the class of each position along the channel axis of an edge, -1 where it is pinned.
func (a *Analysis) EdgeClasses(e grad.Edge) []int { return a.class[e] }

// EdgeAxis is the axis of the edge's value along which channels lie.
func (a *Analysis) EdgeAxis(e grad.Edge) int { return a.axis[e] }

// ClassOf is the class of one position along the channel axis of an edge; -1 if it is pinned or there is none.
func (a *Analysis) ClassOf(e grad.Edge, position int) int {
	c := a.class[e]
	if position < 0 || position >= len(c) {
		return -1
	}
	return c[position]
}

// Free lists the classes that can be removed.
func (a *Analysis) Free() []int {
	var ids []int
	for _, c := range a.Classes {
		if c.Pinned == "" {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// Analyze finds the classes of g. info gives type and, where known, value of every value of g, as engine.Infer does.
func Analyze(g *graph.Graph, info map[*graph.Value]op.Arg) (*Analysis, error) {
	a := &analyzer{
		g: g, info: info, at: map[*graph.Value]chans{}, dims: map[*graph.Value][]origin{},
		parent: []int{fixed}, reason: []string{fixedReason}, born: []Member{{}},
	}
	for _, n := range g.Nodes {
		for _, v := range slices.Concat(n.Inputs, n.Outputs) {
			if v != nil && v.Const == nil && info[v].Type.DType == tensor.Undefined && len(n.Subgraphs()) == 0 {
				return nil, fmt.Errorf("analyze channels: node %v: the type of %q is not known", n, v.Name)
			}
		}
		a.node(n)
	}
	for _, v := range g.Outputs {
		a.pin(v, fmt.Sprintf("it is the model's output %q", v.Name))
		a.pinDims(v, fmt.Sprintf("the model's output %q tells its channel count", v.Name))
	}
	return a.finish(), nil
}

// Weights is the initializer or the Constant node behind v, through Identity; nil if v is computed or an input.
func Weights(v *graph.Value) *graph.Value {
	for v != nil {
		switch {
		case v.Const != nil:
			return v
		case v.Def == nil:
			return nil
		case v.Def.Op == "Constant" && v.Def.Attrs.Tensor("value") != nil:
			return v
		case v.Def.Op == "Identity":
			v = v.Def.Input(0)
		default:
			return nil
		}
	}
	return nil
}

// dequantizes is the DequantizeLinear node that makes v from a constant by constants; nil if none does.
func dequantizes(v *graph.Value) *graph.Node {
	if v == nil || v.Def == nil || v.Def.Op != "DequantizeLinear" || WeightTensor(v.Def.Input(0)) == nil ||
		WeightTensor(v.Def.Input(1)) == nil || v.Def.Attrs.Int("block_size", 0) != 0 {
		return nil
	}
	return v.Def
}

// Stored is the tensor behind v, quantised if it is stored so; nil if v is computed or an input.
func Stored(v *graph.Value) *tensor.Tensor {
	if q := dequantizes(v); q != nil {
		v = q.Input(0)
	}
	return WeightTensor(v)
}

// WeightType is the element type of what a layer reads as weights, which may be stored quantised.
func WeightType(v *graph.Value) tensor.DType {
	if q := dequantizes(v); q != nil {
		v = q.Input(1)
	}
	if t := WeightTensor(v); t != nil {
		return t.DType
	}
	return tensor.Undefined
}

// WeightTensor is the tensor behind v as the file has it; nil where Weights is.
func WeightTensor(v *graph.Value) *tensor.Tensor {
	w := Weights(v)
	switch {
	case w == nil:
		return nil
	case w.Const != nil:
		return w.Const
	}
	return w.Def.Attrs.Tensor("value")
}
