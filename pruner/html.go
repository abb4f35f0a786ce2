package pruner

import (
	"bytes"
	_ "embed" // for the page's template
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/secateur/secateur/pruner/gate"
)

//go:embed report.html.tmpl
var pageSource string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"si": si, "pc": func(v float64) string { return fmt.Sprintf("%.1f %%", v) },
	"f4": func(v float64) string { return fmt.Sprintf("%.4f", v) }, "plus4": func(v float64) string { return fmt.Sprintf("%+.4f", v) },
	"f1":    func(v float64) string { return fmt.Sprintf("%.1f", v) },
	"ratio": func(c Change) string { return pc1(c.Removed()) },
	"saved": func(l Latency) string { return pc1(100 * (1 - l.After/math.Max(l.Before, 1e-9))) },
	"bar":   bar, "class": func(s string) string { return strings.ReplaceAll(s, " ", "-") },
	"scatter": scatter, "interval": interval,
}).Parse(pageSource))

func pc1(v float64) string { return fmt.Sprintf("−%.1f %%", v) }

// HTML is the report as one page that needs nothing from outside: no script, no font, no image but inline SVG.
func (r *Report) HTML() []byte {
	var b bytes.Buffer
	if err := page.Execute(&b, r); err != nil {
		panic(fmt.Sprintf("pruner: the report's page: %v", err)) // the template is ours, and every field is there
	}
	return b.Bytes()
}

// si writes a count with a unit prefix.
func si(n int64) string {
	v := float64(n)
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.size {
			return fmt.Sprintf("%.3g %s", v/u.size, u.name)
		}
	}
	return fmt.Sprint(n)
}

// bar draws a layer's channels: kept dark, removed light.
func bar(l LayerReport, layers []LayerReport) template.HTML {
	top := 1
	for _, m := range layers {
		top = max(top, m.Before)
	}
	const width = 220.0
	// Square roots, so that a layer of 16 channels is seen beside one of 1000.
	scale := func(n int) float64 { return width * math.Sqrt(float64(n)/float64(top)) }
	return template.HTML(fmt.Sprintf(`<svg width="%g" height="11" role="img" aria-label="%d of %d channels kept"><rect class="gone" width="%.1f" height="11"/><rect class="kept" width="%.1f" height="11"/></svg>`,
		width, l.After, l.Before, scale(l.Before), scale(l.After)))
}

// scatter draws Dice before against Dice after, one point for each image with something to find.
func scatter(g *gate.Result) template.HTML {
	const size, pad = 220.0, 30.0
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="plot" width="%g" height="%g" role="img" aria-label="Dice of each image before and after">`, size+2*pad, size+2*pad)
	fmt.Fprintf(&b, `<rect class="frame" x="%g" y="%g" width="%g" height="%g"/>`, pad, pad, size, size)
	if g.Labelled {
		fmt.Fprintf(&b, `<line class="diagonal" x1="%g" y1="%g" x2="%g" y2="%g"/>`, pad, pad+size, pad+size, pad)
	}
	i := 0
	for _, im := range g.Images {
		if im.Empty {
			continue
		}
		x, y := (float64(i)+0.5)/math.Max(float64(g.N), 1), im.Agreement
		if g.Labelled {
			x, y = im.Original.Dice, im.Pruned.Dice
		}
		i++
		fmt.Fprintf(&b, `<circle class="point" cx="%.1f" cy="%.1f" r="2.6"><title>`, pad+x*size, pad+(1-y)*size)
		template.HTMLEscape(&b, []byte(im.Name))
		fmt.Fprintf(&b, `: %.3f</title></circle>`, y)
	}
	down, across := "Dice, pruned", "Dice, original"
	if !g.Labelled {
		down, across = "Dice, pruned against original", "images"
	}
	fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle">%s</text>`, pad+size/2, 2*pad+size-8, across)
	fmt.Fprintf(&b, `<text transform="translate(12 %g) rotate(-90)" text-anchor="middle">%s</text>`, pad+size/2, down)
	fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="end">1</text><text x="%g" y="%g" text-anchor="end">0</text></svg>`, pad-4, pad+8, pad-4, pad+size)
	return template.HTML(b.String())
}

// interval draws the verdict: the mean, its bounds, and the limit that they are held against.
func interval(g *gate.Result) template.HTML {
	iv, limit := g.Agreement, g.Margin
	if g.Labelled {
		iv, limit = *g.Difference, -g.Margin
	}
	lo, hi := math.Min(math.Min(iv.Lower, limit), 0+limit), math.Max(math.Max(iv.Upper, limit), limit)
	if g.Labelled {
		hi = math.Max(hi, 0)
	}
	span := math.Max(hi-lo, 1e-6)
	lo, hi = lo-0.15*span, hi+0.15*span
	const width, height = 560.0, 64.0
	at := func(v float64) float64 { return 20 + (width-40)*(v-lo)/(hi-lo) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="plot" width="%g" height="%g" role="img" aria-label="mean and bounds against the limit">`, width, height)
	fmt.Fprintf(&b, `<line class="axis" x1="0" x2="%g" y1="44" y2="44"/>`, width)
	fmt.Fprintf(&b, `<line class="limit" x1="%[1]g" x2="%[1]g" y1="8" y2="50"/><text x="%[1]g" y="61" text-anchor="middle">limit %.3[2]f</text>`, at(limit), limit)
	if g.Labelled {
		fmt.Fprintf(&b, `<line class="zero" x1="%[1]g" x2="%[1]g" y1="8" y2="50"/><text x="%[1]g" y="61" text-anchor="middle">0</text>`, at(0))
	}
	fmt.Fprintf(&b, `<line class="bounds" x1="%g" x2="%g" y1="26" y2="26"/><circle class="mean" cx="%g" cy="26" r="5"/></svg>`, at(iv.Lower), at(iv.Upper), at(iv.Mean))
	return template.HTML(b.String())
}
