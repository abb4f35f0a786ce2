package onnx_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/engine/onnx"
	"github.com/secateur/secateur/engine/onnx/internal/onnxpb"
	"github.com/secateur/secateur/engine/tensor"
)

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// external is a model whose one initializer, uint8[4], lies where kv says.
func external(t *testing.T, kv ...string) []byte {
	p := &onnxpb.TensorProto{Name: proto.String("w"), Dims: []int64{4}, DataType: proto.Int32(int32(tensor.Uint8)), DataLocation: onnxpb.TensorProto_EXTERNAL.Enum()}
	for i := 0; i < len(kv); i += 2 {
		p.ExternalData = append(p.ExternalData, &onnxpb.StringStringEntryProto{Key: &kv[i], Value: &kv[i+1]})
	}
	return encode(t, &onnxpb.ModelProto{
		IrVersion: proto.Int64(8), OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: proto.Int64(17)}},
		Graph: &onnxpb.GraphProto{Initializer: []*onnxpb.TensorProto{p}},
	})
}

func TestExternalDataStaysInItsFolder(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "model")
	for _, d := range []string{dir, filepath.Join(dir, "sub")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(top, "secret"), []byte("secret!!"))
	write(t, filepath.Join(dir, "data"), []byte("01234567"))
	write(t, filepath.Join(dir, "sub", "data"), []byte("01234567"))
	for link, to := range map[string]string{"out": "../secret", "abs": filepath.Join(top, "secret"), "up": "..", "in": "data"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	type kv = []string
	for _, c := range []struct {
		name, want string
		kv         kv
	}{
		{"whole", "0123", kv{"location", "data"}},
		{"part", "2345", kv{"location", "data", "offset", "2", "length", "4"}},
		{"end", "4567", kv{"location", "data", "offset", "4", "checksum", "x", "other", "y"}},
		{"folder inside", "0123", kv{"location", "sub/data"}},
		{"there and back", "0123", kv{"location", "sub/../data"}},
		{"link inside", "0123", kv{"location", "in"}},
		{"no location", "", nil},
		{"empty location", "", kv{"location", ""}},
		{"absent", "", kv{"location", "nothing"}},
		{"above", "", kv{"location", "../secret"}},
		{"above by a detour", "", kv{"location", "sub/../../secret"}},
		{"absolute", "", kv{"location", filepath.Join(top, "secret")}},
		{"link out", "", kv{"location", "out"}},
		{"absolute link out", "", kv{"location", "abs"}},
		{"folder link out", "", kv{"location", "up/secret"}},
		{"a folder", "", kv{"location", "sub"}},
		{"nul", "", kv{"location", "data\x00"}},
		{"offset past the end", "", kv{"location", "data", "offset", "9"}},
		{"end past the end", "", kv{"location", "data", "offset", "5"}},
		{"negative offset", "", kv{"location", "data", "offset", "-1"}},
		{"offset overflows", "", kv{"location", "data", "offset", "9223372036854775807"}},
		{"offset is no number", "", kv{"location", "data", "offset", "four"}},
		{"length too short", "", kv{"location", "data", "length", "3"}},
		{"length too long", "", kv{"location", "data", "length", "8"}},
		{"negative length", "", kv{"location", "data", "length", "-1"}},
	} {
		g, err := onnx.Decode(external(t, c.kv...), onnx.Options{Dir: dir})
		switch {
		case err != nil && c.want == "":
			if strings.Contains(err.Error(), "secret!!") {
				t.Errorf("%s: the error tells the secret: %v", c.name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "":
			t.Errorf("%s: no error, read %q", c.name, g.Inits[0].Const.Data)
		case string(g.Inits[0].Const.Data) != c.want:
			t.Errorf("%s: read %q, want %q", c.name, g.Inits[0].Const.Data, c.want)
		}
	}
	if _, err := onnx.Decode(external(t, "location", "data"), onnx.Options{}); err == nil {
		t.Error("no folder given: no error")
	}
	b := external(t, "location", "data")
	if _, err := onnx.Decode(b, onnx.Options{Dir: dir, MaxBytes: int64(len(b)) + 3}); err == nil {
		t.Error("external data beyond MaxBytes: no error")
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	g := tiny()
	big := &graph.Value{Name: "big", Const: tensor.New(tensor.Float32, 1000)}
	bigger := &graph.Value{Name: "bigger", Const: tensor.New(tensor.Float16, 5000)}
	for i := range big.Const.Data {
		big.Const.Data[i] = byte(i)
	}
	bigger.Const.Data[9999] = 7
	g.Inits = append(g.Inits, big, bigger)
	path := filepath.Join(dir, "m.onnx")
	for _, ext := range []onnx.External{{}, {Location: "m.data"}, {Location: "m.data", Threshold: 1}, {Location: "m.data", Threshold: 1 << 30}} {
		if err := onnx.WriteFile(path, g, ext); err != nil {
			t.Fatal(err)
		}
		h, err := onnx.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := graph.Diff(g, h); err != nil {
			t.Errorf("%+v: %v", ext, err)
		}
		wantExternal := ext.Location != "" && ext.Threshold <= 4000
		if (h.Inits[1].External != nil) != wantExternal {
			t.Errorf("%+v: external is %+v, want %t", ext, h.Inits[1].External, wantExternal)
		}
		if err := roundTrip(h); err != nil { // back inline
			t.Errorf("%+v: %v", ext, err)
		}
	}
	for _, loc := range []string{"../m.data", "/m.data", "sub/m.data", "m.onnx", ".."} {
		if err := onnx.WriteFile(path, g, onnx.External{Location: loc}); err == nil {
			t.Errorf("external data in %q: no error", loc)
		}
	}
	g.IR = 99
	if err := onnx.WriteFile(path, g, onnx.External{}); err == nil {
		t.Error("IR version 99: no error")
	}
	if _, err := onnx.ReadFile(path); err != nil {
		t.Errorf("what was there is gone after an error: %v", err)
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 2 {
		t.Errorf("%v, %v are left, want m.onnx and m.data", es, err)
	}
}

// allocated is how many bytes f asks for.
func allocated(f func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}
