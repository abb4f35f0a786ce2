// Package calib holds the images that a pruning run learns from and is judged on: a folder or an upload becomes a
// [Set], named by the hash of its content, and [Set.Split] divides it by content, so that the same image always falls on the
// same side whatever its name.
package calib

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secateur/secateur/engine/vision"
)

// Limits of a set: what one run may be asked to hold in memory.
const (
	MaxItems     = 100_000
	MaxItemBytes = 64 << 20
	MaxSetBytes  = 4 << 30
)

// Item is an image file, and the file of its mask if there is one.
type Item struct {
	Name  string
	Image []byte
	Mask  []byte   // nil: unlabelled
	Hash  [32]byte // SHA-256 of Image; New fills it in
}

// Decode is the item's image. The error names it.
func (it *Item) Decode() (*vision.Image, error) {
	img, err := vision.Decode(it.Image, vision.Limits{})
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", it.Name, err)
	}
	return img, nil
}

// Truth is the item's mask, of classes up to the given index, for its decoded image.
func (it *Item) Truth(img *vision.Image, classes int) (*vision.Mask, error) {
	m, err := vision.DecodeLabels(it.Mask, classes, vision.Limits{})
	if err != nil {
		return nil, err
	}
	if m.W != img.W || m.H != img.H {
		return nil, fmt.Errorf("the mask is %d x %d, the image %d x %d", m.W, m.H, img.W, img.H)
	}
	return m, nil
}

// Set is an immutable collection of different images, in the order of their hashes.
type Set struct {
	Items    []Item
	Hash     string // SHA-256, in hex, over the sorted hashes of images and masks
	Labelled bool   // every item has a mask
	// Duplicates is how many items were left out because another is the same.
	Duplicates int
}

// ErrEmpty is returned for a set without images.
var ErrEmpty = errors.New("no images")

// New makes a set. An image that occurs twice is kept once; it is an error if its masks differ.
func New(items []Item) (*Set, error) {
	if len(items) == 0 {
		return nil, ErrEmpty
	}
	if len(items) > MaxItems {
		return nil, fmt.Errorf("%d images, at most %d are allowed", len(items), MaxItems)
	}
	s := &Set{Labelled: true}
	seen := map[[32]byte]int{}
	total := 0
	for _, it := range items {
		n := len(it.Image) + len(it.Mask)
		if len(it.Image) == 0 {
			return nil, fmt.Errorf("image %q is empty", it.Name)
		}
		if n > MaxItemBytes {
			return nil, fmt.Errorf("image %q with its mask has %d bytes, at most %d are allowed", it.Name, n, MaxItemBytes)
		}
		if total += n; total > MaxSetBytes {
			return nil, fmt.Errorf("the images have more than %d bytes together", MaxSetBytes)
		}
		it.Hash = sha256.Sum256(it.Image)
		if j, ok := seen[it.Hash]; ok {
			first := &s.Items[j]
			switch {
			case first.Mask == nil:
				first.Mask = it.Mask
			case it.Mask != nil && !bytes.Equal(first.Mask, it.Mask):
				return nil, fmt.Errorf("images %q and %q are the same, their masks differ", first.Name, it.Name)
			}
			s.Duplicates++
			continue
		}
		seen[it.Hash] = len(s.Items)
		s.Items = append(s.Items, it)
	}
	slices.SortFunc(s.Items, func(a, b Item) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	s.finish()
	return s, nil
}

// finish computes what follows from the items.
func (s *Set) finish() {
	h := sha256.New()
	s.Labelled = len(s.Items) > 0
	for _, it := range s.Items {
		h.Write(it.Hash[:])
		m := sha256.Sum256(it.Mask)
		if it.Mask == nil {
			m = [32]byte{}
			s.Labelled = false
		}
		h.Write(m[:])
	}
	s.Hash = hex.EncodeToString(h.Sum(nil))
}

// Open reads a folder: images/ and, if it is there, masks/ with files of the same stems; or a folder of images alone.
// Once there is a folder masks/, every image must have its mask.
func Open(dir string) (*Set, error) {
	imgDir, maskDir := filepath.Join(dir, "images"), filepath.Join(dir, "masks")
	if _, err := os.Stat(imgDir); errors.Is(err, fs.ErrNotExist) {
		imgDir, maskDir = dir, ""
	} else if err != nil {
		return nil, fmt.Errorf("open calibration folder: %w", err)
	}
	images, err := stems(imgDir)
	if err != nil {
		return nil, fmt.Errorf("open calibration folder: %w", err)
	}
	var masks map[string]string
	if maskDir != "" {
		if masks, err = stems(maskDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open calibration folder: %w", err)
		}
	}
	if len(images) > MaxItems {
		return nil, fmt.Errorf("calibration folder %s: %d images, at most %d are allowed", dir, len(images), MaxItems)
	}
	names := make([]string, 0, len(images))
	for stem := range images {
		names = append(names, stem)
	}
	slices.Sort(names)
	items := make([]Item, 0, len(names))
	total := 0
	for _, stem := range names {
		if total > MaxSetBytes { // New would say so too, once all is in memory
			return nil, fmt.Errorf("calibration folder %s: the images have more than %d bytes together", dir, MaxSetBytes)
		}
		it := Item{Name: stem}
		if it.Image, err = read(images[stem]); err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
		if masks != nil {
			p, ok := masks[stem]
			if !ok {
				return nil, fmt.Errorf("image %q has no mask in %s", stem, maskDir)
			}
			if it.Mask, err = read(p); err != nil {
				return nil, fmt.Errorf("read mask: %w", err)
			}
		}
		items = append(items, it)
		total += len(it.Image) + len(it.Mask)
	}
	s, err := New(items)
	if err != nil {
		return nil, fmt.Errorf("calibration folder %s: %w", dir, err)
	}
	return s, nil
}

// extensions lists the image files that vision.Decode reads.
var extensions = []string{".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}

// stems maps the name without extension of each image file in dir to its path.
func stems(dir string) (map[string]string, error) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, e := range es {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || !slices.Contains(extensions, strings.ToLower(ext)) {
			continue
		}
		stem := strings.TrimSuffix(e.Name(), ext)
		p := filepath.Join(dir, e.Name())
		if q, ok := m[stem]; ok {
			return nil, fmt.Errorf("%s and %s have the same name but for the extension", q, p)
		}
		m[stem] = p
	}
	return m, nil
}

// read is os.ReadFile with a limit, for files only: a pipe might never end.
func read(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if st.Size() > MaxItemBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", path, st.Size(), MaxItemBytes)
	}
	return os.ReadFile(path)
}

// Split divides the set into parts of about the given shares (they need not add up to 1; the last part takes what the
// others leave). The order is that of the content's hashes, so neither names nor order of upload matter. Every part
// has an image if there are enough; a part that would be empty is an empty set.
func (s *Set) Split(shares ...float64) []*Set {
	return s.SplitBy(func(string) string { return "" }, shares...)
}

// SplitBy is Split that keeps together what has the same key, which is a function of an item's name; items of the empty key
// are each their own. Keys are ordered by their hashes, an item of its own by its content's.
func (s *Set) SplitBy(key func(name string) string, shares ...float64) []*Set {
	var groups [][]Item
	var order [][32]byte
	at := map[string]int{}
	for _, it := range s.Items {
		k := key(it.Name)
		i, ok := at[k]
		if k == "" || !ok {
			i = len(groups)
			groups, order = append(groups, nil), append(order, it.Hash)
			if k != "" {
				at[k], order[i] = i, sha256.Sum256([]byte(k))
			}
		}
		groups[i] = append(groups[i], it)
	}
	index := make([]int, len(groups))
	for i := range index {
		index[i] = i
	}
	slices.SortFunc(index, func(a, b int) int { return bytes.Compare(order[a][:], order[b][:]) })
	sum := 0.0
	for _, f := range shares {
		sum += f
	}
	n, from, acc := len(groups), 0, 0.0
	parts := make([]*Set, len(shares))
	for i, f := range shares {
		acc += f
		to := int(acc/sum*float64(n) + 0.5)
		left := len(shares) - 1 - i // parts that still want an image
		to = min(max(to, from+1), max(n-left, from))
		if i == len(shares)-1 {
			to = n
		}
		to = min(to, n)
		p := &Set{}
		for _, k := range index[from:to] {
			p.Items = append(p.Items, groups[k]...)
		}
		slices.SortFunc(p.Items, func(a, b Item) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
		p.finish()
		parts[i], from = p, to
	}
	return parts
}

// Without is the set without the items at some indices, which are duplicates of others.
func (s *Set) Without(duplicates map[int]bool) *Set {
	d := &Set{Duplicates: s.Duplicates + len(duplicates)}
	for i, it := range s.Items {
		if !duplicates[i] {
			d.Items = append(d.Items, it)
		}
	}
	d.finish()
	return d
}

// Overlap lists the names of items in s whose image is in t as well.
func (s *Set) Overlap(t *Set) []string {
	in := map[[32]byte]bool{}
	for _, it := range t.Items {
		in[it.Hash] = true
	}
	var names []string
	for _, it := range s.Items {
		if in[it.Hash] {
			names = append(names, it.Name)
		}
	}
	return names
}
