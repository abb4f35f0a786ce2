package pass

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
)

// MergeEqual makes one node of those that apply one operator with the same attributes to the same inputs. Inputs are the
// same if they are one value, or small constants of the same bits.
func MergeEqual(g *graph.Graph, _ Info) {
	r, numbers := rewire(g), numbering{of: map[*graph.Value]int{}, constants: map[string]int{}}
	first := map[string]*graph.Node{}
	for _, n := range g.Nodes {
		key, ok := numbers.key(n)
		if !ok {
			continue
		}
		m := first[key]
		if m == nil {
			first[key] = n
			continue
		}
		r.gone[n] = true
		for i, v := range n.Outputs {
			if v != nil {
				numbers.of[v] = numbers.number(m.Outputs[i])
				r.gone[n] = r.gone[n] && r.can(v, m.Outputs[i])
			}
		}
		if !r.gone[n] {
			continue
		}
		for i, v := range n.Outputs {
			if v != nil {
				r.replace(v, m.Outputs[i])
			}
		}
	}
	r.apply()
}

// numbering gives values numbers; those that are the same have the same.
type numbering struct {
	of        map[*graph.Value]int
	constants map[string]int
}

// maxCompared is how many bytes of a constant are compared: bounds, shapes and scales are short, and weights are not
// written twice.
const maxCompared = 1 << 10

func (ns numbering) number(v *graph.Value) int {
	if n, ok := ns.of[v]; ok {
		return n
	}
	n := len(ns.of) + 1
	if c := v.Const; c != nil && c.DType != tensor.String && len(c.Data) <= maxCompared {
		b := binary.LittleEndian.AppendUint32(nil, uint32(c.DType))
		for _, d := range c.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(d))
		}
		key := string(b) + "\x00" + string(c.Data)
		if m, ok := ns.constants[key]; ok {
			n = m
		}
		ns.constants[key] = n
	}
	ns.of[v] = n
	return n
}

// random is the operators that need not yield the same twice.
var random = []string{"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}

// key says all that decides what a node yields; ok is false if it cannot be said in short.
func (ns numbering) key(n *graph.Node) (key string, ok bool) {
	if slices.Contains(random, n.Op) || len(n.Extra) > 0 {
		return "", false
	}
	var b []byte
	word := func(x uint64) { b = binary.LittleEndian.AppendUint64(b, x) }
	text := func(s string) { word(uint64(len(s))); b = append(b, s...) }
	text(n.Op)
	text(strings.TrimPrefix(n.Domain, "ai.onnx"))
	text(n.Overload)
	word(uint64(len(n.Inputs)))
	for _, v := range n.Inputs {
		if v == nil {
			word(0)
			continue
		}
		word(uint64(ns.number(v)))
	}
	word(uint64(len(n.Outputs)))
	for _, v := range n.Outputs { // which are there: what one lacks, the other cannot give
		b = append(b, '0')
		if v != nil {
			b[len(b)-1] = '1'
		}
	}
	attrs := slices.Clone(n.Attrs)
	slices.SortStableFunc(attrs, func(a, b graph.Attr) int { return strings.Compare(a.Name, b.Name) })
	for _, a := range attrs {
		if a.Tensor != nil || a.Graph != nil || len(a.Tensors)+len(a.Graphs)+len(a.Extra) > 0 || a.Ref != "" {
			return "", false
		}
		text(a.Name)
		word(uint64(a.Kind))
		word(uint64(a.Int))
		word(uint64(math.Float32bits(a.Float)))
		text(string(a.Str))
		word(uint64(len(a.Ints)))
		for _, x := range a.Ints {
			word(uint64(x))
		}
		word(uint64(len(a.Floats)))
		for _, x := range a.Floats {
			word(uint64(math.Float32bits(x)))
		}
		word(uint64(len(a.Strs)))
		for _, x := range a.Strs {
			text(string(x))
		}
	}
	return string(b), true
}
