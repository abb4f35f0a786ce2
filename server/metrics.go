package server

import (
	"runtime"
	"strconv"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/server/registry"
)

// buckets have their edges where promises are made: one frame at 60, 50, 30 and 25 per second, and round figures. Seconds.
var buckets = []float64{0.001, 0.002, 0.005, 0.010, 0.0167, 0.020, 0.033, 0.040, 0.060, 0.100, 0.250, 1, 2.5, 5, 10}

// pruneBuckets are for what takes minutes. Seconds.
var pruneBuckets = []float64{1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200}

// Stages of a request, in order; label values of secateur_stage_duration_seconds.
const (
	stageQueue   = "queue"   // the wait for a place
	stageDecode  = "decode"  // bytes to pixels
	stagePrepare = "prepare" // pixels to the model's input
	stageInfer   = "infer"   // the model
	stageMask    = "mask"    // its output to a mask and its components
	stageEncode  = "encode"  // the mask to bytes
)

// metrics is everything the server tells Prometheus. The label model is a model's name, or "unknown" where the caller
// named one that is not there: callers cannot make series.
type metrics struct {
	// segmentSeconds times one image from the first byte of work to the mask's last, by model and by gRPC code.
	segmentSeconds *prometheus.HistogramVec // model, code
	// stageSeconds is where the time went, for images that were answered with a mask.
	stageSeconds *prometheus.HistogramVec // model, stage
	// inFlight images compute, queueDepth more wait.
	inFlight, queueDepth prometheus.GaugeFunc

	swaps       *prometheus.CounterVec   // model, reason: one of package registry's
	swapSeconds *prometheus.HistogramVec // model: from the call to the swap, with loading, compiling and warming up

	pruneRunning  *prometheus.GaugeVec     // model: 1 while it is being pruned
	pruneProgress *prometheus.GaugeVec     // model: of the last prune, from 0 to 1
	prunes        *prometheus.CounterVec   // model, outcome: pass, fail, cannot_tell, error, cancelled
	pruneSeconds  *prometheus.HistogramVec // model
	// The last prune that came to its end: multiply-adds, parameters and filters before and after; mean Dice against the
	// parent on the held-out images.
	pruneMACs, pruneParameters, pruneFilters *prometheus.GaugeVec // model, when: before, after
	pruneAgreement                           *prometheus.GaugeVec // model

	// What serves: 1, and its cost. One series a model.
	modelInfo       *prometheus.GaugeVec // model, version, sha256
	modelMACs       *prometheus.GaugeVec // model, version: at the serving shape
	modelParameters *prometheus.GaugeVec // model, version

	// grpc is go-grpc-middleware's grpc_server_*, for every method.
	grpc *grpcprom.ServerMetrics
}

// gauges is what admission.Queue tells.
type gauges interface {
	Running() int
	Waiting() int
}

func newMetrics(reg prometheus.Registerer, q gauges, version string) *metrics {
	// Classic buckets and a native histogram from one metric: a scrape takes what it understands.
	histogram := func(name, help string, b []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: b,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	read := func(name, help string, f func() int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	m := &metrics{
		segmentSeconds:  histogram("secateur_segment_duration_seconds", "Time to segment one image, by model and gRPC code.", buckets, "model", "code"),
		stageSeconds:    histogram("secateur_stage_duration_seconds", "Time of each stage of segmenting one image.", buckets, "model", "stage"),
		inFlight:        read("secateur_requests_in_flight", "Images that are being segmented.", q.Running),
		queueDepth:      read("secateur_queue_depth", "Images that wait for a place.", q.Waiting),
		swaps:           counter("secateur_swaps_total", "Changes of the serving version, by model and reason.", "model", "reason"),
		swapSeconds:     histogram("secateur_swap_duration_seconds", "Time to load, compile, warm up and swap in a version.", buckets, "model"),
		pruneRunning:    gauge("secateur_prune_running", "Whether the model is being pruned.", "model"),
		pruneProgress:   gauge("secateur_prune_progress_ratio", "Progress of the last prune, from 0 to 1.", "model"),
		prunes:          counter("secateur_prunes_total", "Prunes that ended, by model and outcome.", "model", "outcome"),
		pruneSeconds:    histogram("secateur_prune_duration_seconds", "Time of a prune.", pruneBuckets, "model"),
		pruneMACs:       gauge("secateur_prune_macs", "Multiply-adds of the model before and after the last prune.", "model", "when"),
		pruneParameters: gauge("secateur_prune_parameters", "Parameters of the model before and after the last prune.", "model", "when"),
		pruneFilters:    gauge("secateur_prune_filters", "Filters of the model before and after the last prune.", "model", "when"),
		pruneAgreement:  gauge("secateur_prune_agreement_ratio", "Mean Dice of the last pruned model against its parent on held-out images.", "model"),
		modelInfo:       gauge("secateur_model_info", "The serving version of a model; the value is 1.", "model", "version", "sha256"),
		modelMACs:       gauge("secateur_model_macs", "Multiply-adds of the serving version, at its serving shape.", "model", "version"),
		modelParameters: gauge("secateur_model_parameters", "Parameters of the serving version.", "model", "version"),
		grpc: grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
			grpcprom.WithHistogramBuckets(buckets),
			grpcprom.WithHistogramOpts(&prometheus.HistogramOpts{NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160}))),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "secateur_build_info", Help: "The program; the value is 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	build.Set(1)
	reg.MustRegister(m.segmentSeconds, m.stageSeconds, m.inFlight, m.queueDepth, m.swaps, m.swapSeconds, m.pruneRunning,
		m.pruneProgress, m.prunes, m.pruneSeconds, m.pruneMACs, m.pruneParameters, m.pruneFilters, m.pruneAgreement,
		m.modelInfo, m.modelMACs, m.modelParameters, m.grpc, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// swapped follows the registry. The series of the version that no longer serves go.
func (m *metrics) swapped(s registry.Swapped) {
	i := s.New.Info
	if s.Old != nil {
		old := prometheus.Labels{"model": s.Old.Name}
		m.modelInfo.DeletePartialMatch(old)
		m.modelMACs.DeletePartialMatch(old)
		m.modelParameters.DeletePartialMatch(old)
	}
	// A counter that is there at zero shows its first increase.
	for _, r := range []string{registry.ReasonOpen, registry.ReasonUpload, registry.ReasonPromote, registry.ReasonPrune, registry.ReasonRollback} {
		m.swaps.WithLabelValues(s.New.Name, r)
	}
	v := strconv.FormatUint(s.New.Version, 10)
	m.modelInfo.WithLabelValues(s.New.Name, v, i.SHA256).Set(1)
	m.modelMACs.WithLabelValues(s.New.Name, v).Set(float64(i.MACs))
	m.modelParameters.WithLabelValues(s.New.Name, v).Set(float64(i.Parameters))
	m.swaps.WithLabelValues(s.New.Name, s.Reason).Inc()
}

// observe records an image. The request id is the exemplar: from a slow bucket to the line in the log.
func (m *metrics) observe(model, code, requestID string, total time.Duration) {
	h := m.segmentSeconds.WithLabelValues(model, code)
	exemplar(h, requestID, total)
}

func (m *metrics) stage(model, stage, requestID string, d time.Duration) {
	exemplar(m.stageSeconds.WithLabelValues(model, stage), requestID, d)
}

func exemplar(o prometheus.Observer, requestID string, d time.Duration) {
	if e, ok := o.(prometheus.ExemplarObserver); ok && requestID != "" {
		e.ObserveWithExemplar(d.Seconds(), prometheus.Labels{"request_id": requestID})
		return
	}
	o.Observe(d.Seconds())
}

// pruned records the figures of a report.
func (m *metrics) pruned(model string, r *pruner.Report) {
	for _, f := range []struct {
		g *prometheus.GaugeVec
		c pruner.Change
	}{{m.pruneMACs, r.MACs}, {m.pruneParameters, r.Parameters}, {m.pruneFilters, r.Filters}} {
		f.g.WithLabelValues(model, "before").Set(float64(f.c.Before))
		f.g.WithLabelValues(model, "after").Set(float64(f.c.After))
	}
	if r.Gate != nil {
		m.pruneAgreement.WithLabelValues(model).Set(r.Gate.Agreement.Mean)
	}
}
