// Package gate judges a pruned model against its original on held-out images: is it no worse, by more than chance?
//
// With masks the question is non-inferiority: d = Dice(pruned, truth) - Dice(original, truth) per image, and the verdict
// comes from the one-sided 97.5 % bounds of mean d by a paired bootstrap. Without masks it is agreement: Dice(pruned,
// original) per image. Where several images show one patient, Options.GroupBy says so, and patients are what is resampled.
//
// The same picture counts once, whatever files it is in: copies bring no evidence, and would narrow the bounds.
//
// Images on which there is nothing to find are counted apart, for a model that finds nothing would do well on them. They have
// a rule of their own, in decide.go, for a model that begins to find things there would otherwise go unseen.
//
// [Judge] gives the verdict, once, on images that nobody else can see ([Sealed]); [Measure] compares models on images that
// choices are made with.
package gate

import (
	"context"
	"fmt"
	"regexp"

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

// MinImages is the fewest images with something to find, or with Options.GroupBy the fewest clusters of such, on which a
// verdict is given, unless the pruned model finds nothing at all: the bootstrap knows nothing of what it has not seen, and
// of one image it takes the spread to be zero.
const MinImages = 10

// Predictor is what is judged: a [predict.Model].
type Predictor interface {
	Predict(ctx context.Context, img *vision.Image) (*predict.Prediction, error)
}

// Options of a judgement. The zero value has the defaults given.
type Options struct {
	Unlabelled bool    // do not look at masks
	Delta      float64 // labelled: how much mean Dice may be lost; 0: 0.01
	Agreement  float64 // unlabelled: the least mean Dice(original, pruned); 0: 0.97
	// GroupBy finds in an image's name the patient or video that it is of: its first group, or all that it matches. Each
	// of these clusters counts as one, whatever the number of its images. An image that it does not match is its own
	// cluster. nil: all are.
	GroupBy   *regexp.Regexp
	Seed      uint64 // of the bootstrap
	Resamples int    // 0: 10000
	Progress  func(done, total int)
	// Show is handed the worst images, the worst first, at most ShowMax of them.
	Show    func(Shown)
	ShowMax int
}

func (o Options) withDefaults() Options {
	if o.Delta <= 0 {
		o.Delta = 0.01
	}
	if o.Agreement <= 0 {
		o.Agreement = 0.97
	}
	if o.Resamples <= 0 {
		o.Resamples = 10000
	}
	return o
}

// Shown is an image with what was found on it.
type Shown struct {
	Image         Image
	Picture       *vision.Image
	Truth         *vision.Mask // nil without masks
	Before, After *vision.Mask
}

// Scores judge a mask against the truth.
type Scores struct {
	vision.Metrics
	HD95 float64 // distance of the outlines in pixels; see vision.HD95, also for masks that are empty
}

// Image is what is found on one image. Dice and its kin of an image whose truth is empty say only whether the
// prediction is empty too.
type Image struct {
	Name      string  `json:"name"`
	Cluster   string  `json:"cluster,omitempty"`  // by Options.GroupBy; empty: its own
	Original  *Scores `json:"original,omitempty"` // against the truth; nil without masks
	Pruned    *Scores `json:"pruned,omitempty"`
	Agreement float64 `json:"agreement"` // Dice(original, pruned)
	HD95      float64 `json:"hd95"`      // between the original's and the pruned model's outlines
	Flipped   float64 `json:"flipped"`   // part of the pixels whose class changed
	MeanDP    float64 `json:"mean_dp"`   // mean |difference of probabilities|
	Empty     bool    `json:"empty"`     // nothing to find: the truth is empty, or without masks both predictions

	found, foundBefore bool // whether the pruned model, and the original, find anything
}

// Means are mean metrics over the images that have something to find. With clusters they are means of clusters' means.
type Means struct {
	Dice        float64 `json:"dice"`
	IoU         float64 `json:"iou"`
	Sensitivity float64 `json:"sensitivity"`
	Specificity float64 `json:"specificity"`
	HD95        float64 `json:"hd95"`
	Missed      int     `json:"missed"` // images on which nothing is found; for HD95 each counts with its diagonal
}

// Result is a judgement.
type Result struct {
	Verdict  string  `json:"verdict"`
	Sentence string  `json:"sentence"` // the verdict with its reason, for people
	Labelled bool    `json:"labelled"`
	Margin   float64 `json:"margin"`             // delta with masks, the least agreement without
	N        int     `json:"n"`                  // images with something to find
	Clusters int     `json:"clusters"`           // of these; N without GroupBy
	GroupBy  string  `json:"group_by,omitempty"` // the expression
	// Duplicates is how many held-out images were left out because another is the same picture.
	Duplicates int    `json:"duplicates,omitempty"`
	Original   *Means `json:"original,omitempty"`
	Pruned     *Means `json:"pruned,omitempty"`
	// Difference is mean d, labelled; SensitivityChange and HD95Change are of the same images. Agreement is mean
	// Dice(original, pruned), and HD95 the mean distance between both models' outlines.
	Difference        *Interval `json:"difference,omitempty"`
	SensitivityChange *Interval `json:"sensitivity_change,omitempty"`
	HD95Change        *Interval `json:"hd95_change,omitempty"`
	Agreement         Interval  `json:"agreement"`
	HD95              Interval  `json:"hd95"`
	Flipped           float64   `json:"flipped"` // means over all images
	MeanDP            float64   `json:"mean_dp"`
	// NeededN is how many clusters (without GroupBy: images) a pass would take if mean and spread stay as they are; 0: no
	// number would do.
	NeededN int `json:"needed_n,omitempty"`
	// Power is the probability that this test, with so many clusters of this spread, passes a model that is no worse at all
	// (labelled), or whose mean agreement is the one seen (unlabelled). PowerN is how many it would take for 80 %.
	Power  float64 `json:"power"`
	PowerN int     `json:"power_n,omitempty"`
	Empty  Empty   `json:"empty"`
	// Worst names the worst 5 % of the images (one at least), the worst first.
	Worst  []string `json:"worst"`
	Images []Image  `json:"images"`

	worst []int // the same, as indices of Images
}

// Empty is what happens where there is nothing to find. With masks these are the images whose truth is empty. Without,
// nothing is known to be empty: More and Fewer count the images on which one of the models alone finds something.
type Empty struct {
	N        int `json:"n"`              // images with nothing to find
	Original int `json:"false_original"` // on how many the original finds something, labelled
	Pruned   int `json:"false_pruned"`
	// More is the number of clusters (without GroupBy: images) in which the pruned model finds something on more of such
	// images than the original, Fewer that in which on fewer, and P the exact probability of so many of the former by
	// chance, if both are as likely (McNemar's test).
	More  int     `json:"more"`
	Fewer int     `json:"fewer"`
	P     float64 `json:"p"`
}

// Judge opens the held-out images, once, and gives the verdict. With masks (and without Options.Unlabelled) it tests
// non-inferiority.
func Judge(ctx context.Context, original, pruned Predictor, held *Sealed, opt Options) (*Result, error) {
	set, err := held.open()
	if err != nil {
		return nil, err
	}
	return Measure(ctx, original, pruned, set, opt)
}

// Measure is Judge on images that choices are made with. Its verdict is a forecast and no proof: who chooses among models by
// it takes the luckiest.
func Measure(ctx context.Context, original, pruned Predictor, set *calib.Set, opt Options) (*Result, error) {
	opt = opt.withDefaults()
	labelled := set.Labelled && !opt.Unlabelled
	var images []Image
	var items []*calib.Item // of images
	seen := Seen{}
	for i := range set.Items {
		s, err := compare(ctx, original, pruned, &set.Items[i], labelled)
		if err != nil {
			return nil, fmt.Errorf("judge on image %q: %w", set.Items[i].Name, err)
		}
		first, err := seen.First(printOf(s.Image.Name, s.Picture, s.Truth))
		if err != nil {
			return nil, err
		}
		if first {
			s.Image.Cluster = ClusterOf(s.Image.Name, opt.GroupBy)
			images, items = append(images, s.Image), append(items, &set.Items[i])
		}
		if opt.Progress != nil {
			opt.Progress(i+1, len(set.Items))
		}
	}
	r := decide(images, labelled, opt)
	r.leftOut(set.Duplicates + len(set.Items) - len(images))
	if opt.Show == nil {
		return r, nil
	}
	// The few that are shown are computed again: to keep all pictures until it is known which are the worst takes too much.
	for _, i := range r.worst[:min(len(r.worst), opt.ShowMax)] {
		s, err := compare(ctx, original, pruned, items[i], labelled)
		if err != nil {
			return nil, fmt.Errorf("show image %q: %w", items[i].Name, err)
		}
		s.Image = r.Images[i]
		opt.Show(s)
	}
	return r, nil
}

func compare(ctx context.Context, original, pruned Predictor, it *calib.Item, labelled bool) (Shown, error) {
	s := Shown{Image: Image{Name: it.Name}}
	im := &s.Image
	img, err := vision.Decode(it.Image, vision.Limits{})
	if err != nil {
		return s, err
	}
	p, err := original.Predict(ctx, img)
	if err != nil {
		return s, fmt.Errorf("the original: %w", err)
	}
	q, err := pruned.Predict(ctx, img)
	if err != nil {
		return s, fmt.Errorf("the pruned model: %w", err)
	}
	s.Picture, s.Before, s.After = img, p.Mask, q.Mask
	im.Agreement, im.HD95 = vision.Compare(q.Mask, p.Mask).Dice, vision.HD95(q.Mask, p.Mask)
	flipped := 0
	for i, v := range q.Mask.Pix {
		if v != p.Mask.Pix[i] {
			flipped++
		}
		im.found = im.found || v != 0
		im.foundBefore = im.foundBefore || p.Mask.Pix[i] != 0
	}
	im.Empty = !im.found && !im.foundBefore
	im.Flipped = float64(flipped) / float64(max(len(q.Mask.Pix), 1))
	im.MeanDP = meanDP(p, q)
	if !labelled {
		return s, nil
	}
	if s.Truth, err = it.Truth(img, p.Mask.Classes); err != nil {
		return s, err
	}
	im.Original = &Scores{vision.Compare(p.Mask, s.Truth), vision.HD95(p.Mask, s.Truth)}
	im.Pruned = &Scores{vision.Compare(q.Mask, s.Truth), vision.HD95(q.Mask, s.Truth)}
	im.Empty = im.Original.Empty
	return s, nil
}
