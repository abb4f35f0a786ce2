package kernel

import "testing"

// Check passes what can be computed and names what cannot.
func TestCheck(t *testing.T) {
	good := same(8, 8, 16, 3, 1, 2)
	if err := good.Check(); err != nil {
		t.Fatalf("Check(%+v) = %v, want nil", good, err)
	}
	for name, spoil := range map[string]func(s *ConvShape){
		"groups": func(s *ConvShape) { s.Group = 3 }, "stride": func(s *ConvShape) { s.StrideW = 0 },
		"padding": func(s *ConvShape) { s.PadLeft = -1 }, "huge padding": func(s *ConvShape) { s.PadTop = 1 << 40 },
		"huge dilation": func(s *ConvShape) { s.DilW = 1 << 60 }, "kernel": func(s *ConvShape) { s.KH = 0 },
	} {
		s := good
		spoil(&s)
		if s.Check() == nil {
			t.Errorf("%s: Check(%+v) = nil, want an error", name, s)
		}
	}
}
