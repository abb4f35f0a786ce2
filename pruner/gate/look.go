package gate

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
)

// Look is a set of images that choices are made with. It says of any number of models how near they come to the original,
// or to the masks, by the mean Dice alone: what [Measure] would say, for less. What the original finds it asks once.
type Look struct {
	original Predictor
	set      *calib.Set
	known    []known // of the set's first images
	left     int     // bytes that known may still take
}

// known is an image and what is found on it without the model that is looked at.
type known struct {
	img    *vision.Image
	truth  *vision.Mask // nil until it is asked for
	before *vision.Mask // the original's
}

func (k known) bytes() int { return len(k.img.Pix) + 2*len(k.before.Pix) }

// NewLook looks at set, and remembers what takes at most so many bytes.
func NewLook(original Predictor, set *calib.Set, bytes int) *Look {
	return &Look{original: original, set: set, left: bytes}
}

func (l *Look) at(ctx context.Context, i int) (known, error) {
	if i < len(l.known) {
		return l.known[i], nil
	}
	img, err := vision.Decode(l.set.Items[i].Image, vision.Limits{})
	if err != nil {
		return known{}, err
	}
	p, err := l.original.Predict(ctx, img)
	if err != nil {
		return known{}, fmt.Errorf("the original: %w", err)
	}
	k := known{img: img, before: p.Mask}
	if i == len(l.known) && k.bytes() <= l.left {
		l.known, l.left = append(l.known, k), l.left-k.bytes()
	}
	return k, nil
}

// Agreement is the mean Dice of what p finds against what the original finds, over the images on which one of them finds
// anything. If there are none, it is by how far probabilities are the same: 1 - mean |Δp|.
func (l *Look) Agreement(ctx context.Context, p Predictor) (float64, error) {
	dice, err := l.each(ctx, p, func(_ int, k known, q *predict.Prediction) (float64, bool, error) {
		return vision.Compare(q.Mask, k.before).Dice, !blank(q.Mask) || !blank(k.before), nil
	})
	if err != nil || len(dice) > 0 {
		return mean(dice), err
	}
	var apart float64 // seldom asked for, and probabilities are large: they are not remembered
	_, err = l.each(ctx, p, func(_ int, k known, q *predict.Prediction) (float64, bool, error) {
		before, err := l.original.Predict(ctx, k.img)
		if err == nil {
			apart += meanDP(before, q) / float64(len(l.set.Items))
		}
		return 0, false, err
	})
	return 1 - apart, err
}

// Dice is the mean Dice of what p finds against the masks, over the images with something to find; 0 if there are none.
func (l *Look) Dice(ctx context.Context, p Predictor) (float64, error) {
	dice, err := l.each(ctx, p, func(i int, k known, q *predict.Prediction) (float64, bool, error) {
		truth, err := l.truth(i, k, q.Mask.Classes)
		if err != nil {
			return 0, false, err
		}
		m := vision.Compare(q.Mask, truth)
		return m.Dice, !m.Empty, nil
	})
	return mean(dice), err
}

// truth is the mask of image i.
func (l *Look) truth(i int, k known, classes int) (*vision.Mask, error) {
	if k.truth != nil {
		return k.truth, nil
	}
	m, err := l.set.Items[i].Truth(k.img, classes)
	if err == nil && i < len(l.known) {
		l.known[i].truth = m
	}
	return m, err
}

// each asks p about every image and gives the values of those that count, in ascending order.
func (l *Look) each(ctx context.Context, p Predictor, of func(i int, k known, q *predict.Prediction) (value float64, counts bool, err error)) ([]float64, error) {
	var values []float64
	for i := range l.set.Items {
		k, err := l.at(ctx, i)
		var v float64
		var counts bool
		if err == nil {
			var q *predict.Prediction
			if q, err = p.Predict(ctx, k.img); err == nil {
				v, counts, err = of(i, k, q)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("judge on image %q: %w", l.set.Items[i].Name, err)
		}
		if counts {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values, nil
}

// blank reports whether nothing is found.
func blank(m *vision.Mask) bool {
	return !slices.ContainsFunc(m.Pix, func(v byte) bool { return v != 0 })
}

// meanDP is the mean |difference of probabilities|.
func meanDP(p, q *predict.Prediction) float64 {
	sum := 0.0
	for i, v := range q.Prob.P {
		sum += math.Abs(float64(v) - float64(p.Prob.P[i]))
	}
	return sum / float64(max(len(q.Prob.P), 1))
}
