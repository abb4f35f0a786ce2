package pruner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
	"github.com/secateur/secateur/pruner/score"
)

// split sets images apart.
func (r *run) split(fit, val *calib.Set) error {
	if fit == nil || len(fit.Items) < 2 {
		return fmt.Errorf("pruning takes at least 2 calibration images: %w", calib.ErrEmpty)
	}
	r.calibration = fit.Hash
	// What shows one patient is learnt from or judged on, never both.
	cluster := func(name string) string { return gate.ClusterOf(name, r.opt.GroupBy) }
	if val == nil {
		if len(fit.Items) < 3 {
			return fmt.Errorf("pruning without held-out images takes at least 3 calibration images, there are %d", len(fit.Items))
		}
		parts := fit.SplitBy(cluster, 0.6, 0.15, 0.25)
		if len(parts[2].Items) == 0 {
			return fmt.Errorf("%d calibration images are of too few clusters to hold one back for the verdict: give held-out images", len(fit.Items))
		}
		r.fit, r.sel, r.val = parts[0], parts[1], gate.Seal(parts[2])
	} else {
		if len(val.Items) == 0 {
			return fmt.Errorf("the held-out set: %w", calib.ErrEmpty)
		}
		if both := fit.Overlap(val); len(both) > 0 {
			return fmt.Errorf("%d images are both in the calibration and in the held-out set (%s): the verdict would mean nothing", len(both), strings.Join(both[:min(len(both), 3)], ", "))
		}
		if name, ok := shared(fit, val, cluster); ok {
			return fmt.Errorf("images of cluster %q are both in the calibration and in the held-out set: the verdict would mean nothing", name)
		}
		parts := fit.SplitBy(cluster, 0.8, 0.2)
		r.fit, r.sel, r.val = parts[0], parts[1], gate.Seal(val)
	}
	r.labels = fit.Labelled && !r.opt.Unlabelled
	r.valLabels = r.val.Labelled() && !r.opt.Unlabelled
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
	img, err := decode(it)
	if err != nil {
		return nil, nil, err
	}
	x := tensor.New(tensor.Float32, r.in[0].Shape...)
	if err := r.spec.Prepare(x, img); err != nil {
		return nil, nil, fmt.Errorf("image %q: %w", it.Name, err)
	}
	return x, img, nil
}

func decode(it *calib.Item) (*vision.Image, error) {
	img, err := vision.Decode(it.Image, vision.Limits{})
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", it.Name, err)
	}
	return img, nil
}

// truth is the mask of an item, whose image is img.
func (r *run) truth(it *calib.Item, img *vision.Image) (*vision.Mask, error) {
	m, err := it.Truth(img, r.classes)
	if err != nil {
		return nil, fmt.Errorf("mask of image %q: %w", it.Name, err)
	}
	return m, nil
}

// check reads all images, so that a bad one does not end a run at its verdict, and refuses a picture that is to be judged on
// if it is also learnt from: the same pixels in another file, which the hashes of files do not show.
func (r *run) check(ctx context.Context) error {
	open := slices.Concat(r.fit.Items, r.sel.Items)
	errs, pixels := make([]error, len(open)+r.val.Len()), make([][32]byte, len(open)+r.val.Len())
	r.pool.Loop(len(errs), func(_, i int) {
		if errs[i] = ctx.Err(); errs[i] != nil {
			return
		}
		if k := i - len(open); k >= 0 {
			pixels[i], errs[i] = r.val.Check(k, r.valLabels, r.classes)
			return
		}
		img, err := decode(&open[i])
		if err == nil {
			pixels[i] = gate.Pixels(img)
			if r.labels {
				_, err = r.truth(&open[i], img)
			}
		}
		errs[i] = err
	}).Run()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	seen := map[[32]byte]string{}
	for i, it := range open {
		seen[pixels[i]] = it.Name
	}
	for k := range r.val.Len() {
		if name, ok := seen[pixels[len(open)+k]]; ok {
			return fmt.Errorf("images %q and %q are the same picture, one to learn from and one for the verdict: the verdict would mean nothing", name, r.val.Name(k))
		}
	}
	return nil
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

// cacheBytes is what prepared images may take between the layers of a repair, each of which reads them all.
const cacheBytes = 128 << 20

// cached is the prepared fit image i.
func (r *run) cached(i int) (*tensor.Tensor, error) {
	if x := r.cache[i]; x != nil {
		return x, nil
	}
	x, err := r.input(&r.fit.Items[i])
	if err == nil && (len(r.cache)+1)*len(x.Data) <= cacheBytes {
		if r.cache == nil {
			r.cache = map[int]*tensor.Tensor{}
		}
		r.cache[i] = x
	}
	return x, err
}
