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

// Check is [PrintOf] image i: whether it can be read, and whether it is one of the images that were learnt from, in
// another file.
func (s *Sealed) Check(i int, labels bool, classes int) (Print, error) {
	return PrintOf(&s.set.Items[i], labels, classes)
}

func (s *Sealed) open() (*calib.Set, error) {
	if s.opened.Swap(true) {
		return nil, ErrOpened
	}
	return s.set, nil
}

// Print tells what an item shows, whatever files it is in.
type Print struct {
	Name          string
	Picture, Mask [32]byte // hashes of the pixels; without labels Mask is zero
}

// PrintOf reads an item, with labels its mask of so many classes too.
func PrintOf(it *calib.Item, labels bool, classes int) (Print, error) {
	img, err := it.Decode()
	if err != nil {
		return Print{}, err
	}
	var truth *vision.Mask
	if labels {
		if truth, err = it.Truth(img, classes); err != nil {
			return Print{}, fmt.Errorf("mask of image %q: %w", it.Name, err)
		}
	}
	return printOf(it.Name, img, truth), nil
}

func printOf(name string, img *vision.Image, truth *vision.Mask) Print {
	p := Print{Name: name, Picture: pixels(img.W, img.H, img.Pix)}
	if truth != nil {
		p.Mask = pixels(truth.W, truth.H, truth.Pix)
	}
	return p
}

func pixels(w, h int, pix []byte) [32]byte {
	sum := sha256.New()
	var size [16]byte
	binary.LittleEndian.PutUint64(size[:8], uint64(w))
	binary.LittleEndian.PutUint64(size[8:], uint64(h))
	sum.Write(size[:])
	sum.Write(pix)
	return [32]byte(sum.Sum(nil))
}

// Seen is what was there before, by Print.Picture.
type Seen map[[32]byte]Print

// First reports whether p shows a picture that was not there before, and notes it. It is an error if it was, with another
// mask.
func (s Seen) First(p Print) (bool, error) {
	before, ok := s[p.Picture]
	if !ok {
		s[p.Picture] = p
		return true, nil
	}
	if before.Mask != p.Mask {
		return false, fmt.Errorf("images %q and %q are the same picture, their masks differ", before.Name, p.Name)
	}
	return false, nil
}
