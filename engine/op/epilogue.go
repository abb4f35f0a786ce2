package op

import (
	"fmt"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/kernel"
	"github.com/secateur/secateur/engine/tensor"
)

// thenSteps names what a private convolution does to its clamped results, in order: attribute then of the node.
func thenSteps(s *Site) []string {
	if s.Node.Domain != Private {
		return nil
	}
	return strings.Fields(s.Attrs().Str("then", ""))
}

// stepSum adds the convolution's last input, which has the shape of its output.
const stepSum = "Sum"

// WithSum gives a convolution's node one step more: the sum with residual.
func WithSum(n *graph.Node, residual *graph.Value) {
	for len(n.Inputs) < 3 {
		n.Inputs = append(n.Inputs, nil)
	}
	n.Inputs = append(n.Inputs, residual)
	addStep(n, stepSum)
}

// WithActivation gives a convolution's node one step more: activation act, with the attributes that it has.
func WithActivation(n *graph.Node, act string, attrs ...graph.Attr) {
	addStep(n, act)
	for _, a := range attrs {
		n.Attrs = n.Attrs.Set(a)
	}
}

func addStep(n *graph.Node, step string) {
	n.Domain = Private
	n.Attrs = n.Attrs.Set(graph.StrAttr("then", strings.TrimSpace(n.Attrs.Str("then", "")+" "+step)))
}

// Steps lists the steps that a convolution's node has already.
func Steps(n *graph.Node) (sum, activation bool) {
	for _, step := range thenSteps(&Site{Node: n}) {
		if step == stepSum {
			sum = true
		} else {
			activation = true
		}
	}
	return sum, activation
}

// residuals is how many of a convolution's inputs are added to its results: the last, or none.
func residuals(s *Site) int {
	if slices.Contains(thenSteps(s), stepSum) {
		return 1
	}
	return 0
}

// checkEpilogue checks the steps of a convolution whose output is out.
func checkEpilogue(s *Site, out tensor.Shape) error {
	if residuals(s) > 0 {
		r := s.Arg(len(s.In) - 1)
		if len(s.In) < 4 || r.Type.DType != s.Float || !slices.Equal(r.Type.Shape, out) {
			return fmt.Errorf("residual of %v does not fit output %v", r.Type, out)
		}
	}
	for _, step := range thenSteps(s) {
		if n := len(s.Attrs().Floats("slope")); step == "PRelu" && n != 1 && n != out[1] {
			return fmt.Errorf("%d slopes for %d channels", n, out[1])
		}
		if _, ok := activationOf[float32](s, step); !ok && step != stepSum {
			return fmt.Errorf("step %q is none", step)
		}
	}
	return nil
}

// activationOf is the loop of an activation by the name of its operator. The domain is part of those names that passes make,
// whose defaults differ.
func activationOf[T kernel.Float](s *Site, name string) (f func(y []T, m int), ok bool) {
	plain := func(f func(y, x []T)) (func([]T, int), bool) { return func(y []T, _ int) { f(y, y) }, true }
	switch name {
	case "Relu":
		return plain(row(relu[T], vec.Relu))
	case "LeakyRelu":
		return plain(leakyRelu[T](s))
	case "Sigmoid":
		return plain(sigmoidRow[T])
	case "Tanh":
		return plain(tanhRow[T])
	case "Gelu", Private + ".Gelu":
		return plain(gelu[T](s))
	case "HardSigmoid":
		return plain(hardSigmoid[T](s))
	case "HardSwish":
		return plain(hardSwish[T](1.0 / 6)(s))
	case Private + ".HardSwish":
		return plain(hardSwish[T](0.2)(s))
	case "Swish", Private + ".Swish":
		return plain(swish[T](s))
	case "PRelu":
		return slopes[T](s.Attrs().Floats("slope")), true
	}
	return nil, false
}

// slopes is PRelu with a slope for each channel, or one for all.
func slopes[T kernel.Float](slope []float32) func(y []T, m int) {
	return func(y []T, m int) {
		a := slope[m%len(slope)]
		if v := floats32(y); v != nil {
			vec.LeakyRelu(v, v, a)
			return
		}
		for i, v := range y {
			y[i] = max(v, 0) + T(a)*min(v, 0)
		}
	}
}

// epilogue is the steps of a convolution.
type epilogue[T kernel.Float] struct {
	steps     []func(y []T, m int, residual []T)
	residuals int
	text      string // for those who look at the plan
}

func epilogueOf[T kernel.Float](s *Site) (e epilogue[T]) {
	e.residuals = residuals(s)
	for _, step := range thenSteps(s) {
		e.text += " + " + step[strings.LastIndexByte(step, '.')+1:]
		if step == stepSum {
			e.steps = append(e.steps, func(y []T, _ int, r []T) { addTo(y, r) })
		} else if f, ok := activationOf[T](s, step); ok {
			e.steps = append(e.steps, func(y []T, m int, _ []T) { f(y, m) })
		}
	}
	return e
}

func addTo[T kernel.Float](y, r []T) {
	if v := floats32(y); v != nil {
		vec.Add(v, v, floats32(r))
		return
	}
	for i := range y {
		y[i] += r[i]
	}
}

// finish is what a convolution of these inputs does to its results, nil for nothing.
func (e *epilogue[T]) finish(in []*tensor.Tensor) kernel.Finish[T] {
	if len(e.steps) == 0 {
		return nil
	}
	var residual []T
	if e.residuals > 0 {
		residual = tensor.Of[T](in[len(in)-1])
	}
	return func(y []T, m, at int) {
		var r []T
		if residual != nil {
			r = residual[at:][:len(y)]
		}
		for _, step := range e.steps {
			step(y, m, r)
		}
	}
}
