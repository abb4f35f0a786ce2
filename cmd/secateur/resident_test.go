//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/deploy/models"
	"github.com/secateur/secateur/engine/vision/phantom"
)

// asProgram makes the test binary run the program: a process of its own, whose memory can be measured.
const asProgram = "SECATEUR_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func program(b *testing.B, args ...string) *exec.Cmd {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// BenchmarkServeResident reports the largest resident memory of a server as it is by default, with both built-in models,
// after 200 requests of 4 clients at a time. As many of them compute at once as there are cores; --max-inflight 4 takes
// two sessions of 17 MB more on 2 cores.
func BenchmarkServeResident(b *testing.B) {
	img, _ := phantom.Draw(1, 0)
	frame, err := pngBytes(rgba(img))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		cmd := program(b, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--models", b.TempDir(), "--log", "error")
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		_, rest, ok := strings.Cut(line, "gRPC on ")
		addr, _, ok2 := strings.Cut(rest, ",")
		if err != nil || !ok || !ok2 {
			b.Fatalf("no address in %q (%v)", line, err)
		}
		segmentMany(b, addr, frame, 4, 50)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		var kib float64
		if _, err := fmt.Sscan(field(string(status), "VmHWM"), &kib); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(kib*1024/1e6, "MB-resident")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			b.Fatalf("serve: %v", err)
		}
	}
}

// segmentMany sends n frames from each of several clients.
func segmentMany(b *testing.B, addr string, frame []byte, clients, n int) {
	b.Helper()
	conn, err := (&clientFlags{Addr: addr}).dial()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c := secateurv1.NewSegmentationServiceClient(conn)
			for range n {
				req := &secateurv1.SegmentRequest{Image: &secateurv1.Image{Content: &secateurv1.Image_Encoded{Encoded: frame}}}
				if _, err := c.Segment(context.Background(), req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkPruneResident reports the largest resident memory of a prune of each built-in model with 100 images.
func BenchmarkPruneResident(b *testing.B) {
	dir := b.TempDir()
	if err := (&phantomCmd{Out: dir, N: 100, Seed: 1}).Run(context.Background()); err != nil {
		b.Fatal(err)
	}
	for _, m := range models.All() {
		b.Run(m.Name, func(b *testing.B) {
			in := filepath.Join(b.TempDir(), "in.onnx")
			if err := os.WriteFile(in, m.ONNX, 0o644); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				cmd := program(b, "prune", "--model", in, "--out", filepath.Join(b.TempDir(), "out.onnx"), "--calib", dir, "--target", "macs=0.4", "--json")
				if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != exitNotPassed {
					b.Fatal(err)
				}
				b.ReportMetric(float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)*1024/1e6, "MB-resident")
			}
		})
	}
}
