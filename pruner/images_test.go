package pruner

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/secateur/secateur/pruner/calib"
	"github.com/secateur/secateur/pruner/gate"
)

// A picture that is there in several files is learnt from, chosen by or judged on: one of these, and once.
func TestCopiesFallOnOneSide(t *testing.T) {
	set := phantoms(t, 1, 12, true)
	items := slices.Clone(set.Items)
	for _, it := range set.Items {
		for _, tail := range []string{"", "a"} { // PNG ends before that
			again := it
			again.Name, again.Image = it.Name+"-copy"+tail, append(slices.Clone(it.Image), tail...)
			items = append(items, again)
		}
	}
	all, err := calib.New(items)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRun(small(t, "polyp-lite0"), all, nil, Options{Target: Target{"macs", 0.3}})
	if err != nil {
		t.Fatal(err)
	}
	if err := do(t.Context(), []stage{{"analyze", r.analyze}, {"read", r.read}}); err != nil {
		t.Fatal(err)
	}
	if n := len(r.fit.Items) + len(r.sel.Items) + r.val.Len(); n != 12 || r.duplicates != 24 {
		t.Errorf("%d images are used and %d left out, want 12 and 24", n, r.duplicates)
	}
	seen := gate.Seen{}
	for _, it := range slices.Concat(r.fit.Items, r.sel.Items) {
		p, err := gate.PrintOf(&it, true, 1)
		if err != nil {
			t.Fatal(err)
		}
		if first, err := seen.First(p); !first || err != nil {
			t.Errorf("%q is there twice (%v)", it.Name, err)
		}
	}
	for i := range r.val.Len() {
		p, err := r.val.Check(i, true, 1)
		if err != nil {
			t.Fatal(err)
		}
		if first, err := seen.First(p); !first || err != nil {
			t.Errorf("%q, to be judged on, is there twice (%v)", p.Name, err)
		}
	}

	// Where masks of one picture differ, nobody knows which is right.
	odd := slices.IndexFunc(all.Items, func(it calib.Item) bool { return strings.HasSuffix(it.Name, "-copya") })
	other := slices.IndexFunc(all.Items, func(it calib.Item) bool { return !bytes.Equal(it.Mask, all.Items[odd].Mask) })
	all.Items[odd].Mask = all.Items[other].Mask
	if r, err = newRun(small(t, "polyp-lite0"), all, nil, Options{Target: Target{"macs", 0.3}}); err != nil {
		t.Fatal(err)
	}
	if err := do(t.Context(), []stage{{"analyze", r.analyze}, {"read", r.read}}); err == nil || !strings.Contains(err.Error(), "same picture") {
		t.Errorf("masks of one picture that differ: %v", err)
	}
}
