package gate

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
)

// ErrOpened is returned by a second judgement on the same images.
var ErrOpened = errors.New("the held-out images have been judged on already")

// Sealed is a set of images kept for a verdict. No other package can get at the images once it holds only this: there
// is no method that gives one, and [Judge] opens it once. So a choice among several models, which would turn the best of
// many verdicts into the verdict, cannot be made on it: it is made with [Measure], which takes a [calib.Set].
type Sealed struct {
	set    *calib.Set
	opened atomic.Bool
}

// Seal keeps a set for one judgement. The caller lets go of its own reference.
func Seal(set *calib.Set) *Sealed { return &Sealed{set: set} }

// Len is the number of images.
func (s *Sealed) Len() int { return len(s.set.Items) }

// Hash is the set's.
func (s *Sealed) Hash() string { return s.set.Hash }

// Labelled reports whether every image has a mask.
func (s *Sealed) Labelled() bool { return s.set.Labelled }

// Name is the name of image i.
func (s *Sealed) Name(i int) string { return s.set.Items[i].Name }

// Check reports whether image i, and with labels its mask of so many classes, can be read, and says what [Pixels] says of
// it: whether it is one of the images that were learnt from, in another file.
func (s *Sealed) Check(i int, labels bool, classes int) ([32]byte, error) {
	it := &s.set.Items[i]
	img, err := vision.Decode(it.Image, vision.Limits{})
	if err == nil && labels {
		_, err = it.Truth(img, classes)
	}
	if err != nil {
		return [32]byte{}, fmt.Errorf("image %q: %w", it.Name, err)
	}
	return Pixels(img), nil
}

func (s *Sealed) open() (*calib.Set, error) {
	if s.opened.Swap(true) {
		return nil, ErrOpened
	}
	return s.set, nil
}

// Pixels is the hash of a picture as it is seen, whatever file it came from.
func Pixels(img *vision.Image) [32]byte {
	h := sha256.New()
	var size [16]byte
	binary.LittleEndian.PutUint64(size[:8], uint64(img.W))
	binary.LittleEndian.PutUint64(size[8:], uint64(img.H))
	h.Write(size[:])
	h.Write(img.Pix)
	return [32]byte(h.Sum(nil))
}
