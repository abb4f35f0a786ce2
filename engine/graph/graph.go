// Package graph is the form of a model that the engine and the pruner share: nodes in dependency order, each value
// assigned once.
//
// A graph is what the file says and nothing more. Shapes that were inferred, scores and gradients belong to whoever
// computed them, in a map keyed by *Value. Decode in package onnx makes a graph from bytes, Encode writes it back.
package graph

import (
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// Graph is a model, or the body of a control-flow attribute.
type Graph struct {
	Name, Doc string
	IR        int            // IR version of the file
	Opsets    map[string]int // by domain; "" is ONNX itself
	Producer  Producer
	Meta      map[string]string // metadata_props of the model
	Inputs    []*Value
	Outputs   []*Value
	// Inits lists every initializer in file order. In IR version 3 an initializer is an input as well.
	Inits []*Value
	Nodes []*Node
	// Functions and Extra are what the file holds that neither engine nor pruner reads: serialized FunctionProtos, and
	// serialized fields such as training info, kept so that Encode can write them back.
	Functions [][]byte
	Extra     []byte
	// ModelExtra is Extra for the fields of the model around the graph.
	ModelExtra []byte
}

// Producer says who wrote the file.
type Producer struct {
	Name, Version, Domain string
	ModelVersion          int64
	Doc                   string
}

// Private is the domain of operators that the engine's passes make. No file may use it: their checks count on the passes.
const Private = "secateur"

// Node applies an operator.
type Node struct {
	Op, Domain, Overload string
	Name, Doc            string
	Inputs               []*Value // a nil input is an omitted one
	Outputs              []*Value // a nil output is an omitted one
	Attrs                Attrs
	Meta                 []Pair // metadata_props of the node
	Extra                []byte // fields that nobody here reads
}

// String names the node in errors: its name, or else its operator and first output.
func (n *Node) String() string {
	if n.Name != "" {
		return fmt.Sprintf("%s %q", n.Op, n.Name)
	}
	for _, o := range n.Outputs {
		if o != nil {
			return fmt.Sprintf("%s (output %q)", n.Op, o.Name)
		}
	}
	return n.Op
}

// Input is the i-th input, or nil if it is omitted or there are fewer.
func (n *Node) Input(i int) *Value {
	if i < len(n.Inputs) {
		return n.Inputs[i]
	}
	return nil
}

// Pair is a key and a value, where a file keeps them in order.
type Pair struct{ Key, Value string }

// Value is a tensor of the graph: an input, an initializer or what a node yields.
type Value struct {
	Name string
	// Type is what the file declares; the zero Type if nothing.
	Type tensor.Type
	Doc  string
	// Const is set for initializers.
	Const *tensor.Tensor
	// Def is the node that yields the value; nil for inputs and initializers.
	Def *Node
	// Opaque is the serialized TypeProto where the type is no tensor (sequence, optional, map, sparse).
	Opaque []byte
	// Extra keeps fields of the ValueInfoProto and TensorProto that nobody here reads.
	Extra, ConstExtra []byte
	// External says where the file kept Const, if outside.
	External *External
	// Sparse is the serialized SparseTensorProto that Const was read from. Encode writes it again if it still says the
	// same as Const.
	Sparse []byte
}

// External is where an initializer's bytes lie when they are not in the model file.
type External struct {
	Location string // relative to the model's folder
	Offset   int64
	Length   int64
	Checksum string
}

// Opset is the version of domain that the graph imports, or 0.
func (g *Graph) Opset(domain string) int {
	if domain == "ai.onnx" {
		domain = ""
	}
	if v, ok := g.Opsets[domain]; ok {
		return v
	}
	if domain == "" {
		return g.Opsets["ai.onnx"]
	}
	return 0
}

// Use is one place where a value is read.
type Use struct {
	Node  *Node
	Input int
}

// Uses lists who reads each value, in node order. Reads from inside subgraphs count, as the node that holds the
// subgraph with Input -1.
func (g *Graph) Uses() map[*Value][]Use {
	uses := map[*Value][]Use{}
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			if v != nil {
				uses[v] = append(uses[v], Use{n, i})
			}
		}
		for _, sub := range n.Subgraphs() {
			sub.captured(func(v *Value) { uses[v] = append(uses[v], Use{n, -1}) })
		}
	}
	return uses
}

// Subgraphs lists the graphs in the node's attributes.
func (n *Node) Subgraphs() []*Graph {
	var gs []*Graph
	for _, a := range n.Attrs {
		if a.Graph != nil {
			gs = append(gs, a.Graph)
		}
		gs = append(gs, a.Graphs...)
	}
	return gs
}

// captured calls f for each read of a value that the subgraph does not define itself.
func (g *Graph) captured(f func(*Value)) {
	own := map[*Value]bool{}
	for _, v := range slices.Concat(g.Inputs, g.Inits) {
		own[v] = true
	}
	read := func(v *Value) {
		if v != nil && !own[v] {
			f(v)
		}
	}
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			read(v)
		}
		for _, sub := range n.Subgraphs() {
			sub.captured(read)
		}
		for _, v := range n.Outputs {
			own[v] = true
		}
	}
	for _, v := range g.Outputs {
		read(v)
	}
}

// Validate checks single assignment, dependency order, unique names and the back pointers. A graph inside an attribute
// may read the values around it, unless a value of its own hides them by having the same name.
func (g *Graph) Validate() error { return g.validate(nil) }

// scope is the values that a graph may read, as far as they are defined, within those of the graph around it.
type scope struct {
	outer *scope
	known map[*Value]bool
}

func (s *scope) has(v *Value) bool {
	for ; s != nil; s = s.outer {
		if s.known[v] {
			return true
		}
	}
	return false
}

func (g *Graph) validate(outer *scope) error {
	s := &scope{outer: outer, known: map[*Value]bool{}}
	names := map[string]*Value{}
	define := func(v *Value, what string) error {
		switch {
		case v == nil:
			return fmt.Errorf("%s is nil", what)
		case v.Name == "":
			return fmt.Errorf("%s has no name", what)
		case outer.has(v):
			return fmt.Errorf("%s %q belongs to a graph around this one", what, v.Name)
		}
		if w, ok := names[v.Name]; ok && w != v {
			return fmt.Errorf("%s %q is defined twice", what, v.Name)
		}
		names[v.Name], s.known[v] = v, true
		return nil
	}
	for _, v := range g.Inputs {
		if v != nil && s.known[v] {
			return fmt.Errorf("input %q is defined twice", v.Name)
		}
		if err := define(v, "input"); err != nil {
			return err
		}
	}
	inits := map[*Value]bool{}
	for _, v := range g.Inits {
		if v != nil && (v.Const == nil || inits[v]) {
			return fmt.Errorf("initializer %q has no value, or more than one", v.Name)
		}
		if err := define(v, "initializer"); err != nil {
			return err
		}
		inits[v] = true
	}
	for v := range s.known {
		if v.Def != nil {
			return fmt.Errorf("%q is an input or initializer and the output of %v", v.Name, v.Def)
		}
		if v.Const != nil && !inits[v] {
			return fmt.Errorf("input %q has a value and is no initializer", v.Name)
		}
	}
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			if v != nil && !s.has(v) {
				return fmt.Errorf("node %v: input %d, %q, is not defined before it", n, i, v.Name)
			}
		}
		for _, sub := range n.Subgraphs() {
			if err := sub.validate(s); err != nil {
				return fmt.Errorf("node %v: %w", n, err)
			}
		}
		for _, v := range n.Outputs {
			if v == nil {
				continue
			}
			if s.known[v] {
				return fmt.Errorf("node %v: output %q is defined twice", n, v.Name)
			}
			if v.Def != n {
				return fmt.Errorf("node %v: output %q does not point back", n, v.Name)
			}
			if err := define(v, "output"); err != nil {
				return fmt.Errorf("node %v: %w", n, err)
			}
		}
	}
	for i, v := range g.Outputs {
		if v == nil {
			return fmt.Errorf("graph output %d is nil", i)
		}
		if !s.has(v) {
			return fmt.Errorf("graph output %q is not defined", v.Name)
		}
	}
	if outer == nil {
		return nil
	}
	var err error
	g.captured(func(v *Value) {
		if w := names[v.Name]; w != nil && w != v && err == nil {
			err = fmt.Errorf("%q of a graph around this one is read, but hidden by a value of the same name", v.Name)
		}
	})
	return err
}

// Clone copies the graph, its nodes, values and attributes. Tensors are shared: they are immutable by convention, and
// who changes one puts a new one in its place.
func (g *Graph) Clone() *Graph {
	c, _ := g.CloneMap()
	return c
}

// CloneMap is Clone, and says which value of the copy stands for which of the original.
func (g *Graph) CloneMap() (*Graph, map[*Value]*Value) {
	m := map[*Value]*Value{}
	return g.clone(m), m
}

func (g *Graph) clone(m map[*Value]*Value) *Graph {
	c := *g
	c.Opsets = cloneMap(g.Opsets)
	c.Meta = cloneMap(g.Meta)
	val := func(v *Value) *Value {
		if v == nil {
			return nil
		}
		if w, ok := m[v]; ok {
			return w
		}
		w := *v
		w.Type.Shape = v.Type.Shape.Clone()
		w.Type.Symbols = slices.Clone(v.Type.Symbols)
		m[v] = &w
		return &w
	}
	vals := func(vs []*Value) []*Value {
		out := make([]*Value, len(vs))
		for i, v := range vs {
			out[i] = val(v)
		}
		return out
	}
	c.Inputs, c.Inits = vals(g.Inputs), vals(g.Inits)
	c.Nodes = make([]*Node, len(g.Nodes))
	for i, n := range g.Nodes {
		k := *n
		k.Inputs, k.Outputs = vals(n.Inputs), vals(n.Outputs)
		for _, v := range k.Outputs {
			if v != nil {
				v.Def = &k
			}
		}
		k.Attrs = slices.Clone(n.Attrs)
		for j := range k.Attrs {
			a := &k.Attrs[j]
			if a.Graph != nil {
				a.Graph = a.Graph.clone(m)
			}
			a.Graphs = slices.Clone(a.Graphs)
			for l, sub := range a.Graphs {
				a.Graphs[l] = sub.clone(m)
			}
		}
		c.Nodes[i] = &k
	}
	c.Outputs = vals(g.Outputs)
	return &c
}

func cloneMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return nil
	}
	c := make(map[string]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// Fresh returns a name that no value of the graph has, nor one of the graphs inside it, beginning with base.
func (g *Graph) Fresh(base string) string { return g.Namer()(base) }

// Namer is Fresh for many names: it looks through the graph once, and never gives the same name again.
func (g *Graph) Namer() func(base string) string {
	used := map[string]bool{}
	g.names(used)
	return func(base string) string {
		name := base
		for i := 1; used[name]; i++ {
			name = fmt.Sprintf("%s_%d", base, i)
		}
		used[name] = true
		return name
	}
}

func (g *Graph) names(used map[string]bool) {
	for v := range g.Values() {
		used[v.Name] = true
	}
	for _, n := range g.Nodes {
		for _, sub := range n.Subgraphs() {
			sub.names(used)
		}
	}
}

// Values yields every value of the graph once: inputs, initializers, node outputs; not those of subgraphs.
func (g *Graph) Values() func(yield func(*Value) bool) {
	return func(yield func(*Value) bool) {
		seen := map[*Value]bool{}
		each := func(vs []*Value) bool {
			for _, v := range vs {
				if v == nil || seen[v] {
					continue
				}
				seen[v] = true
				if !yield(v) {
					return false
				}
			}
			return true
		}
		if !each(g.Inputs) || !each(g.Inits) {
			return
		}
		for _, n := range g.Nodes {
			if !each(n.Outputs) {
				return
			}
		}
	}
}
