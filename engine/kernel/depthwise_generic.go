package kernel

import "unsafe"

// depthCall is the operands of a depthwise kernel: rows results of a column of vectors, each the sum over k rows and k
// taps. rowsAt[stride·i + kh] is where row kh of result i begins, in bytes from x: for a row outside of the image, in a row
// of zeros. column and ycolumn lead from there to the first tap and the first result. masks has a bit for each lane of
// each tap that lies inside; of stride 2, for the two vectors that begin with each even tap. out is the lanes that there
// are. Assembly knows the offsets of the fields.
type depthCall[T Float] struct {
	x, y, w         *T
	rowsAt          *int64
	rows, yrow      int64
	column, ycolumn int64
	masks           *[8]uint32
	bias            *T
	out             uint32
	lo, hi          T
	zero            int64 // what rowsAt has for a row outside of the image
}

// depthGeneric is what every depthwise kernel computes.
func depthGeneric[T Float](p *depthCall[T], k, stride, lanes int) {
	rowsAt := unsafe.Slice(p.rowsAt, stride*(int(p.rows)-1)+k)
	for i := range p.rows {
		for lane := range lanes {
			if p.out>>lane&1 == 0 {
				continue
			}
			v := *p.bias
			for kh := range k {
				row := rowsAt[stride*int(i)+kh]
				if row == p.zero {
					continue
				}
				for kw := range k {
					bit := stride*lane + kw
					mask := p.masks[kw]
					if stride == 2 {
						bit -= kw &^ 1
						mask = p.masks[kw&^1+bit/lanes]
						bit %= lanes
					} else {
						bit -= kw
					}
					if mask>>bit&1 != 0 {
						v += *element(p.x, row+p.column, stride*lane+kw) * *element(p.w, 0, kh*k+kw)
					}
				}
			}
			if v < p.lo {
				v = p.lo
			} else if v > p.hi {
				v = p.hi
			}
			*element(p.y, i*p.yrow+p.ycolumn, lane) = v
		}
	}
}
