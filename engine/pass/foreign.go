package pass

import (
	"slices"

	"github.com/secateur/secateur/engine/graph"
)

// known lists the attributes of the operators that other passes join into private nodes, which understand more of them.
var known = map[string][]string{
	"Conv":          {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"},
	"ConvTranspose": {"auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides"},
	"Relu":          {},
	"LeakyRelu":     {"alpha"},
	"Sigmoid":       {},
	"Tanh":          {},
	"HardSigmoid":   {"alpha", "beta"},
	"HardSwish":     {},
	"Swish":         {"alpha"},
}

// DropForeign drops attributes that ONNX does not define for an operator. A file may have any; here they mean nothing, and
// must not begin to when the node is fused.
func DropForeign(g *graph.Graph, _ Info) {
	for _, n := range g.Nodes {
		names, ok := known[n.Op]
		if !ok || !isONNX(n, n.Op) {
			continue
		}
		var own graph.Attrs
		for _, a := range n.Attrs {
			if slices.Contains(names, a.Name) {
				own = append(own, a)
			}
		}
		n.Attrs = own
	}
}
