package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/latency"
)

type pruneCmd struct {
	clientFlags
	Model     string  `help:"Prune this ONNX file here instead of asking a server; takes --out." type:"existingfile"`
	Name      string  `help:"Which of the server's models; by default its first."`
	Out       string  `help:"Where the pruned ONNX file goes; with a server, only if given."`
	Calib     string  `required:"" help:"Calibration images: a folder with images/ and perhaps masks/, or of images alone." type:"existingdir"`
	Val       string  `help:"Held-out images for the verdict, laid out alike; by default a part of the calibration images." type:"existingdir"`
	Target    string  `help:"What to remove: macs=0.5, params=0.3 or filters=0.4; how fast to be: latency=12ms or speedup=2x; or auto, as much as the images allow." xor:"what"`
	Sweep     string  `help:"With --model, cut it to several sizes and draw the curve, without a verdict: FROM:TO:STEP of the multiply-adds, or params=FROM:TO:STEP." xor:"what"`
	Steps     int     `help:"Remove in so many steps, with scores and repairs anew in each." default:"1"`
	Round     int     `help:"Leave a multiple of so many channels in a layer; 0: 1, or what the latency table says."`
	Keep      string  `help:"A regular expression: layers whose name, or whose output's name, it matches lose no channel."`
	Criterion string  `help:"How channels are scored: ${criteria}." default:"${criterion}"`
	Normalise string  `help:"What scores are divided by before layers are compared: ${normalisations}." default:"raw"`
	Table     string  `name:"latency-table" help:"With --model and a target of time, a file with the latency table; it is measured and written if there is none."`
	Baselines bool    `help:"With --model, have the report say what other criteria would have left."`
	Sensitive bool    `name:"sensitivity" help:"With --model, have the report say what each layer's loss does alone."`
	Labels    string  `help:"Whether masks are used: auto (if there are any) or none." enum:"auto,none" default:"auto"`
	Delta     float64 `help:"How much mean Dice may be lost." default:"0.01"`
	Agreement float64 `help:"Without masks: the least mean Dice of the pruned model's masks against the original's." default:"0.97"`
	MaxLayer  float64 `name:"max-layer" help:"The largest part of a layer's filters that may go." default:"0.9"`
	GroupBy   string  `name:"group-by" help:"A regular expression that finds in an image's name the patient or video it is of (its first group, or all that it matches); the verdict counts each as one."`
	NoRepair  bool    `name:"no-repair" help:"Leave weights as they are after the cut."`
	Distil    int     `help:"Epochs of training on the original's masks at most, behind the cut; 0 for none. By default ${distil}, none in a sweep." default:"-1"`
	Finetune  int     `help:"Epochs of training on the calibration masks at most, behind that; takes masks." default:"0"`
	Promote   string  `help:"On a server, when the pruned model serves: on-pass, staged (not yet) or always." enum:"on-pass,staged,always" default:"on-pass"`
	Note      string  `help:"On a server, a note to keep with the version."`
	Seed      uint64  `help:"Seeds all that is random." default:"1"`
	Resume    string  `help:"With --model, a file that a run which is broken off leaves: the same command goes on from its last epoch of training. It is removed at the end."`
	Report    string  `help:"A folder for report.html and report.json."`
	Threads   int     `help:"Cores a local prune may use; 0 means all."`
	Spec      string  `help:"A JSON file that overrides the model's pre- and postprocessing; by default model.json beside the model, if there." type:"existingfile"`
	JSON      bool    `help:"Print one JSON document."`
}

// pruned is what prune prints.
type pruned struct {
	Verdict string `json:"verdict"`
	// Out is the file written, if one was.
	Out string `json:"out,omitempty"`
	// Model and what follows are set by a server.
	Model         string          `json:"model,omitempty"`
	Version       uint64          `json:"version,omitempty"`
	ParentVersion uint64          `json:"parent_version,omitempty"`
	Promoted      bool            `json:"promoted"`
	NotPromoted   string          `json:"not_promoted_reason,omitempty"`
	SHA256        string          `json:"sha256"`
	Report        json.RawMessage `json:"report"`
}

// Run implements the command.
func (c *pruneCmd) Run(ctx context.Context) error {
	if c.Model == "" && (c.Spec != "" || c.Threads != 0 || c.Sweep != "" || c.Table != "" || c.Resume != "" || c.Baselines || c.Sensitive) {
		return usage("--spec, --threads, --sweep, --latency-table, --resume, --baselines and --sensitivity are for --model FILE.onnx")
	}
	if c.Sweep != "" {
		return c.sweep(ctx)
	}
	target, err := pruner.ParseTarget(c.Target)
	if err != nil {
		return usage("%v", err)
	}
	if c.Model != "" && c.Out == "" {
		return usage("--model takes --out, where the pruned file goes")
	}
	if !(c.Delta > 0 && c.Delta < 1) {
		return usage("--delta %g: want a loss of Dice between 0 and 1", c.Delta)
	}
	if err := c.places(); err != nil {
		return err
	}
	fit, val, err := c.sets()
	if err != nil {
		return err
	}
	var r pruned
	var report *pruner.Report
	if c.Model != "" {
		r, report, err = c.local(ctx, target, fit, val)
	} else {
		r, report, err = c.remote(ctx, target, fit, val)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(r)
	} else {
		err = r.print(os.Stdout, report, c.Report)
	}
	if err == nil && r.Verdict != "pass" {
		err = exit(exitNotPassed)
	}
	return err
}

// places sees to it that what is to be written can be: a run is too long to find out at its end. It makes the report's folder.
func (c *pruneCmd) places() error {
	report := ""
	if c.Report != "" {
		if err := os.MkdirAll(c.Report, 0o755); err != nil {
			return usage("--report: %v", err)
		}
		report = filepath.Join(c.Report, "report.html")
	}
	for _, e := range []struct{ flag, file string }{
		{"--out", c.Out}, {"--latency-table", c.Table}, {"--resume", c.Resume}, {"--report", report},
	} {
		if e.file == "" {
			continue
		}
		if st, err := os.Stat(e.file); err == nil && st.IsDir() {
			return usage("%s %s is a folder, want a file", e.flag, e.file)
		}
		f, err := os.CreateTemp(filepath.Dir(e.file), ".secateur-*") // as replaceFile does
		if err != nil {
			return usage("%s %s cannot be written: %v", e.flag, e.file, err)
		}
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// sets opens the folders of images; val is nil without --val.
func (c *pruneCmd) sets() (fit, val *calib.Set, err error) {
	if fit, err = calib.Open(c.Calib); err != nil {
		return nil, nil, err
	}
	if c.Val != "" {
		val, err = calib.Open(c.Val)
	}
	return fit, val, err
}

// local prunes in this process.
func (c *pruneCmd) local(ctx context.Context, target pruner.Target, fit, val *calib.Set) (pruned, *pruner.Report, error) {
	g, opt, err := c.options()
	if err != nil {
		return pruned{}, nil, err
	}
	opt.Target = target
	p := newProgress()
	opt.Progress = p.pruning
	res, err := pruner.Prune(ctx, g, fit, val, opt)
	p.done()
	if err != nil {
		return pruned{}, nil, err
	}
	if c.Table != "" && opt.Latency == nil && res.Latency != nil {
		if err := replaceBytes(c.Table, res.Latency.JSON()); err != nil {
			return pruned{}, nil, err
		}
	}
	// The file is written whatever the verdict is: it is the caller's to look at.
	if err := replaceBytes(c.Out, res.ONNX); err != nil {
		return pruned{}, nil, err
	}
	if c.Report != "" {
		if err := replaceBytes(filepath.Join(c.Report, "report.json"), res.Report.JSON()); err != nil {
			return pruned{}, nil, err
		}
		if err := replaceBytes(filepath.Join(c.Report, "report.html"), res.Report.HTML()); err != nil {
			return pruned{}, nil, err
		}
	}
	if err := c.finished(); err != nil {
		return pruned{}, nil, err
	}
	return pruned{Verdict: res.Report.Verdict, Out: c.Out, SHA256: res.Report.Hashes.Child, Report: res.Report.JSON()}, res.Report, nil
}

// options reads the model and what is asked for, but for the target.
func (c *pruneCmd) options() (*graph.Graph, pruner.Options, error) {
	opt := pruner.Options{
		Unlabelled: c.Labels == "none", Delta: c.Delta, Agreement: c.Agreement, Seed: c.Seed, MaxLayer: c.MaxLayer,
		Steps: c.Steps, Round: c.Round, Criterion: c.Criterion, Normalise: c.Normalise, Baselines: c.Baselines, Sensitivity: c.Sensitive,
		NoRepair: c.NoRepair, Distil: c.distil(), Finetune: c.Finetune, Threads: c.Threads,
	}
	for _, e := range []struct {
		flag, value string
		to          **regexp.Regexp
	}{{"--group-by", c.GroupBy, &opt.GroupBy}, {"--keep", c.Keep, &opt.Keep}} {
		if e.value == "" {
			continue
		}
		re, err := regexp.Compile(e.value)
		if err != nil {
			return nil, opt, usage("%s: %v", e.flag, err)
		}
		*e.to = re
	}
	if c.Table != "" {
		t, err := latency.ReadFile(c.Table)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, opt, err
		}
		opt.Latency = t
	}
	if c.Resume != "" {
		b, err := os.ReadFile(c.Resume)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, opt, err
		}
		opt.Resume = b
		opt.Save = func(b []byte) error { return replaceBytes(c.Resume, b) }
	}
	g, sum, err := readForPruner(c.Model, c.Spec)
	opt.Parent = sum
	return g, opt, err
}

// finished removes what a run that was broken off would have needed.
func (c *pruneCmd) finished() error {
	if c.Resume == "" {
		return nil
	}
	if err := os.Remove(c.Resume); err != nil && !errors.Is(err, fs.ErrNotExist) { // none: there was nothing to save
		return err
	}
	return nil
}

// distil is how many epochs are asked for.
func (c *pruneCmd) distil() int {
	switch {
	case c.Distil >= 0:
		return c.Distil
	case c.Sweep != "":
		return 0
	}
	return pruner.DefaultDistil
}

// readForPruner gives the model in a file and the hash of the file. Settings that override the model's own are written into
// the graph, so that the pruner uses them and a pruned file carries what it was pruned for.
func readForPruner(file, settings string) (*graph.Graph, string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	g, err := onnx.Decode(b, onnx.Options{Dir: filepath.Dir(file)})
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", file, err)
	}
	sum := sha256.Sum256(b)
	spec, overridden, err := readSpec(settings, file, g)
	if err != nil || !overridden {
		return g, hex.EncodeToString(sum[:]), err
	}
	pre, err := json.Marshal(spec.Pre)
	if err != nil {
		return nil, "", err
	}
	post, err := json.Marshal(spec.Post)
	if err != nil {
		return nil, "", err
	}
	if g.Meta == nil {
		g.Meta = map[string]string{}
	}
	g.Meta[vision.MetaPreprocess], g.Meta[vision.MetaPostprocess] = string(pre), string(post)
	return g, hex.EncodeToString(sum[:]), nil
}

// print writes what came of a prune as a table; dir is where the report is, if anywhere.
func (r *pruned) print(out io.Writer, rep *pruner.Report, dir string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // Flush reports errors
	put("\tbefore\tafter\tremoved\t\n")
	for _, k := range []struct {
		name string
		pruner.Change
	}{{"parameters", rep.Parameters}, {"multiply-adds", rep.MACs}, {"filters", rep.Filters}, {"bytes", rep.Bytes}} {
		put("%s\t%s\t%s\t%.1f %%\t\n", k.name, millions(k.Before), millions(k.After), k.Removed())
	}
	put("latency, ms\t%.1f\t%.1f\t%.1f %%\t\n", rep.Latency.Before, rep.Latency.After, 100*(1-rep.Latency.After/max(rep.Latency.Before, 1e-9)))
	if err := w.Flush(); err != nil {
		return err
	}
	lines := []string{rep.Sentence}
	if over := rep.Overshoot(); over > 1 {
		lines = append(lines, fmt.Sprintf("%.1f points more went than asked for: what goes together is more than what was lacking", over))
	}
	if t := rep.Latency.Table; t != nil {
		lines = append(lines, "measured: "+rep.Latency.Outcome())
		lines = append(lines, fmt.Sprintf("latency: the table says %.1f ms of %.1f, measured %.1f of %.1f, %.1f %% apart", t.After, t.Before, rep.Latency.After, rep.Latency.Before, 100*math.Abs(t.Off)))
	}
	if rep.Curve != nil {
		lines = append(lines, rep.Curve.Sentence())
	}
	for _, s := range rep.Repair.Steps {
		kept := "kept"
		if !s.Kept {
			kept = "undone"
		}
		line := fmt.Sprintf("repair: %s, from %.4f to %.4f on the select images, %s", s.Method, s.Before, s.After, kept)
		if s.Ridge != nil {
			line += fmt.Sprintf("; at most %sB of samples and equations", millions(s.Ridge.Bytes))
		}
		lines = append(lines, line)
	}
	if n := rep.Images.Duplicates; n > 0 {
		lines = append(lines, fmt.Sprintf("calibration images left out, because another is the same picture: %d", n))
	}
	for _, b := range rep.Baselines {
		lines = append(lines, fmt.Sprintf("before repair, by %s: agreement %.4f", b.Criterion, b.Agreement))
	}
	if r.Version != 0 {
		state := "it serves"
		if !r.Promoted {
			state = "not serving: " + r.NotPromoted
		}
		lines = append(lines, fmt.Sprintf("%s version %d, from version %d; %s", r.Model, r.Version, r.ParentVersion, state))
	}
	if r.Out != "" {
		lines = append(lines, fmt.Sprintf("written: %s, sha256 %s", r.Out, r.SHA256))
	}
	if dir != "" {
		lines = append(lines, "report: "+filepath.Join(dir, "report.html"))
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(out, l); err != nil {
			return err
		}
	}
	return nil
}
