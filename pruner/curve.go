package pruner

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"github.com/secateur/secateur/pruner/gate"
)

var curvePage = newPage("curve.html.tmpl", template.FuncMap{
	"si": si, "f4": func(v float64) string { return fmt.Sprintf("%.4f", v) }, "f1": func(v float64) string { return fmt.Sprintf("%.1f", v) },
	"figure": func(c *Curve) template.HTML { return template.HTML(c.SVG()) },
	"part":   func(c *Curve, p CurvePoint) string { return pc1(100 * (1 - float64(p.MACs)/float64(c.Base[0]))) },
})

// bounded reports whether there are images enough for bounds to mean something, as the gate sees it.
func (p CurvePoint) bounded() bool { return p.Dice.Clusters >= gate.MinImages }

// Bounds says between which bounds the mean lies, if that can be said.
func (p CurvePoint) Bounds() string {
	if !p.bounded() {
		return "too few images for bounds"
	}
	return fmt.Sprintf("%.4f to %.4f", p.Dice.Lower, p.Dice.Upper)
}

// span is what a picture shows of a point: its bounds, or its mean alone.
func (p CurvePoint) span() (lower, upper float64) {
	if !p.bounded() {
		return p.Dice.Mean, p.Dice.Mean
	}
	return p.Dice.Lower, p.Dice.Upper
}

// Bounded reports whether the picture has a band.
func (c *Curve) Bounded() bool { return slices.ContainsFunc(c.Points, CurvePoint.bounded) }

// Sentence says what the curve recommends.
func (c *Curve) Sentence() string {
	what := "mean Dice"
	if !c.Labelled {
		what = "mean agreement"
	}
	s := fmt.Sprintf("Of %d models none keeps the %s on the select images at %.4f or above", len(c.Points), what, c.Line)
	if c.Knee >= 0 {
		p := c.Points[c.Knee]
		bounds := p.Bounds()
		if p.bounded() {
			bounds = "bounds " + bounds
		}
		s = fmt.Sprintf("Recommended: %s, with %.1f %% of the multiply-adds gone and the %s at %.4f, %s, on %d select images, where %.4f is asked for",
			p.Target, 100*(1-float64(p.MACs)/float64(c.Base[0])), what, p.Dice.Mean, bounds, c.Images, c.Line)
		if c.By == "mean" {
			s += "; none passes by its bound, the images being few, so this goes by the mean"
		}
	}
	s += ". The select images choose; a prune to that target has its verdict from others"
	if c.End != "" {
		s += ". The sweep ended early: " + c.End
	}
	return s + "."
}

// HTML is the curve as one page that needs nothing from outside.
func (c *Curve) HTML() []byte {
	var b bytes.Buffer
	if err := curvePage.Execute(&b, c); err != nil {
		panic(fmt.Sprintf("pruner: the curve's page: %v", err)) // the template is ours, and every field is there
	}
	return b.Bytes()
}

// curveStyle is in the picture itself, which is also a file of its own. On a page the page's colours win.
const curveStyle = `<style>.curve text{font:11px Georgia,serif;fill:var(--soft,#5b6570)}.curve .axis{stroke:var(--line,#d9dee3);fill:none}` +
	`.curve .band{fill:var(--kept,#2b6c8f);fill-opacity:.15}.curve .run{stroke:var(--kept,#2b6c8f);stroke-width:2;fill:none}` +
	`.curve .point{fill:var(--kept,#2b6c8f)}.curve .trained{stroke:#b06a1f;stroke-width:2;fill:none}.curve .dot{fill:#b06a1f}` +
	`.curve .limit{stroke:#b5403a;stroke-width:1.5;stroke-dasharray:5 3}.curve .knee{fill:none;stroke:var(--ink,#1b1f23);stroke-width:1.5}` +
	`.curve .whole{fill:var(--ink,#1b1f23)}</style>`

// SVG draws what is left of the Dice against multiply-adds and against milliseconds, with the bounds as a band, the gate's
// line in red and a ring around what is recommended.
func (c *Curve) SVG() []byte {
	const width, height = 760, 300
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="curve" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="quality against size and time">%s`, width, height, width, height, curveStyle)
	lo, hi := math.Min(c.Line, c.Original), math.Max(c.Line, c.Original)
	for _, p := range c.Points {
		lower, upper := p.span()
		lo, hi = math.Min(lo, lower), math.Max(hi, upper)
	}
	pad := math.Max(0.06*(hi-lo), 1e-3)
	lo, hi = math.Max(lo-pad, 0), math.Min(hi+pad, 1)
	var before []float64
	for _, p := range c.Points {
		before = append(before, p.Latency.Before)
	}
	slices.Sort(before)
	whole := 1.0
	if len(before) > 0 {
		whole = before[len(before)/2]
	}
	left := panel{x: 56, y: 16, w: 300, h: 230, lo: lo, hi: hi, most: float64(c.Base[0]) / 1e9}
	left.draw(&b, c, "G multiply-adds", func(p CurvePoint) float64 { return float64(p.MACs) / 1e9 }, true)
	right := panel{x: 436, y: 16, w: 300, h: 230, lo: lo, hi: hi, most: whole}
	right.draw(&b, c, fmt.Sprintf("milliseconds, %d threads", c.Threads), func(p CurvePoint) float64 {
		return p.Latency.After / p.Latency.Before * whole // the machine was not always as fast
	}, false)
	b.WriteString(`</svg>`)
	return []byte(b.String())
}

// panel is a plot of values from lo to hi over 0 to most.
type panel struct{ x, y, w, h, lo, hi, most float64 }

func (q panel) at(x, y float64) (float64, float64) {
	return q.x + q.w*x/(1.04*q.most), q.y + q.h*(q.hi-y)/(q.hi-q.lo)
}

func (q panel) draw(b *strings.Builder, c *Curve, across string, of func(CurvePoint) float64, named bool) {
	fmt.Fprintf(b, `<rect class="axis" x="%g" y="%g" width="%g" height="%g"/>`, q.x, q.y, q.w, q.h)
	for _, v := range ticks(0, q.most) {
		x, _ := q.at(v, q.lo)
		fmt.Fprintf(b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text x="%.1f" y="%g" text-anchor="middle">%g</text>`, x, x, q.y+q.h, q.y+q.h+4, x, q.y+q.h+17, v)
	}
	for _, v := range ticks(q.lo, q.hi) {
		_, y := q.at(0, v)
		fmt.Fprintf(b, `<line class="axis" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text x="%g" y="%.1f" text-anchor="end">%g</text>`, q.x-4, q.x, y, y, q.x-7, y+4, v)
	}
	fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="middle">%s</text>`, q.x+q.w/2, q.y+q.h+38, across)
	_, y := q.at(0, c.Line)
	fmt.Fprintf(b, `<line class="limit" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, q.x, q.x+q.w, y, y)
	if named {
		what := "Dice"
		if !c.Labelled {
			what = "Dice against the original"
		}
		fmt.Fprintf(b, `<text transform="translate(13 %g) rotate(-90)" text-anchor="middle">%s</text>`, q.y+q.h/2, what)
		fmt.Fprintf(b, `<text x="%g" y="%.1f">gate's line</text>`, q.x+5, y-4)
	}
	for _, s := range []struct {
		trained   bool
		line, dot string
	}{{false, "run", "point"}, {true, "trained", "dot"}} {
		q.series(b, c, of, s.trained, s.line, s.dot)
	}
	x, y := q.at(q.most, c.Original)
	fmt.Fprintf(b, `<circle class="whole" cx="%.1f" cy="%.1f" r="4"><title>original: %.4f</title></circle>`, x, y, c.Original)
	if c.Knee >= 0 {
		p := c.Points[c.Knee]
		x, y := q.at(of(p), p.Dice.Mean)
		fmt.Fprintf(b, `<circle class="knee" cx="%.1f" cy="%.1f" r="8"/>`, x, y)
	}
}

// series draws the points whose repairs trained, or did not, with their band.
func (q panel) series(b *strings.Builder, c *Curve, of func(CurvePoint) float64, trained bool, line, dot string) {
	var mean, up, down []string
	for _, p := range c.Points {
		if p.Trained != trained {
			continue
		}
		x, y := q.at(of(p), p.Dice.Mean)
		mean = append(mean, fmt.Sprintf("%.1f,%.1f", x, y))
		fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="3"><title>%s: %.4f, %s</title></circle>`, dot, x, y, template.HTMLEscapeString(p.Target), p.Dice.Mean, p.Bounds())
		lower, upper := p.span()
		_, y = q.at(0, upper)
		up = append(up, fmt.Sprintf("%.1f,%.1f", x, y))
		_, y = q.at(0, lower)
		down = append([]string{fmt.Sprintf("%.1f,%.1f", x, y)}, down...)
	}
	if len(mean) < 2 {
		return
	}
	if c.Bounded() {
		fmt.Fprintf(b, `<polygon class="band" points="%s"/>`, strings.Join(append(up, down...), " "))
	}
	fmt.Fprintf(b, `<polyline class="%s" points="%s"/>`, line, strings.Join(mean, " "))
}

// ticks are three to seven round numbers between lo and hi.
func ticks(lo, hi float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(math.Max(hi-lo, 1e-9)/2)))
	for _, k := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(k*step) <= 6 {
			step *= k
			break
		}
	}
	var ts []float64
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi+1e-9*step; i++ {
		ts = append(ts, math.Round(i*step*1e9)/1e9+0) // no -0
	}
	return ts
}
