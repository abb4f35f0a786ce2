package pruner

import (
	"fmt"
	"strconv"
	"strings"
)

// Target is what to reach. The zero Target is none.
type Target struct {
	// Kind is macs, params or filters: the part Value of them is to go, in (0,1). Or latency: Value milliseconds are to be
	// left. Or speedup: the model is to run Value times as fast, more than 1. Or auto: as many multiply-adds are to go as
	// the select images allow.
	Kind  string
	Value float64
}

// String is the form that ParseTarget reads.
func (t Target) String() string {
	v := strconv.FormatFloat(t.Value, 'g', -1, 64)
	switch t.Kind {
	case "auto":
		return t.Kind
	case "latency":
		return t.Kind + "=" + v + "ms"
	case "speedup":
		return t.Kind + "=" + v + "x"
	}
	return t.Kind + "=" + v
}

const wantTarget = "want macs=F, params=F or filters=F with F the part to remove, as in macs=0.4; latency=12ms; speedup=2x; or auto"

// ParseTarget reads "macs=0.5", "params=30%" or "filters=0.4": what to count and the part of it to remove; "latency=12ms" or
// "speedup=2x": how fast to be; or "auto".
func ParseTarget(s string) (Target, error) {
	kind, value, ok := strings.Cut(strings.ToLower(strings.TrimSpace(s)), "=")
	t := Target{Kind: strings.TrimSpace(kind)}
	if t.Kind == "auto" && !ok {
		return t, nil
	}
	if !ok || t.Kind == "auto" {
		return Target{}, fmt.Errorf("target %q: %s", s, wantTarget)
	}
	unit, times := map[string]string{"latency": "ms", "speedup": "x"}[t.Kind], 1.0
	if unit == "" {
		unit, times = "%", 0.01
	}
	number, has := strings.CutSuffix(strings.TrimSpace(value), unit)
	if !has {
		times = 1
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %q is not a number; %s", s, value, wantTarget)
	}
	t.Value = f * times
	return t, t.check()
}

func (t Target) check() error {
	switch t.Kind {
	case "macs", "params", "filters":
		if !(t.Value > 0 && t.Value < 1) {
			return fmt.Errorf("target %q: the part to remove must lie between 0 and 1", t)
		}
	case "latency":
		if !(t.Value > 0 && t.Value < 1e9) {
			return fmt.Errorf("target %q: want milliseconds, more than 0", t)
		}
	case "speedup":
		if !(t.Value > 1 && t.Value < 1e3) {
			return fmt.Errorf("target %q: want a factor above 1", t)
		}
	case "auto":
	case "":
		return fmt.Errorf("no target is set: %s", wantTarget)
	default:
		return fmt.Errorf("target %q: %q cannot be counted; %s", t, t.Kind, wantTarget)
	}
	return nil
}

// counts is the figure that reaching the target is measured by: macs, params, filters or latency.
func (t Target) counts() string {
	switch t.Kind {
	case "speedup":
		return "latency"
	case "auto":
		return "macs"
	}
	return t.Kind
}

// left is how much of a figure that was whole the target leaves.
func (t Target) left(whole int64) float64 {
	switch t.Kind {
	case "latency":
		return 1e6 * t.Value
	case "speedup":
		return float64(whole) / t.Value
	}
	return float64(whole) * (1 - t.Value)
}
