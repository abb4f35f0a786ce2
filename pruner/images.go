package pruner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/pruner/score"
)

// errShared is why held-out images that were learnt from are refused.
var errShared = errors.New("the verdict would mean nothing; give other held-out images, or none to hold some of the calibration images back")

// take accepts the sets of a run, or says why they cannot serve.
func (r *run) take(fit, val *calib.Set) error {
	if fit == nil || len(fit.Items) < 2 {
		return fmt.Errorf("pruning takes at least 2 calibration images: %w", calib.ErrEmpty)
	}
	r.calibration, r.fit, r.labels = fit.Hash, fit, fit.Labelled && !r.opt.Unlabelled
	if r.opt.Finetune > 0 && !r.labels {
		return errors.New("fine-tuning on masks: it takes masks for all calibration images, and their use; give them, or leave it out")
	}
	if val == nil {
		return nil
	}
	if len(val.Items) == 0 {
		return fmt.Errorf("the held-out set: %w", calib.ErrEmpty)
	}
	if both := fit.Overlap(val); len(both) > 0 {
		return fmt.Errorf("%d images are both in the calibration and in the held-out set (%s): %w", len(both), strings.Join(both[:min(len(both), 3)], ", "), errShared)
	}
	if name, ok := shared(fit, val, r.cluster); ok {
		return fmt.Errorf("images of cluster %q are both in the calibration and in the held-out set: %w", name, errShared)
	}
	r.val, r.valLabels = gate.Seal(val), val.Labelled && !r.opt.Unlabelled
	return nil
}

// cluster names what an image is kept together with: what shows one patient is learnt from or judged on, never both.
func (r *run) cluster(name string) string { return gate.ClusterOf(name, r.opt.GroupBy) }

// split sets images apart.
func (r *run) split() error {
	n := len(r.fit.Items)
	if r.val != nil {
		if n < 2 {
			return fmt.Errorf("pruning takes at least 2 different calibration images, there is %d", n)
		}
		r.parts = []float64{0.8, 0.2}
		parts := r.fit.SplitBy(r.cluster, r.parts...)
		r.fit, r.sel = parts[0], parts[1]
		return nil
	}
	if n < 3 {
		return fmt.Errorf("pruning without held-out images takes at least 3 different calibration images, there are %d", n)
	}
	r.parts = []float64{0.6, 0.15, 0.25}
	parts := r.fit.SplitBy(r.cluster, r.parts...)
	if len(parts[2].Items) == 0 {
		return fmt.Errorf("%d calibration images are of too few clusters to hold one back for the verdict: give held-out images", n)
	}
	r.fit, r.sel = parts[0], parts[1]
	r.val, r.valLabels = gate.Seal(parts[2]), r.labels // masks of some images alone have not been read
	return nil
}

// shared names a cluster that has images in both sets.
func shared(a, b *calib.Set, cluster func(string) string) (string, bool) {
	in := map[string]bool{}
	for _, it := range a.Items {
		in[cluster(it.Name)] = true
	}
	for _, it := range b.Items {
		if k := cluster(it.Name); k != "" && in[k] {
			return k, true
		}
	}
	return "", false
}

// input prepares one image at the serving shape.
func (r *run) input(it *calib.Item) (*tensor.Tensor, error) {
	x, _, err := r.prepare(it)
	return x, err
}

func (r *run) prepare(it *calib.Item) (*tensor.Tensor, *vision.Image, error) {
	img, err := it.Decode()
	if err != nil {
		return nil, nil, err
	}
	x := tensor.New(tensor.Float32, r.in[0].Shape...)
	if err := r.spec.Prepare(x, img); err != nil {
		return nil, nil, fmt.Errorf("image %q: %w", it.Name, err)
	}
	return x, img, nil
}

// truth is the mask of an item, whose image is img.
func (r *run) truth(it *calib.Item, img *vision.Image) (*vision.Mask, error) {
	m, err := it.Truth(img, r.classes)
	if err != nil {
		return nil, fmt.Errorf("mask of image %q: %w", it.Name, err)
	}
	return m, nil
}

// read reads all images, so that a bad one does not end a run at its verdict, and sets them apart. Of the calibration images
// that show the same picture, which the hashes of files do not tell, it leaves one: a copy of what is learnt from would be
// judged on. It refuses a held-out image that is also among these.
func (r *run) read(ctx context.Context) error {
	open, held := r.fit.Items, 0
	if r.val != nil {
		held = r.val.Len()
	}
	errs, prints := make([]error, len(open)+held), make([]gate.Print, len(open)+held)
	r.pool.Loop(len(errs), func(_, i int) {
		switch k := i - len(open); {
		case ctx.Err() != nil:
			errs[i] = ctx.Err()
		case k >= 0:
			prints[i], errs[i] = r.val.Check(k, r.valLabels, r.classes)
		default:
			prints[i], errs[i] = gate.PrintOf(&open[i], r.labels, r.classes)
		}
	}).Run()
	for _, err := range errs {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w; remove or replace it", err)
		}
		if err != nil {
			return err
		}
	}
	seen, heldSeen, duplicates := gate.Seen{}, gate.Seen{}, map[int]bool{}
	for i, p := range prints {
		if i < len(open) {
			first, err := seen.First(p)
			if err != nil {
				return err
			}
			if !first {
				duplicates[i] = true
			}
			continue
		}
		if before, ok := seen[p.Picture]; ok {
			return fmt.Errorf("images %q and %q are the same picture, one to learn from and one for the verdict: %w", before.Name, p.Name, errShared)
		}
		if _, err := heldSeen.First(p); err != nil {
			return err
		}
	}
	r.fit = r.fit.Without(duplicates)
	r.duplicates = r.fit.Duplicates
	return r.split()
}

// example is an image to score, with its truth if labels are used.
func (r *run) example(it *calib.Item) (score.Example, error) {
	x, img, err := r.prepare(it)
	if err != nil || !r.labels {
		return score.Example{Input: x}, err
	}
	truth, err := r.truth(it, img)
	if err != nil {
		return score.Example{}, err
	}
	return score.Example{Input: x, Truth: truth}, nil
}
