package calib

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func items(n int) []Item {
	var is []Item
	for i := range n {
		is = append(is, Item{Name: fmt.Sprint("img", i), Image: fmt.Appendf(nil, "image %d", i), Mask: fmt.Appendf(nil, "mask %d", i)})
	}
	return is
}

func set(t *testing.T, is []Item) *Set {
	t.Helper()
	s, err := New(is)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHashIsOfContentAlone(t *testing.T) {
	is := items(20)
	want := set(t, is).Hash
	other := slices.Clone(is)
	slices.Reverse(other)
	for i := range other {
		other[i].Name = fmt.Sprint("renamed", i)
	}
	if got := set(t, other).Hash; got != want {
		t.Errorf("order and names change the hash")
	}
	if got := set(t, append(slices.Clone(is), is[3])).Hash; got != want {
		t.Errorf("an image given twice changes the hash")
	}
	other = slices.Clone(is)
	other[0].Mask = []byte("another mask")
	if got := set(t, other).Hash; got == want {
		t.Errorf("another mask leaves the hash")
	}
}

func TestNewRefuses(t *testing.T) {
	for name, is := range map[string][]Item{
		"no images":          nil,
		"an empty image":     {{Name: "a"}},
		"two masks of one":   {{Image: []byte("a"), Mask: []byte("m")}, {Image: []byte("a"), Mask: []byte("n")}},
		"an image too large": {{Image: make([]byte, MaxItemBytes+1)}},
	} {
		if _, err := New(is); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSplitIsAPartition(t *testing.T) {
	for n := 3; n < 60; n += 7 {
		s := set(t, items(n))
		seen := map[[32]byte]int{}
		for _, p := range s.Split(0.6, 0.15, 0.25) {
			if len(p.Items) == 0 {
				t.Errorf("n=%d: an empty part", n)
			}
			for _, it := range p.Items {
				seen[it.Hash]++
			}
		}
		if len(seen) != n {
			t.Errorf("n=%d: the parts have %d images", n, len(seen))
		}
		for h, k := range seen {
			if k != 1 {
				t.Errorf("n=%d: image %x is in %d parts", n, h[:4], k)
			}
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("plain/a.jpg", "A")
	write("plain/b.PNG", "B")
	write("plain/notes.txt", "no image")
	s, err := Open(filepath.Join(dir, "plain"))
	if err != nil || len(s.Items) != 2 || s.Labelled {
		t.Fatalf("a folder of images: %+v, %v", s, err)
	}
	write("both/images/a.jpg", "A")
	write("both/images/b.jpg", "B")
	write("both/masks/a.png", "MA")
	if _, err := Open(filepath.Join(dir, "both")); err == nil {
		t.Errorf("a mask is missing: no error")
	}
	write("both/masks/b.png", "MB")
	u, err := Open(filepath.Join(dir, "both"))
	if err != nil || !u.Labelled {
		t.Fatalf("images and masks: %+v, %v", u, err)
	}
	if got := s.Overlap(u); len(got) != 2 {
		t.Errorf("overlap %v, want both images", got)
	}
	write("same/images/a.jpg", "A")
	write("same/images/a.png", "B")
	if _, err := Open(filepath.Join(dir, "same")); err == nil || !strings.Contains(err.Error(), "a.png") {
		t.Errorf("two images of one name: %v", err)
	}
	if err := os.Symlink(filepath.Join(dir, "both"), filepath.Join(dir, "plain", "odd.png")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "plain")); err == nil || !strings.Contains(err.Error(), "odd.png") {
		t.Errorf("an image that is no file: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "nowhere")); err == nil {
		t.Errorf("no folder: no error")
	}
}

// What has one key stays together, whatever the shares, and nothing is lost.
func TestSplitByKeepsClusters(t *testing.T) {
	for n := 3; n < 60; n += 7 {
		var its []Item
		for i := range n {
			its = append(its, Item{Name: fmt.Sprintf("patient%d-%d", i/4, i), Image: []byte{1, byte(i)}})
		}
		key := func(name string) string { k, _, _ := strings.Cut(name, "-"); return k }
		part, total := map[string]int{}, 0
		for i, p := range set(t, its).SplitBy(key, 0.6, 0.15, 0.25) {
			total += len(p.Items)
			for _, it := range p.Items {
				if was, ok := part[key(it.Name)]; ok && was != i {
					t.Errorf("n=%d: %s is in parts %d and %d", n, key(it.Name), was, i)
				}
				part[key(it.Name)] = i
			}
		}
		if total != n {
			t.Errorf("n=%d: the parts have %d images", n, total)
		}
	}
}
