package server

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/server/registry"
)

// Config says how a server runs. Models must be set; the zero value of all else is a sensible server.
type Config struct {
	// Models is the folder of models, created if it is not there. A new one is filled with the embedded models.
	Models string
	// State is the folder for calibration sets and operations; empty: ".state" in Models, or a temporary folder if that
	// cannot be written.
	State string
	// DefaultModel is what requests without a model's name go to; empty: the first embedded model that is there.
	DefaultModel string
	// NoSeed leaves a new folder empty.
	NoSeed bool
	// Predict says how models run.
	Predict predict.Options
	// Load replaces Predict; tests use it to serve without an engine.
	Load func(g *graph.Graph, override []byte) (registry.Runner, error)
	// Prune replaces pruner.Prune.
	Prune PruneFunc
	// PruneThreads are the cores that a prune may use beside the requests; 0: half of them, at least one.
	PruneThreads int

	// MaxInFlight requests compute at once; 0: as many as there are cores. QueueDepth more wait; 0: 64, -1: none.
	MaxInFlight, QueueDepth int
	// MaxMessageBytes bounds a gRPC message in either direction; 0: 64 MiB.
	MaxMessageBytes int
	// MaxModelBytes bounds an uploaded model; 0: 1 GiB.
	MaxModelBytes int64
	// MaxCalibrationBytes bounds a calibration set; 0: 1 GiB.
	MaxCalibrationBytes int64
	// MaxUploads bounds the models and calibration sets that are on their way in at once; 0: 8.
	MaxUploads int
	// UploadPatience is how long an upload may send nothing; 0: one minute, negative: without end.
	UploadPatience time.Duration
	// MaxPixels bounds width times height of an image; 0: vision.DefaultMaxPixels.
	MaxPixels int
	// MaxModelPixels bounds it further for models that run at the image's own size; 0: 2^23, enough for 4K video.
	MaxModelPixels int
	// MaxStreams bounds the concurrent calls of one connection; 0: 256.
	MaxStreams uint32

	// DrainWait is how long the server still takes requests after its health has become NOT_SERVING, so that balancers
	// notice; 0: 500 ms, negative: not at all. DrainTimeout is how long requests in flight may take after that; 0: 30 s.
	DrainWait, DrainTimeout time.Duration

	// Version is the program's, for the status page and secateur_build_info.
	Version string
	Log     *slog.Logger         // nil: silent
	Metrics *prometheus.Registry // nil: one of the server's own
	Now     func() time.Time     // nil: time.Now
}

// PruneFunc is pruner.Prune.
type PruneFunc func(ctx context.Context, g *graph.Graph, fit, val *calib.Set, opt pruner.Options) (*pruner.Result, error)

func (c Config) withDefaults() Config {
	if c.Prune == nil {
		c.Prune = pruner.Prune
	}
	if c.PruneThreads <= 0 {
		c.PruneThreads = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = runtime.GOMAXPROCS(0)
	}
	switch {
	case c.QueueDepth == 0:
		c.QueueDepth = 64
	case c.QueueDepth < 0:
		c.QueueDepth = 0
	}
	if c.MaxMessageBytes <= 0 {
		c.MaxMessageBytes = 64 << 20
	}
	if c.MaxModelBytes <= 0 {
		c.MaxModelBytes = 1 << 30
	}
	if c.MaxCalibrationBytes <= 0 {
		c.MaxCalibrationBytes = 1 << 30
	}
	if c.MaxUploads <= 0 {
		c.MaxUploads = 8
	}
	if c.UploadPatience == 0 {
		c.UploadPatience = time.Minute
	}
	if c.MaxPixels <= 0 {
		c.MaxPixels = vision.DefaultMaxPixels
	}
	if c.MaxModelPixels <= 0 {
		c.MaxModelPixels = 1 << 23
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 256
	}
	if c.DrainWait == 0 {
		c.DrainWait = 500 * time.Millisecond
	}
	if c.DrainTimeout <= 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
