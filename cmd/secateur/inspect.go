package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/group"
)

type inspectCmd struct {
	File   string `arg:"" help:"The ONNX file." type:"existingfile"`
	JSON   bool   `help:"Print one JSON document."`
	Groups bool   `help:"Show how many channels of each layer can be removed, which layers lose theirs with it, and why others cannot."`
	Plan   bool   `help:"Run the model and show how each layer is computed: its time, its share of what the processor can do, its error."`
	// Of --plan:
	Image   string `help:"With --plan, an image to run on instead of random numbers." type:"existingfile"`
	Threads int    `help:"With --plan, cores to use; 0 means all."`
}

// inspection is what inspect prints.
type inspection struct {
	Name       string            `json:"name"`
	IR         int               `json:"ir_version"`
	Opsets     map[string]int    `json:"opsets"`
	Producer   string            `json:"producer"`
	Inputs     []signature       `json:"inputs"`
	Outputs    []signature       `json:"outputs"`
	Metadata   map[string]string `json:"metadata"`
	ServedAt   string            `json:"served_at"`
	Parameters int64             `json:"parameters"`
	MACs       int64             `json:"macs"`
	Operators  map[string]int    `json:"operators"`
	Layers     []layerRow        `json:"layers"`
	// Groups is what pruning may remove: the channels that stand or fall together, by the layer that makes them.
	Groups []groupRow `json:"groups"`
	// Problem says why the engine does not run the model, if so; costs and groups are missing then.
	Problem string `json:"problem,omitempty"`
}

type signature struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type layerRow struct {
	Name       string `json:"name"`
	Op         string `json:"op"`
	In         []int  `json:"in"`
	Out        []int  `json:"out"`
	Parameters int64  `json:"parameters"`
	MACs       int64  `json:"macs"`
}

// Run implements the command.
func (c *inspectCmd) Run(ctx context.Context) error {
	g, err := onnx.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.File, err)
	}
	if c.Plan {
		if c.Groups {
			return usage("choose one of --groups and --plan")
		}
		r, err := plan(ctx, g, c.Image, c.Threads)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(r)
		}
		return r.print(os.Stdout)
	}
	if c.Image != "" || c.Threads != 0 {
		return usage("--image and --threads are for --plan")
	}
	r := inspect(g)
	if c.JSON {
		return printJSON(r)
	}
	return r.print(c.Groups)
}

func inspect(g *graph.Graph) inspection {
	r := inspection{Name: g.Name, IR: g.IR, Opsets: g.Opsets, Metadata: g.Meta, Operators: map[string]int{},
		Producer: g.Producer.Name + " " + g.Producer.Version}
	for _, v := range engine.Inputs(g) {
		r.Inputs = append(r.Inputs, signature{v.Name, v.Type.String()})
	}
	for _, v := range g.Outputs {
		r.Outputs = append(r.Outputs, signature{v.Name, v.Type.String()})
	}
	for _, n := range g.Nodes {
		r.Operators[n.Op]++
	}
	if err := r.measure(g); err != nil {
		r.Problem = err.Error()
	}
	return r
}

// measure binds shapes and fills in what follows from them.
func (r *inspection) measure(g *graph.Graph) error {
	spec, err := vision.ReadSpec(g.Meta, g)
	if err != nil {
		return err
	}
	in := predict.ServingType(g, spec)
	r.ServedAt = in.String()
	info, err := engine.Infer(g, []tensor.Type{in}, tensor.Float32)
	if err != nil {
		return err
	}
	cost := engine.CountInferred(g, info)
	r.Parameters, r.MACs = cost.Parameters, cost.MACs
	for _, n := range g.Nodes {
		k := cost.Nodes[n]
		if k.Parameters == 0 && k.MACs == 0 {
			continue
		}
		r.Layers = append(r.Layers, layerRow{nodeName(n), n.Op, k.In, k.Out, k.Parameters, k.MACs})
	}
	a, err := group.Analyze(g, info)
	if err != nil {
		return err
	}
	r.Groups = groupRows(a)
	return nil
}

// nodeName names a node by its output if it has no name of its own.
func nodeName(n *graph.Node) string {
	if n.Name == "" && len(n.Outputs) > 0 && n.Outputs[0] != nil {
		return n.Outputs[0].Name
	}
	return n.Name
}

// print writes what the model is made of, or what can be removed of it.
func (r *inspection) print(groups bool) error {
	w := tabwriter.NewWriter(os.Stdout, 2, 4, 2, ' ', 0)
	row := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	row("model\t%s, IR %d, opset %d, by %s", r.Name, r.IR, r.Opsets[""], r.Producer)
	for _, s := range r.Inputs {
		row("input\t%s %s", s.Name, s.Type)
	}
	for _, s := range r.Outputs {
		row("output\t%s %s", s.Name, s.Type)
	}
	if r.Problem != "" {
		row("problem\t%s", r.Problem)
		return w.Flush()
	}
	row("served at\t%s", r.ServedAt)
	if groups {
		r.printGroups(row)
		return w.Flush()
	}
	row("parameters\t%s", millions(r.Parameters))
	row("MACs\t%s", millions(r.MACs))
	all, prunable := r.filters()
	row("filters\t%d, of which %d can be removed (--groups tells which)", all, prunable)
	ops := make([]string, 0, len(r.Operators))
	for o := range r.Operators {
		ops = append(ops, o)
	}
	slices.SortFunc(ops, func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Operators[b], r.Operators[a]), cmp.Compare(a, b))
	})
	for i, o := range ops {
		what := ""
		if i == 0 {
			what = "operators"
		}
		row("%s\t%d %s", what, r.Operators[o], o)
	}
	row("\nlayer\toperator\tin\tout\tparameters\tMACs")
	for _, l := range r.Layers {
		row("%s\t%s\t%v\t%v\t%s\t%s", l.Name, l.Op, l.In, l.Out, millions(l.Parameters), millions(l.MACs))
	}
	return w.Flush()
}
