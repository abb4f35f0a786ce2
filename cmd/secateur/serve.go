package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/server"
)

type serveCmd struct {
	backendFlags
	Listen       string        `help:"Where gRPC listens." default:"127.0.0.1:8500"`
	HTTP         string        `name:"http" help:"Where metrics and status listen." default:"127.0.0.1:8501"`
	Models       string        `help:"The folder of models, NAME/VERSION/model.onnx; created with the built-in models if absent. By default in the user's data folder." env:"SECATEUR_MODELS"`
	State        string        `help:"The folder of calibration sets and operations; by default .state in the folder of models."`
	Default      string        `help:"The model for requests that name none; by default the first built-in one that is there."`
	Threads      int           `help:"Cores one request may use; 0 means all."`
	MaxInflight  int           `name:"max-inflight" help:"Requests that compute at once; 0 means as many as there are cores."`
	Queue        int           `help:"Requests that may wait for a place; -1 means none." default:"64"`
	PruneThreads int           `name:"prune-threads" help:"Cores a prune may use; 0 means half of them."`
	MaxMessage   int           `name:"max-message" help:"The largest gRPC message in MiB." default:"64"`
	MaxModel     int           `name:"max-model" help:"The largest model to upload in MiB." default:"1024"`
	MaxPixels    int           `name:"max-pixels" help:"The largest image in pixels; 0 means 64 Mi."`
	Tune         bool          `help:"Measure in the background how layers run fastest on this processor, keep it in the user's cache folder, and use what is known when a model is loaded. Masks may then differ by rounding from one machine to the next."`
	DrainTimeout time.Duration `name:"drain-timeout" help:"How long requests in flight may take once the server is told to stop." default:"30s"`
	Log          string        `help:"Which log lines are written: debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`
}

// serverOptions is what serve and demo tell a server.
type serverOptions struct {
	Models  string
	Predict predict.Backend
	Log     io.Writer
	Level   slog.Level
	Config  server.Config // the rest
}

// newServer makes a server that logs JSON.
func newServer(o serverOptions) (*server.Server, error) {
	c := o.Config
	c.Models = o.Models
	c.Predict = predict.Options{Backend: o.Predict}
	c.Version = buildVersion()
	c.Log = slog.New(slog.NewJSONHandler(o.Log, &slog.HandlerOptions{Level: o.Level}))
	return server.New(c)
}

// Run implements the command. It ends without an error when it is told to stop and all requests have their answers.
func (c *serveCmd) Run(ctx context.Context) error {
	if c.Models == "" {
		var err error
		if c.Models, err = dataFolder(); err != nil {
			return err
		}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log)); err != nil {
		return err
	}
	opt := engine.Options{Threads: c.Threads}
	if c.Tune {
		opt.Tune = engine.OpenTuner(tuningFolder())
	}
	b, err := backend(c.Backend, c.OrtLib, opt)
	if err != nil {
		return err
	}
	// Weights and sessions are large, live long and hold no pointers: collecting often costs a percent or two and lets
	// the heap exceed what lives by a tenth instead of by as much again.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(10)
	}
	// First, so that an address in use is told before a folder is made or a model loaded.
	grpcListener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	httpListener, err := net.Listen("tcp", c.HTTP)
	if err != nil {
		_ = grpcListener.Close() // nothing came in yet
		return fmt.Errorf("--http: %w", err)
	}
	s, err := newServer(serverOptions{Models: c.Models, Predict: b, Log: os.Stderr, Level: level, Config: server.Config{
		State: c.State, DefaultModel: c.Default, MaxInFlight: c.MaxInflight, QueueDepth: queueDepth(c.Queue), PruneThreads: c.PruneThreads,
		MaxMessageBytes: c.MaxMessage << 20, MaxModelBytes: int64(c.MaxModel) << 20, MaxPixels: c.MaxPixels, DrainTimeout: c.DrainTimeout,
	}})
	if err != nil {
		_, _ = grpcListener.Close(), httpListener.Close() // nobody was answered yet
		return err
	}
	fmt.Print(howTo(grpcListener.Addr().String(), httpListener.Addr().String(), c.Models))
	return s.Serve(ctx, grpcListener, httpListener)
}

// queueDepth maps the flag to the configuration, where zero is the default.
func queueDepth(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}

// howTo says in five lines how to call the server.
func howTo(grpcAddr, httpAddr, models string) string {
	flag := ""
	if grpcAddr != "127.0.0.1:8500" {
		flag = " --addr " + grpcAddr
	}
	self := os.Args[0] // as the user called it, so that the lines can be pasted
	return strings.Join([]string{
		fmt.Sprintf("Secateur serves the models of %s: gRPC on %s, HTTP on %s. Ctrl-C stops it. To call it:", models, grpcAddr, httpAddr),
		fmt.Sprintf("  %s segment IMAGE%s --overlay", self, flag),
		fmt.Sprintf("  %s prune%s --calib DIR --target macs=0.3 && %s models list%s", self, flag, self, flag),
		fmt.Sprintf("  echo '{\"image\":{\"encoded\":\"'$(base64 -w0 IMAGE)'\"}}' | grpcurl -plaintext -d @ %s secateur.v1.SegmentationService/Segment", grpcAddr),
		fmt.Sprintf("  curl http://%s/metrics", httpAddr),
	}, "\n") + "\n"
}

// tuningFolder is where measurements of this machine are kept; empty where there is no such folder.
func tuningFolder() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "secateur")
}

// dataFolder is where models are kept by default, as the XDG base directory specification has it.
func dataFolder() (string, error) {
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" || !filepath.IsAbs(base) { // the specification has relative paths ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no folder for models, say --models: %w", err)
		}
		base = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(base, "secateur", "models"), nil
}
