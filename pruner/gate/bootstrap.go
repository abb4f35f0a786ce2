package gate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Interval is a mean with one-sided 97.5 % bounds by the bootstrap. With clusters it is the mean of the clusters' means.
type Interval struct {
	Mean     float64 `json:"mean"`
	Lower    float64 `json:"lower"`
	Upper    float64 `json:"upper"`
	SD       float64 `json:"sd"`       // between clusters; without, between images
	N        int     `json:"n"`        // images
	Clusters int     `json:"clusters"` // without clusters n
}

// ClusterOf names the cluster of an image, or says that it is its own.
func ClusterOf(name string, by *regexp.Regexp) string {
	if by == nil {
		return ""
	}
	m := by.FindStringSubmatch(name)
	switch {
	case m == nil:
		return ""
	case len(m) > 1 && m[1] != "":
		return m[1]
	}
	return m[0]
}

// clusterMeans gives the mean of f over the images of each cluster, in ascending order: neither the order of images nor their
// names matter from here on.
func clusterMeans(images []Image, f func(Image) float64) []float64 {
	named := map[string][]float64{}
	var means []float64
	for _, im := range images {
		if im.Cluster == "" {
			means = append(means, f(im))
			continue
		}
		named[im.Cluster] = append(named[im.Cluster], f(im))
	}
	for _, xs := range named {
		slices.Sort(xs)
		means = append(means, mean(xs))
	}
	slices.Sort(means)
	return means
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(max(len(xs), 1))
}

// bootstrap makes intervals of the same seed.
type bootstrap struct {
	resamples int
	seed      uint64
}

// interval is the percentile bootstrap of the mean of f over clusters. Its percentiles are moved outwards so far that the
// bounds of normal data are those of Student's t: the plain ones are too narrow for few clusters, by sqrt((n-1)/n) and by
// the ratio of the normal's to Student's quantile (Hesterberg, The American Statistician 2015, "expanded percentile").
func (b bootstrap) interval(images []Image, f func(Image) float64) Interval {
	x := clusterMeans(images, f)
	k := len(x)
	iv := Interval{N: len(images), Clusters: k, Mean: mean(x)}
	iv.Lower, iv.Upper = iv.Mean, iv.Mean
	if k < 2 {
		return iv
	}
	for _, v := range x {
		iv.SD += (v - iv.Mean) * (v - iv.Mean) / float64(k-1)
	}
	iv.SD = math.Sqrt(iv.SD)
	rng := rand.New(rand.NewPCG(b.seed, 0x6761746573)) // "gates"
	ms := make([]float64, b.resamples)
	for i := range ms {
		sum := 0.0
		for range x {
			sum += x[rng.IntN(k)]
		}
		ms[i] = sum / float64(k)
	}
	slices.Sort(ms)
	t := distuv.StudentsT{Sigma: 1, Nu: float64(k - 1)}.Quantile(0.975)
	tail := distuv.UnitNormal.CDF(-t * math.Sqrt(float64(k)/float64(k-1)))
	cut := int(tail * float64(len(ms)))
	iv.Lower, iv.Upper = ms[cut], ms[len(ms)-1-cut]
	return iv
}

// z is the normal distribution's 97.5 % quantile.
const z = 1.959964

// power is the probability of a pass at the interval's number of clusters if the truth lies gap above the limit.
func (iv Interval) power(gap float64) float64 {
	if iv.Clusters < MinImages || gap <= 0 {
		return 0
	}
	return distuv.UnitNormal.CDF(gap/max(iv.SD/math.Sqrt(float64(iv.Clusters)), 1e-12) - z)
}

// needed is how many clusters the bound needs to lie within gap of the mean, less sigmas of the mean itself; 0 if no number
// would do.
func (iv Interval) needed(gap, sigmas float64) int {
	if gap <= 0 {
		return 0
	}
	n := math.Ceil(math.Pow((z+sigmas)*iv.SD/gap, 2))
	return int(min(max(MinImages, n), math.MaxInt32))
}

// signTest is the one-sided exact probability that of more+fewer fair coins at least more show heads: McNemar's test, of
// pairs that differ.
func signTest(more, fewer int) float64 {
	n := more + fewer
	if n == 0 {
		return 1
	}
	p, logs := 0.0, float64(n)*math.Ln2
	total, _ := math.Lgamma(float64(n + 1))
	for k := more; k <= n; k++ {
		a, _ := math.Lgamma(float64(k + 1))
		b, _ := math.Lgamma(float64(n - k + 1))
		p += math.Exp(total - a - b - logs)
	}
	return min(p, 1)
}

// moreOrFewer counts the clusters in which f is positive on the whole, and negative.
func moreOrFewer(images []Image, f func(Image) float64) (more, fewer int) {
	for _, m := range clusterMeans(images, f) {
		switch cmp.Compare(m, 0) {
		case 1:
			more++
		case -1:
			fewer++
		}
	}
	return more, fewer
}
