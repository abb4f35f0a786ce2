package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/secateur/secateur/engine/vision"
)

type segmentCmd struct {
	modelFlags
	clientFlags
	Images  []string `arg:"" help:"Images, or folders of them."`
	Model   string   `help:"Run this ONNX file here instead of asking a server." type:"existingfile"`
	Name    string   `help:"Which of the server's models; by default its first."`
	Out     string   `help:"Where masks go." default:"."`
	Overlay bool     `help:"Also write the image with the mask drawn over it."`
	JSON    bool     `help:"Print one JSON document."`
}

// segmented is what segment prints of one image.
type segmented struct {
	Image   string `json:"image"`
	Mask    string `json:"mask"`
	Overlay string `json:"overlay,omitempty"`
	Model   string `json:"model"`
	Version uint64 `json:"version,omitempty"`
	// Area is the share of pixels that are not background.
	Area float64 `json:"area"`
	MS   float64 `json:"ms"`
}

// segmenter turns an image file into a mask, here or on a server.
type segmenter func(ctx context.Context, img []byte) (*vision.Mask, segmented, error)

// Run implements the command.
func (c *segmentCmd) Run(ctx context.Context) error {
	files, err := imageFiles(c.Images)
	if err != nil {
		return err
	}
	seg, closeSegmenter, err := c.segmenter()
	if err != nil {
		return err
	}
	defer closeSegmenter()
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	var all []segmented
	p := newProgress()
	defer p.done()
	for i, f := range files {
		r, err := c.one(ctx, seg, f)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		if len(files) > 1 {
			p.update("segment", i+1, len(files))
		}
		if !c.JSON {
			fmt.Printf("%s -> %s  model %s, %.1f %% of the image, %.1f ms\n", f, r.Mask, r.title(), 100*r.Area, r.MS)
		}
		all = append(all, r)
	}
	if c.JSON {
		return printJSON(all)
	}
	return nil
}

func (r segmented) title() string {
	if r.Version == 0 {
		return r.Model
	}
	return fmt.Sprintf("%s version %d", r.Model, r.Version)
}

// segmenter is the model file, or else the server.
func (c *segmentCmd) segmenter() (segmenter, func(), error) {
	if c.Model == "" {
		if c.Backend != "native" || c.Spec != "" || c.Threads != 0 {
			return nil, nil, usage("--backend, --spec and --threads are for --model FILE.onnx; a server has its own")
		}
		return c.remote()
	}
	m, err := c.open(c.Model)
	if err != nil {
		return nil, nil, err
	}
	name := filepath.Base(c.Model)
	return func(ctx context.Context, b []byte) (*vision.Mask, segmented, error) {
		img, err := vision.Decode(b, vision.Limits{})
		if err != nil {
			return nil, segmented{}, err
		}
		t0 := time.Now()
		p, err := m.Predict(ctx, img)
		if err != nil {
			return nil, segmented{}, err
		}
		return p.Mask, segmented{Model: name, MS: float64(time.Since(t0)) / 1e6}, nil
	}, func() {}, nil
}

// one segments a file and writes what was asked for.
func (c *segmentCmd) one(ctx context.Context, seg segmenter, file string) (segmented, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return segmented{}, err
	}
	mask, r, err := seg(ctx, b)
	if err != nil {
		return segmented{}, err
	}
	n := 0
	for _, v := range mask.Pix {
		if v != 0 {
			n++
		}
	}
	r.Image, r.Area = file, float64(n)/float64(max(len(mask.Pix), 1))
	stem := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	r.Mask = filepath.Join(c.Out, stem+".mask.png")
	if err := os.WriteFile(r.Mask, mask.PNG(), 0o644); err != nil {
		return r, err
	}
	if !c.Overlay {
		return r, nil
	}
	img, err := vision.Decode(b, vision.Limits{})
	if err != nil {
		return r, err
	}
	r.Overlay = filepath.Join(c.Out, stem+".overlay.png")
	return r, writePNG(r.Overlay, vision.Overlay(img, mask))
}

// imageFiles lists files as given and the images in folders, in order of their names.
func imageFiles(args []string) ([]string, error) {
	var files []string
	for _, a := range args {
		st, err := os.Stat(a)
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			files = append(files, a)
			continue
		}
		entries, err := os.ReadDir(a)
		if err != nil {
			return nil, err
		}
		files = append(files, imagesIn(a, entries)...)
	}
	if len(files) == 0 {
		return nil, errors.New("no images found; PNG, JPEG, TIFF, BMP and WebP are read")
	}
	return files, nil
}

func imagesIn(dir string, entries []fs.DirEntry) []string {
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains(imageSuffixes, strings.ToLower(filepath.Ext(e.Name()))) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files
}

var imageSuffixes = []string{".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
