package server

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc/codes"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

// used is a server that has done all it can do.
func used(t *testing.T) *harness {
	f := newFakePrune(t, 2, "pass")
	close(f.proceed)
	h := start(t, Config{Prune: f.prune})
	h.upload(t, "m", 1, true)
	if _, err := h.seg.Segment(t.Context(), request(t, "m")); err != nil {
		t.Fatal(err)
	}
	_, err := h.seg.Segment(t.Context(), &secateurv1.SegmentRequest{Model: "m"})
	wantCode(t, err, codes.InvalidArgument)
	for _, name := range []string{"x1", "x2", "x3"} {
		_, err := h.seg.Segment(t.Context(), request(t, name))
		wantCode(t, err, codes.NotFound)
	}
	op, err := h.prune.Prune(t.Context(), pruneRequest(h.calibrate(t, 4, false), 0))
	if err != nil {
		t.Fatal(err)
	}
	h.wait(t, op.Name)
	return h
}

func TestMetricsLint(t *testing.T) {
	h := used(t)
	families, err := h.cfg.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	_, open := h.get(t, "/metrics", "application/openmetrics-text; version=1.0.0")
	if !strings.HasSuffix(open, "# EOF\n") || !strings.Contains(open, `# {request_id="`) {
		t.Error("the OpenMetrics exposition has no exemplar")
	}
	for _, f := range families {
		if f.GetName() == "secateur_segment_duration_seconds" {
			if g := f.Metric[0].Histogram; g.Schema == nil || len(g.Bucket) != len(buckets) {
				t.Errorf("%s: %v, want a native histogram and %d classic buckets in one", f.GetName(), g, len(buckets))
			}
		}
	}
	// For other linters, such as promtool check metrics.
	if path := os.Getenv("SECATEUR_METRICS_OUT"); path != "" {
		_, classic := h.get(t, "/metrics", "")
		if err := os.WriteFile(path, []byte(classic), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSeries(t *testing.T) {
	h := used(t)
	s := scrape(t, h)
	if got := s.values("secateur_model_info", "version"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("versions in secateur_model_info: %v, want the serving one alone", got)
	}
	if got := s.values("secateur_segment_duration_seconds_count", "model"); !slices.Equal(got, []string{"m", "unknown"}) {
		t.Errorf("models in secateur_segment_duration_seconds: %v: callers must not make series", got)
	}
	if got := s.values("secateur_stage_duration_seconds_count", "stage"); !slices.Equal(got, []string{"decode", "encode", "infer", "mask", "prepare", "queue"}) {
		t.Errorf("stages: %v", got)
	}
	for _, line := range []string{
		`secateur_swaps_total{model="m",reason="prune"} 1`, `secateur_swaps_total{model="m",reason="rollback"} 0`,
		`secateur_prunes_total{model="m",outcome="pass"} 1`, `secateur_prune_macs{model="m",when="after"} 60`,
		`secateur_prune_filters{model="m",when="before"} 8`, `secateur_prune_agreement_ratio{model="m"} 0.98`,
		`secateur_prune_running{model="m"} 0`, `secateur_model_macs{model="m",version="2"} 20000`, `secateur_model_parameters{model="m",version="2"} 2000`,
		`secateur_segment_duration_seconds_count{code="NotFound",model="unknown"} 3`, `secateur_queue_depth 0`, `secateur_requests_in_flight 0`,
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Segment",grpc_service="secateur.v1.SegmentationService",grpc_type="unary"} 1`,
	} {
		if !slices.Contains(s.lines, line) {
			t.Errorf("the scrape has no line %s", line)
		}
	}
}

// samples is a scrape: the label values of each metric, by label.
type samples struct {
	lines  []string
	labels map[string]map[string]map[string]bool
}

func (s *samples) values(metric, label string) []string {
	return slices.Sorted(maps.Keys(s.labels[metric][label]))
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

func scrape(t *testing.T, h *harness) *samples {
	t.Helper()
	_, body := h.get(t, "/metrics", "")
	s := &samples{labels: map[string]map[string]map[string]bool{}}
	for sc := bufio.NewScanner(strings.NewReader(body)); sc.Scan(); {
		m := sampleLine.FindStringSubmatch(sc.Text())
		if m == nil {
			continue
		}
		s.lines = append(s.lines, sc.Text())
		if s.labels[m[1]] == nil {
			s.labels[m[1]] = map[string]map[string]bool{}
		}
		for _, p := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if s.labels[m[1]][p[1]] == nil {
				s.labels[m[1]][p[1]] = map[string]bool{}
			}
			s.labels[m[1]][p[1]][p[2]] = true
		}
	}
	return s
}

// TestDashboard finds every metric and label of the dashboard's expressions in a live scrape. It reads expressions with
// promExpr, which knows as much of PromQL as that takes; a parser of it all is a dependency larger than this program.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "deploy", "grafana", "dashboards", "secateur.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	s := scrape(t, used(t))
	n := 0
	expressions(doc, func(e string) {
		n++
		refs, err := promExpr(e)
		if err != nil {
			t.Errorf("%s: %v", e, err)
		}
		if len(refs) == 0 {
			t.Errorf("%s: names no metric", e)
		}
		for _, r := range refs {
			have, ok := s.labels[r.metric]
			if !ok {
				t.Errorf("%s: the scrape has no metric %s", e, r.metric)
				continue
			}
			for _, l := range r.labels {
				// Prometheus itself adds these to all it scrapes.
				if l != "job" && l != "instance" && have[l] == nil {
					t.Errorf("%s: %s has no label %s", e, r.metric, l)
				}
			}
			for l, v := range r.equal {
				if l != "job" && !strings.Contains(v, "$") && !have[l][v] {
					t.Errorf("%s: %s has no %s=%q", e, r.metric, l, v)
				}
			}
		}
	})
	if n < 25 {
		t.Errorf("%d expressions were found, there should be more", n)
	}
}

// expressions visits every PromQL expression of a dashboard: of panels, annotations and variables.
func expressions(v any, f func(string)) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			expressions(e, f)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if s, ok := v[k].(string); ok {
				if k == "expr" {
					f(s)
				}
				if m := variableQuery.FindStringSubmatch(s); k == "query" && m != nil {
					f("sum by (" + m[2] + ") (" + m[1] + ")")
				}
			}
			expressions(v[k], f)
		}
	}
}

var variableQuery = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
