package graph

import (
	"slices"

	"github.com/secateur/secateur/engine/tensor"
)

// AttrKind says which field of an Attr holds its value, numbered as ONNX's AttributeProto.AttributeType.
type AttrKind int32

// The kinds of attribute that carry their value here; sparse tensors and type protos are kept in Extra.
const (
	AttrUndefined AttrKind = 0
	AttrFloat     AttrKind = 1
	AttrInt       AttrKind = 2
	AttrString    AttrKind = 3
	AttrTensor    AttrKind = 4
	AttrGraph     AttrKind = 5
	AttrFloats    AttrKind = 6
	AttrInts      AttrKind = 7
	AttrStrings   AttrKind = 8
	AttrTensors   AttrKind = 9
	AttrGraphs    AttrKind = 10
)

// Attr is a named constant of a node.
type Attr struct {
	Name    string
	Kind    AttrKind
	Float   float32
	Int     int64
	Str     []byte
	Tensor  *tensor.Tensor
	Graph   *Graph
	Floats  []float32
	Ints    []int64
	Strs    [][]byte
	Tensors []*tensor.Tensor
	Graphs  []*Graph
	Doc     string
	// Ref names the attribute of the enclosing function that gives the value.
	Ref string
	// TensorName is the name that the file gives to Tensor, if any.
	TensorName string
	Extra      []byte
}

// Attrs keeps attributes in file order.
type Attrs []Attr

// Get finds an attribute.
func (as Attrs) Get(name string) (Attr, bool) {
	i := slices.IndexFunc(as, func(a Attr) bool { return a.Name == name })
	if i < 0 {
		return Attr{}, false
	}
	return as[i], true
}

// Has reports whether the attribute is there.
func (as Attrs) Has(name string) bool { _, ok := as.Get(name); return ok }

// Int is the attribute's value, or def if it is absent.
func (as Attrs) Int(name string, def int) int {
	if a, ok := as.Get(name); ok {
		return int(a.Int)
	}
	return def
}

// Float is the attribute's value, or def if it is absent.
func (as Attrs) Float(name string, def float32) float32 {
	if a, ok := as.Get(name); ok {
		return a.Float
	}
	return def
}

// Str is the attribute's value, or def if it is absent.
func (as Attrs) Str(name, def string) string {
	if a, ok := as.Get(name); ok {
		return string(a.Str)
	}
	return def
}

// Ints is the attribute's value, or nil if it is absent.
func (as Attrs) Ints(name string) []int {
	a, ok := as.Get(name)
	if !ok {
		return nil
	}
	v := make([]int, len(a.Ints))
	for i, x := range a.Ints {
		v[i] = int(x)
	}
	return v
}

// Floats is the attribute's value, or nil if it is absent.
func (as Attrs) Floats(name string) []float32 {
	a, _ := as.Get(name)
	return a.Floats
}

// Tensor is the attribute's value, or nil if it is absent.
func (as Attrs) Tensor(name string) *tensor.Tensor {
	a, _ := as.Get(name)
	return a.Tensor
}

// Set returns as with the attribute put in, in place of one of the same name. It never writes to as itself, which a
// clone of the node may share.
func (as Attrs) Set(a Attr) Attrs {
	out := slices.Clone(as)
	for i := range out {
		if out[i].Name == a.Name {
			out[i] = a
			return out
		}
	}
	return append(out, a)
}

// IntAttr makes an attribute of one integer.
func IntAttr(name string, v int) Attr { return Attr{Name: name, Kind: AttrInt, Int: int64(v)} }

// IntsAttr makes an attribute of integers.
func IntsAttr(name string, v ...int) Attr {
	a := Attr{Name: name, Kind: AttrInts, Ints: make([]int64, len(v))}
	for i, x := range v {
		a.Ints[i] = int64(x)
	}
	return a
}

// FloatAttr makes an attribute of one float.
func FloatAttr(name string, v float32) Attr { return Attr{Name: name, Kind: AttrFloat, Float: v} }

// FloatsAttr makes an attribute of floats.
func FloatsAttr(name string, v ...float32) Attr { return Attr{Name: name, Kind: AttrFloats, Floats: v} }

// StrAttr makes an attribute of one string.
func StrAttr(name, v string) Attr { return Attr{Name: name, Kind: AttrString, Str: []byte(v)} }
