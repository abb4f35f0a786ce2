package kernel

import "github.com/secateur/secateur/engine/kernel/isa"

// halvesCall is the operands of maxHalves: rows rows of results, each of blocks whole vectors and one of last lanes, from
// two rows of src that lie width bytes apart. Assembly knows the offsets of the fields.
type halvesCall[T Float] struct {
	src, dst         *T
	rows             int64
	blocks, last     int64
	width            int64
	srcStep, dstStep int64 // bytes from row to row
}

// MaxHalves returns what computes the largest of each 2x2 pixels of planes [h, w] of x, in planes [oh, ow] of y, where
// 2·oh ≤ h and 2·ow ≤ w. A NaN is larger than any number. See [Conv.Bind].
func MaxHalves[T Float](p *Pool, y, x []T, planes, oh, ow, h, w int) func() {
	need("x", len(x), planes*h*w)
	need("y", len(y), planes*oh*ow)
	if len(y) == 0 {
		return func() {}
	}
	k := microFor[T](isa.Best())
	calls := make([]struct {
		halvesCall[T]
		_ [64]byte
	}, p.Workers())
	const worth = 1 << 15 // pixels of a task
	each := max(1, worth/(h*w+1))
	return p.Loop((planes+each-1)/each, func(worker, i int) {
		for n := i * each; n < min((i+1)*each, planes); n++ {
			k.halves(&calls[worker].halvesCall, y[n*oh*ow:][:oh*ow], x[n*h*w:][:h*w], ow, w)
		}
	}).Run
}

func (k *micro[T]) halves(c *halvesCall[T], y, x []T, ow, w int) {
	rows := len(y) / ow
	if k.maxHalves == nil {
		maxHalvesGeneric(y, x, ow, w)
		return
	}
	size := sizeOf[T]()
	*c = halvesCall[T]{src: &x[0], dst: &y[0], rows: int64(rows), width: int64(w) * size, srcStep: int64(2*w) * size, dstStep: int64(ow) * size}
	c.blocks, c.last = int64((ow-1)/k.lanes), int64((ow-1)%k.lanes+1)
	k.maxHalves(c)
}

// maxHalvesGeneric is the definition.
func maxHalvesGeneric[T Float](y, x []T, ow, w int) {
	for i := 0; i < len(y); i += ow {
		row := y[i : i+ow]
		a := x[2*(i/ow)*w:][:2*ow]
		b := x[2*(i/ow)*w+w:][:2*ow]
		for j := range row {
			row[j] = max(a[2*j], a[2*j+1], b[2*j], b[2*j+1])
		}
	}
}
