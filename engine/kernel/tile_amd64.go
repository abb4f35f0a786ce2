//go:build !noasm

package kernel

import "github.com/secateur/secateur/engine/kernel/isa"

//go:generate sh -c "cd _asm && go run . -out ../tile_amd64.s -pkg kernel -table ../tiles_amd64.go"

// microFloat32 is the assembly of a level, nil for Generic.
func microFloat32(l isa.Level) *micro[float32] {
	switch l {
	case isa.AVX512:
		return &micro[float32]{
			16, tilesAVX512, pairTilesAVX512, columnsAVX512, zip2Blocks, padRowsAVX2, unzipRowsAVX2, maxHalvesAVX512, depthsAVX512,
			wino[float32]{
				in:  [2][2]func(*winoInCall[float32]){{winoInAVX512, winoInEdgeAVX512}, {winoInBalancedAVX512, winoInBalancedEdgeAVX512}},
				up:  [2]func(*winoInCall[float32]){winoInUpAVX512, winoInUpEdgeAVX512},
				out: [2][2]func(*winoOutCall[float32]){{winoOutAVX512, winoOutEdgeAVX512}, {winoOutBalancedAVX512, winoOutBalancedEdgeAVX512}},
				mul: winoMulsAVX512, add: winoAddsAVX512, weights: winoWeightsAVX512,
				wide: [2]func(*winoInCall[float32]){winoInWideAVX512, winoInWideBalancedAVX512}, wideMasks: true,
			},
		}
	case isa.AVX2:
		return &micro[float32]{
			8, tilesAVX2, pairTilesAVX2, columnsAVX2, zip2Blocks, padRowsAVX2, unzipRowsAVX2, maxHalvesAVX2, depthsAVX2,
			wino[float32]{
				in:  [2][2]func(*winoInCall[float32]){{winoInAVX2, winoInEdgeAVX2}, {winoInBalancedAVX2, winoInBalancedEdgeAVX2}},
				up:  [2]func(*winoInCall[float32]){winoInUpAVX2, winoInUpEdgeAVX2},
				out: [2][2]func(*winoOutCall[float32]){{winoOutAVX2, winoOutEdgeAVX2}, {winoOutBalancedAVX2, winoOutBalancedEdgeAVX2}},
				mul: winoMulsAVX2, add: winoAddsAVX2, weights: winoWeightsAVX2,
				wide: [2]func(*winoInCall[float32]){winoInWideAVX2, winoInWideBalancedAVX2}, wideMasks: false,
			},
		}
	}
	return nil
}

func zip2Blocks(dst, a, b []float32) int {
	n := min(len(a), len(b), len(dst)/2) / 8
	if n > 0 {
		zip2AVX2(&dst[0], &a[0], &b[0], int64(n))
	}
	return n * 8
}

// vectorsFor is the loops over elements of a level, nil for Generic.
func vectorsFor(l isa.Level) *vectors {
	switch l {
	case isa.AVX512:
		return vectorsAVX512
	case isa.AVX2:
		return vectorsAVX2
	}
	return nil
}
