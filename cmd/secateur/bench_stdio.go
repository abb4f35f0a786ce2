package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/tensor"
)

// stdio serves a script that times engines in turns: a line in, a line out.
func (c *benchCmd) stdio(ctx context.Context, in io.Reader, out io.Writer) error {
	m, err := benchModel(ctx, c.Model[0])
	if err != nil {
		return err
	}
	typ, err := m.input(m.sizes(c.Size)[0])
	if err != nil {
		return err
	}
	x := randomImage(typ)
	if c.Input != "" {
		b, err := os.ReadFile(c.Input)
		if err != nil {
			return err
		}
		if len(b) != len(x.Data) {
			return fmt.Errorf("%s has %d bytes, %v takes %d", c.Input, len(b), typ, len(x.Data))
		}
		copy(x.Data, b)
	}
	model, err := engine.Compile(m.graph, []tensor.Type{typ}, engine.Options{Threads: c.Threads[0]})
	if err != nil {
		return err
	}
	s, xs := model.NewSession(), []*tensor.Tensor{x}
	debug.FreeOSMemory() // so that a look at the process sees what stays, as in a server
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		verb, file, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		answer := "ok"
		switch verb {
		case "run":
			t0 := time.Now()
			if _, err := s.Run(ctx, xs); err != nil {
				return err
			}
			answer = fmt.Sprintf("%.4f", float64(time.Since(t0))/1e6)
		case "output":
			err = writeFirst(ctx, file, s, xs)
		case "reference":
			var exact *engine.Model
			if exact, err = engine.Compile(m.graph, []tensor.Type{typ}, engine.Options{Float64: true}); err == nil {
				err = writeFirst(ctx, file, exact.NewSession(), xs)
			}
		case "quit":
			return nil
		default:
			return usage("%q: want run, output FILE, reference FILE or quit", verb)
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// writeFirst runs and writes the first output as raw float32.
func writeFirst(ctx context.Context, file string, s *engine.Session, x []*tensor.Tensor) error {
	out, err := s.Run(ctx, x)
	if err != nil {
		return err
	}
	y, err := out[0].Float(tensor.Float32)
	if err != nil {
		return err
	}
	return replaceBytes(file, y.Data)
}
