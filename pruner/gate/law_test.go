package gate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawImages draws images with clusters, some of them empty frames.
func drawImages(t *rapid.T) []Image {
	is := images(rapid.IntRange(0, 40).Draw(t, "n"), 0.8, rapid.Float64Range(-0.1, 0.05).Draw(t, "shift"), rapid.Float64Range(0, 0.1).Draw(t, "noise"), rapid.Uint64().Draw(t, "seed"))
	clusters := rapid.IntRange(0, 15).Draw(t, "clusters")
	for i := range is {
		if clusters > 0 {
			is[i].Cluster = fmt.Sprint("c", i%clusters)
		}
		is[i].found = rapid.IntRange(0, 9).Draw(t, "found") > 0
		is[i].foundBefore = rapid.IntRange(0, 9).Draw(t, "found before") > 0
		is[i].Empty = rapid.IntRange(0, 3).Draw(t, "empty") == 0
	}
	return is
}

func quick(seed uint64) Options { return Options{Seed: seed, Resamples: 500}.withDefaults() }

func TestOrderAndNamesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		is, labelled := drawImages(t), rapid.Bool().Draw(t, "labelled")
		other := slices.Clone(is)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)).Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		for i := range other {
			other[i].Name = fmt.Sprint("renamed", i)
			if other[i].Cluster != "" {
				other[i].Cluster = "x" + other[i].Cluster
			}
		}
		a, b := decide(is, labelled, quick(1)), decide(other, labelled, quick(1))
		if a.Verdict != b.Verdict || a.Sentence != b.Sentence || a.Agreement != b.Agreement || a.Empty != b.Empty {
			t.Fatalf("%s\n%s", a.Sentence, b.Sentence)
		}
	})
}

// However often the images of a cluster are there, it counts once.
func TestDuplicatesOfAClusterSayNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		is := drawImages(t)
		for i := range is { // each image a cluster at least
			if is[i].Cluster == "" {
				is[i].Cluster = fmt.Sprint("own", i)
			}
		}
		want := decide(is, true, quick(1))
		more := slices.Clone(is)
		if len(is) > 0 {
			which := is[rapid.IntRange(0, len(is)-1).Draw(t, "which")].Cluster
			for range rapid.IntRange(1, 20).Draw(t, "times") {
				for _, im := range is {
					if im.Cluster == which {
						more = append(more, im)
					}
				}
			}
		}
		got := decide(more, true, quick(1))
		if got.Clusters != want.Clusters || got.Verdict != want.Verdict || math.Abs(got.Power-want.Power) > 1e-6 {
			t.Fatalf("%s\n%s", want.Sentence, got.Sentence)
		}
		// A mean over r copies differs from that of one in rounding.
		for _, d := range []float64{got.Difference.Mean - want.Difference.Mean, got.Difference.Lower - want.Difference.Lower, got.Difference.Upper - want.Difference.Upper} {
			if math.Abs(d) > 1e-12 {
				t.Fatalf("%+v, with duplicates %+v", *want.Difference, *got.Difference)
			}
		}
	})
}

// If all differences from the mean grow r times, so do the bounds' distances from it.
func TestBoundsWidenWithSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Float64Range(-1, 1), 0, 40).Draw(t, "x")
		shift, r := rapid.Float64Range(-1, 1).Draw(t, "shift"), rapid.Float64Range(1, 10).Draw(t, "r")
		var is, wide []Image
		for _, x := range xs {
			is, wide = append(is, Image{Agreement: x}), append(wide, Image{Agreement: shift + r*x})
		}
		boot := bootstrap{500, 3}
		agreement := func(im Image) float64 { return im.Agreement }
		a, b := boot.interval(is, agreement), boot.interval(wide, agreement)
		for _, d := range []float64{b.SD - r*a.SD, b.Mean - b.Lower - r*(a.Mean-a.Lower), b.Upper - b.Mean - r*(a.Upper-a.Mean)} {
			if math.Abs(d) > 1e-11 {
				t.Fatalf("%+v, spread %g times %+v", a, r, b)
			}
		}
		if a.Lower > a.Mean+1e-12 || a.Upper < a.Mean-1e-12 {
			t.Fatalf("the mean is outside of its bounds: %+v", a)
		}
	})
}

func TestSignTest(t *testing.T) {
	for _, c := range []struct {
		more, fewer int
		want        float64
	}{{0, 0, 1}, {0, 3, 1}, {1, 0, 0.5}, {3, 0, 0.125}, {6, 0, 1.0 / 64}, {2, 1, 0.5}, {8, 2, 56.0 / 1024}} {
		if got := signTest(c.more, c.fewer); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%d to %d: %g, want %g", c.more, c.fewer, got, c.want)
		}
	}
}

func TestClusterOf(t *testing.T) {
	for _, c := range []struct{ name, by, want string }{
		{"p12-f3", `^(p\d+)-`, "p12"},
		{"p12-f3", `^p\d+`, "p12"},
		{"x", `^p\d+`, ""},
		{"x", ``, ""},
	} {
		if got := ClusterOf(c.name, regexp.MustCompile(c.by)); got != c.want {
			t.Errorf("%q by %q: %q, want %q", c.name, c.by, got, c.want)
		}
	}
}
