package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"

	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/engine/vision/phantom"
)

type phantomCmd struct {
	Out  string `required:"" help:"The folder to write images/ and masks/ to."`
	N    int    `default:"50" help:"How many."`
	Seed uint64 `default:"1" help:"The first seed; the same seeds draw the same images."`
}

// Run implements the command.
func (c *phantomCmd) Run(ctx context.Context) error {
	if c.N < 1 {
		return usage("--n must be at least 1")
	}
	for _, d := range []string{"images", "masks"} {
		if err := os.MkdirAll(filepath.Join(c.Out, d), 0o755); err != nil {
			return err
		}
	}
	p := newProgress()
	defer p.done()
	for i := range c.N {
		if err := ctx.Err(); err != nil {
			return err
		}
		img, mask := phantom.Draw(c.Seed+uint64(i), 0)
		name := fmt.Sprintf("phantom-%04d.png", c.Seed+uint64(i))
		if err := writePNG(filepath.Join(c.Out, "images", name), rgba(img)); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.Out, "masks", name), mask.PNG(), 0o644); err != nil {
			return err
		}
		p.update("phantom", i+1, c.N)
	}
	return nil
}

// rgba makes a picture of the standard library's.
func rgba(m *vision.Image) *image.RGBA {
	r := image.NewRGBA(image.Rect(0, 0, m.W, m.H))
	for i := range m.W * m.H {
		copy(r.Pix[4*i:], m.Pix[3*i:3*i+3])
		r.Pix[4*i+3] = 255
	}
	return r
}

func writePNG(path string, m image.Image) error {
	b, err := pngBytes(m)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func pngBytes(m image.Image) ([]byte, error) {
	var b bytes.Buffer
	err := png.Encode(&b, m)
	return b.Bytes(), err
}
