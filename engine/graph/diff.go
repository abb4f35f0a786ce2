package graph

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// Diff says in words where a and b first differ in what a reader of the file would see, or nil if nowhere. Pointers do
// not count, but what they join does: a value read twice in a must be one value read twice in b. Where External data
// lay does not count.
func Diff(a, b *Graph) error {
	return (&differ{to: map[*Value]*Value{}, from: map[*Value]*Value{}}).graph(a, b)
}

// differ pairs the values of two graphs.
type differ struct{ to, from map[*Value]*Value }

// check is an error if same is false.
func check(same bool, format string, args ...any) error {
	if same {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) graph(a, b *Graph) error {
	if a == nil || b == nil {
		return check(a == b, "one graph is nil")
	}
	err := first(
		check(a.Name == b.Name, "graph names %q and %q", a.Name, b.Name),
		check(a.Doc == b.Doc, "graph docs %q and %q", a.Doc, b.Doc),
		check(a.IR == b.IR, "IR versions %d and %d", a.IR, b.IR),
		check(maps.Equal(a.Opsets, b.Opsets), "operator sets %v and %v", a.Opsets, b.Opsets),
		check(a.Producer == b.Producer, "producers %+v and %+v", a.Producer, b.Producer),
		check(maps.Equal(a.Meta, b.Meta), "metadata %v and %v", a.Meta, b.Meta),
		check(slices.EqualFunc(a.Functions, b.Functions, bytes.Equal), "functions"),
		check(bytes.Equal(a.Extra, b.Extra), "Extra %x and %x", a.Extra, b.Extra),
		check(bytes.Equal(a.ModelExtra, b.ModelExtra), "ModelExtra %x and %x", a.ModelExtra, b.ModelExtra),
		d.values("inputs", a.Inputs, b.Inputs),
		d.values("initializers", a.Inits, b.Inits),
		check(len(a.Nodes) == len(b.Nodes), "%d and %d nodes", len(a.Nodes), len(b.Nodes)),
	)
	if err != nil {
		return err
	}
	for i := range a.Nodes {
		if err := d.node(a.Nodes[i], b.Nodes[i]); err != nil {
			return fmt.Errorf("node %d, %v: %w", i, a.Nodes[i], err)
		}
	}
	return d.values("outputs", a.Outputs, b.Outputs)
}

func (d *differ) values(what string, a, b []*Value) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d %s", len(a), len(b), what)
	}
	for i := range a {
		if err := d.value(a[i], b[i]); err != nil {
			return fmt.Errorf("%s: %d: %w", what, i, err)
		}
	}
	return nil
}

func (d *differ) value(a, b *Value) error {
	if a == nil || b == nil {
		return check(a == b, "one value is omitted")
	}
	to, seen := d.to[a]
	from, back := d.from[b]
	if seen || back {
		return check(to == b && from == a, "values %q and %q do not stand for each other", a.Name, b.Name)
	}
	d.to[a], d.from[b] = b, a
	err := first(
		check(a.Name == b.Name, "names %q and %q", a.Name, b.Name),
		check(a.Doc == b.Doc, "docs %q and %q", a.Doc, b.Doc),
		check(sameType(a.Type, b.Type), "types %v and %v", a.Type, b.Type),
		check(bytes.Equal(a.Opaque, b.Opaque), "Opaque %x and %x", a.Opaque, b.Opaque),
		check(bytes.Equal(a.Extra, b.Extra), "Extra %x and %x", a.Extra, b.Extra),
		check(bytes.Equal(a.ConstExtra, b.ConstExtra), "ConstExtra %x and %x", a.ConstExtra, b.ConstExtra),
		check(bytes.Equal(a.Sparse, b.Sparse), "Sparse %x and %x", a.Sparse, b.Sparse),
		check(tensor.Equal(a.Const, b.Const), "initial values"),
		check((a.Def == nil) == (b.Def == nil), "one is a node's output"),
	)
	if err != nil {
		return fmt.Errorf("value %q: %w", a.Name, err)
	}
	return nil
}

func sameType(a, b tensor.Type) bool {
	if a.DType != b.DType || (a.Shape == nil) != (b.Shape == nil) || !slices.Equal(a.Shape, b.Shape) {
		return false
	}
	symbol := func(t tensor.Type, i int) string {
		if i < len(t.Symbols) && t.Shape[i] == tensor.Unknown {
			return t.Symbols[i]
		}
		return ""
	}
	for i := range a.Shape {
		if symbol(a, i) != symbol(b, i) {
			return false
		}
	}
	return true
}

func (d *differ) node(a, b *Node) error {
	err := first(
		check(a.Op == b.Op && a.Domain == b.Domain && a.Overload == b.Overload, "operators %v and %v", a, b),
		check(a.Name == b.Name, "names %q and %q", a.Name, b.Name),
		check(a.Doc == b.Doc, "docs %q and %q", a.Doc, b.Doc),
		check(slices.Equal(a.Meta, b.Meta), "metadata %v and %v", a.Meta, b.Meta),
		check(bytes.Equal(a.Extra, b.Extra), "Extra %x and %x", a.Extra, b.Extra),
		d.values("inputs", a.Inputs, b.Inputs),
		d.values("outputs", a.Outputs, b.Outputs),
		check(len(a.Attrs) == len(b.Attrs), "%d and %d attributes", len(a.Attrs), len(b.Attrs)),
	)
	if err != nil {
		return err
	}
	for i := range a.Attrs {
		if err := d.attr(a.Attrs[i], b.Attrs[i]); err != nil {
			return fmt.Errorf("attribute %q: %w", a.Attrs[i].Name, err)
		}
	}
	return nil
}

func (d *differ) attr(a, b Attr) error {
	sameFloat := func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) }
	err := first(
		check(a.Name == b.Name, "names %q and %q", a.Name, b.Name),
		check(a.Kind == b.Kind, "kinds %d and %d", a.Kind, b.Kind),
		check(a.Doc == b.Doc && a.Ref == b.Ref && a.TensorName == b.TensorName, "docs, references or tensor names"),
		check(sameFloat(a.Float, b.Float), "%g and %g", a.Float, b.Float),
		check(a.Int == b.Int, "%d and %d", a.Int, b.Int),
		check(bytes.Equal(a.Str, b.Str), "%q and %q", a.Str, b.Str),
		check(tensor.Equal(a.Tensor, b.Tensor), "tensors"),
		check(slices.EqualFunc(a.Floats, b.Floats, sameFloat), "%g and %g", a.Floats, b.Floats),
		check(slices.Equal(a.Ints, b.Ints), "%d and %d", a.Ints, b.Ints),
		check(slices.EqualFunc(a.Strs, b.Strs, bytes.Equal), "%q and %q", a.Strs, b.Strs),
		check(slices.EqualFunc(a.Tensors, b.Tensors, tensor.Equal), "lists of tensors"),
		check(bytes.Equal(a.Extra, b.Extra), "Extra %x and %x", a.Extra, b.Extra),
		check(len(a.Graphs) == len(b.Graphs), "%d and %d graphs", len(a.Graphs), len(b.Graphs)),
		d.graph(a.Graph, b.Graph),
	)
	if err != nil {
		return err
	}
	for i := range a.Graphs {
		if err := d.graph(a.Graphs[i], b.Graphs[i]); err != nil {
			return fmt.Errorf("graph %d: %w", i, err)
		}
	}
	return nil
}
