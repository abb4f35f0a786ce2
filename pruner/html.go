package pruner

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/secateur/secateur/pruner/gate"
)

// pages are the report, the curve and the style of both.
//
//go:embed report.html.tmpl curve.html.tmpl style.html.tmpl
var pages embed.FS

func newPage(name string, funcs template.FuncMap) *template.Template {
	return template.Must(template.New(name).Funcs(funcs).ParseFS(pages, name, "style.html.tmpl"))
}

var page = newPage("report.html.tmpl", template.FuncMap{
	"si": si, "pc": func(v float64) string { return fmt.Sprintf("%.1f %%", v) },
	"f4": func(v float64) string { return fmt.Sprintf("%.4f", v) }, "plus4": func(v float64) string { return fmt.Sprintf("%+.4f", v) },
	"f1":    func(v float64) string { return fmt.Sprintf("%.1f", v) },
	"plus1": func(v float64) string { return fmt.Sprintf("%+.1f", v) },
	"ratio": func(c Change) string { return pc1(c.Removed()) },
	"saved": func(l Latency) string { return pc1(100 * (1 - l.After/math.Max(l.Before, 1e-9))) },
	"bar":   bar, "class": func(s string) string { return strings.ReplaceAll(s, " ", "-") },
	"percent": func(v float64) float64 { return 100 * v }, "curve": func(c *Curve) template.HTML { return template.HTML(c.SVG()) },
	"scatter": scatter, "interval": interval, "minus": minus, "sentence": sentence,
	"change": func(before, after float64) string { return minus(fmt.Sprintf("%+.4f", after-before)) },
})

// pc1 is a change by the part v that was removed, in percent.
func pc1(v float64) string {
	if math.Abs(v) < 0.05 {
		return "0.0 %"
	}
	return strings.Replace(fmt.Sprintf("%+.1f %%", -v), "-", "−", 1)
}

// minus writes numbers' signs as print does.
func minus(s string) string { return numberSign.ReplaceAllString(s, "${1}−$2") }

var numberSign = regexp.MustCompile(`(^|\s)-(\d)`)

// sentence sets the verdict apart from its reason.
func sentence(s string) template.HTML {
	verdict, why, _ := strings.Cut(minus(s), ": ")
	if why != "" {
		why = strings.ToUpper(why[:1]) + why[1:] // our own words begin with a letter
	}
	return template.HTML("<strong>" + template.HTMLEscapeString(verdict) + ".</strong> " + template.HTMLEscapeString(why))
}

// HTML is the report as one page that needs nothing from outside: no script, no font, and images are in it.
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
	const size, pad = 220.0, 36.0
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="plot" viewBox="0 0 %[1]g %[1]g" width="%[1]g" height="%[1]g" role="img" aria-label="Dice of each image before and after">`, size+2*pad)
	fmt.Fprintf(&b, `<rect class="frame" x="%g" y="%g" width="%g" height="%g"/>`, pad, pad, size, size)
	if g.Labelled {
		fmt.Fprintf(&b, `<line class="diagonal" x1="%g" y1="%g" x2="%g" y2="%g"/>`, pad, pad+size, pad+size, pad)
	}
	var found []gate.Image
	for _, im := range g.Images {
		if !im.Empty {
			found = append(found, im)
		}
	}
	if !g.Labelled {
		slices.SortStableFunc(found, func(a, b gate.Image) int { return cmp.Compare(a.Agreement, b.Agreement) })
	}
	for i, im := range found {
		x, y := (float64(i)+0.5)/float64(len(found)), im.Agreement
		if g.Labelled {
			x, y = im.Original.Dice, im.Pruned.Dice
		}
		fmt.Fprintf(&b, `<circle class="point" cx="%.1f" cy="%.1f" r="2.6"><title>`, pad+x*size, pad+(1-y)*size)
		template.HTMLEscape(&b, []byte(im.Name))
		fmt.Fprintf(&b, `: %.3f</title></circle>`, y)
	}
	for _, v := range []float64{0, 0.5, 1} {
		fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="end">%g</text>`, pad-4, pad+(1-v)*size+4, v)
		if g.Labelled {
			fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle">%g</text>`, pad+v*size, pad+size+13, v)
		}
	}
	down, across := "Dice, pruned", "Dice, original"
	if !g.Labelled {
		down, across = "Dice, pruned against original", "images, in order"
	}
	fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle">%s</text>`, pad+size/2, 2*pad+size-3, across)
	fmt.Fprintf(&b, `<text transform="translate(10 %g) rotate(-90)" text-anchor="middle">%s</text>`, pad+size/2, down)
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// interval draws the verdict: the mean, its bounds, and the limit that they are held against.
func interval(g *gate.Result) template.HTML {
	iv, limit := g.Agreement, g.Margin
	if g.Labelled {
		iv, limit = *g.Difference, -g.Margin
	}
	lo, hi := min(iv.Lower, limit), max(iv.Upper, limit)
	if g.Labelled {
		lo, hi = min(lo, 0), max(hi, 0)
	}
	span := max(hi-lo, 1e-6)
	lo, hi = lo-0.15*span, hi+0.15*span
	const width, height = 560.0, 84.0
	at := func(v float64) float64 { return 20 + (width-40)*(v-lo)/(hi-lo) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="plot" viewBox="0 0 %[1]g %[2]g" width="%[1]g" height="%[2]g" role="img" aria-label="mean and bounds against the limit">`, width, height)
	fmt.Fprintf(&b, `<line class="axis" x1="0" x2="%g" y1="62" y2="62"/>`, width)
	label := func(class string, v, y float64, anchor, text string) {
		fmt.Fprintf(&b, `<text class="%s" x="%.1f" y="%g" text-anchor="%s">%s</text>`, class, at(v), y, anchor, minus(text))
	}
	fmt.Fprintf(&b, `<line class="limit" x1="%[1]g" x2="%[1]g" y1="34" y2="68"/>`, at(limit))
	label("", limit, 80, "middle", "limit "+signed(limit, g.Labelled))
	if g.Labelled {
		fmt.Fprintf(&b, `<line class="zero" x1="%[1]g" x2="%[1]g" y1="34" y2="68"/>`, at(0))
		if math.Abs(at(0)-at(limit)) > 60 {
			label("", 0, 80, "middle", "0, no change")
		}
	}
	fmt.Fprintf(&b, `<line class="bounds" x1="%g" x2="%g" y1="40" y2="40"/><circle class="mean" cx="%g" cy="40" r="5"/>`, at(iv.Lower), at(iv.Upper), at(iv.Mean))
	label("value", iv.Mean, 30, "middle", signed(iv.Mean, g.Labelled))
	if at(iv.Upper)-at(iv.Lower) > 130 { // else the numbers would run into each other; the text has them
		label("value", iv.Lower, 56, "middle", signed(iv.Lower, g.Labelled))
		label("value", iv.Upper, 56, "middle", signed(iv.Upper, g.Labelled))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

func signed(v float64, plus bool) string {
	if plus {
		return fmt.Sprintf("%+.4f", v)
	}
	return fmt.Sprintf("%.4f", v)
}
