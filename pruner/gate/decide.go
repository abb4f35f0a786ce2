package gate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Findings where there is nothing to find. A pruned model that has more of them than the original fails if chance alone
// would bring so many at most once in 40 times (the level of the other bounds), and does not pass if it would at most once in 5:
// where the data speak against a model, though not loudly, the burden of proof is the model's.
const (
	emptyFails = 0.025
	emptyDoubt = 0.2
)

// decide turns what was found on the images into a verdict.
func decide(images []Image, labelled bool, opt Options) *Result {
	r := &Result{Labelled: labelled, Margin: opt.Delta, Images: images, Worst: []string{}}
	if !labelled {
		r.Margin = opt.Agreement
	}
	if opt.GroupBy != nil {
		r.GroupBy = opt.GroupBy.String()
	}
	var full []Image // those with something to find
	var index []int
	found := false
	for i, im := range images {
		r.Flipped += im.Flipped / float64(len(images))
		r.MeanDP += im.MeanDP / float64(len(images))
		if !im.Empty {
			found = found || im.found
			full, index = append(full, im), append(index, i)
		}
	}
	r.Empty = empty(images, labelled)

	boot := bootstrap{opt.Resamples, opt.Seed}
	r.Agreement = boot.interval(full, func(im Image) float64 { return im.Agreement })
	r.HD95 = boot.interval(full, func(im Image) float64 { return im.HD95 })
	r.N, r.Clusters = r.Agreement.N, r.Agreement.Clusters
	key := func(im Image) float64 { return im.Agreement }
	if labelled {
		r.Original = means(full, func(im Image) *Scores { return im.Original }, func(im Image) bool { return im.foundBefore })
		r.Pruned = means(full, func(im Image) *Scores { return im.Pruned }, func(im Image) bool { return im.found })
		change := func(of func(*Scores) float64) *Interval {
			iv := boot.interval(full, func(im Image) float64 { return of(im.Pruned) - of(im.Original) })
			return &iv
		}
		r.Difference = change(func(s *Scores) float64 { return s.Dice })
		r.SensitivityChange = change(func(s *Scores) float64 { return s.Sensitivity })
		r.HD95Change = change(func(s *Scores) float64 { return s.HD95 })
		key = func(im Image) float64 { return im.Pruned.Dice - im.Original.Dice }
	}
	slices.SortStableFunc(index, func(a, b int) int { return cmp.Compare(key(images[a]), key(images[b])) })
	r.worst = index[:(len(index)+19)/20]
	for _, i := range r.worst {
		r.Worst = append(r.Worst, images[i].Name)
	}
	r.judge(found)
	return r
}

// empty counts findings where there is nothing to find.
func empty(images []Image, labelled bool) (e Empty) {
	var at []Image
	for _, im := range images {
		if im.Empty {
			e.N++
		}
		if labelled && !im.Empty {
			continue
		}
		at = append(at, im)
		if im.Empty && im.found {
			e.Pruned++
		}
		if im.Empty && im.foundBefore {
			e.Original++
		}
	}
	e.More, e.Fewer = moreOrFewer(at, func(im Image) float64 { return one(im.found) - one(im.foundBefore) })
	e.P = signTest(e.More, e.Fewer)
	return e
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// judge writes verdict and sentence.
func (r *Result) judge(found bool) {
	iv, limit, what, gap := r.Agreement, r.Margin, "agreement (mean Dice of pruned against original)", r.Agreement.Mean-r.Margin
	if r.Labelled {
		iv, limit, what, gap = *r.Difference, -r.Margin, "change of mean Dice", r.Margin
	}
	r.NeededN, r.Power, r.PowerN = iv.needed(iv.Mean-limit, 0), iv.power(gap), iv.needed(gap, 0.8416)
	bounds := fmt.Sprintf("%s %s, 97.5 %% bounds %s to %s, n = %d", what, signed(iv.Mean, r.Labelled), signed(iv.Lower, r.Labelled), signed(iv.Upper, r.Labelled), r.N)
	unit := r.unit()
	if r.GroupBy != "" {
		bounds += fmt.Sprintf(" in %d clusters", r.Clusters)
	}
	against := fmt.Sprintf("%s; the limit is %s.", bounds, signed(limit, r.Labelled))
	say := func(verdict, head, why string) { r.Verdict, r.Sentence = verdict, head+": "+why }
	switch {
	case r.N > 0 && !found:
		say(Fail, "Fail", fmt.Sprintf("the pruned model finds nothing on any of %d images.", r.N))
		return
	case r.Empty.P <= emptyFails:
		say(Fail, "Fail", r.findings()+fmt.Sprintf(", by chance with probability %.2g.", r.Empty.P))
		return
	case r.N == 0:
		say(CannotTell, "Cannot tell", "no held-out image has anything to find.")
		return
	case r.Clusters < MinImages:
		say(CannotTell, "Cannot tell", fmt.Sprintf("%s; a verdict takes %d %s.", bounds, MinImages, unit))
	case iv.Upper < limit:
		say(Fail, "Fail", against)
	case r.Labelled && iv.Lower <= limit || !r.Labelled && iv.Lower < limit:
		say(CannotTell, "Cannot tell", against)
		if r.NeededN > r.Clusters && r.NeededN <= 100*r.Clusters {
			r.Sentence += fmt.Sprintf(" At this mean and spread about %d %s would decide.", r.NeededN, unit)
		}
		if r.Labelled {
			r.Sentence += fmt.Sprintf(" A model that is no worse at all would have passed here with probability %.2g.", math.Round(100*r.Power)/100)
		}
	case r.Empty.P <= emptyDoubt:
		say(CannotTell, "Cannot tell", r.findings()+fmt.Sprintf(", by chance with probability %.2g; ", r.Empty.P)+against)
		return
	default:
		say(Pass, "Pass", against)
	}
	if r.Empty.More > 0 || r.Empty.Pruned > 0 {
		s := r.findings()
		r.Sentence += " Besides, " + s + "."
	}
}

// leftOut adds to the sentence how many images there were besides, as copies of others.
func (r *Result) leftOut(duplicates int) {
	switch r.Duplicates = duplicates; {
	case duplicates == 1:
		r.Sentence += " 1 duplicate left out."
	case duplicates > 1:
		r.Sentence += fmt.Sprintf(" %d duplicates left out.", duplicates)
	}
}

// findings says what was found where there is nothing, as a part of a sentence.
func (r *Result) findings() string {
	if r.Labelled {
		return fmt.Sprintf("on %d images with nothing to find the pruned model finds something on %d, the original on %d", r.Empty.N, r.Empty.Pruned, r.Empty.Original)
	}
	return fmt.Sprintf("the pruned model alone finds something on %d %s, the original alone on %d", r.Empty.More, r.unit(), r.Empty.Fewer)
}

// unit is what is counted in clusters.
func (r *Result) unit() string {
	if r.GroupBy != "" {
		return "clusters"
	}
	return "images"
}

func signed(v float64, plus bool) string {
	if plus {
		return fmt.Sprintf("%+.4f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

func means(images []Image, of func(Image) *Scores, found func(Image) bool) *Means {
	at := func(f func(*Scores) float64) float64 {
		return mean(clusterMeans(images, func(im Image) float64 { return f(of(im)) }))
	}
	m := &Means{
		Dice: at(func(s *Scores) float64 { return s.Dice }), IoU: at(func(s *Scores) float64 { return s.IoU }),
		Sensitivity: at(func(s *Scores) float64 { return s.Sensitivity }), Specificity: at(func(s *Scores) float64 { return s.Specificity }),
		HD95: at(func(s *Scores) float64 { return s.HD95 }),
	}
	for _, im := range images {
		if !found(im) {
			m.Missed++
		}
	}
	return m
}
