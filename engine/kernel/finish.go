package kernel

// Finish changes results of a convolution in place while the worker that computed them still has them in its caches. y is a
// stretch of pixels of output channel m, y[0] being element at of the whole output. Every element is finished once. Workers
// call it at the same time, for different stretches; it must not allocate.
type Finish[T Float] func(y []T, m, at int)

// finished calls f for rows [row, row+rows) of channels [first, first+count) of image n.
func (f Finish[T]) finished(s *ConvShape, y []T, n, first, count, row, rows int) {
	rows = min(rows, s.OH-row)
	if f == nil || rows <= 0 {
		return
	}
	for m := first; m < first+count; m++ {
		at := ((n*s.M+m)*s.OH + row) * s.OW
		f(y[at:][:rows*s.OW], m, at)
	}
}

// finishTiles finishes the results of vectors [g0,g1) of tiles, which begin and end within a row of them.
func (r *winoRun[T]) finishTiles(n, g0, g1, first, count int) {
	s, wide := &r.s, r.segments()
	q1 := min(4*g1, r.ty*wide)
	for q := 4 * g0; q < q1; {
		row, from := q/wide, q%wide
		to := min(wide, from+q1-q)
		q += to - from
		if to-from == wide {
			r.finish.finished(s, r.y, n, first, count, 4*row, 4)
			continue
		}
		x0, x1 := from*r.k.lanes, min(to*r.k.lanes, s.OW)
		for m := first; m < first+count; m++ {
			for y := 4 * row; y < min(4*row+4, s.OH); y++ {
				at := ((n*s.M+m)*s.OH+y)*s.OW + x0
				r.finish(r.y[at:][:x1-x0], m, at)
			}
		}
	}
}

// finishPixels runs f after run, for results of one pixel each.
func (f Finish[T]) finishPixels(run func(), s ConvShape, y []T) func() {
	if f == nil {
		return run
	}
	return func() {
		run()
		for n := range s.N {
			f.finished(&s, y, n, 0, s.M, 0, s.OH)
		}
	}
}
