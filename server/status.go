package server

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/secateur/secateur/server/registry"
)

//go:embed status.html.tmpl
var statusHTML string

var statusPage = template.Must(template.New("status").Funcs(template.FuncMap{
	"millions": func(n int64) string { return fmt.Sprintf("%.2f", float64(n)/1e6) },
	"short":    func(s string) string { return s[:min(12, len(s))] },
}).Parse(statusHTML))

// handler is the HTTP port: /metrics for Prometheus, /healthz (the process lives) and /readyz (it takes requests) for
// whoever runs it, and for people a page with the models and the reports of their prunes.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{Registry: s.cfg.Metrics, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready() {
			text(w, http.StatusServiceUnavailable, "not ready")
			return
		}
		text(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /reports/{model}/{version}", s.report)
	mux.HandleFunc("GET /{$}", s.status)
	return mux
}

func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, body) // the other side may have gone
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	err := statusPage.Execute(w, map[string]any{"Version": s.cfg.Version, "Ready": s.ready(), "Models": s.reg.List(),
		"Running": s.queue.Running(), "Waiting": s.queue.Waiting()})
	if err != nil {
		s.cfg.Log.Warn("status page", "error", err)
	}
}

// report shows a version's report: VERSION as a page, VERSION.json as it was written.
func (s *Server) report(w http.ResponseWriter, r *http.Request) {
	number, isJSON := strings.CutSuffix(r.PathValue("version"), ".json")
	v, err := strconv.ParseUint(number, 10, 64)
	if err != nil || v == 0 {
		text(w, http.StatusNotFound, "no such version")
		return
	}
	kind, typ := registry.KindReportHTML, "text/html; charset=utf-8"
	if isJSON {
		kind, typ = registry.KindReportJSON, "application/json"
	}
	b, _, err := s.reg.File(r.PathValue("model"), v, kind)
	var missing *registry.NotFoundError
	switch {
	case errors.As(err, &missing):
		text(w, http.StatusNotFound, err.Error())
		return
	case err != nil:
		s.cfg.Log.Error("report", "error", err)
		text(w, http.StatusInternalServerError, "internal error")
		return
	}
	w.Header().Set("Content-Type", typ)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
	_, _ = w.Write(b) // the other side may have gone
}
