package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/draw"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
	"github.com/secateur/secateur/pruner"
)

// summary is what the demo found; demo.json and index.html hold it.
type summary struct {
	Model         string `json:"model"`
	Target        string `json:"target"`
	VersionBefore uint64 `json:"version_before"`
	VersionAfter  uint64 `json:"version_after"`

	// Latency is that of whole frames, from sending one to having its mask, in milliseconds.
	Latency struct {
		Before quantiles `json:"before"`
		During quantiles `json:"during"`
		After  quantiles `json:"after"`
	} `json:"latency_ms"`
	Parameters pruner.Change `json:"parameters"`
	MACs       pruner.Change `json:"macs"`
	Filters    pruner.Change `json:"filters"`
	// Agreement is the mean Dice of the pruned model's masks against the original's, on Phantoms frames that pruning has
	// not seen; DiceBefore and DiceAfter are against the phantoms' exact masks.
	Agreement  float64  `json:"agreement"`
	DiceBefore float64  `json:"dice_before"`
	DiceAfter  float64  `json:"dice_after"`
	Phantoms   int      `json:"phantoms"`
	Verdict    string   `json:"verdict"`
	Requests   int      `json:"requests"`
	Failures   int      `json:"failures"`
	Seconds    float64  `json:"seconds"`
	Pictures   []string `json:"pictures"`
	Problems   []string `json:"problems,omitempty"`
}

type quantiles struct {
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Frames int     `json:"frames"`
}

func (s *stream) quantiles(p phase) quantiles {
	return quantiles{s.quantile(p, 0.5), s.quantile(p, 0.99), s.answered(p)}
}

// row is a line of the table.
type row struct{ Name, Before, During, After, Change string }

func (s *summary) rows() []row {
	ms := func(x float64) string { return fmt.Sprintf("%.1f ms", x) }
	change := func(a, b float64) string { return fmt.Sprintf("%+.0f %%", 100*(b/max(a, 1e-9)-1)) }
	l := s.Latency
	return []row{
		{"version", fmt.Sprint(s.VersionBefore), fmt.Sprint(s.VersionBefore), fmt.Sprint(s.VersionAfter), ""},
		{"latency p50", ms(l.Before.P50), ms(l.During.P50), ms(l.After.P50), change(l.Before.P50, l.After.P50)},
		{"latency p99", ms(l.Before.P99), ms(l.During.P99), ms(l.After.P99), change(l.Before.P99, l.After.P99)},
		{"frames", fmt.Sprint(l.Before.Frames), fmt.Sprint(l.During.Frames), fmt.Sprint(l.After.Frames), ""},
		{"parameters", millions(s.Parameters.Before), "", millions(s.Parameters.After), change(float64(s.Parameters.Before), float64(s.Parameters.After))},
		{"multiply-adds", millions(s.MACs.Before), "", millions(s.MACs.After), change(float64(s.MACs.Before), float64(s.MACs.After))},
		{"Dice on phantoms", fmt.Sprintf("%.3f", s.DiceBefore), "", fmt.Sprintf("%.3f", s.DiceAfter), fmt.Sprintf("%+.3f", s.DiceAfter-s.DiceBefore)},
	}
}

// lines is what the table does not hold.
func (s *summary) lines() []string {
	return []string{
		fmt.Sprintf("agreement  %.3f  mean Dice of pruned against original masks, %d phantoms not used for pruning", s.Agreement, s.Phantoms),
		fmt.Sprintf("verdict    %s", s.Verdict),
		fmt.Sprintf("requests   %d", s.Requests),
		fmt.Sprintf("failures   %d", s.Failures),
	}
}

func (s *summary) print(out io.Writer) error {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s\tbefore\twhile pruning\tafter\tchange\n", s.Model) // memory takes all
	for _, r := range s.rows() {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Before, r.During, r.After, r.Change)
	}
	_ = w.Flush()
	for l := range strings.Lines(table.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(l, " \n")); err != nil {
			return err
		}
	}
	for _, l := range s.lines() {
		if _, err := fmt.Fprintln(out, l); err != nil {
			return err
		}
	}
	return nil
}

// compare measures both files on phantoms that were not used before, and draws the first few.
func (s *summary) compare(ctx context.Context, original, child []byte, seed uint64, n int, dir string, progress func(done int)) error {
	var models [2]*predict.Model
	for i, b := range [][]byte{original, child} {
		g, err := onnx.Decode(b, onnx.Options{})
		if err != nil {
			return err
		}
		if models[i], err = predict.New(g, predict.Options{}); err != nil {
			return err
		}
	}
	const pictures = 4
	s.Phantoms = n
	for i := range n {
		img, truth := phantom.Draw(seed+uint64(i), 0)
		var masks [2]*vision.Mask
		for k, m := range models {
			p, err := m.Predict(ctx, img)
			if err != nil {
				return err
			}
			masks[k] = p.Mask
		}
		s.Agreement += vision.Compare(masks[1], masks[0]).Dice / float64(n)
		s.DiceBefore += vision.Compare(masks[0], truth).Dice / float64(n)
		s.DiceAfter += vision.Compare(masks[1], truth).Dice / float64(n)
		if i < pictures {
			if err := s.picture(filepath.Join(dir, "overlays"), i+1, img, masks[0], masks[1]); err != nil {
				return err
			}
		}
		progress(i + 1)
	}
	return nil
}

// picture writes one frame's overlays: by the original, by the pruned model, and where they differ.
func (s *summary) picture(dir string, i int, img *vision.Image, was, is *vision.Mask) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, k := range []struct {
		name string
		m    image.Image
	}{{"frame", rgba(img)}, {"before", vision.Overlay(img, was)}, {"after", vision.Overlay(img, is)}, {"difference", difference(img, was, is)}} {
		name := fmt.Sprintf("%d-%s.png", i, k.name)
		if err := writePNG(filepath.Join(dir, name), k.m); err != nil {
			return err
		}
		s.Pictures = append(s.Pictures, "overlays/"+name)
	}
	return nil
}

// The colours of a difference: pixels that only the original or only the pruned model calls polyp.
var (
	onlyBefore = color.RGBA{255, 160, 0, 255}
	onlyAfter  = color.RGBA{60, 140, 255, 255}
)

// difference shows where two masks disagree, over the image in dim gray.
func difference(img *vision.Image, was, is *vision.Mask) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, img.W, img.H))
	draw.Draw(out, out.Bounds(), rgba(img), image.Point{}, draw.Src)
	for i := range img.W * img.H {
		p := out.Pix[4*i : 4*i+4]
		switch a, b := was.Pix[i] != 0, is.Pix[i] != 0; {
		case a && !b:
			copy(p, []byte{onlyBefore.R, onlyBefore.G, onlyBefore.B, 255})
		case b && !a:
			copy(p, []byte{onlyAfter.R, onlyAfter.G, onlyAfter.B, 255})
		default:
			v := byte((int(p[0]) + 2*int(p[1]) + int(p[2])) / 8)
			if a {
				v += 90 // both call it polyp
			}
			p[0], p[1], p[2] = v, v, v
		}
	}
	return out
}

//go:embed demo_page.html
var demoPage string

var demoTemplate = template.Must(template.New("demo").Parse(demoPage))

// write leaves index.html and demo.json.
func (s *summary) write(dir string) error {
	doc, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceBytes(filepath.Join(dir, "demo.json"), append(doc, '\n')); err != nil {
		return err
	}
	var page bytes.Buffer
	err = demoTemplate.Execute(&page, struct {
		*summary
		Rows  []row
		Lines []string
	}{s, s.rows(), s.lines()})
	if err != nil {
		return err
	}
	return replaceBytes(filepath.Join(dir, "index.html"), page.Bytes())
}
