package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

var convFamily = slices.Concat(
	since(Def{Op: "Conv", Infer: inferConv, New: newConv}, 1, 11, 22),
	since(Def{Op: "ConvTranspose", Infer: inferConvTranspose, New: newConv}, 1, 11, 22),
	since(Def{Domain: Private, Op: "Conv", Infer: inferConv, New: newConv}, 1),
	since(Def{Domain: Private, Op: "ConvTranspose", Infer: inferConvTranspose, New: newConv}, 1),
)

// convShape checks a convolution's inputs and gives its geometry; one spatial axis counts as a height of 1.
func convShape(s *Site, transposed bool) (kernel.ConvShape, []int, error) {
	var z kernel.ConvShape
	if err := s.require(2); err != nil {
		return z, nil, err
	}
	if err := s.floatOnly(); err != nil {
		return z, nil, err
	}
	sources, x, err := convSources(s)
	if err != nil {
		return z, nil, err
	}
	w := s.Shape(1)
	if s.DType(1) != s.Float {
		return z, nil, s.Unsupported("weights of element type %v are not run", s.DType(1))
	}
	if len(x) != len(w) || len(x) < 3 {
		return z, nil, fmt.Errorf("weights %v do not fit input %v", s.Arg(1).Type, s.Arg(0).Type)
	}
	if len(x) > 4 {
		return z, nil, s.Unsupported("%d spatial axes; convolutions run in one or two dimensions", len(x)-2)
	}
	group := s.Attrs().Int("group", 1)
	if group < 1 || x[1] < 1 || x[1]%group != 0 {
		return z, nil, fmt.Errorf("%d channels do not divide into %d groups", x[1], group)
	}
	m := w[0]
	if transposed {
		if m = w[1] * group; m > maxElems {
			return z, nil, s.Unsupported("%d output channels", m)
		}
		if w[0] != x[1] {
			return z, nil, fmt.Errorf("weights %v do not fit input %v", s.Arg(1).Type, s.Arg(0).Type)
		}
	} else if m%group != 0 || w[1]*group != x[1] {
		return z, nil, fmt.Errorf("weights %v do not fit input %v in %d groups", s.Arg(1).Type, s.Arg(0).Type, group)
	}
	if b := s.Arg(2); b.Given() && (b.Type.DType != s.Float || !slices.Equal(b.Type.Shape, tensor.Shape{m})) {
		return z, nil, fmt.Errorf("bias is %v, want [%d]", b.Type, m)
	}
	win, err := s.window(w[2:])
	if err != nil {
		return z, nil, err
	}
	win.in = x[2:]
	if transposed {
		err = unslide(s, &win)
	} else {
		err = win.slide(s.Attrs(), false)
	}
	if err != nil {
		return z, nil, err
	}
	z = kernel.ConvShape{N: x[0], C: x[1], M: m, Group: group, H: 1, KH: 1, StrideH: 1, DilH: 1, OH: 1, Sources: sources}
	last := len(win.in) - 1
	z.W, z.KW, z.StrideW, z.DilW, z.OW = win.in[last], win.kernel[last], win.stride[last], win.dilation[last], win.out[last]
	z.PadLeft, z.PadRight = win.begin[last], win.end[last]
	if last == 1 {
		z.H, z.KH, z.StrideH, z.DilH, z.OH = win.in[0], win.kernel[0], win.stride[0], win.dilation[0], win.out[0]
		z.PadTop, z.PadBottom = win.begin[0], win.end[0]
	}
	if err := roomFor(s, z, transposed); err != nil {
		return z, nil, err
	}
	if err := z.Check(); err != nil {
		return z, nil, err
	}
	return z, append([]int{x[0], m}, win.out...), nil
}

// ConvShape is the geometry of a node that is a convolution of constant weights; ok is false for others.
func ConvShape(s *Site) (z kernel.ConvShape, ok bool) {
	if s.Node.Op != "Conv" || s.Arg(1).Const == nil {
		return z, false
	}
	z, _, err := convShape(s, false)
	return z, err == nil
}

// convSources gives the shape of the whole input, and what it comes from if that is several tensors or an upsampled one.
func convSources(s *Site) (sources []kernel.Source, whole tensor.Shape, err error) {
	whole = s.Shape(0).Clone()
	up := s.Attrs().Ints("up")
	if s.Node.Domain != Private || up == nil {
		if n := len(s.In) - residuals(s); n > 3 {
			return nil, nil, fmt.Errorf("%d inputs, want at most 3", n)
		}
		return nil, whole, nil
	}
	if len(s.In) != len(up)+2+residuals(s) || len(whole) != 4 {
		return nil, nil, fmt.Errorf("%d tensors, of which %v are upsampled", len(s.In)-2-residuals(s), up)
	}
	for i, u := range up {
		x := s.Shape(sourceAt(i)).Clone()
		if len(x) != 4 || s.DType(sourceAt(i)) != s.Float || u < 0 || u > 1 {
			return nil, nil, fmt.Errorf("source %d is %v", i, s.Arg(sourceAt(i)).Type)
		}
		x[2], x[3] = x[2]<<u, x[3]<<u
		if i == 0 {
			whole = x
		} else if x[0] != whole[0] || x[2] != whole[2] || x[3] != whole[3] {
			return nil, nil, fmt.Errorf("sources of %v and %v", whole, x)
		} else {
			whole[1] += x[1]
		}
		sources = append(sources, kernel.Source{C: x[1], Up: u > 0})
	}
	return sources, whole, nil
}

// sourceAt is which input of a convolution source i is: weights and bias stand between the first and the others.
func sourceAt(i int) int {
	if i > 0 {
		return i + 2
	}
	return 0
}

// roomFor refuses geometry that is valid and tiny on paper but that the kernels would need too much memory for: they copy
// the input with its padding, and a transposed convolution has one set of offsets for each of its stride·stride phases.
func roomFor(s *Site, z kernel.ConvShape, transposed bool) error {
	if z.KH*z.KW > 1<<16 || z.M > 1<<20 {
		return s.Unsupported("%d output channels of %dx%d weights", z.M, z.KH, z.KW)
	}
	h, w := z.H+z.PadTop+z.PadBottom+z.KH*z.DilH, z.W+z.PadLeft+z.PadRight+z.KW*z.DilW
	if transposed {
		h, w = max(z.OH, z.H)+z.KH*z.DilH, max(z.OW, z.W)+z.KW*z.DilW
		if z.StrideH*z.StrideW > 1<<12 {
			return s.Unsupported("strides of %dx%d", z.StrideH, z.StrideW)
		}
	}
	if n := (tensor.Shape{z.C, h, w}).Elems(); n < 0 || n > maxElems {
		return s.tooLarge("its padded input would be [%d,%d,%d], more than %d elements", z.C, h, w, maxElems)
	}
	return nil
}

// unslide computes pads and output sizes of a transposed convolution:
// out = stride·(in−1) + output_padding + extent − begin − end.
func unslide(s *Site, w *spatial) error {
	n := len(w.in)
	extra, err := s.perAxis("output_padding", n, 0)
	if err != nil {
		return err
	}
	want := s.Attrs().Ints("output_shape")
	if len(want) == n+2 {
		want = want[2:]
	}
	if want != nil && len(want) != n {
		return fmt.Errorf("output_shape %v does not fit input %v", want, s.Arg(0).Type)
	}
	auto := s.Attrs().Str("auto_pad", "NOTSET")
	w.begin, w.end = append([]int(nil), w.begin...), append([]int(nil), w.end...)
	w.out = make([]int, n)
	for i := range n {
		if extra[i] < 0 || extra[i] > maxWindow {
			return fmt.Errorf("output_padding %v out of range", extra)
		}
		full := w.stride[i]*(w.in[i]-1) + extra[i] + w.extent(i)
		switch {
		case want != nil:
			w.out[i] = want[i]
		case auto == "SAME_UPPER" || auto == "SAME_LOWER":
			w.out[i] = w.in[i] * w.stride[i]
		case auto == "VALID":
			w.begin[i], w.end[i] = 0, 0
			w.out[i] = full
		case auto == "NOTSET" || auto == "":
			w.out[i] = full - w.begin[i] - w.end[i]
		default:
			return fmt.Errorf("auto_pad %q is not defined", auto)
		}
		if want != nil || auto == "SAME_UPPER" || auto == "SAME_LOWER" {
			total := full - w.out[i] // what is to be cut off; negative where the output reaches beyond the kernel
			cut := max(total, 0)
			w.begin[i] = cut / 2
			// The end gets the odd one for SAME_UPPER only. The text of opset 1 had it the other way; nobody ran it so.
			if auto != "SAME_UPPER" {
				w.begin[i] = cut - cut/2
			}
			w.end[i] = total - w.begin[i]
		}
		if w.out[i] < 1 && w.in[i] > 0 {
			return fmt.Errorf("output of %d elements on axis %d", w.out[i], i)
		}
	}
	return nil
}

func inferConv(s *Site) ([]tensor.Type, error) {
	return inferConvOf(s, false)
}

func inferConvTranspose(s *Site) ([]tensor.Type, error) {
	return inferConvOf(s, true)
}

func inferConvOf(s *Site, transposed bool) ([]tensor.Type, error) {
	_, out, err := convShape(s, transposed)
	if err != nil {
		return nil, err
	}
	if err := checkEpilogue(s, out); err != nil {
		return nil, err
	}
	return s.sized(s.Float, out)
}

func newConv(s *Site) (Kernel, error) {
	return byFloat(s, func() (Kernel, error) { return convOf[float32](s) }, func() (Kernel, error) { return convOf[float64](s) })
}

// packed is what kernel.Conv and kernel.ConvTranspose have in common.
type packed[T kernel.Float] interface {
	Form() string
	Products() int64
	Scratch(workers int) int
	BindFinish(p *kernel.Pool, f kernel.Finish[T], scratch, y []T, x ...[]T) func()
}

// conv runs a packed convolution; weights that are computed in the graph are packed again in every run.
type conv[T kernel.Float] struct {
	packed packed[T] // nil if weights or bias are not constant
	pack   func(w, b []T) packed[T]
	zero   []T // stands in for weights where only sizes matter
	after  epilogue[T]
}

func convOf[T kernel.Float](s *Site) (Kernel, error) {
	transposed := s.Node.Op == "ConvTranspose"
	shape, _, err := convShape(s, transposed)
	if err != nil {
		return nil, err
	}
	clamp := kernel.Clamp{
		Lo: float64(s.Attrs().Float("lo", float32(math.Inf(-1)))),
		Hi: float64(s.Attrs().Float("hi", float32(math.Inf(1)))),
	}
	if s.Node.Domain != Private {
		clamp = kernel.NoClamp
	}
	c := &conv[T]{pack: func(w, b []T) packed[T] {
		if transposed {
			return kernel.NewConvTranspose(shape, w, b, clamp)
		}
		return kernel.NewDirectConv(shape, w, b, clamp)
	}}
	c.after = epilogueOf[T](s)
	w, b := s.Arg(1), s.Arg(2)
	if !transposed && w.Const != nil && (!b.Given() || b.Const != nil) {
		var by kernel.Choice
		if s.Choose != nil {
			by = s.Choose(shape)
		}
		c.packed = kernel.NewConvBy(shape, tensor.Of[T](w.Const), optional[T](b.Const), clamp, by)
		return c, nil
	}
	if w.Const == nil || b.Given() && b.Const == nil {
		c.zero = make([]T, w.Type.Shape.Elems())
		return c, nil
	}
	c.packed = c.pack(tensor.Of[T](w.Const), optional[T](b.Const))
	return c, nil
}

// Plan implements Planned.
func (c *conv[T]) Plan() (form string, products int64) {
	if c.packed == nil {
		return "computed weights", 0
	}
	return c.packed.Form() + c.after.text, c.packed.Products()
}

// optional views an input that may be omitted.
func optional[T tensor.Number](t *tensor.Tensor) []T {
	if t == nil {
		return nil
	}
	return tensor.Of[T](t)
}

// Scratch implements Scratcher.
func (c *conv[T]) Scratch(workers int) int {
	p := c.packed
	if p == nil {
		p = c.pack(c.zero, nil)
	}
	return p.Scratch(workers) * tensor.DTypeOf[T]().Size(1)
}

// Bind implements Kernel.
func (c *conv[T]) Bind(env *Env, out, in []*tensor.Tensor) func() error {
	y, scratch := tensor.Of[T](out[0]), scratchOf[T](env)
	x := [][]T{tensor.Of[T](in[0])}
	f := c.after.finish(in)
	for i := 3; i < len(in)-c.after.residuals; i++ {
		x = append(x, tensor.Of[T](in[i]))
	}
	if len(y) == 0 {
		return func() error { return nil }
	}
	if c.packed != nil {
		run := c.packed.BindFinish(env.Pool, f, scratch, y, x...)
		return func() error { run(); return nil }
	}
	return func() error {
		var b []T
		if len(in) > 2 {
			b = optional[T](in[2])
		}
		c.pack(tensor.Of[T](in[1]), b).BindFinish(env.Pool, f, scratch, y, x...)()
		return nil
	}
}

// scratchOf views the working memory as elements.
func scratchOf[T tensor.Number](env *Env) []T {
	return tensor.View[T](&tensor.Tensor{Data: env.Scratch})
}
