// Package gate judges a pruned model against its original on held-out images: is it no worse, by more than chance?
//
// With masks the question is non-inferiority: d = Dice(pruned, truth) - Dice(original, truth) per image, and the verdict
// comes from the one-sided 97.5 % bounds of mean d by a paired bootstrap. Without masks it is agreement: Dice(pruned,
// original) per image. Images on which there is nothing to find are counted apart: a model that finds nothing would do
// well on them.
package gate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
)

// The verdicts.
const (
	Pass       = "pass"
	Fail       = "fail"
	CannotTell = "cannot tell"
)

// MinImages is the fewest images with something to find on which a verdict is given, unless the pruned model finds
// nothing at all: the bootstrap knows nothing of what it has not seen, and of one image it takes the spread to be zero.
const MinImages = 10

// Options of a judgement. The zero value has the defaults given.
type Options struct {
	Unlabelled bool    // do not look at masks
	Delta      float64 // labelled: how much mean Dice may be lost; 0: 0.01
	Agreement  float64 // unlabelled: the least mean Dice(original, pruned); 0: 0.97
	Seed       uint64  // of the bootstrap
	Resamples  int     // 0: 10000
	Progress   func(done, total int)
}

// Image is what is found on one image. Dice and its kin of an image whose truth is empty say only whether the
// prediction is empty too.
type Image struct {
	Name      string          `json:"name"`
	Original  *vision.Metrics `json:"original,omitempty"` // against the truth; nil without masks
	Pruned    *vision.Metrics `json:"pruned,omitempty"`
	Agreement float64         `json:"agreement"` // Dice(original, pruned)
	Flipped   float64         `json:"flipped"`   // part of the pixels whose class changed
	MeanDP    float64         `json:"mean_dp"`   // mean |difference of probabilities|
	Empty     bool            `json:"empty"`     // nothing to find: the truth is empty, or without masks both predictions
	found     bool
}

// Interval is a mean with one-sided 97.5 % bounds by the bootstrap, over n images.
type Interval struct {
	Mean  float64 `json:"mean"`
	Lower float64 `json:"lower"`
	Upper float64 `json:"upper"`
	SD    float64 `json:"sd"`
	N     int     `json:"n"`
}

// Means are mean metrics over the images that have something to find.
type Means struct {
	Dice        float64 `json:"dice"`
	IoU         float64 `json:"iou"`
	Sensitivity float64 `json:"sensitivity"`
	Specificity float64 `json:"specificity"`
}

// Result is a judgement.
type Result struct {
	Verdict  string  `json:"verdict"`
	Sentence string  `json:"sentence"` // the verdict with its reason, for people
	Labelled bool    `json:"labelled"`
	Margin   float64 `json:"margin"` // delta with masks, the least agreement without
	N        int     `json:"n"`      // images with something to find
	Original *Means  `json:"original,omitempty"`
	Pruned   *Means  `json:"pruned,omitempty"`
	// Difference is mean d, labelled; Agreement is mean Dice(original, pruned).
	Difference *Interval `json:"difference,omitempty"`
	Agreement  Interval  `json:"agreement"`
	Flipped    float64   `json:"flipped"` // means over all images
	MeanDP     float64   `json:"mean_dp"`
	// NeededN is how many images a pass would take if mean and spread stay as they are; 0: no number would do.
	NeededN int `json:"needed_n,omitempty"`
	// Images without anything to find: how many, and on how many of them each model finds something.
	EmptyN        int `json:"empty_n"`
	EmptyOriginal int `json:"empty_false_original"`
	EmptyPruned   int `json:"empty_false_pruned"`
	// Worst names the worst 5 % of the images (one at least), the worst first.
	Worst  []string `json:"worst"`
	Images []Image  `json:"images"`
}

// Judge runs both models on the set. With masks (and without Options.Unlabelled) it tests non-inferiority.
func Judge(ctx context.Context, original, pruned *predict.Model, set *calib.Set, opt Options) (*Result, error) {
	if opt.Delta <= 0 {
		opt.Delta = 0.01
	}
	if opt.Agreement <= 0 {
		opt.Agreement = 0.97
	}
	labelled := set.Labelled && !opt.Unlabelled
	images := make([]Image, 0, len(set.Items))
	for i := range set.Items {
		im, err := compare(ctx, original, pruned, &set.Items[i], labelled)
		if err != nil {
			return nil, fmt.Errorf("judge on image %q: %w", set.Items[i].Name, err)
		}
		images = append(images, im)
		if opt.Progress != nil {
			opt.Progress(i+1, len(set.Items))
		}
	}
	return decide(images, labelled, opt), nil
}

func compare(ctx context.Context, original, pruned *predict.Model, it *calib.Item, labelled bool) (Image, error) {
	im := Image{Name: it.Name}
	img, err := vision.Decode(it.Image, vision.Limits{})
	if err != nil {
		return im, err
	}
	p, err := original.Predict(ctx, img)
	if err != nil {
		return im, fmt.Errorf("the original: %w", err)
	}
	q, err := pruned.Predict(ctx, img)
	if err != nil {
		return im, fmt.Errorf("the pruned model: %w", err)
	}
	agree := vision.Compare(q.Mask, p.Mask)
	im.Agreement = agree.Dice
	flipped, found, foundBefore := 0, false, false
	for i, v := range q.Mask.Pix {
		if v != p.Mask.Pix[i] {
			flipped++
		}
		found = found || v != 0
		foundBefore = foundBefore || p.Mask.Pix[i] != 0
	}
	im.found = found
	im.Empty = !found && !foundBefore
	im.Flipped = float64(flipped) / float64(max(len(q.Mask.Pix), 1))
	sum := 0.0
	for i, v := range q.Prob.P {
		sum += math.Abs(float64(v) - float64(p.Prob.P[i]))
	}
	im.MeanDP = sum / float64(max(len(q.Prob.P), 1))
	if !labelled {
		return im, nil
	}
	truth, err := vision.DecodeLabels(it.Mask, p.Mask.Classes, vision.Limits{})
	if err != nil {
		return im, err
	}
	if truth.W != img.W || truth.H != img.H {
		return im, fmt.Errorf("the mask is %d x %d, the image %d x %d", truth.W, truth.H, img.W, img.H)
	}
	a, b := vision.Compare(p.Mask, truth), vision.Compare(q.Mask, truth)
	im.Original, im.Pruned, im.Empty = &a, &b, a.Empty
	return im, nil
}

// decide turns what was found on the images into a verdict.
func decide(images []Image, labelled bool, opt Options) *Result {
	r := &Result{Labelled: labelled, Margin: opt.Delta, Images: images}
	if !labelled {
		r.Margin = opt.Agreement
	}
	var d, agree []float64
	var worst []Image
	found := false
	for _, im := range images {
		r.Flipped += im.Flipped / float64(len(images))
		r.MeanDP += im.MeanDP / float64(len(images))
		if im.Empty {
			r.EmptyN++
			if im.found {
				r.EmptyPruned++
			}
			if im.Original != nil && im.Original.Dice < 1 {
				r.EmptyOriginal++
			}
			continue
		}
		found = found || im.found
		agree = append(agree, im.Agreement)
		worst = append(worst, im)
		if labelled {
			d = append(d, im.Pruned.Dice-im.Original.Dice)
		}
	}
	r.N = len(agree)
	boot := newBootstrap(r.N, opt)
	r.Agreement = boot.interval(agree)
	key := func(im Image) float64 { return im.Agreement }
	if labelled {
		r.Original, r.Pruned = means(worst, func(im Image) *vision.Metrics { return im.Original }), means(worst, func(im Image) *vision.Metrics { return im.Pruned })
		diff := boot.interval(d)
		r.Difference = &diff
		key = func(im Image) float64 { return im.Pruned.Dice - im.Original.Dice }
	}
	slices.SortStableFunc(worst, func(a, b Image) int {
		switch {
		case key(a) < key(b):
			return -1
		case key(a) > key(b):
			return 1
		}
		return 0
	})
	r.Worst = []string{}
	for _, im := range worst[:(len(worst)+19)/20] {
		r.Worst = append(r.Worst, im.Name)
	}
	r.judge(found)
	return r
}

// judge writes verdict and sentence.
func (r *Result) judge(found bool) {
	iv, limit, what := r.Agreement, r.Margin, "agreement (mean Dice of pruned against original)"
	if r.Labelled {
		iv, limit, what = *r.Difference, -r.Margin, "change of mean Dice"
	}
	bounds := fmt.Sprintf("%s %s, 97.5 %% bounds %s to %s, n = %d", what, signed(iv.Mean, r.Labelled), signed(iv.Lower, r.Labelled), signed(iv.Upper, r.Labelled), r.N)
	if gap := iv.Mean - limit; gap > 0 {
		r.NeededN = max(MinImages, int(math.Ceil(math.Pow(1.96*iv.SD/gap, 2))))
	}
	switch {
	case r.N == 0:
		r.Verdict, r.Sentence = CannotTell, "Cannot tell: no held-out image has anything to find."
	case !found:
		r.Verdict, r.Sentence = Fail, fmt.Sprintf("Fail: the pruned model finds nothing on any of %d images.", r.N)
	case r.N < MinImages:
		r.Verdict, r.Sentence = CannotTell, fmt.Sprintf("Cannot tell: %s; a verdict takes %d images.", bounds, MinImages)
	case iv.Upper < limit:
		r.Verdict, r.Sentence = Fail, fmt.Sprintf("Fail: %s; the limit is %s.", bounds, signed(limit, r.Labelled))
	case r.Labelled && iv.Lower > limit || !r.Labelled && iv.Lower >= limit:
		r.Verdict, r.Sentence = Pass, fmt.Sprintf("Pass: %s; the limit is %s.", bounds, signed(limit, r.Labelled))
	default:
		r.Verdict, r.Sentence = CannotTell, fmt.Sprintf("Cannot tell: %s; the limit is %s.", bounds, signed(limit, r.Labelled))
		if r.NeededN > r.N && r.NeededN <= 100*r.N {
			r.Sentence += fmt.Sprintf(" At this mean and spread about %d images would decide.", r.NeededN)
		}
	}
}

func signed(v float64, plus bool) string {
	if plus {
		return fmt.Sprintf("%+.4f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

func means(images []Image, of func(Image) *vision.Metrics) *Means {
	m := &Means{}
	for _, im := range images {
		x, n := of(im), float64(len(images))
		m.Dice += x.Dice / n
		m.IoU += x.IoU / n
		m.Sensitivity += x.Sensitivity / n
		m.Specificity += x.Specificity / n
	}
	return m
}

// bootstrap holds which images each resample takes, so that all intervals are over the same resamples.
type bootstrap struct {
	n, resamples int
	seed         uint64
}

func newBootstrap(n int, opt Options) bootstrap {
	b := bootstrap{n, opt.Resamples, opt.Seed}
	if b.resamples <= 0 {
		b.resamples = 10000
	}
	return b
}

// interval is the percentile bootstrap of the mean.
func (b bootstrap) interval(x []float64) Interval {
	iv := Interval{N: len(x)}
	if len(x) == 0 {
		return iv
	}
	for _, v := range x {
		iv.Mean += v / float64(len(x))
	}
	for _, v := range x {
		iv.SD += (v - iv.Mean) * (v - iv.Mean) / float64(max(len(x)-1, 1))
	}
	iv.SD = math.Sqrt(iv.SD)
	rng := rand.New(rand.NewPCG(b.seed, 0x6761746573)) // "gates"
	ms := make([]float64, b.resamples)
	for i := range ms {
		sum := 0.0
		for range x {
			sum += x[rng.IntN(len(x))]
		}
		ms[i] = sum / float64(len(x))
	}
	slices.Sort(ms)
	at := func(q float64) float64 { return ms[min(int(q*float64(len(ms))), len(ms)-1)] }
	iv.Lower, iv.Upper = at(0.025), at(0.975)
	return iv
}
