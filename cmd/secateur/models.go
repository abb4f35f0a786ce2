package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

type modelsCmd struct {
	List     modelsListCmd     `cmd:"" help:"List the models and their versions; * marks the ones that serve."`
	Get      modelsGetCmd      `cmd:"" help:"Tell all about one version."`
	Upload   modelsUploadCmd   `cmd:"" help:"Store an ONNX file as a new version."`
	Download modelsDownloadCmd `cmd:"" help:"Fetch a version's ONNX file or prune report."`
	Promote  modelsPromoteCmd  `cmd:"" help:"Make a version serve."`
	Rollback modelsRollbackCmd `cmd:"" help:"Make the version serve that served before."`
	Delete   modelsDeleteCmd   `cmd:"" help:"Delete a version that does not serve."`
}

// versionInfo is what the models commands print of a version.
type versionInfo struct {
	Model        string       `json:"model"`
	Version      uint64       `json:"version"`
	Serving      bool         `json:"serving"`
	SHA256       string       `json:"sha256"`
	Parent       uint64       `json:"parent,omitempty"`
	Source       string       `json:"source"`
	Created      string       `json:"created,omitempty"`
	Bytes        uint64       `json:"bytes"`
	Parameters   uint64       `json:"parameters"`
	MACs         uint64       `json:"macs"`
	ServingShape []int64      `json:"serving_shape"`
	Inputs       []tensorInfo `json:"inputs"`
	Outputs      []tensorInfo `json:"outputs"`
	Verdict      string       `json:"verdict,omitempty"`
	HasReport    bool         `json:"has_report"`
	Calibration  string       `json:"calibration,omitempty"`
	Note         string       `json:"note,omitempty"`
}

type tensorInfo struct {
	Name  string  `json:"name"`
	Type  string  `json:"type"`
	Shape []int64 `json:"shape"`
}

// modelInfo is what models list prints of a model.
type modelInfo struct {
	Name     string        `json:"name"`
	Default  bool          `json:"default"`
	Serving  uint64        `json:"serving_version"`
	Previous uint64        `json:"previous_version,omitempty"`
	Versions []versionInfo `json:"versions"`
}

func newVersionInfo(v *secateurv1.ModelVersion) versionInfo {
	r := versionInfo{
		Model: v.GetModel(), Version: v.GetVersion(), Serving: v.GetServing(), SHA256: v.GetSha256(), Parent: v.GetParentVersion(),
		Source: word(v.GetSource().String(), "MODEL_SOURCE_"), Bytes: v.GetSize(), Parameters: v.GetParameters(), MACs: v.GetMacs(),
		ServingShape: v.GetServingShape(), HasReport: v.GetHasReport(), Calibration: v.GetCalibration(), Note: v.GetNote(),
	}
	if v.GetCreateTime() != nil {
		r.Created = v.GetCreateTime().AsTime().UTC().Format(time.RFC3339)
	}
	if v.GetVerdict() != secateurv1.Verdict_VERDICT_UNSPECIFIED {
		r.Verdict = word(v.GetVerdict().String(), "VERDICT_")
	}
	for _, t := range v.GetInputs() {
		r.Inputs = append(r.Inputs, tensorInfo{t.GetName(), t.GetType(), t.GetShape()})
	}
	for _, t := range v.GetOutputs() {
		r.Outputs = append(r.Outputs, tensorInfo{t.GetName(), t.GetType(), t.GetShape()})
	}
	return r
}

// word is an enum's name as people write it: VERDICT_CANNOT_TELL is "cannot tell".
func word(name, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", " "))
}

// withModels calls the server's ModelService.
func (f *clientFlags) withModels(do func(secateurv1.ModelServiceClient) error) error {
	return f.with(func(c *grpc.ClientConn) error { return do(secateurv1.NewModelServiceClient(c)) })
}

// with calls the server, and says its errors in words.
func (f *clientFlags) with(do func(*grpc.ClientConn) error) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // every call has ended
	return f.explain(do(conn))
}

type modelsListCmd struct {
	clientFlags
	JSON bool `help:"Print one JSON document."`
}

// Run implements the command.
func (c *modelsListCmd) Run(ctx context.Context) error {
	return c.withModels(func(client secateurv1.ModelServiceClient) error {
		r, err := client.ListModels(ctx, &secateurv1.ListModelsRequest{})
		if err != nil {
			return err
		}
		models := []modelInfo{}
		for _, m := range r.GetModels() {
			k := modelInfo{Name: m.GetName(), Default: m.GetDefault(), Serving: m.GetServingVersion(), Previous: m.GetPreviousVersion()}
			for _, v := range m.GetVersions() {
				k.Versions = append(k.Versions, newVersionInfo(v))
			}
			models = append(models, k)
		}
		if c.JSON {
			return printJSON(models)
		}
		return printModels(os.Stdout, models)
	})
}

func printModels(out io.Writer, models []modelInfo) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "MODEL\tVERSION\tSOURCE\tPARENT\tPARAMETERS\tMACS\tVERDICT\tCREATED\tSHA256") // Flush reports errors
	for _, m := range models {
		name := m.Name
		if m.Default {
			name += " (default)"
		}
		for _, v := range m.Versions {
			mark := " "
			if v.Serving {
				mark = "*"
			}
			_, _ = fmt.Fprintf(w, "%s\t%s%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.12s\n", name, mark, v.Version, v.Source, dash(v.Parent),
				millions(int64(v.Parameters)), millions(int64(v.MACs)), or(v.Verdict, "-"), or(v.Created, "-"), v.SHA256)
		}
	}
	return w.Flush()
}

func dash(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

type modelsGetCmd struct {
	clientFlags
	Name    string `arg:"" optional:"" help:"The model; by default the server's first."`
	Version uint64 `arg:"" optional:"" help:"The version; by default the one that serves."`
	JSON    bool   `help:"Print one JSON document."`
}

// Run implements the command.
func (c *modelsGetCmd) Run(ctx context.Context) error {
	return c.withModels(func(client secateurv1.ModelServiceClient) error {
		r, err := client.GetModel(ctx, &secateurv1.GetModelRequest{Name: c.Name, Version: c.Version})
		if err != nil {
			return err
		}
		return printVersion(newVersionInfo(r.GetVersion()), c.JSON)
	})
}

func printVersion(v versionInfo, asJSON bool) error {
	if asJSON {
		return printJSON(v)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", key, value) // Flush reports errors
		}
	}
	state := "stored"
	if v.Serving {
		state = "serving"
	}
	row("model", fmt.Sprintf("%s version %d, %s", v.Model, v.Version, state))
	row("source", v.Source)
	if v.Parent != 0 {
		row("parent", fmt.Sprintf("version %d", v.Parent))
	}
	row("created", v.Created)
	row("sha256", v.SHA256)
	row("size", fmt.Sprintf("%d bytes", v.Bytes))
	row("parameters", millions(int64(v.Parameters)))
	row("MACs", fmt.Sprintf("%s at %v", millions(int64(v.MACs)), v.ServingShape))
	for _, t := range v.Inputs {
		row("input", fmt.Sprintf("%s %s %v", t.Name, t.Type, t.Shape))
	}
	for _, t := range v.Outputs {
		row("output", fmt.Sprintf("%s %s %v", t.Name, t.Type, t.Shape))
	}
	row("verdict", v.Verdict)
	row("calibration", v.Calibration)
	row("note", v.Note)
	return w.Flush()
}

type modelsPromoteCmd struct {
	clientFlags
	Name     string `arg:"" help:"The model."`
	Version  uint64 `arg:"" help:"The version to serve."`
	Expected uint64 `help:"Only if this version serves until then."`
	JSON     bool   `help:"Print one JSON document."`
}

// Run implements the command.
func (c *modelsPromoteCmd) Run(ctx context.Context) error {
	return c.withModels(func(client secateurv1.ModelServiceClient) error {
		r, err := client.PromoteModel(ctx, &secateurv1.PromoteModelRequest{Name: c.Name, Version: c.Version, ExpectedServingVersion: c.Expected})
		if err != nil {
			return err
		}
		return printSwap(r.GetVersion(), r.GetPreviousVersion(), c.JSON)
	})
}

type modelsRollbackCmd struct {
	clientFlags
	Name     string `arg:"" optional:"" help:"The model; by default the server's first."`
	Expected uint64 `help:"Only if this version serves until then."`
	JSON     bool   `help:"Print one JSON document."`
}

// Run implements the command.
func (c *modelsRollbackCmd) Run(ctx context.Context) error {
	return c.withModels(func(client secateurv1.ModelServiceClient) error {
		r, err := client.RollbackModel(ctx, &secateurv1.RollbackModelRequest{Name: c.Name, ExpectedServingVersion: c.Expected})
		if err != nil {
			return err
		}
		return printSwap(r.GetVersion(), r.GetPreviousVersion(), c.JSON)
	})
}

// printSwap says which version serves now.
func printSwap(v *secateurv1.ModelVersion, previous uint64, asJSON bool) error {
	if asJSON {
		return printJSON(struct {
			Model    string `json:"model"`
			Serving  uint64 `json:"serving_version"`
			Previous uint64 `json:"previous_version"`
		}{v.GetModel(), v.GetVersion(), previous})
	}
	fmt.Printf("%s serves version %d, before that version %d\n", v.GetModel(), v.GetVersion(), previous)
	return nil
}

type modelsDeleteCmd struct {
	clientFlags
	Name    string `arg:"" help:"The model."`
	Version uint64 `arg:"" help:"The version."`
	JSON    bool   `help:"Print one JSON document."`
}

// Run implements the command.
func (c *modelsDeleteCmd) Run(ctx context.Context) error {
	return c.withModels(func(client secateurv1.ModelServiceClient) error {
		if _, err := client.DeleteModel(ctx, &secateurv1.DeleteModelRequest{Name: c.Name, Version: c.Version}); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(struct {
				Model   string `json:"model"`
				Deleted uint64 `json:"deleted_version"`
			}{c.Name, c.Version})
		}
		fmt.Printf("%s version %d deleted\n", c.Name, c.Version)
		return nil
	})
}
