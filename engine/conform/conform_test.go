package conform

import (
	"os"
	"testing"
)

// TestNodeTests: nothing in ONNX's own tests fails. What is unsupported is listed with -v.
func TestNodeTests(t *testing.T) {
	dir := os.Getenv("SECATEUR_NODE_TESTS")
	if dir == "" {
		t.Skip("set SECATEUR_NODE_TESTS to a tree of ONNX node tests")
	}
	r, err := Run(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cases {
		switch c.Status {
		case Fail:
			t.Errorf("%s: %s", c.Name, c.Reason)
		case Unsupported:
			t.Logf("%s: %s: %s", c.Name, c.Status, c.Reason)
		}
	}
	t.Logf("pass %d, fail %d, unsupported %d", r.Totals.Pass, r.Totals.Fail, r.Totals.Unsupported)
}
