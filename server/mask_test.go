package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
)

// flood finds components the slow way.
func flood(m *vision.Mask, p *vision.Prob) []string {
	seen := make([]bool, len(m.Pix))
	var out []region
	for start, c := range m.Pix {
		if c == 0 || seen[start] {
			continue
		}
		r := region{class: c, x0: m.W, y0: m.H}
		seen[start] = true
		for todo := []int{start}; len(todo) > 0; {
			i := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			x, y := i%m.W, i/m.W
			r.join(region{x0: x, y0: y, x1: x + 1, y1: y + 1, area: 1, confidence: float64(p.Plane(plane(m, p, int(c)))[i])})
			for dy := -1; dy <= 1; dy++ {
				for dx := -1; dx <= 1; dx++ {
					nx, ny := x+dx, y+dy
					if j := ny*m.W + nx; nx >= 0 && ny >= 0 && nx < m.W && ny < m.H && !seen[j] && m.Pix[j] == c {
						seen[j] = true
						todo = append(todo, j)
					}
				}
			}
		}
		out = append(out, r)
	}
	var s []string
	for _, r := range largest(out) {
		s = append(s, fmt.Sprintf("%d at %d,%d to %d,%d area %d confidence %.4f", r.class, r.x0, r.y0, r.x1, r.y1, r.area, r.mean()))
	}
	return s
}

func TestComponentsEqualFloodFill(t *testing.T) {
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		m := vision.NewMask(1+rnd.IntN(40), 1+rnd.IntN(40))
		m.Classes = 1 + rnd.IntN(3)
		planes := m.Classes + rnd.IntN(2) // independent classes, or with a background
		if m.Classes == 1 {
			planes = 1
		}
		p := &vision.Prob{W: m.W, H: m.H, C: planes, P: make([]float32, planes*m.W*m.H)}
		dense := rnd.Float64()
		for i := range m.Pix {
			if rnd.Float64() < dense {
				m.Pix[i] = byte(1 + rnd.IntN(m.Classes))
			}
		}
		for i := range p.P {
			p.P[i] = rnd.Float32()
		}
		compare(t, fmt.Sprintf("seed %d", seed), m, p)
	}
}

// A mask of isolated pixels is as many components as there can be: more than are kept, and more than labels are.
func TestComponentsOfNoise(t *testing.T) {
	m := vision.NewMask(400, 200)
	p := &vision.Prob{W: m.W, H: m.H, C: 1, P: make([]float32, m.W*m.H)}
	for y := 0; y < m.H; y += 2 {
		for x := 0; x < m.W; x += 2 {
			m.Pix[y*m.W+x] = 1
		}
	}
	copy(m.Pix[150*m.W+10:], []byte{1, 1, 1, 1, 1, 1}) // and a larger one, found late
	compare(t, "noise", m, p)
}

func compare(t *testing.T, name string, m *vision.Mask, p *vision.Prob) {
	t.Helper()
	got := measure(m, p, nil, &secateurv1.SegmentOptions{Components: true})
	var s []string
	for _, c := range got.components {
		s = append(s, fmt.Sprintf("%d at %d,%d to %d,%d area %d confidence %.4f", c.ClassIndex, c.Box.X, c.Box.Y,
			c.Box.X+c.Box.Width, c.Box.Y+c.Box.Height, c.Area, c.MeanConfidence))
	}
	if want := flood(m, p); !slices.Equal(s, want) {
		t.Fatalf("%s, %d x %d: got %d components, want %d:\n%.500s\n%.500s", name, m.W, m.H, len(s), len(want), s, want)
	}
	for _, c := range got.classes {
		if int(c.Area) != m.Area(int(c.Index)) {
			t.Fatalf("%s: area %d of class %d, want %d", name, c.Area, c.Index, m.Area(int(c.Index)))
		}
	}
}
