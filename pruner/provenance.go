package pruner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/onnx"
)

// MetaKey is the metadata_props key under which a pruned model says what it was made from and how.
const MetaKey = "secateur.pruning"

// provenance is what a pruned model's metadata says. It holds nothing of when or where the run was.
type provenance struct {
	Parent      string          `json:"parent"`      // SHA-256 of the original's bytes
	Calibration string          `json:"calibration"` // hash of the calibration set
	Target      string          `json:"target"`
	Labels      bool            `json:"labels"`
	Seed        uint64          `json:"seed"`
	MaxLayer    float64         `json:"max_layer"`
	MinChannels int             `json:"min_channels"`
	Round       int             `json:"round"`
	Steps       int             `json:"steps"`
	Keep        string          `json:"keep,omitempty"`
	GroupBy     string          `json:"group_by,omitempty"`
	Split       string          `json:"split"`                   // the parts of the calibration images: fit, select and, where no others were held out, gate
	Table       string          `json:"latency_table,omitempty"` // SHA-256 of the table that a target of time was reached by
	Criterion   string          `json:"criterion"`
	Distil      int             `json:"distil"`
	Finetune    int             `json:"finetune"`
	Repair      string          `json:"repair"`     // what was kept; "none" if nothing
	Parameters  [2]int64        `json:"parameters"` // before and after
	MACs        [2]int64        `json:"macs"`
	History     json.RawMessage `json:"history,omitempty"` // the parent's own provenance
}

// criterionText says in words how channels were scored.
func criterionText(criterion, normalise string) string {
	text := map[string]string{
		"taylor-abs": "TaylorFO-abs at consumer edges, per-example gradient normalisation at the logits",
		"taylor-sq":  "TaylorFO-sq at consumer edges, per-example gradient normalisation at the logits",
	}[criterion]
	if text == "" {
		text = criterion
	}
	if normalise != "raw" {
		text += ", " + normalise
	}
	return text
}

func (r *run) finish(ctx context.Context) error {
	r.progress("report", 0, 1)
	after, err := engine.Count(r.pruned, r.in)
	if err != nil {
		return err
	}
	p := provenance{
		Parent: r.opt.Parent, Calibration: r.calibration, Target: r.reached(), Labels: r.labels, Seed: r.opt.Seed,
		MaxLayer: r.opt.MaxLayer, MinChannels: r.opt.MinChannels, Round: max(r.opt.Round, 1), Steps: r.opt.Steps, Criterion: criterionText(r.opt.Criterion, r.opt.Normalise), Repair: r.repairs.Kept(),
		Distil: r.opt.Distil, Finetune: r.opt.Finetune, Split: strings.Trim(fmt.Sprint(r.parts), "[]"),
		Parameters: [2]int64{r.base.Parameters, after.Parameters}, MACs: [2]int64{r.base.MACs, after.MACs},
	}
	if r.opt.Keep != nil {
		p.Keep = r.opt.Keep.String()
	}
	if r.opt.GroupBy != nil {
		p.GroupBy = r.opt.GroupBy.String()
	}
	if r.table != nil {
		p.Table = sum(r.table.JSON())
	}
	if old := r.g.Meta[MetaKey]; json.Valid([]byte(old)) {
		p.History = json.RawMessage(old)
	}
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	r.pruned = r.pruned.Clone()
	if r.pruned.Meta == nil {
		r.pruned.Meta = map[string]string{}
	}
	r.pruned.Meta[MetaKey] = string(doc)
	if r.bytes, err = onnx.Encode(r.pruned); err != nil {
		return err
	}
	if err := r.write(ctx, p, after); err != nil {
		return err
	}
	r.progress("report", 1, 1)
	return nil
}

// reached names the target, and what auto chose.
func (r *run) reached() string {
	if r.chosen.Kind == "" {
		return r.opt.Target.String()
	}
	return fmt.Sprintf("%v, which chose %v", r.opt.Target, r.chosen)
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
