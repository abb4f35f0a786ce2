package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
)

// frame is what a fake model knows of a picture: its number, from the red and green of its pixels, and the truth, from the
// blue. Models that know the truth are what it takes to say what the gate must do with one that errs in one way alone.
type frame struct {
	n     int
	truth *vision.Mask
}

func (f frame) empty() bool { return f.truth.Area(1) == 0 }

// fake is a model by rule.
type fake func(frame) *vision.Mask

func (f fake) Predict(_ context.Context, img *vision.Image) (*predict.Prediction, error) {
	fr := frame{int(img.Pix[0]) + 256*int(img.Pix[1]), vision.NewMask(img.W, img.H)}
	for i := range fr.truth.Pix {
		fr.truth.Pix[i] = img.Pix[3*i+2] / 255
	}
	m := f(fr)
	p := &vision.Prob{W: m.W, H: m.H, C: 1, P: make([]float32, len(m.Pix))}
	for i, v := range m.Pix {
		p.P[i] = float32(v)
	}
	return &predict.Prediction{Mask: m, Prob: p}, nil
}

const side = 24

// exact is right, wrong by up to k pixels of an image's 144, and more or less so from image to image.
func exact(k int) fake {
	return func(f frame) *vision.Mask {
		left := (f.n*7 + f.n/3) % (k + 1)
		m := vision.NewMask(side, side)
		for i, v := range f.truth.Pix {
			if v != 0 && left > 0 {
				left--
				continue
			}
			m.Pix[i] = v
		}
		return m
	}
}

func nothing(frame) *vision.Mask { return vision.NewMask(side, side) }

// speck is a finding where nothing is.
func speck(frame) *vision.Mask {
	m := vision.NewMask(side, side)
	m.Pix[5*side+5] = 1
	return m
}

// either is a where what holds, else b.
func either(what func(frame) bool, a, b fake) fake {
	return func(f frame) *vision.Mask {
		if what(f) {
			return a(f)
		}
		return b(f)
	}
}

// world is a set of full frames with something to find, and empty ones; five frames in a row are of one patient.
func world(t testing.TB, full, empties int, labelled bool) *calib.Set {
	t.Helper()
	var items []calib.Item
	for n := range full + empties {
		img, mask := image.NewNRGBA(image.Rect(0, 0, side, side)), vision.NewMask(side, side)
		for y := range side {
			for x := range side {
				c := color.NRGBA{byte(n), byte(n / 256), 0, 255}
				if n < full && x >= 4 && x < 16 && y >= 6 && y < 18 {
					c.B, mask.Pix[y*side+x] = 255, 1
				}
				img.SetNRGBA(x, y, c)
			}
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		it := calib.Item{Name: fmt.Sprintf("patient%02d-frame%d", n/5, n%5), Image: b.Bytes()}
		if labelled {
			it.Mask = mask.PNG()
		}
		items = append(items, it)
	}
	s, err := calib.New(items)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheGateIsNotFooled(t *testing.T) {
	isEmpty := func(f frame) bool { return f.empty() }
	firstEmpties := func(full, n int) func(frame) bool {
		return func(f frame) bool { return f.n >= full && f.n < full+n }
	}
	patient := func(k int) func(frame) bool { return func(f frame) bool { return f.n/5 == k } }
	byPatient := regexp.MustCompile(`^(patient\d+)-`)
	for _, c := range []struct {
		name             string
		full, empties    int
		original, pruned fake
		groupBy          *regexp.Regexp
		labelled         string // the verdict
		unlabelled       string
	}{
		{"the same model", 60, 20, exact(4), exact(4), nil, Pass, Pass},
		{"the same model, by patient", 60, 20, exact(4), exact(4), byPatient, Pass, Pass},
		{"all empty", 60, 20, exact(4), nothing, nil, Fail, Fail},
		{"all empty, mostly empty frames", 3, 200, exact(4), nothing, nil, Fail, Fail},
		// Without masks nothing says that there was something to find; with them all is known.
		{"both all empty", 60, 20, nothing, nothing, nil, Fail, CannotTell},
		{"only empty frames", 0, 60, exact(4), nothing, nil, CannotTell, CannotTell},
		{"right except on empty frames", 60, 20, exact(4), either(isEmpty, speck, exact(4)), nil, Fail, Fail},
		{"wrong on one empty frame", 60, 20, exact(4), either(firstEmpties(60, 1), speck, exact(4)), nil, Pass, CannotTell},
		{"wrong on three empty frames", 400, 20, exact(4), either(firstEmpties(400, 3), speck, exact(4)), nil, CannotTell, CannotTell},
		{"wrong on six empty frames", 400, 20, exact(4), either(firstEmpties(400, 6), speck, exact(4)), nil, Fail, Fail},
		{"five empty frames, all of one patient", 400, 20, exact(4), either(firstEmpties(400, 5), speck, exact(4)), byPatient, Pass, CannotTell},
		{"wrong on empty frames as the original", 60, 20, either(isEmpty, speck, exact(4)), either(isEmpty, speck, exact(4)), nil, Pass, Pass},
		{"right where the original was wrong", 60, 20, either(isEmpty, speck, exact(4)), exact(4), nil, Pass, Fail},
		{"right except on one patient of 20", 100, 0, exact(4), either(patient(3), nothing, exact(4)), byPatient, CannotTell, CannotTell},
		{"right except on one patient of 80", 400, 0, exact(4), either(patient(3), nothing, exact(4)), byPatient, CannotTell, CannotTell},
		{"many frames of few patients", 45, 0, exact(4), exact(4), byPatient, CannotTell, CannotTell},
		{"worse and better by chance, too few", 12, 0, exact(0), exact(16), nil, CannotTell, CannotTell},
	} {
		for _, labelled := range []bool{true, false} {
			set := world(t, c.full, c.empties, labelled)
			want := c.unlabelled
			if labelled {
				want = c.labelled
			}
			// Delta lies above the mean loss of the last case, so that only its spread speaks against it.
			r, err := Judge(t.Context(), c.original, c.pruned, Seal(set), Options{GroupBy: c.groupBy, Delta: 0.03, Agreement: 0.97, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != want {
				t.Errorf("%s, labelled %v: %s, want %s: %s", c.name, labelled, r.Verdict, want, r.Sentence)
			}
		}
	}
}

// What is too little for a verdict is enough when there is more of it.
func TestMoreImagesDecide(t *testing.T) {
	for _, c := range []struct {
		n    int
		want string
	}{{12, CannotTell}, {400, Pass}} {
		r, err := Measure(t.Context(), exact(0), exact(16), world(t, c.n, 0, true), Options{Delta: 0.035, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != c.want {
			t.Errorf("%d images: %s, want %s: %s", c.n, r.Verdict, c.want, r.Sentence)
		}
		if enough := r.Power > 0.8; enough != (r.Clusters >= r.PowerN) {
			t.Errorf("%d images: power %g, and %d images are needed for 0.8", c.n, r.Power, r.PowerN)
		}
	}
}

// The sentence says what was found on empty frames, whatever the verdict.
func TestEmptyFramesAreToldOf(t *testing.T) {
	r, err := Measure(t.Context(), exact(4), either(func(f frame) bool { return f.n == 60 }, speck, exact(4)), world(t, 60, 20, true), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != Pass || !strings.Contains(r.Sentence, "on 20 images with nothing to find the pruned model finds something on 1, the original on 0") {
		t.Errorf("%s", r.Sentence)
	}
}

func TestOneLook(t *testing.T) {
	held := Seal(world(t, 12, 0, true))
	if _, err := Judge(t.Context(), exact(4), exact(4), held, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Judge(t.Context(), exact(4), exact(4), held, Options{}); !errors.Is(err, ErrOpened) {
		t.Errorf("a second look: %v", err)
	}
}

// The worst are shown, the worst first, with the masks that made them so.
func TestShow(t *testing.T) {
	bad := func(f frame) bool { return f.n%20 == 7 }
	var shown []Shown
	opt := Options{ShowMax: 2, Show: func(s Shown) { shown = append(shown, s) }}
	r, err := Judge(t.Context(), exact(0), either(bad, nothing, exact(4)), Seal(world(t, 60, 10, true)), opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Worst) != 3 || len(shown) != 2 {
		t.Fatalf("%d worst, %d shown", len(r.Worst), len(shown))
	}
	for i, s := range shown {
		if s.Image.Name != r.Worst[i] || s.After.Area(1) != 0 || s.Before.Area(1) != 144 || s.Truth.Area(1) != 144 || s.Picture.W != side {
			t.Errorf("image %d: %+v", i, s.Image)
		}
	}
	if r.Pruned.Missed != 3 || r.Original.Missed != 0 {
		t.Errorf("missed %d, and %d before", r.Pruned.Missed, r.Original.Missed)
	}
}

// copies is the set with each image k times more, under other names and in other files.
func copies(t testing.TB, set *calib.Set, k int) *calib.Set {
	t.Helper()
	items := slices.Clone(set.Items)
	for _, it := range set.Items {
		for c := range k {
			again := it
			again.Name = fmt.Sprintf("%s-copy%d", it.Name, c)
			if c > 0 { // the first is the same file, which New finds; of the others the pixels alone are the same
				again.Image = append(slices.Clone(it.Image), byte(c)) // PNG ends before that
			}
			items = append(items, again)
		}
	}
	s, err := calib.New(items)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// However many copies there are of the images, and in whatever files, a verdict rests on as many as there are pictures.
func TestCopiesAreNoEvidence(t *testing.T) {
	for _, c := range []struct {
		name             string
		full, empties    int
		original, pruned fake
	}{
		{"too few for a verdict", MinImages - 1, 2, exact(4), exact(4)},
		{"too wide a spread", 12, 0, exact(0), exact(16)},
		{"wrong on one empty frame", 30, 5, exact(4), either(func(f frame) bool { return f.n == 30 }, speck, exact(4))},
	} {
		for _, labelled := range []bool{true, false} {
			set, opt := world(t, c.full, c.empties, labelled), Options{Delta: 0.03, Agreement: 0.97, Seed: 1}
			want, err := Judge(t.Context(), c.original, c.pruned, Seal(set), opt)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Judge(t.Context(), c.original, c.pruned, Seal(copies(t, set, 9)), opt)
			if err != nil {
				t.Fatal(err)
			}
			n := 9 * (c.full + c.empties)
			if got.Duplicates != n || got.Sentence != want.Sentence+fmt.Sprintf(" %d duplicates left out.", n) {
				t.Errorf("%s, labelled %v, %d copies: %s\nwithout: %s", c.name, labelled, n, got.Sentence, want.Sentence)
			}
			if got.Verdict != want.Verdict || got.Agreement != want.Agreement || got.Empty != want.Empty || got.N != want.N || len(got.Images) != len(want.Images) {
				t.Errorf("%s, labelled %v: copies change %s, %+v, %+v into %s, %+v, %+v", c.name, labelled, want.Verdict, want.Agreement, want.Empty, got.Verdict, got.Agreement, got.Empty)
			}
		}
	}
}

// What one picture shows is known once: masks that disagree are an error, not two opinions.
func TestCopiesWithOtherMasks(t *testing.T) {
	set := copies(t, world(t, 12, 0, true), 2)
	for i := range set.Items {
		if set.Items[i].Name == "patient00-frame3-copy1" {
			set.Items[i].Mask = vision.NewMask(side, side).PNG()
		}
	}
	_, err := Measure(t.Context(), exact(4), exact(4), set, Options{})
	if err == nil || !strings.Contains(err.Error(), "patient00-frame3") {
		t.Errorf("masks of one picture that differ: %v", err)
	}
}
