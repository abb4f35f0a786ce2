package server

import (
	"fmt"
	"regexp"
	"slices"
	"testing"
)

// reference is a metric in an expression, with the labels that it is asked for.
type reference struct {
	metric string
	labels []string          // in matchers, and in the groupings around it
	equal  map[string]string // what a label must be
}

var (
	promToken = regexp.MustCompile(`^(?:\s+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[a-zA-Z_:][a-zA-Z0-9_:]*|\$[a-zA-Z_]+|[0-9]+(?:\.[0-9]+)?[a-z]*|=~|!~|!=|==|<=|>=|[-+*/%^=<>(){}\[\],@:])`)
	promWord  = regexp.MustCompile(`^[a-zA-Z_:]`)
	grouping  = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	operators = []string{"and", "or", "unless", "bool", "offset"}
	functions = []string{"sum", "max", "min", "avg", "count", "rate", "increase", "changes", "histogram_quantile"}
)

// promExpr lists the metrics of an expression. Every label of a grouping is asked of every metric within the parentheses
// that follow it. It refuses functions that it does not know, and brackets that do not match.
func promExpr(expr string) ([]reference, error) {
	var tokens []string
	for rest := expr; rest != ""; {
		m := promToken.FindString(rest)
		if m == "" {
			return nil, fmt.Errorf("cannot read from %q on", rest)
		}
		if m[0] != ' ' {
			tokens = append(tokens, m)
		}
		rest = rest[len(m):]
	}
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	type group struct {
		closing string
		labels  []string
	}
	var (
		refs    []reference
		open    []group
		pending []string // labels of a grouping whose parentheses are still to come
	)
	for i := 0; i < len(tokens); i++ {
		tok := tokens[i]
		switch {
		case slices.Contains(grouping, tok):
			if i++; at(i) != "(" {
				return nil, fmt.Errorf("%s without a list", tok)
			}
			for i++; at(i) != ")"; i++ {
				if at(i) == "" {
					return nil, fmt.Errorf("the list after %s does not end", tok)
				}
				if at(i) != "," {
					pending = append(pending, at(i))
				}
			}
		case tok == "(":
			open = append(open, group{")", pending})
			pending = nil
		case tok == "[":
			open = append(open, group{closing: "]"})
		case tok == ")" || tok == "]":
			if len(open) == 0 || open[len(open)-1].closing != tok {
				return nil, fmt.Errorf("%s too many", tok)
			}
			open = open[:len(open)-1]
		case slices.Contains(operators, tok):
		case promWord.MatchString(tok) && (at(i+1) == "(" || slices.Contains(grouping, at(i+1))):
			if !slices.Contains(functions, tok) {
				return nil, fmt.Errorf("function %s is not known", tok)
			}
		case promWord.MatchString(tok):
			r := reference{metric: tok, equal: map[string]string{}}
			for _, g := range open {
				r.labels = append(r.labels, g.labels...)
			}
			if at(i+1) == "{" {
				for i += 2; at(i) != "}"; i += 3 {
					if at(i) == "," {
						i++
					}
					if at(i+2) == "" || at(i + 2)[0] != '"' {
						return nil, fmt.Errorf("the matchers of %s do not end", tok)
					}
					r.labels = append(r.labels, at(i))
					if at(i+1) == "=" {
						r.equal[at(i)] = at(i + 2)[1 : len(at(i+2))-1]
					}
				}
			}
			refs = append(refs, r)
		}
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("%s is missing", open[len(open)-1].closing)
	}
	return refs, nil
}

func TestPromExpr(t *testing.T) {
	refs, err := promExpr(`histogram_quantile(0.99, sum by (le, stage) (rate(a_bucket{model=~"$model", code="OK"}[$__rate_interval]))) / on(x) b{y!="1"} > 0 unless c offset 1m`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a_bucket [le stage model code] OK", "b [y] ", "c [] "}
	for i, r := range refs {
		if got := fmt.Sprintf("%s %v %s", r.metric, r.labels, r.equal["code"]); i >= len(want) || got != want[i] {
			t.Errorf("reference %d: %s, want %v", i, got, want)
		}
	}
	for _, bad := range []string{"sum(a", "a)", "a{b=", "a{b}", "nonsense(a)", "sum by (a", "a[5m)", "a # b"} {
		if refs, err := promExpr(bad); err == nil {
			t.Errorf("%q: read as %v", bad, refs)
		}
	}
}
