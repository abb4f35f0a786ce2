package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/secateur/secateur/pruner"
)

// sweep draws the curve of a model.
func (c *pruneCmd) sweep(ctx context.Context) error {
	rg, err := pruner.ParseRange(c.Sweep)
	if err != nil {
		return usage("%v", err)
	}
	if c.Val != "" || c.Out != "" {
		return usage("--sweep looks at no held-out images and writes no model; leave out --val and --out")
	}
	if err := c.places(); err != nil {
		return err
	}
	fit, _, err := c.sets()
	if err != nil {
		return err
	}
	g, opt, err := c.options()
	if err != nil {
		return err
	}
	p := newProgress()
	opt.Progress = p.pruning
	curve, err := pruner.Sweep(ctx, g, fit, rg, opt)
	p.done()
	if err != nil {
		return err
	}
	if c.Report != "" {
		for name, b := range map[string][]byte{"curve.json": curve.JSON(), "curve.html": curve.HTML(), "curve.svg": curve.SVG()} {
			if err := replaceBytes(filepath.Join(c.Report, name), b); err != nil {
				return err
			}
		}
	}
	if err := c.finished(); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(curve)
	}
	return printCurve(os.Stdout, curve, c.Report)
}

func printCurve(out io.Writer, c *pruner.Curve, dir string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // Flush reports errors
	what := "Dice"
	if !c.Labelled {
		what = "agreement"
	}
	put("target\tMACs left\tms\t%s\t97.5 %% bounds\t\t", what)
	if !c.NoRepair {
		put("repaired from\tto\t")
	}
	put("\nnone\t%s\t\t%.4f\t\t\t", millions(c.Base[0]), c.Original)
	if !c.NoRepair {
		put("\t\t")
	}
	for i, p := range c.Points {
		mark := ""
		if i == c.Knee {
			mark = "recommended"
		}
		put("\n%s\t%s\t%.1f\t%.4f\t%s\t%s\t", p.Target, millions(p.MACs), p.Latency.After, p.Dice.Mean, p.Bounds(), mark)
		if !c.NoRepair {
			put("%.4f\t%.4f\t", p.Cut, p.Repaired)
		}
	}
	put("\n")
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s\n", c.Sentence())
	if err == nil && dir != "" {
		_, err = fmt.Fprintf(out, "curve: %s\n", filepath.Join(dir, "curve.html"))
	}
	return err
}
