package pruner

import (
	"os"
	"testing"
	"time"
	"strconv"
	"path/filepath"

	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/pruner/calib"
)

func TestExp(t *testing.T) {
	dir := os.Getenv("SECATEUR_DATA")
	fit, _ := calib.Open(filepath.Join(dir, "calib"))
	val, _ := calib.Open(filepath.Join(dir, "val"))
	name := os.Getenv("M")
	if name == "" { name = "polyp-unet" }
	f, _ := strconv.ParseFloat(os.Getenv("F"), 64)
	for _, m := range models.All() {
		if m.Name != name { continue }
		g, err := onnx.Decode(m.ONNX, onnx.Options{})
		if err != nil { t.Fatal(err) }
		start, stage := time.Now(), ""
		r, err := Prune(t.Context(), g, fit, val, Options{Target: Target{"macs", f}, Seed: 1, Unlabelled: os.Getenv("U") != "", Progress: func(p Progress) {
			if p.Stage != stage { t.Logf("%6.1f %s", time.Since(start).Seconds(), p.Stage); stage = p.Stage }
		}})
		if err != nil { t.Fatal(err) }
		t.Logf("%s", r.Report.Sentence)
		for _, l := range r.Report.Layers { t.Logf("%s %d %d", l.Name, l.Before, l.After) }
		if r.Report.Gate.Original != nil { t.Logf("Dice %.4f -> %.4f", r.Report.Gate.Original.Dice, r.Report.Gate.Pruned.Dice) }
		t.Logf("agree %.4f, latency %.1f -> %.1f ms, repair %.4f -> %.4f (kept %v) %v", r.Report.Gate.Agreement.Mean,
			r.Report.Latency.Before, r.Report.Latency.After, r.Report.Repair.Before, r.Report.Repair.After, r.Report.Repair.Kept, r.Report.Repair.Stats.Skipped)
		t.Logf("params %v macs %v", r.Report.Parameters, r.Report.MACs)
	}
}
