package pass

import (
	"math"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/op"
	"github.com/secateur/secateur/engine/tensor"
)

// RestoreActivations makes one node of an activation that the exporter wrote as arithmetic, in any order of the factors:
//
//	HardSigmoid  Clip(x+b, 0, h)/h        HardSwish  x·Clip(x+b, 0, h)/h        Gelu  x·(1+Erf(x/√2))/2
//
// It keeps to float32: attributes are no wider, so in float64 the result would not be the same.
func RestoreActivations(g *graph.Graph, info Info) {
	m := matcher{g: g, info: info, uses: g.Uses(), outs: outputs(g)}
	gone := map[*graph.Node]bool{}
	for _, n := range g.Nodes {
		if !isONNX(n, "Mul") && !isONNX(n, "Div") || info[n.Outputs[0]].Type.DType != tensor.Float32 {
			continue
		}
		p, ok := m.product(n)
		if !ok || !m.restore(n, &p) {
			continue
		}
		for _, k := range p.nodes {
			gone[k] = true
		}
	}
	drop(g, gone)
}

// matcher looks at what values are made of. All that it finds has the type of the result, and is read by nobody else.
type matcher struct {
	g    *graph.Graph
	info Info
	uses map[*graph.Value][]graph.Use
	outs map[*graph.Value]bool
}

// product is a number times one value or two, and the nodes that go once it is computed at once.
type product struct {
	number  float64
	factors []*graph.Value
	nodes   []*graph.Node
}

// maxFactors bounds the nodes of a product.
const maxFactors = 4

// product takes n apart.
func (m *matcher) product(n *graph.Node) (p product, ok bool) {
	p.number = 1
	todo := []*graph.Node{n}
	for len(todo) > 0 && len(p.nodes) < maxFactors {
		k := todo[0]
		todo = todo[1:]
		if k != n {
			p.nodes = append(p.nodes, k)
		}
		for i, v := range k.Inputs {
			c, isNumber := number(m.info[v].Const)
			switch {
			case isNumber && isONNX(k, "Mul"):
				p.number *= c
			case isNumber && i == 1:
				p.number /= c
			case isONNX(k, "Div") && i == 1 || !sameType(m.info[v].Type, m.info[n.Outputs[0]].Type):
				return p, false
			case m.alone(v, "Mul") != nil || m.alone(v, "Div") != nil:
				todo = append(todo, v.Def)
			default:
				p.factors = append(p.factors, v)
			}
		}
	}
	return p, len(todo) == 0 && len(p.factors) <= 2
}

// alone is the node that yields v, if it is of that operator and v is read by one node alone.
func (m *matcher) alone(v *graph.Value, name string) *graph.Node {
	if v == nil || v.Def == nil || !isONNX(v.Def, name) || len(m.uses[v]) != 1 || m.outs[v] {
		return nil
	}
	return v.Def
}

// restore makes n the activation that p is, if it is one.
func (m *matcher) restore(n *graph.Node, p *product) bool {
	become := func(name, domain string, x *graph.Value, attrs graph.Attrs) bool {
		n.Op, n.Domain, n.Inputs, n.Attrs = name, domain, []*graph.Value{x}, attrs
		return true
	}
	slope := func(b float64) graph.Attrs {
		return graph.Attrs{graph.FloatAttr("alpha", float32(p.number)), graph.FloatAttr("beta", float32(b*p.number))}
	}
	if len(p.factors) == 1 {
		x, b, h, nodes := m.clipped(p.factors[0])
		if x == nil || !near(p.number*h, 1) {
			return false
		}
		p.nodes = append(p.nodes, nodes...)
		return become("HardSigmoid", "", x, slope(b))
	}
	for i, gate := range p.factors {
		of := p.factors[1-i]
		if x, b, h, nodes := m.clipped(gate); x == of && near(p.number*h, 1) {
			p.nodes = append(p.nodes, nodes...)
			return become("HardSwish", op.Private, x, slope(b))
		}
		if x, nodes := m.erf(gate); x == of && near(p.number, .5) {
			p.nodes = append(p.nodes, nodes...)
			return become("Gelu", op.Private, x, nil)
		}
	}
	return false
}

// near is equal up to the rounding of constants.
func near(x, want float64) bool { return math.Abs(x-want) <= want*0x1p-22 }

// clipped takes v apart as Clip(x+b, 0, h).
func (m *matcher) clipped(v *graph.Value) (x *graph.Value, b, h float64, nodes []*graph.Node) {
	clip := m.alone(v, "Clip")
	if clip == nil {
		return nil, 0, 0, nil
	}
	lo, hi, ok := clampOf(clip, m.g.Opset(""), m.info)
	x, b, add := m.plus(clip.Inputs[0])
	if !ok || lo != 0 || add == nil {
		return nil, 0, 0, nil
	}
	return x, b, float64(hi), []*graph.Node{clip, add}
}

// erf takes v apart as 1+Erf(x/√2).
func (m *matcher) erf(v *graph.Value) (x *graph.Value, nodes []*graph.Node) {
	y, one, add := m.plus(v)
	if add == nil || one != 1 {
		return nil, nil
	}
	erf := m.alone(y, "Erf")
	if erf == nil {
		return nil, nil
	}
	for _, name := range []string{"Mul", "Div"} {
		scale := m.alone(erf.Inputs[0], name)
		if scale == nil {
			continue
		}
		if p, ok := m.product(scale); ok && len(p.factors) == 1 && near(p.number, math.Sqrt2/2) {
			return p.factors[0], append(p.nodes, add, erf, scale)
		}
	}
	return nil, nil
}

// plus takes v apart as x+b, where b is a number.
func (m *matcher) plus(v *graph.Value) (x *graph.Value, b float64, add *graph.Node) {
	if add = m.alone(v, "Add"); add == nil {
		return nil, 0, nil
	}
	for i, c := range add.Inputs {
		if b, ok := number(m.info[c].Const); ok && sameType(m.info[add.Inputs[1-i]].Type, m.info[v].Type) {
			return add.Inputs[1-i], b, add
		}
	}
	return nil, 0, nil
}
