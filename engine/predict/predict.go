// Package predict joins a graph and what it needs (a vision.Spec) into a model that takes images and gives masks.
//
// Commands, the pruner's gate and the server all go through [Model.Predict], so that a mask is the same whoever asks.
// Models are compiled for each input shape that comes, a few are kept, and sessions are pooled.
package predict

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
)

// Runner runs a compiled model. One goroutine uses it at a time; outputs are valid until its next Run.
type Runner interface {
	Run(ctx context.Context, in []*tensor.Tensor) ([]*tensor.Tensor, error)
}

// Backend compiles a graph for the given input types once, and returns what makes runners of it. Both may be called from
// several goroutines.
type Backend func(g *graph.Graph, in []tensor.Type) (func() (Runner, error), error)

// Native is the backend of package engine. With a Tuner it measures in the background what it has compiled, for the next
// time.
func Native(opt engine.Options) Backend {
	return func(g *graph.Graph, in []tensor.Type) (func() (Runner, error), error) {
		m, err := engine.Compile(g, in, opt)
		if err != nil {
			return nil, err
		}
		if opt.Tune != nil {
			go func() { _, _ = opt.Tune.Measure(context.Background(), g, in, opt.Threads, nil) }() // it has compiled: no error is left
		}
		return func() (Runner, error) { return m.NewSession(), nil }, nil
	}
}

// Options say how a model runs. The zero value runs natively on all cores, as the model's metadata asks.
type Options struct {
	Engine  engine.Options // of the native backend
	Backend Backend        // nil: Native(Engine)
	Spec    *vision.Spec   // nil: read from the model
}

// Model takes images. It is safe for concurrent use, and keeps no image.
type Model struct {
	graph *graph.Graph
	spec  vision.Spec
	cache *cache
}

// Prediction is what a model says of one image.
type Prediction struct {
	Logits *tensor.Tensor // the first output as the model gave it; the caller's own
	Prob   *vision.Prob   // at the image's size
	Mask   *vision.Mask   // at the image's size
	// How long each stage took: resize and normalise; run, with compilation if the shape is new; probabilities and mask.
	Prepare, Infer, Post time.Duration
}

// New makes a model of g, which must take one image and yield logits or probabilities as its first output. It compiles
// nothing yet: see Warm. The graph is kept and must not change.
func New(g *graph.Graph, opt Options) (*Model, error) {
	if n := len(engine.Inputs(g)); n != 1 {
		return nil, fmt.Errorf("the model takes %d inputs, want one image", n)
	}
	if len(g.Outputs) == 0 {
		return nil, fmt.Errorf("the model has no output")
	}
	m := &Model{graph: g}
	if opt.Spec != nil {
		m.spec = *opt.Spec
	} else {
		var err error
		if m.spec, err = vision.ReadSpec(g.Meta, g); err != nil {
			return nil, fmt.Errorf("reading the model's metadata: %w", err)
		}
	}
	b := opt.Backend
	if b == nil {
		b = Native(opt.Engine)
	}
	m.cache = newCache(func(in tensor.Type) (func() (Runner, error), error) { return b(g, []tensor.Type{in}) })
	return m, nil
}

// Spec is what the model needs done before and after it.
func (m *Model) Spec() vision.Spec { return m.spec }

// Graph is the graph that New was given; it must not be changed.
func (m *Model) Graph() *graph.Graph { return m.graph }

// Predict segments one image. A *vision.FormatError says that the image is not one, any other error comes from the
// engine, and the context's from the context.
func (m *Model) Predict(ctx context.Context, img *vision.Image) (*Prediction, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if img == nil || img.W <= 0 || img.H <= 0 || len(img.Pix) != 3*img.W*img.H {
		return nil, &vision.FormatError{Field: "image", Reason: "image is empty or its pixels do not fill its size"}
	}
	p := &Prediction{}
	start := time.Now()
	x := tensor.New(tensor.Float32, m.spec.InputType(img).Shape...)
	if err := m.spec.Prepare(x, img); err != nil {
		return nil, err
	}
	p.Prepare = time.Since(start)

	start = time.Now()
	var err error
	if p.Logits, err = m.run(ctx, x); err != nil {
		return nil, err
	}
	p.Infer = time.Since(start)

	start = time.Now()
	if p.Prob, err = m.spec.Probabilities(p.Logits, img.W, img.H); err != nil {
		return nil, fmt.Errorf("reading the model's output: %w", err)
	}
	p.Mask = m.spec.Mask(p.Prob)
	p.Post = time.Since(start)
	return p, nil
}

// Logits runs the model on a prepared input, of any shape that it takes, and returns a copy of its first output.
func (m *Model) Logits(ctx context.Context, x *tensor.Tensor) (*tensor.Tensor, error) {
	return m.run(ctx, x)
}

func (m *Model) run(ctx context.Context, x *tensor.Tensor) (*tensor.Tensor, error) {
	c, err := m.cache.get(ctx, x.Type())
	if err != nil {
		return nil, err
	}
	r, err := c.runner()
	if err != nil {
		return nil, fmt.Errorf("starting a session for %v: %w", x.Type(), err)
	}
	out, err := r.Run(ctx, []*tensor.Tensor{x})
	if err != nil {
		// After an error nobody knows what the runner holds: it is left to the garbage collector.
		return nil, fmt.Errorf("running the model on %v: %w", x.Type(), err)
	}
	if len(out) == 0 || out[0] == nil {
		return nil, fmt.Errorf("running the model on %v: no output", x.Type())
	}
	logits := out[0].Clone()
	c.release(r)
	return logits, nil
}

// Warm compiles the model at its serving shape and runs it once on a gray image, so that the first request is as quick as
// any. It is also the proof that the model runs at all.
func (m *Model) Warm(ctx context.Context) error {
	t := ServingType(m.graph, m.spec)
	if _, err := m.cache.get(ctx, t); err != nil {
		return err
	}
	x := tensor.New(tensor.Float32, t.Shape...)
	h, w := t.Shape[2], t.Shape[3]
	if m.spec.Pre.Layout == "NHWC" {
		h, w = t.Shape[1], t.Shape[2]
	}
	img := vision.NewImage(w, h)
	for i := range img.Pix {
		img.Pix[i] = 128
	}
	if err := m.spec.Prepare(x, img); err != nil {
		return err
	}
	out, err := m.run(ctx, x)
	if err != nil {
		return err
	}
	if _, err := m.spec.Probabilities(out, w, h); err != nil {
		return fmt.Errorf("reading the model's output: %w", err)
	}
	return nil
}

// Cost counts parameters and multiply-adds at the serving shape, which it returns as well.
func (m *Model) Cost() (engine.Cost, tensor.Type, error) {
	t := ServingType(m.graph, m.spec)
	c, err := engine.Count(m.graph, []tensor.Type{t})
	if err != nil {
		return engine.Cost{}, t, fmt.Errorf("counting the cost at %v: %w", t, err)
	}
	return c, t, nil
}

// ServingType is the input type that figures of a model are given at: the size in its metadata or its graph, and where
// neither says one, 256 x 256 rounded to the multiple it needs. A model that declares its input as something else than an
// image, a volume say, gets what it declares, for the engine to say which node cannot take it.
func ServingType(g *graph.Graph, s vision.Spec) tensor.Type {
	t := s.InputType(&vision.Image{W: 256, H: 256})
	in := engine.Inputs(g)
	if len(in) == 0 || len(in[0].Type.Shape) <= len(t.Shape) {
		return t
	}
	t.Shape = slices.Clone(in[0].Type.Shape)
	for i, d := range t.Shape {
		if d == tensor.Unknown {
			t.Shape[i] = max(s.Pre.Multiple, 1)
		}
	}
	return t
}
