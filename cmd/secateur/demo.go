package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
)

type demoCmd struct {
	Out      string  `help:"Where overlays and reports go." default:"demo"`
	Name     string  `help:"Which of the built-in models; by default the first."`
	Target   string  `help:"What to reach: macs=0.5, params=0.3, filters=0.4, latency=12ms, speedup=2x or auto." default:"macs=0.5"`
	Images   int     `help:"Phantoms to calibrate with." default:"48"`
	HeldOut  int     `name:"held-out" help:"Phantoms to measure agreement on." default:"20"`
	Frames   int     `help:"Frames to time before and after." default:"150"`
	FPS      int     `name:"fps" help:"Frames a second." default:"25"`
	Seed     uint64  `help:"Seeds all that is random." default:"1"`
	Threads  int     `help:"Cores to use; 0 means all."`
	MinAgree float64 `name:"min-agreement" help:"The agreement under which the demo fails." default:"0.9"`
}

// Seeds of phantoms lie this far apart by use, so that no phantom serves twice.
const seedsApart = 1 << 20

// demo is a demo under way.
type demo struct {
	*demoCmd
	flags    clientFlags
	conn     *grpc.ClientConn
	target   pruner.Target
	p        *progress
	sum      summary
	failures []string
}

// Run implements the command. It serves a model in this process, streams frames through it, prunes it meanwhile, and
// compares.
func (c *demoCmd) Run(ctx context.Context) error {
	target, err := pruner.ParseTarget(c.Target)
	if err != nil {
		return usage("%v", err)
	}
	if c.Images < 10 || c.HeldOut < 4 || c.Frames < 1 || c.FPS < 1 {
		return usage("the demo takes --images 10, --held-out 4, --frames 1 and --fps 1 at least")
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	start := time.Now()
	d := &demo{demoCmd: c, target: target, p: newProgress(), sum: summary{Target: c.Target}}
	err = d.serve(ctx, d.steps)
	d.p.done()
	if err != nil {
		return err
	}
	d.sum.Seconds = time.Since(start).Seconds()
	d.sum.Problems = d.problems()
	if err := d.sum.write(c.Out); err != nil {
		return err
	}
	if err := d.sum.print(os.Stdout); err != nil {
		return err
	}
	fmt.Printf("done in %.0f s; see %s\n", d.sum.Seconds, filepath.Join(c.Out, "index.html"))
	if len(d.sum.Problems) > 0 {
		return fmt.Errorf("demo: %s", strings.Join(d.sum.Problems, "; "))
	}
	return nil
}

// serve runs steps against a server on loopback ports of its own, over a store that is gone afterwards.
func (d *demo) serve(ctx context.Context, steps func(context.Context) error) (err error) {
	store, err := os.MkdirTemp("", "secateur-demo-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(store) }() // a stray temporary folder harms nobody
	log, err := os.Create(filepath.Join(d.Out, "server.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // a log that lacks its end is no reason to fail
	s, err := newServer(serverOptions{Models: store, Predict: predict.Native(engine.Options{Threads: d.Threads}), Log: log})
	if err != nil {
		return err
	}
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(serving, listeners[0], listeners[1]) }()
	defer func() {
		stop()
		if e := <-ended; err == nil && ctx.Err() == nil {
			err = e
		}
	}()
	d.flags.Addr = listeners[0].Addr().String()
	return d.flags.with(func(conn *grpc.ClientConn) error {
		d.conn = conn
		return steps(ctx)
	})
}

// steps is the demo: stream, prune meanwhile, compare.
func (d *demo) steps(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	set, frames, err := d.draw(ctx)
	if err != nil {
		return err
	}
	st := &stream{}
	stop, streamed := make(chan struct{}), make(chan error, 1)
	go func() {
		err := st.run(ctx, secateurv1.NewSegmentationServiceClient(d.conn), d.Name, frames, d.FPS, stop)
		if err != nil {
			cancel() // whoever waits for frames would wait forever
		}
		streamed <- err
	}()
	res, err := d.pruneUnder(ctx, st, set)
	close(stop)
	// The stream's own error comes first: it is what ended the rest.
	if e := <-streamed; e != nil {
		return fmt.Errorf("stream: %w", d.flags.explain(e))
	}
	if err != nil {
		return err
	}
	d.sum.Latency.Before, d.sum.Latency.During, d.sum.Latency.After = st.quantiles(before), st.quantiles(during), st.quantiles(after)
	d.sum.Requests, d.sum.Failures = st.requests, len(st.failures)
	d.failures = st.failures
	d.sum.VersionAfter = st.version()
	return d.compare(ctx, res)
}

// draw makes the calibration set and the frames.
func (d *demo) draw(ctx context.Context) (*calib.Set, []*vision.Image, error) {
	items := make([]calib.Item, d.Images)
	for i := range items {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		img, mask := phantom.Draw(d.Seed+uint64(i), 0)
		b, err := pngBytes(rgba(img))
		if err != nil {
			return nil, nil, err
		}
		items[i] = calib.Item{Name: fmt.Sprintf("phantom-%04d", i), Image: b, Mask: mask.PNG()}
		d.p.update("draw", i+1, d.Images)
	}
	set, err := calib.New(items)
	if err != nil {
		return nil, nil, err
	}
	frames, err := sequence(ctx, d.Seed+2*seedsApart)
	return set, frames, err
}

// pruneUnder times frames, prunes while they flow, and times them again.
func (d *demo) pruneUnder(ctx context.Context, st *stream, set *calib.Set) (*secateurv1.PruneResult, error) {
	if err := d.waitFor(ctx, st, before, "stream"); err != nil {
		return nil, err
	}
	d.sum.VersionBefore = st.version()
	client := secateurv1.NewPruningServiceClient(d.conn)
	st.phase.Store(int32(during))
	c := pruneCmd{Name: d.Name, Promote: "always", Labels: "auto", Delta: 0.01, Agreement: 0.97, MaxLayer: 0.9, Seed: d.Seed}
	req := c.request(d.target)
	var err error
	if req.Calibration, err = uploadSet(ctx, client, set, func(done int) { d.p.update("upload", done, len(set.Items)) }); err != nil {
		return nil, err
	}
	op, err := client.Prune(ctx, req)
	if err != nil {
		return nil, err
	}
	res, err := watch(ctx, client, op.GetName(), d.p)
	if err != nil {
		return nil, err
	}
	st.phase.Store(int32(after))
	return res, d.waitFor(ctx, st, after, "stream on")
}

// waitFor waits until enough frames of a phase are answered.
func (d *demo) waitFor(ctx context.Context, st *stream, p phase, what string) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		n := st.answered(p)
		d.p.update(what, min(n, d.Frames), d.Frames)
		if n >= d.Frames {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// compare fetches both versions and the report from the server, as any client would.
func (d *demo) compare(ctx context.Context, res *secateurv1.PruneResult) error {
	client := secateurv1.NewModelServiceClient(d.conn)
	get := func(version uint64, file secateurv1.ModelFile) ([]byte, error) {
		_, rest, err := receive(ctx, client, &secateurv1.DownloadModelRequest{Name: res.GetModel(), Version: version, File: file})
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		err = rest(&b)
		return b.Bytes(), err
	}
	for _, f := range []struct {
		name string
		file secateurv1.ModelFile
	}{{"report.json", secateurv1.ModelFile_MODEL_FILE_REPORT_JSON}, {"report.html", secateurv1.ModelFile_MODEL_FILE_REPORT_HTML}} {
		b, err := get(res.GetVersion(), f.file)
		if err != nil {
			return err
		}
		if err := replaceBytes(filepath.Join(d.Out, f.name), b); err != nil {
			return err
		}
		if f.file == secateurv1.ModelFile_MODEL_FILE_REPORT_JSON {
			var rep pruner.Report
			if err := json.Unmarshal(b, &rep); err != nil {
				return fmt.Errorf("the server's report: %w", err)
			}
			d.sum.Filters = rep.Filters
		}
	}
	original, err := get(res.GetParentVersion(), secateurv1.ModelFile_MODEL_FILE_ONNX)
	if err != nil {
		return err
	}
	child, err := get(res.GetVersion(), secateurv1.ModelFile_MODEL_FILE_ONNX)
	if err != nil {
		return err
	}
	s := &d.sum
	s.Model, s.Verdict = res.GetModel(), word(res.GetVerdict().String(), "VERDICT_")
	s.Parameters = pruner.Change{Before: int64(res.GetParametersBefore()), After: int64(res.GetParametersAfter())}
	s.MACs = pruner.Change{Before: int64(res.GetMacsBefore()), After: int64(res.GetMacsAfter())}
	return s.compare(ctx, original, child, d.Seed+seedsApart, d.HeldOut, d.Out, func(done int) { d.p.update("compare", done, d.HeldOut) })
}

// problems lists what the demo promised and did not come to pass.
func (d *demo) problems() []string {
	var p []string
	s := &d.sum
	if s.Failures > 0 {
		p = append(p, fmt.Sprintf("%d of %d requests failed, the first: %s", s.Failures, s.Requests, d.failures[0]))
	}
	if s.VersionAfter == s.VersionBefore {
		p = append(p, fmt.Sprintf("version %d still serves", s.VersionBefore))
	}
	for _, k := range []struct {
		kind, name string
		c          pruner.Change
	}{{"macs", "multiply-adds", s.MACs}, {"params", "parameters", s.Parameters}, {"filters", "filters", s.Filters}} {
		if d.target.Kind == k.kind && k.c.Removed() < 100*d.target.Value {
			p = append(p, fmt.Sprintf("%s fell by %.1f %%, less than the %.1f %% asked for", k.name, k.c.Removed(), 100*d.target.Value))
		}
	}
	if s.Agreement < d.MinAgree {
		p = append(p, fmt.Sprintf("the pruned model agrees with the original to %.3f, less than %g", s.Agreement, d.MinAgree))
	}
	return p
}
