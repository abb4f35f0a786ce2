package pruner

import (
	"github.com/secateur/secateur/engine/predict"
	"github.com/secateur/secateur/engine/tensor"
	"github.com/secateur/secateur/pruner/gate"
)

// once is what depends on the original and the images alone, and is computed when it is first asked for. The runs of a sweep
// share it. Its bytes are bounded: what is beyond is computed each time.
type once struct {
	whole  *predict.Model // the original
	look   *gate.Look     // at the select images
	fit    tensors        // prepared fit images, which every layer of a repair reads
	sel    tensors        // prepared select images
	logits tensors        // the original's, of the select images
}

// lookBytes is what the look at the select images may remember.
const lookBytes = 64 << 20

func newOnce() *once {
	return &once{fit: tensors{left: 128 << 20}, sel: tensors{left: 48 << 20}, logits: tensors{left: 48 << 20}}
}

// tensors keeps some, by index, of at most so many bytes.
type tensors struct {
	left int
	x    map[int]*tensor.Tensor
}

func (t *tensors) get(i int, compute func() (*tensor.Tensor, error)) (*tensor.Tensor, error) {
	if x := t.x[i]; x != nil {
		return x, nil
	}
	x, err := compute()
	if err == nil && len(x.Data) <= t.left {
		if t.x == nil {
			t.x = map[int]*tensor.Tensor{}
		}
		t.x[i] = x
		t.left -= len(x.Data)
	}
	return x, err
}

// cached is the prepared fit image i.
func (r *run) cached(i int) (*tensor.Tensor, error) {
	return r.once.fit.get(i, func() (*tensor.Tensor, error) { return r.input(&r.fit.Items[i]) })
}

// selected is the prepared select image i.
func (r *run) selected(i int) (*tensor.Tensor, error) {
	return r.once.sel.get(i, func() (*tensor.Tensor, error) { return r.input(&r.sel.Items[i]) })
}
