// Package pass rewrites graphs into faster ones that compute the same.
//
// Passes run when a model is compiled, on a copy whose shapes are bound, never on what is pruned or written back. One
// rewrite per file; each states one law, Run(Optimize(g)) == Run(g).
package pass

import (
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// Info is what shape inference found: the type of every value and the value of those that are constant.
type Info map[*graph.Value]op.Arg

// Pass is one rewrite.
type Pass struct {
	Name string
	Run  func(g *graph.Graph, info Info)
}

// Passes lists the rewrites in the order they run. What a file says beside ONNX goes before anything is fused. Folding
// constants first lets the later ones see literal scales. What does nothing goes next, so that patterns stand together; then
// equal nodes, so that values which are the same are one. An activation is restored while its number still stands by
// itself, and what scales and moves channels goes before the clamps, which then stand right behind the convolution.
var Passes = []Pass{
	{"drop foreign attributes", DropForeign},
	{"fold constants", FoldConstants},
	{"merge transposes", MergeTransposes},
	{"merge reshapes", MergeReshapes},
	{"drop identities", DropIdentities},
	{"merge equal nodes", MergeEqual},
	{"merge clips", MergeClips},
	{"restore activations", RestoreActivations},
	{"fold pads", FoldPads},
	{"fold affine", FoldAffine},
	{"fuse clamps", FuseClamps},
	{"fuse sources", FuseSources},
	{"fuse swish", FuseSwish},
	{"fuse epilogues", FuseEpilogues},
	{"drop dead code", DropDead},
}

// Optimize runs every pass on g, which it changes.
func Optimize(g *graph.Graph, info Info) {
	for _, p := range Passes {
		p.Run(g, info)
	}
}

// outputs is the set of values that leave the graph.
func outputs(g *graph.Graph) map[*graph.Value]bool {
	outs := make(map[*graph.Value]bool, len(g.Outputs))
	for _, v := range g.Outputs {
		outs[v] = true
	}
	return outs
}

// constant adds an initializer.
func constant(g *graph.Graph, info Info, name string, t *tensor.Tensor) *graph.Value {
	v := &graph.Value{Name: name, Const: t}
	g.Inits = append(g.Inits, v)
	info[v] = op.Arg{Type: t.Type(), Const: t}
	return v
}

// soleReader is the only node that reads v, or nil if there are several, or v leaves the graph as well.
func soleReader(outs map[*graph.Value]bool, uses map[*graph.Value][]graph.Use, v *graph.Value) *graph.Node {
	u := uses[v]
	if len(u) != 1 || u[0].Input != 0 || outs[v] {
		return nil
	}
	return u[0].Node
}

// isONNX reports whether n is one of ONNX's own operators of that name.
func isONNX(n *graph.Node, name string) bool {
	return n.Op == name && (n.Domain == "" || n.Domain == "ai.onnx")
}

// isConv reports whether n is a convolution, fused or not, whose weights (and bias) are constant.
func isConv(n *graph.Node, info Info) bool {
	if n.Op != "Conv" && n.Op != "ConvTranspose" || n.Domain != "" && n.Domain != "ai.onnx" && n.Domain != op.Private {
		return false
	}
	if len(n.Outputs) != 1 || n.Outputs[0] == nil || len(n.Inputs) < 2 || n.Inputs[1] == nil || info[n.Inputs[1]].Const == nil {
		return false
	}
	b := n.Input(2)
	return b == nil || info[b].Const != nil
}

func sameType(a, b tensor.Type) bool { return a.DType == b.DType && slices.Equal(a.Shape, b.Shape) }

// fits reports whether n, as a pass would have it, is valid and yields what it yields now. Limits are seen to by that.
func fits(g *graph.Graph, n *graph.Node, info Info) bool {
	s := site(g, n, info)
	want := s.Out
	def, err := op.Lookup(n, s.Opset)
	if err != nil {
		return false
	}
	got, err := def.Infer(s)
	if err != nil || len(got) < len(want) {
		return false
	}
	for i, v := range n.Outputs {
		if v != nil && !sameType(got[i], want[i]) {
			return false
		}
	}
	return true
}

// drop removes nodes.
func drop(g *graph.Graph, gone map[*graph.Node]bool) {
	var nodes []*graph.Node
	for _, n := range g.Nodes {
		if !gone[n] {
			nodes = append(nodes, n)
		}
	}
	g.Nodes = nodes
}

// site is what operators are told of a node.
func site(g *graph.Graph, n *graph.Node, info Info) *op.Site {
	s := &op.Site{Node: n, Opset: g.Opset(n.Domain), In: make([]op.Arg, len(n.Inputs)), Out: make([]tensor.Type, len(n.Outputs))}
	if n.Domain == op.Private {
		s.Opset = 1
	}
	for i, v := range n.Inputs {
		if v != nil {
			s.In[i] = info[v]
		}
	}
	for i, v := range n.Outputs {
		if v != nil {
			s.Out[i] = info[v].Type
		}
	}
	s.Float = s.DType(0)
	return s
}
