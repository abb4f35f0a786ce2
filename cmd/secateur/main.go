// Command secateur serves ONNX segmentation models over gRPC and prunes them while it serves.
//
// Each subcommand is a file of this package; all of them only wire together what the other packages do.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/secateur/secateur/engine/crosscheck"
	"github.com/secateur/secateur/pruner"
)

// cli is the command line.
type cli struct {
	Serve   serveCmd   `cmd:"" help:"Serve models over gRPC, with metrics and status over HTTP."`
	Segment segmentCmd `cmd:"" help:"Segment images, with a server or a model file."`
	Prune   pruneCmd   `cmd:"" help:"Remove the least important filters of a model and prove that it is no worse."`
	Score   scoreCmd   `cmd:"" help:"Show how much each layer's channels matter: what prune goes by."`
	Eval    evalCmd    `cmd:"" help:"Measure a model against masks: Dice, IoU, sensitivity, specificity."`
	Inspect inspectCmd `cmd:"" help:"Show what a model is: signature, layers, parameters, MACs, what can be pruned."`
	Bench   benchCmd   `cmd:"" help:"Time a model, alone or beside ONNX Runtime."`
	Diff    diffCmd    `cmd:"" help:"Run models in several backends and show how far apart they are, and where that begins."`
	Conform conformCmd `cmd:"" help:"Run a tree of ONNX node tests."`
	Models  modelsCmd  `cmd:"" help:"List, fetch, upload, promote, roll back and delete a server's models."`
	Demo    demoCmd    `cmd:"" help:"Serve, stream, prune and swap, in one process, and report it."`
	Phantom phantomCmd `cmd:"" help:"Draw synthetic endoscopy images with exact masks."`
	Version versionCmd `cmd:"" help:"Print the version."`
	Spin    spinCmd    `cmd:"" hidden:"" help:"Keep a core busy, for bench --busy."`
}

// Exit codes. A prune whose verdict is not pass has still written its output.
const (
	exitOK        = 0
	exitError     = 1
	exitUsage     = 2
	exitNotPassed = 3
)

// exit is an error that has been told already and only sets the exit code.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	p, err := kong.New(&c, kong.Name("secateur"), kong.UsageOnError(),
		kong.Description("Serves ONNX segmentation models over gRPC and prunes them while it serves."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Vars{
			"criteria": strings.Join(pruner.Criteria(), ", "), "criterion": pruner.DefaultCriterion,
			"tolerance":      fmt.Sprint(crosscheck.Tolerance),
			"normalisations": strings.Join(pruner.Normalisations(), ", "), "distil": strconv.Itoa(pruner.DefaultDistil),
		})
	if err != nil {
		panic(err) // the struct tags above are wrong
	}
	k, err := p.Parse(args)
	if err != nil {
		p.Errorf("%v (see secateur --help)", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Once told to stop, being told again stops at once.
	context.AfterFunc(ctx, stop)
	k.BindTo(ctx, (*context.Context)(nil))
	err = k.Run()
	var code exit
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "secateur:", err)
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprintln(os.Stderr, "secateur:", err)
	return exitError
}

// errUsage marks errors in how the command was called.
var errUsage = errors.New("usage")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}
