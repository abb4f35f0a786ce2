package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/secateur/secateur/engine/kernel/isa"
	"github.com/secateur/secateur/engine/kernel/kerneltest"
)

var layers = []struct {
	name string
	s    ConvShape
	up   bool
}{
	{"unet/3x3/3-16@256", same(3, 16, 256, 3, 1, 1), false},
	{"unet/3x3/16-16@256", same(16, 16, 256, 3, 1, 1), false},
	{"unet/3x3/32-16@256", same(32, 16, 256, 3, 1, 1), false},
	{"unet/3x3/32-32@128", same(32, 32, 128, 3, 1, 1), false},
	{"unet/3x3/64-64@64", same(64, 64, 64, 3, 1, 1), false},
	{"unet/3x3/128-128@32", same(128, 128, 32, 3, 1, 1), false},
	{"unet/3x3/256-256@16", same(256, 256, 16, 3, 1, 1), false},
	{"unet/3x3/61-59@64", same(61, 59, 64, 3, 1, 1), false},
	{"unet/up/32-16@128", up(32, 16, 128), true},
	{"unet/up/64-32@64", up(64, 32, 64), true},
	{"unet/up/256-128@16", up(256, 128, 16), true},
	{"unet/up/128-64@128", up(128, 64, 128), true},
	{"unet/up/256-128@64", up(256, 128, 64), true},
	{"unet/up/512-256@32", up(512, 256, 32), true},
	{"unet/up/1024-512@16", up(1024, 512, 16), true},
	{"unet/up/128-64@176", up(128, 64, 176), true},
	{"gan/up4/16-8@128", up4(16, 8, 128), true},
	{"gan/up4/32-16@128", up4(32, 16, 128), true},
	{"gan/up4/64-32@64", up4(64, 32, 64), true},
	{"gan/up4/256-128@16", up4(256, 128, 16), true},
	{"unet/head/16-1@256", same(16, 1, 256, 1, 1, 1), false},
	{"lite/first/3-32@256s2", same(3, 32, 256, 3, 2, 1), false},
	{"lite/dw3/32@128", same(32, 32, 128, 3, 1, 32), false},
	{"lite/dw3/96@128s2", same(96, 96, 128, 3, 2, 96), false},
	{"lite/dw5/240@32", same(240, 240, 32, 5, 1, 240), false},
	{"lite/dw5/672@16", same(672, 672, 16, 5, 1, 672), false},
	{"lite/dw3/1152@8", same(1152, 1152, 8, 3, 1, 1152), false},
	{"convnext/dw7/96@56", same(96, 96, 56, 7, 1, 96), false},
	{"convnext/dw7/192@28", same(192, 192, 28, 7, 1, 192), false},
	{"convnext/dw7/384@14", same(384, 384, 14, 7, 1, 384), false},
	{"convnext/dw7/768@7", same(768, 768, 7, 7, 1, 768), false},
	{"convnext/dw7/96@128", same(96, 96, 128, 7, 1, 96), false},
	{"convnext/dw7/96@128s2", same(96, 96, 128, 7, 2, 96), false},
	{"lite/1x1/16-96@128", same(16, 96, 128, 1, 1, 1), false},
	{"lite/1x1/96-24@64", same(96, 24, 64, 1, 1, 1), false},
	{"lite/1x1/24-144@64", same(24, 144, 64, 1, 1, 1), false},
	{"lite/1x1/240-80@16", same(240, 80, 16, 1, 1, 1), false},
	{"lite/1x1/672-112@16", same(672, 112, 16, 1, 1, 1), false},
	{"lite/1x1/192-1152@8", same(192, 1152, 8, 1, 1, 1), false},
	{"lite/1x1/1152-192@8", same(1152, 192, 8, 1, 1, 1), false},
	{"lite/1x1/96-24@64", same(96, 24, 64, 1, 1, 1), false},
	{"lite/1x1/112-672@16", same(112, 672, 16, 1, 1, 1), false},
	{"lite/3x3/144-64@32", same(144, 64, 32, 3, 1, 1), false},
	{"lite/se/48-1152@1", same(48, 1152, 1, 1, 1, 1), false},
	{"same/3x3/320-64@8", same(320, 64, 8, 3, 1, 1), false},
	{"same/3x3/64-64@22", same(64, 64, 22, 3, 1, 1), false},
	{"same/3x3/64-64@88", same(64, 64, 88, 3, 1, 1), false},
}

// BenchmarkLayer is GFLOP/s and the share of the measured peak, by layer and cores.
func BenchmarkLayer(b *testing.B) {
	peak := 2 * Peak()
	for _, cores := range []int{1, 2} {
		p := NewPool(cores)
		for _, l := range layers {
			b.Run(fmt.Sprintf("%s/cores=%d", l.name, cores), func(b *testing.B) {
				s := l.s
				flop := 2 * float64(s.N*s.M*s.C/s.Group*s.KH*s.KW) * float64(s.OH*s.OW)
				if l.up {
					flop = 2 * float64(s.N*s.M*s.C/s.Group*s.KH*s.KW) * float64(s.H*s.W)
				}
				// Written, not only made: memory never written is one page of zeros, which is always in the cache.
				rnd := rand.New(rand.NewPCG(1, 1))
				w := kerneltest.New[float32](s.C*s.M/s.Group*s.KH*s.KW, 0, 0).Random(rnd).V
				x := kerneltest.New[float32](s.N*s.C*s.H*s.W, 0, 0).Random(rnd).V
				var k binder[float32]
				if l.up {
					k = NewConvTranspose(s, w, nil, NoClamp)
				} else {
					k = NewConv(s, w, nil, NoClamp)
				}
				n := k.Scratch(cores)
				f := k.BindFinish(p, nil, make([]float32, n+256)[:n], make([]float32, s.N*s.M*s.OH*s.OW+256), x)
				f()
				b.ResetTimer()
				for range b.N {
					f()
				}
				rate := flop * float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(rate/1e9, "GFLOP/s")
				b.ReportMetric(100*rate/peak/float64(cores), "%peak")
			})
		}
	}
}

// squares is 3x3 convolutions of U-Nets: of base 16, 32 and 64 at 256x256, and pruned to odd numbers of channels.
var squares = [][3]int{
	{16, 16, 256}, {32, 32, 128}, {64, 64, 64}, {128, 128, 32}, {256, 256, 16},
	{64, 64, 256}, {128, 128, 128}, {256, 256, 64}, {512, 512, 32}, {128, 64, 256},
	{10, 10, 256}, {17, 17, 128}, {33, 33, 64}, {3, 16, 256}, {3, 64, 256}, {8, 8, 256}, {32, 16, 256},
}

// BenchmarkForm is the forms of a convolution beside each other, in GFLOP/s and share of the measured peak. The
// operations of Winograd count as those that it replaces.
func BenchmarkForm(b *testing.B) {
	peak := 2 * Peak()
	for _, cores := range []int{1, 2} {
		p := NewPool(cores)
		for _, q := range squares {
			s := same(q[0], q[1], q[2], 3, 1, 1)
			rnd := rand.New(rand.NewPCG(1, 1))
			w := kerneltest.New[float32](s.C*s.M*9, 0, 0).Random(rnd).V
			x := kerneltest.New[float32](s.C*s.H*s.W, 0, 0).Random(rnd).V
			y := make([]float32, s.M*s.OH*s.OW+256)
			for f, name := range map[form]string{direct: "direct", winogradF4: "F4"} {
				b.Run(fmt.Sprintf("%d-%d@%d/%s/cores=%d", q[0], q[1], q[2], name, cores), func(b *testing.B) {
					c := newConv(isa.Best(), f, s, w, nil, NoClamp)
					n := c.Scratch(cores)
					run := c.Bind(p, make([]float32, n+256)[:n], y, x)
					run()
					b.ResetTimer()
					for range b.N {
						run()
					}
					rate := 2 * float64(s.M*s.C*9*s.OH*s.OW) * float64(b.N) / b.Elapsed().Seconds()
					b.ReportMetric(rate/1e9, "GFLOP/s")
					b.ReportMetric(100*rate/peak/float64(cores), "%peak")
				})
			}
		}
	}
}

// BenchmarkMatMul is square and thin products.
func BenchmarkMatMul(b *testing.B) {
	p := NewPool(2)
	for _, d := range [][3]int{{1, 1280, 1000}, {64, 256, 256}, {512, 512, 512}} {
		m, k, n := d[0], d[1], d[2]
		b.Run(fmt.Sprintf("%dx%dx%d", m, k, n), func(b *testing.B) {
			s := ScratchAB(2, m, k, n)
			f := MatMulAB(p, m, k, n, make([]float32, s+256), make([]float32, m*n+256), make([]float32, m*k+256), make([]float32, k*n+256))
			for range b.N {
				f()
			}
			b.ReportMetric(2*float64(m*k*n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

// BenchmarkOdd is 3x3 convolutions pruned to odd numbers of channels beside their dense selves, in turns: the share of the
// time that is left, of the multiply-adds, and of the channels, which is what the transforms cost by.
func BenchmarkOdd(b *testing.B) {
	p := NewPool(1)
	for _, q := range [][3]int{{16, 10, 256}, {24, 17, 128}, {48, 33, 64}} {
		b.Run(fmt.Sprintf("%d-%d@%d", q[0], q[1], q[2]), func(b *testing.B) {
			var run [2]func()
			var took [2]time.Duration
			for i := range run {
				s := same(q[i], q[i], q[2], 3, 1, 1)
				rnd := rand.New(rand.NewPCG(1, 1))
				w := kerneltest.New[float32](s.C*s.M*9, 0, 0).Random(rnd).V
				x := kerneltest.New[float32](s.C*s.H*s.W, 0, 0).Random(rnd).V
				k := NewConv(s, w, nil, NoClamp)
				n := k.Scratch(1)
				run[i] = k.Bind(p, make([]float32, n+256)[:n], make([]float32, s.M*s.OH*s.OW+256), x)
			}
			for range b.N {
				for i, f := range run {
					t := time.Now()
					f()
					took[i] += time.Since(t)
				}
			}
			c := float64(q[1]) / float64(q[0])
			b.ReportMetric(100*took[1].Seconds()/took[0].Seconds(), "%time")
			b.ReportMetric(100*c*c, "%MACs")
			b.ReportMetric(100*c, "%channels")
		})
	}
}
