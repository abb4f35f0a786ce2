package main

import (
	"fmt"

	"github.com/secateur/secateur/engine/conform"
)

type conformCmd struct {
	Dir  string `arg:"" help:"A folder tree with model.onnx and test_data_set_*/ beside it." type:"existingdir"`
	JSON bool   `help:"Print one JSON document."`
}

// Run implements the command. It fails if a case does.
func (c *conformCmd) Run() error {
	p := newProgress()
	r, err := conform.Run(c.Dir, func(done, total int) { p.update("conform", done, total) })
	p.done()
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(r); err != nil {
			return err
		}
	} else {
		for _, k := range r.Cases {
			fmt.Printf("%-11s %s", k.Status, k.Name)
			if k.Reason != "" {
				fmt.Printf(": %s", k.Reason)
			}
			fmt.Println()
		}
		fmt.Printf("pass %d, fail %d, unsupported %d\n", r.Totals.Pass, r.Totals.Fail, r.Totals.Unsupported)
	}
	if r.Totals.Fail > 0 {
		return exit(exitError)
	}
	return nil
}
