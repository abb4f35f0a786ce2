package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/crosscheck"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

type diffCmd struct {
	Model     []string `required:"" help:"What to run: ONNX files, folders of them, or names as bench takes them."`
	Backends  []string `help:"The backend to check, and those to check it against." default:"native,gorgonia"`
	OrtLib    string   `name:"ort-lib" help:"Path of libonnxruntime.so.1, for the ort backend." env:"SECATEUR_ORT_LIB"`
	Image     string   `help:"An image to run on instead of random numbers." type:"existingfile"`
	Seed      uint64   `help:"The random numbers to run on." default:"1"`
	Size      int      `help:"Height and width of the input; by default the model's own."`
	Tolerance float64  `help:"How far apart values may be, as a part of the largest." default:"${tolerance}"`
	Threads   int      `help:"Cores a run may use; 0 means all."`
	JSON      bool     `help:"Print one JSON document."`
}

// diffed is what diff prints of a model in two backends.
type diffed struct {
	Model    string    `json:"model"`
	Input    string    `json:"input,omitempty"`
	Backends [2]string `json:"backends"`
	*crosscheck.Result
	// Error says why the two were not compared.
	Error string `json:"error,omitempty"`
}

// Run implements the command. It fails if two backends disagree, or if none could be compared.
func (c *diffCmd) Run(ctx context.Context) error {
	sides, err := c.sides()
	if err != nil {
		return err
	}
	names, err := modelNames(c.Model)
	if err != nil {
		return err
	}
	all := []diffed{}
	for _, name := range names {
		rows := c.compare(ctx, name, sides)
		if err := ctx.Err(); err != nil {
			return err
		}
		all = append(all, rows...)
		if !c.JSON {
			if err := printDiff(os.Stdout, rows, c.Tolerance); err != nil {
				return err
			}
		}
	}
	if c.JSON {
		if err := printJSON(all); err != nil {
			return err
		}
	}
	compared, apart := 0, 0
	for _, d := range all {
		if d.Result != nil {
			compared++
			if d.Start != nil || d.Worst() > c.Tolerance {
				apart++
			}
		}
	}
	switch {
	case compared == 0:
		return fmt.Errorf("nothing could be compared")
	case apart > 0:
		return fmt.Errorf("%d of %d comparisons exceed %g", apart, compared, c.Tolerance)
	}
	return nil
}

// compare runs a model in the first backend and each of the others.
func (c *diffCmd) compare(ctx context.Context, name string, sides []crosscheck.Side) (rows []diffed) {
	g, in, failed := c.load(ctx, name)
	for _, other := range sides[1:] {
		d := diffed{Model: filepath.Base(name), Input: inputTypes(in), Backends: [2]string{sides[0].Name, other.Name}}
		err := failed
		if err == nil {
			d.Result, err = crosscheck.Compare(ctx, g, in, sides[0], other, c.Tolerance)
		}
		if err != nil {
			d.Error = err.Error()
		}
		rows = append(rows, d)
	}
	return rows
}

// sides opens the backends.
func (c *diffCmd) sides() ([]crosscheck.Side, error) {
	if len(c.Backends) < 2 {
		return nil, usage("--backends takes two or more")
	}
	var sides []crosscheck.Side
	for _, name := range c.Backends {
		s := crosscheck.Side{Name: name}
		var err error
		if s.Serve, err = backend(name, c.OrtLib, engine.Options{Threads: c.Threads}); err != nil {
			return nil, err
		}
		if s.Verbatim, err = backend(name, c.OrtLib, engine.Options{Threads: c.Threads, Verbatim: true}); err != nil {
			return nil, err
		}
		sides = append(sides, s)
	}
	return sides, nil
}

// modelNames puts the ONNX files of folders in their places.
func modelNames(args []string) ([]string, error) {
	var names []string
	for _, a := range args {
		st, err := os.Stat(a)
		if err != nil || !st.IsDir() {
			names = append(names, a)
			continue
		}
		files, err := filepath.Glob(filepath.Join(a, "*.onnx"))
		if err != nil {
			return nil, err
		}
		names = append(names, files...)
	}
	if len(names) == 0 {
		return nil, usage("no models in %s", strings.Join(args, ", "))
	}
	return names, nil
}

// load reads a model and makes its inputs.
func (c *diffCmd) load(ctx context.Context, name string) (*graph.Graph, []*tensor.Tensor, error) {
	m, err := benchModel(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	in, err := c.inputs(m)
	if err != nil {
		return nil, nil, err
	}
	return m.graph, in, nil
}

// inputs are an image, where the model takes one, or numbers for every input, whose types the model must declare then.
func (c *diffCmd) inputs(m benched) ([]*tensor.Tensor, error) {
	values := engine.Inputs(m.graph)
	if len(values) == 1 {
		if c.Image != "" {
			x, err := c.image(m.graph)
			return []*tensor.Tensor{x}, err
		}
		if t, err := m.input(c.Size); err == nil {
			return []*tensor.Tensor{randomInput(t, c.Seed)}, nil
		}
	}
	if c.Image != "" {
		return nil, fmt.Errorf("the model takes %d inputs, not an image", len(values))
	}
	var in []*tensor.Tensor
	for i, v := range values {
		if !v.Type.Bound() || !v.Type.DType.IsFloat() || v.Type.Shape.Elems() < 1 {
			return nil, fmt.Errorf("input %q is %v; there are numbers only for floating point of a known shape", v.Name, v.Type)
		}
		in = append(in, randomInput(v.Type, c.Seed+uint64(i)))
	}
	return in, nil
}

func (c *diffCmd) image(g *graph.Graph) (*tensor.Tensor, error) {
	b, err := os.ReadFile(c.Image)
	if err != nil {
		return nil, err
	}
	img, err := vision.Decode(b, vision.Limits{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Image, err)
	}
	spec, err := vision.ReadSpec(g.Meta, g)
	if err != nil {
		return nil, err
	}
	if c.Size > 0 {
		spec.Pre.Size = []int{c.Size, c.Size}
	}
	x := tensor.New(tensor.Float32, spec.InputType(img).Shape...)
	return x, spec.Prepare(x, img)
}

func inputTypes(in []*tensor.Tensor) string {
	var types []string
	for _, t := range in {
		types = append(types, t.Type().String())
	}
	return strings.Join(types, ", ")
}

// printDiff writes a table of a model: a line for each output in each pair of backends, and where a disagreement begins.
func printDiff(out io.Writer, rows []diffed, tolerance float64) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, strings.TrimSpace(rows[0].Model+" "+rows[0].Input)) // Flush reports errors
	for _, d := range rows {
		pair := fmt.Sprintf("  %s, %s", d.Backends[0], d.Backends[1])
		if d.Result == nil {
			_, _ = fmt.Fprintf(w, "%s\tnot compared: %s\n", pair, d.Error)
			continue
		}
		for i, o := range d.Outputs {
			verdict := ""
			if i == 0 {
				verdict = "\t" + d.verdict(tolerance)
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s%s\n", pair, o.Value, apartness(o), verdict)
			pair = ""
		}
	}
	return w.Flush()
}

// verdict says where a disagreement begins.
func (d *diffed) verdict(tolerance float64) string {
	switch {
	case d.Unknown != "":
		return "nodes not compared: " + d.Unknown
	case d.Start != nil:
		return fmt.Sprintf("begins at %s, of which %q differs: %s", d.Start.Node, d.Start.Value, apartness(*d.Start))
	case d.Worst() > tolerance:
		return fmt.Sprintf("each of %d nodes agrees: what a backend makes of several does not", d.Nodes)
	}
	return fmt.Sprintf("%d nodes agree", d.Nodes)
}

// apartness says how far apart two values are.
func apartness(d crosscheck.Difference) string {
	if d.Why != "" {
		return d.Why
	}
	return fmt.Sprintf("max|Δ| %.1e, max|Δ|/max|y| %.1e", d.Max, d.Rel)
}
