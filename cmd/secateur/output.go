package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/secateur/secateur/pruner"
)

// printJSON writes the one document that --json promises on standard output.
func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// progress shows how far long work is, on standard error: a bar on a terminal, a line at each tenth otherwise.
type progress struct {
	mu       sync.Mutex
	terminal bool
	stage    string
	tenth    int
	open     bool // a bar stands on the last line
}

func newProgress() *progress {
	st, err := os.Stderr.Stat()
	return &progress{terminal: err == nil && st.Mode()&os.ModeCharDevice != 0}
}

// pruning reports how far a run of package pruner has come.
func (p *progress) pruning(k pruner.Progress) { p.update(k.Stage, k.Done, k.Total) }

// update reports done of total steps of a stage.
func (p *progress) update(stage string, done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if total <= 0 {
		total = 1
	}
	if stage != p.stage {
		p.line()
		p.stage, p.tenth = stage, -1
	}
	tenth := done * 10 / total
	if p.terminal {
		const width = 30
		full := min(done*width/total, width)
		fmt.Fprintf(os.Stderr, "\r%-12s [%s%s] %d/%d ", stage, strings.Repeat("=", full), strings.Repeat(" ", width-full), done, total)
		p.open = true
		return
	}
	if tenth != p.tenth {
		p.tenth = tenth
		fmt.Fprintf(os.Stderr, "%s %d/%d\n", stage, done, total)
	}
}

// line ends a bar that is being drawn.
func (p *progress) line() {
	if p.open {
		fmt.Fprintln(os.Stderr)
		p.open = false
	}
}

// done ends the display.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line()
}

// millions writes a count as people read it: 1.95 M, 3.03 G.
func millions(n int64) string {
	switch f := float64(n); {
	case f >= 1e9:
		return fmt.Sprintf("%.2f G", f/1e9)
	case f >= 1e6:
		return fmt.Sprintf("%.2f M", f/1e6)
	case f >= 1e3:
		return fmt.Sprintf("%.1f k", f/1e3)
	}
	return fmt.Sprint(n)
}

// field finds "name : value" among lines, as files of /proc have them.
func field(text, name string) string {
	for line := range strings.SplitSeq(text, "\n") {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
