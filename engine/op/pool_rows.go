package op

// rowPool is a pool of planes in float32 that goes by whole rows: what lies above each other in a window is joined first, a
// row at a time, then what lies side by side, by shifting the row along itself; so loops over elements do all the work, and of
// a stride only the last step, which picks, knows. The order of sums is another than the definition's.
type rowPool struct {
	c       *cube
	join    func(y, a, b []float32)
	nothing float32 // what joining changes nothing with: padding's value
	length  int     // of a row with what windows reach of its padding
	reach   int     // of results at stride 1
	from    int     // where the input's row begins in it
	used    int     // how much of the input's row windows see
}

// newRowPool gives one where rows are long enough to be worth it.
func newRowPool(c *cube, join func(y, a, b []float32), nothing float32) (p rowPool, ok bool) {
	const worth, maxRow = 8, 1 << 16
	if !fast || c.in[0] != 1 || c.kernel[0] != 1 || c.out[0] != 1 || c.begin[0] != 0 || c.out[2] < worth || c.kernel[2] > c.out[2] {
		return p, false
	}
	p = rowPool{c: c, join: join, nothing: nothing, from: max(c.begin[2], 0)}
	p.reach = (c.out[2]-1)*c.stride[2] + 1
	p.length = p.reach + (c.kernel[2]-1)*c.dilation[2]
	p.used = min(c.in[2], p.length-p.from)
	return p, p.used > 0 && c.begin[2] >= 0 && p.length <= maxRow
}

// scratch is how many elements plane needs.
func (p *rowPool) scratch() int { return p.length + p.reach }

// plane pools x [in[1], in[2]] into y [out[1], out[2]]. end, if any, is called for each row of y with the taps it has, which
// lie within the input.
func (p *rowPool) plane(y, x, scratch []float32, end func(y []float32, row, taps int)) {
	c := p.c
	row, joined := scratch[:p.length], scratch[p.length:p.scratch()]
	for i := range row {
		row[i] = p.nothing
	}
	middle := row[p.from:][:p.used]
	for b := range c.out[1] {
		dst := y[b*c.out[2] : (b+1)*c.out[2]]
		first, n := c.taps(1, b)
		at := func(k int) []float32 { return x[(first+k*c.dilation[1])*c.in[2]:][:p.used] }
		switch {
		case n == 0:
			for i := range middle {
				middle[i] = p.nothing
			}
		case n == 1:
			copy(middle, at(0))
		default:
			p.join(middle, at(0), at(1))
			for k := 2; k < n; k++ {
				p.join(middle, middle, at(k))
			}
		}
		p.along(dst, row, joined)
		if end != nil {
			end(dst, b, n)
		}
	}
}

// along joins what lies side by side in row.
func (p *rowPool) along(dst, row, joined []float32) {
	c := p.c
	if c.stride[2] == 1 {
		joined = dst
	}
	if c.kernel[2] == 1 {
		copy(joined, row)
	} else {
		p.join(joined, row[:p.reach], row[c.dilation[2]:])
	}
	for k := 2; k < c.kernel[2]; k++ {
		p.join(joined, joined, row[k*c.dilation[2]:])
	}
	switch s := c.stride[2]; s {
	case 1:
	case 2:
		for i := range dst {
			dst[i] = joined[2*i]
		}
	default:
		for i := range dst {
			dst[i] = joined[i*s]
		}
	}
}

// bind returns what pools n planes.
func (p *rowPool) bind(env *Env, y, x []float32, n int, end func(y []float32, row, taps int)) func() {
	size, plane := p.c.out[1]*p.c.out[2], p.c.plane()
	each := max(1, (1<<15)/(plane+1))
	scratch := make([]float32, env.Pool.Workers()*(p.scratch()+16))
	return env.Pool.Loop((n+each-1)/each, func(worker, i int) {
		own := scratch[worker*(p.scratch()+16):]
		for k := i * each; k < min((i+1)*each, n); k++ {
			p.plane(y[k*size:(k+1)*size], x[k*plane:(k+1)*plane], own, end)
		}
	}).Run
}
