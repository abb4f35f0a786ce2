package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	embedded "github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/server/admission"
	"github.com/secateur/secateur/server/registry"
)

// Server is a server that has its models loaded. New makes it, Serve runs it, once.
type Server struct {
	cfg     Config
	reg     *registry.Registry
	queue   *admission.Queue
	metrics *metrics
	health  *health.Server
	sets    *calibrations
	uploads *uploads
	ops     *operations
	temp    string // a state folder of our own, removed at the end; or empty

	grpc     *grpc.Server
	draining atomic.Bool     // health has said so
	closing  context.Context // ends when the server stops taking requests
	close    context.CancelFunc
	once     sync.Once
}

// New opens the folder of models, loads what serves, and makes the server. Whoever does not call Serve calls Close.
func New(cfg Config) (_ *Server, err error) {
	cfg = cfg.withDefaults()
	if cfg.Models == "" {
		return nil, errors.New("no folder of models is given")
	}
	s := &Server{cfg: cfg, queue: admission.New(cfg.MaxInFlight, cfg.QueueDepth), health: health.NewServer()}
	s.closing, s.close = context.WithCancel(context.Background())
	s.metrics = newMetrics(cfg.Metrics, s.queue, cfg.Version)
	defer func() {
		if err != nil {
			_ = s.Close() // the first error says why
		}
	}()
	opt := registry.Options{Load: cfg.Load, Predict: cfg.Predict, Default: cfg.DefaultModel, MaxBytes: cfg.MaxModelBytes,
		Log: cfg.Log, Now: cfg.Now, Swapped: s.swapped}
	if !cfg.NoSeed {
		for _, m := range embedded.All() {
			opt.Seed = append(opt.Seed, registry.Seed{Name: m.Name, ONNX: m.ONNX})
		}
	}
	if s.reg, err = registry.Open(context.Background(), cfg.Models, opt); err != nil {
		return nil, err
	}
	if err := s.openState(); err != nil {
		return nil, err
	}
	s.setHealth()
	s.grpc = s.newGRPC()
	s.metrics.grpc.InitializeMetrics(s.grpc)
	return s, nil
}

// openState opens the folder of calibration sets and operations.
func (s *Server) openState() error {
	dir := s.cfg.State
	if dir == "" {
		dir = filepath.Join(s.cfg.Models, ".state")
		if s.reg.ReadOnly() {
			var err error
			if dir, err = os.MkdirTemp("", "secateur-state-"); err != nil {
				return fmt.Errorf("make a folder for state: %w", err)
			}
			s.temp = dir
		}
	}
	s.sets = &calibrations{dir: filepath.Join(dir, "calibration")}
	var err error
	// What arrives lies beside the sets, so that a set is renamed into its place.
	if s.uploads, err = openUploads(s.sets.dir, s.cfg.MaxUploads); err != nil {
		return fmt.Errorf("open calibration sets: %w", err)
	}
	s.ops, err = openOperations(filepath.Join(dir, "operations"), s.cfg.Log, s.cfg.Now)
	return err
}

func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(s.cfg.MaxMessageBytes),
		grpc.MaxSendMsgSize(s.cfg.MaxMessageBytes),
		grpc.MaxConcurrentStreams(s.cfg.MaxStreams),
		grpc.ChainUnaryInterceptor(s.metrics.grpc.UnaryServerInterceptor(), s.unary),
		grpc.ChainStreamInterceptor(s.metrics.grpc.StreamServerInterceptor(), s.stream),
		// Connections that a firewall has forgotten are noticed; clients may ask for the same.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
	)
	secateurv1.RegisterSegmentationServiceServer(g, segmentation{Server: s})
	secateurv1.RegisterPruningServiceServer(g, pruning{Server: s})
	secateurv1.RegisterModelServiceServer(g, models{Server: s})
	longrunningpb.RegisterOperationsServer(g, s.ops)
	grpc_health_v1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// swapped follows the registry.
func (s *Server) swapped(ev registry.Swapped) {
	s.metrics.swapped(ev)
	s.health.SetServingStatus(ev.New.Name, grpc_health_v1.HealthCheckResponse_SERVING)
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
}

// setHealth marks the models that do not serve, and the whole if none does. Health is asked by a model's name, by the
// name of a service, or by nothing for the whole.
func (s *Server) setHealth() {
	for _, m := range s.reg.List() {
		if m.Broken != "" {
			s.health.SetServingStatus(m.Name, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		}
	}
	if !s.ready() {
		s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
	for _, name := range []string{secateurv1.SegmentationService_ServiceDesc.ServiceName, secateurv1.PruningService_ServiceDesc.ServiceName,
		secateurv1.ModelService_ServiceDesc.ServiceName, "google.longrunning.Operations"} {
		s.health.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
	}
}

// ready reports whether any model serves and the server is not on its way out.
func (s *Server) ready() bool {
	if s.draining.Load() || s.closing.Err() != nil {
		return false
	}
	for _, m := range s.reg.List() {
		if _, err := s.reg.Lookup(m.Name); err == nil {
			return true
		}
	}
	return false
}

// Registry gives programs that run the server within themselves a view of its models.
func (s *Server) Registry() *registry.Registry { return s.reg }

// Serve answers gRPC on one listener and HTTP (metrics, health, a status page) on the other, which may be nil, until ctx
// ends. Then it drains: health says NOT_SERVING, after a moment no new calls are taken, those in flight end, prunes are
// cancelled and marked so, and Serve returns nil. It closes the server and both listeners in any case.
func (s *Server) Serve(ctx context.Context, grpcListener, httpListener net.Listener) error {
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	wg.Go(func() {
		if err := s.grpc.Serve(grpcListener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			failed <- fmt.Errorf("serve gRPC: %w", err)
		}
	})
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn)}
	if httpListener != nil {
		wg.Go(func() {
			if err := web.Serve(httpListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve HTTP: %w", err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
		s.drain()
	case err = <-failed:
		s.grpc.Stop()
	}
	cerr := s.Close()
	_ = web.Close() // last, so that the end can be watched; what it interrupts is a page
	wg.Wait()
	return errors.Join(err, cerr)
}

// drain lets calls in flight come to their end.
func (s *Server) drain() {
	s.cfg.Log.Info("draining", "wait", s.cfg.DrainWait, "timeout", s.cfg.DrainTimeout)
	s.draining.Store(true)
	s.health.Shutdown()
	if s.cfg.DrainWait > 0 {
		timer := time.NewTimer(s.cfg.DrainWait)
		<-timer.C
	}
	s.close() // ends streams between two frames, and watches of health
	// Prunes are no calls, but watching one and waiting for one are.
	s.ops.stop()
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	timer := time.NewTimer(s.cfg.DrainTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.cfg.Log.Warn("calls in flight are cut off", "after", s.cfg.DrainTimeout)
		s.grpc.Stop()
		<-done
	}
	s.cfg.Log.Info("drained")
}

// Close stops what runs and lets go of the folder of models. Serve calls it.
func (s *Server) Close() error {
	var err error
	s.once.Do(func() {
		s.close()
		if s.ops != nil {
			s.ops.stop()
		}
		if s.grpc != nil {
			s.grpc.Stop()
		}
		if s.reg != nil {
			err = s.reg.Close()
		}
		if s.temp != "" {
			err = errors.Join(err, os.RemoveAll(s.temp))
		}
	})
	return err
}
