package main

import (
	"context"
	"fmt"

	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
)

type evalCmd struct {
	modelFlags
	Model string `required:"" help:"The ONNX file." type:"existingfile"`
	Data  string `required:"" help:"A folder with images/ and masks/ of the same names." type:"existingdir"`
	JSON  bool   `help:"Print one JSON document."`
}

// evaluation is what eval prints.
type evaluation struct {
	Dice        float64 `json:"dice"`
	IoU         float64 `json:"iou"`
	Sensitivity float64 `json:"sensitivity"`
	Specificity float64 `json:"specificity"`
	N           int     `json:"n"`
	// Empty counts images without any foreground; they are not part of the means but of the specificity.
	Empty int `json:"empty"`
	// EmptyFlagged counts those of them in which the model found something.
	EmptyFlagged int `json:"empty_flagged"`
}

// Run implements the command.
func (c *evalCmd) Run(ctx context.Context) error {
	m, err := c.open(c.Model)
	if err != nil {
		return err
	}
	set, err := calib.Open(c.Data)
	if err != nil {
		return err
	}
	if !set.Labelled {
		return fmt.Errorf("%s has no masks; eval needs %s/masks with the images' names", c.Data, c.Data)
	}
	p := newProgress()
	e, err := evaluate(ctx, m, set, func(done int) { p.update("eval", done, len(set.Items)) })
	p.done()
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(e)
	}
	fmt.Printf("Dice %.4f  IoU %.4f  sensitivity %.4f  specificity %.4f  n %d", e.Dice, e.IoU, e.Sensitivity, e.Specificity, e.N)
	if e.Empty > 0 {
		fmt.Printf("  (and %d empty frames, %d of them flagged)", e.Empty, e.EmptyFlagged)
	}
	fmt.Println()
	return nil
}

// evaluate gives the means over images at each image's own size. Frames without foreground are counted apart: an
// all-empty model must not gain by them.
func evaluate(ctx context.Context, m *predict.Model, set *calib.Set, progress func(done int)) (evaluation, error) {
	var e evaluation
	for i, it := range set.Items {
		img, err := vision.Decode(it.Image, vision.Limits{})
		if err != nil {
			return e, fmt.Errorf("%s: %w", it.Name, err)
		}
		pred, err := m.Predict(ctx, img)
		if err != nil {
			return e, fmt.Errorf("%s: %w", it.Name, err)
		}
		truth, err := vision.DecodeLabels(it.Mask, pred.Mask.Classes, vision.Limits{})
		if err != nil {
			return e, fmt.Errorf("mask of %s: %w", it.Name, err)
		}
		if truth.W != img.W || truth.H != img.H {
			return e, fmt.Errorf("%s is %dx%d, its mask %dx%d", it.Name, img.W, img.H, truth.W, truth.H)
		}
		k := vision.Compare(pred.Mask, truth)
		e.Specificity += k.Specificity
		if k.Empty {
			e.Empty++
			if k.Dice < 1 {
				e.EmptyFlagged++
			}
		} else {
			e.N++
			e.Dice += k.Dice
			e.IoU += k.IoU
			e.Sensitivity += k.Sensitivity
		}
		progress(i + 1)
	}
	n := float64(max(e.N, 1))
	e.Dice, e.IoU, e.Sensitivity = e.Dice/n, e.IoU/n, e.Sensitivity/n
	e.Specificity /= float64(max(e.N+e.Empty, 1))
	return e, nil
}
