package vision

import "fmt"

// Metrics compares a predicted mask with the truth, pixel by pixel. With TP, FP, FN, TN the counts of pixels:
// Dice 2TP/(2TP+FP+FN), IoU TP/(TP+FP+FN), Sensitivity TP/(TP+FN), Specificity TN/(TN+FP).
// A ratio 0/0 is 1: nothing was to be found (or to be left alone), and nothing went wrong.
type Metrics struct {
	Dice, IoU, Sensitivity, Specificity float64
	Empty                               bool // the truth has no pixel: Dice says only whether the prediction has one
}

// Compare judges pred against truth; both must have the same size, else it panics. Any index other than 0 counts as found; with several
// classes a pixel is right where the indices agree, and a wrong class is both missed and false.
func Compare(pred, truth *Mask) Metrics {
	if pred.W != truth.W || pred.H != truth.H {
		panic(fmt.Sprintf("vision: comparing a mask of %d x %d with one of %d x %d", pred.W, pred.H, truth.W, truth.H))
	}
	var tp, fp, fn, tn int
	for i, p := range pred.Pix {
		switch t := truth.Pix[i]; {
		case p == t && t == 0:
			tn++
		case p == t:
			tp++
		default:
			if p != 0 {
				fp++
			}
			if t != 0 {
				fn++
			}
		}
	}
	ratio := func(a, b int) float64 {
		if b == 0 {
			return 1
		}
		return float64(a) / float64(b)
	}
	return Metrics{
		Dice:        ratio(2*tp, 2*tp+fp+fn),
		IoU:         ratio(tp, tp+fp+fn),
		Sensitivity: ratio(tp, tp+fn),
		Specificity: ratio(tn, tn+fp),
		Empty:       tp+fn == 0,
	}
}
