// Package op is the table of ONNX operators that the engine runs.
//
// [Table] has a row for each (operator, since-version), as the ONNX changelog lists them; the row in force is the
// newest that is not above the opset the model imports. A row says what types come out ([Def.Infer]) and makes the
// [Kernel] that computes them ([Def.New]). Shapes are bound when a model is compiled, so both see literal dimensions,
// and the inputs that are constants. One file per operator family.
//
// Floating point runs as one type throughout, float32 or (for a yardstick) float64: Site.Float. float16, bfloat16 and
// float64 inputs have been converted to it before a Site is made, and their types read so.
package op

import (
	"errors"
	"fmt"
	"slices"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// Arg is what is known of a node's input at compile time. The zero Arg is an omitted input.
type Arg struct {
	Type  tensor.Type    // all dimensions known
	Const *tensor.Tensor // its value, if it is constant
}

// Given reports whether the input is there.
func (a Arg) Given() bool { return a.Type.DType != tensor.Undefined }

// Site is a node in its place: attributes, opset, and what is known of its inputs.
type Site struct {
	Node  *graph.Node
	Opset int   // of the node's domain
	In    []Arg // as long as Node.Inputs
	// Out is the types of the outputs: empty while Infer runs, its result when New runs.
	Out   []tensor.Type
	Float tensor.DType // what floating point runs as: Float32 or Float64
	// Choose gives the way to compute a convolution, where New is to take another than the cost model's; nil: it is not.
	Choose func(kernel.ConvShape) kernel.Choice
}

// Arg is the i-th input, the zero Arg if it is omitted.
func (s *Site) Arg(i int) Arg {
	if i < len(s.In) {
		return s.In[i]
	}
	return Arg{}
}

// Shape is the shape of the i-th input.
func (s *Site) Shape(i int) tensor.Shape { return s.Arg(i).Type.Shape }

// DType is the element type of the i-th input.
func (s *Site) DType(i int) tensor.DType { return s.Arg(i).Type.DType }

// Attrs are the node's attributes.
func (s *Site) Attrs() graph.Attrs { return s.Node.Attrs }

// ConstInts is the value of an input that must be a constant list of integers (a shape, axes, pads). It is nil without
// an error if the input is omitted.
func (s *Site) ConstInts(i int) ([]int, error) {
	a := s.Arg(i)
	if !a.Given() {
		return nil, nil
	}
	if a.Const == nil {
		return nil, s.Unsupported("input %d depends on the data; it must be constant once shapes are known", i)
	}
	v, ok := a.Const.Ints()
	if !ok {
		return nil, fmt.Errorf("input %d is %v, want integers", i, a.Type.DType)
	}
	return v, nil
}

// Empty reports whether the node, whose types Infer has put in Out, has no element to compute. Such a node need not run,
// and must not be made: its other dimensions may be as large as they like.
func (s *Site) Empty() bool {
	for i, v := range s.Node.Outputs {
		if v != nil && i < len(s.Out) && s.Out[i].Shape.Elems() != 0 {
			return false
		}
	}
	return true
}

// Unsupported says that the node is valid ONNX that this table does not cover, and why.
func (s *Site) Unsupported(format string, args ...any) error {
	return &Unsupported{Node: s.Node, Reason: fmt.Sprintf(format, args...)}
}

// ErrTooLarge is in the error for a node whose output, or whose working memory, would exceed a limit.
var ErrTooLarge = errors.New("too large")

// tooLarge is Unsupported that wraps ErrTooLarge.
func (s *Site) tooLarge(format string, args ...any) error {
	return &Unsupported{Node: s.Node, Reason: fmt.Sprintf(format, args...), err: ErrTooLarge}
}

// Unsupported is the error for valid ONNX that the engine does not run.
type Unsupported struct {
	Node   *graph.Node
	Reason string
	err    error // ErrTooLarge, or nil
}

// Unwrap gives ErrTooLarge where that is the reason.
func (e *Unsupported) Unwrap() error { return e.err }

func (e *Unsupported) Error() string { return fmt.Sprintf("%v is not supported: %s", e.Node, e.Reason) }

// Kernel computes a node. It is immutable: sessions share it, and with it the packed weights.
type Kernel interface {
	// Bind prepares runs over fixed buffers and returns what computes out from in, each time it is called, without
	// allocating. Omitted inputs and outputs are nil. A constant input that New has packed may be nil as well.
	Bind(env *Env, out, in []*tensor.Tensor) func() error
}

// Scratcher is a Kernel that needs working memory: Env.Scratch has at least that many bytes.
type Scratcher interface {
	Scratch(workers int) int
}

// Planned is a Kernel that has chosen between ways to compute: it says which, and how many multiply-adds that takes.
type Planned interface {
	Plan() (form string, products int64)
}

// Env is what a session lends its kernels. Scratch is shared by all kernels of the session, one after the other.
type Env struct {
	Pool    *kernel.Pool
	Scratch []byte // aligned to tensor.Align, with tensor.Slack behind it
}

// Func is a Kernel in one function, for operators that need neither scratch nor threads.
type Func func(out, in []*tensor.Tensor) error

// Bind implements Kernel.
func (f Func) Bind(_ *Env, out, in []*tensor.Tensor) func() error {
	return func() error { return f(out, in) }
}

// BindFunc is a Kernel whose Bind is the function itself.
type BindFunc func(env *Env, out, in []*tensor.Tensor) func() error

// Bind implements Kernel.
func (f BindFunc) Bind(env *Env, out, in []*tensor.Tensor) func() error { return f(env, out, in) }

// Def is one row of the table: an operator from one opset version on.
type Def struct {
	Domain string
	Op     string
	Since  int
	// Infer gives the types of the outputs, one for each the operator defines (not only those the node names).
	// It returns *Unsupported for what New would not run, any other error for invalid models.
	Infer func(s *Site) ([]tensor.Type, error)
	// New makes the kernel. It sees the types that Infer gave in s.Out.
	New func(s *Site) (Kernel, error)
	// Fold gives outputs that follow from the types of the inputs alone (Shape, Size); nil for other operators.
	Fold func(s *Site) ([]*tensor.Tensor, error)
	// InPlace: output 0 may share the buffer of input 0, and of no other input.
	InPlace bool
	// View says where in input 0 each output's elements lie, in order and one behind the other, or nil if they do not: a
	// planner may let them share a buffer and skip Run. It is nil for operators of which no output is a view.
	View func(s *Site) []int
}

// Table lists what the engine runs, family by family.
var Table = slices.Concat(families...)

var index = func() map[[2]string][]Def {
	m := map[[2]string][]Def{}
	for _, d := range Table {
		k := [2]string{d.Domain, d.Op}
		m[k] = append(m[k], d)
	}
	for _, ds := range m {
		slices.SortFunc(ds, func(a, b Def) int { return b.Since - a.Since })
	}
	return m
}()

// Lookup finds the row for a node under the opset of its domain.
func Lookup(n *graph.Node, opset int) (Def, error) {
	domain := n.Domain
	if domain == "ai.onnx" {
		domain = ""
	}
	rows := index[[2]string{domain, n.Op}]
	if len(rows) == 0 {
		name := n.Op
		if domain != "" {
			name = domain + "." + name
		}
		return Def{}, &Unsupported{Node: n, Reason: fmt.Sprintf("operator %s is not in the table", name)}
	}
	for _, d := range rows {
		if d.Since <= opset {
			return d, nil
		}
	}
	return Def{}, &Unsupported{Node: n, Reason: fmt.Sprintf("operator %s begins at opset %d, the model imports %d", n.Op, rows[len(rows)-1].Since, opset)}
}

// Private is the domain of operators that only passes make. They need no opset import. Conv and ConvTranspose are as
// ONNX's, with attributes more: the result is clamped between lo and hi. If Conv has up, its input's channels come from
// several tensors, X, those behind the bias, in that order, and those whose up is 1 are upsampled by two (nearest). What then
// names is done to the clamped result, in order: an activation, with its attributes, or the sum with the last input.
const Private = graph.Private
