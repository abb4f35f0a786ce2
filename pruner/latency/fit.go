package latency

import "math"

// fit finds the coefficients. There are four and they may not be negative, so every choice of those that are zero is tried.
func (s *Step) fit() {
	features := 4
	if s.Layer == "" {
		features = 2 // the constant and the output
	}
	best := math.Inf(1)
	for set := 1; set < 1<<features; set++ {
		c, ok := s.least(set)
		if !ok {
			continue
		}
		if e := s.wrong(c); e < best*(1-1e-9) {
			best = e
			s.Base, s.PerOut, s.PerIn, s.PerPair = c[0], c[1], c[2], c[3]
		}
	}
}

// row is what the coefficients of a sample are multiplied by; what may be zero first comes last.
func (m Sample) row() [4]float64 { return [4]float64{1, m.Out, m.In, m.In * m.Out} }

// wrong is the sum of squared relative errors of coefficients c.
func (s *Step) wrong(c [4]float64) float64 {
	var sum float64
	for _, m := range s.Samples {
		var t float64
		for i, x := range m.row() {
			t += c[i] * x
		}
		e := (t - m.MS) / max(m.MS, 1e-6)
		sum += e * e
	}
	return sum
}

// least solves the normal equations for the coefficients in set, the others zero. It is not ok if there is no solution, or
// one below zero.
func (s *Step) least(set int) (c [4]float64, ok bool) {
	var at []int
	for i := range 4 {
		if set>>i&1 == 1 {
			at = append(at, i)
		}
	}
	n := len(at)
	a := make([][]float64, n)
	for i := range a {
		a[i] = make([]float64, n+1)
	}
	for _, m := range s.Samples {
		row, w := m.row(), 1/max(m.MS*m.MS, 1e-12)
		for i, p := range at {
			for j, q := range at {
				a[i][j] += w * row[p] * row[q]
			}
			a[i][n] += w * row[p] * m.MS
		}
	}
	for i := range n { // Gauss, with the largest pivot
		p := i
		for r := i + 1; r < n; r++ {
			if math.Abs(a[r][i]) > math.Abs(a[p][i]) {
				p = r
			}
		}
		a[i], a[p] = a[p], a[i]
		if math.Abs(a[i][i]) < 1e-12*math.Abs(a[0][0])+1e-300 {
			return c, false
		}
		for r := range n {
			if r == i {
				continue
			}
			f := a[r][i] / a[i][i]
			for k := i; k <= n; k++ {
				a[r][k] -= f * a[i][k]
			}
		}
	}
	for i, p := range at {
		c[p] = a[i][n] / a[i][i]
		if !(c[p] >= 0) {
			return c, false
		}
	}
	return c, true
}
