package pruner

import (
	"fmt"
	"strconv"
	"strings"
)

// Target is how much to remove.
type Target struct {
	Kind     string  // macs, params or filters
	Fraction float64 // in (0,1): the part to remove
}

// String is the form that ParseTarget reads.
func (t Target) String() string { return t.Kind + "=" + strconv.FormatFloat(t.Fraction, 'g', -1, 64) }

// ParseTarget reads "macs=0.5", "params=30%" or "filters=0.4": what to count and the part of it to remove.
func ParseTarget(s string) (Target, error) {
	const want = "want macs=F, params=F or filters=F with F the part to remove, as in macs=0.4"
	kind, value, ok := strings.Cut(strings.TrimSpace(s), "=")
	if !ok {
		return Target{}, fmt.Errorf("target %q: %s", s, want)
	}
	percent := strings.HasSuffix(value, "%")
	f, err := strconv.ParseFloat(strings.TrimSuffix(value, "%"), 64)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %q is not a number; %s", s, value, want)
	}
	if percent {
		f /= 100
	}
	t := Target{Kind: strings.ToLower(strings.TrimSpace(kind)), Fraction: f}
	return t, t.check()
}

func (t Target) check() error {
	switch t.Kind {
	case "macs", "params", "filters":
	case "":
		return fmt.Errorf("no target is set: say macs, params or filters, and the part to remove")
	default:
		return fmt.Errorf("target %q: %q cannot be counted; there are macs, params and filters", t, t.Kind)
	}
	if !(t.Fraction > 0 && t.Fraction < 1) {
		return fmt.Errorf("target %q: the part to remove must lie between 0 and 1", t)
	}
	return nil
}
