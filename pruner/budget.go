package pruner

import (
	"container/heap"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/secateur/secateur/pruner/group"
)

// unit is what selection removes at once: one class, or as many of like classes as rounding asks for.
type unit struct {
	ids        []int
	importance float64
	rank       float64 // importance for each thing saved, when it was last computed
	family     int
	order      int // within its family
}

// queue is a heap of units, the least worth keeping first; ties go by the number of the class.
type queue []*unit

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	return q[i].rank < q[j].rank || q[i].rank == q[j].rank && q[i].ids[0] < q[j].ids[0]
}

func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(*unit)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	u := old[len(old)-1]
	*q = old[:len(old)-1]
	return u
}

// floor is how many channels each layer keeps at least. What reads channels, and what takes a part of them, keeps one.
type floor struct {
	kept  []int
	least []int
	of    map[int]map[int]int // by class: channels by layer
	// The first so many are layers; what follows are places that read channels.
	layers int
}

func newFloor(a *group.Analysis, least map[string]int) *floor {
	f := &floor{of: map[int]map[int]int{}}
	keep := func(class []int, least int) {
		for _, id := range class {
			if id < 0 {
				continue
			}
			if f.of[id] == nil {
				f.of[id] = map[int]int{}
			}
			f.of[id][len(f.kept)]++
		}
		f.kept, f.least = append(f.kept, len(class)), append(f.least, least)
	}
	for _, l := range a.Layers() {
		keep(l.Class, max(least[l.Node.Outputs[0].Name], 1))
	}
	f.layers = len(f.kept)
	for _, s := range a.Slices {
		keep(s.Class, 1)
	}
	for _, p := range a.Picks {
		keep(p.Takes, 1)
	}
	for _, c := range a.Counts {
		if c.From < c.Of {
			keep(c.Class[c.From:c.Of], 1)
		}
	}
	return f
}

func (f *floor) add(ids []int, sign int) {
	for _, id := range ids {
		for l, n := range f.of[id] {
			f.kept[l] += sign * n
		}
	}
}

// largest is how many channels the largest layer of ids still has.
func (f *floor) largest(ids []int) int {
	n := 0
	for _, id := range ids {
		for l := range f.of[id] {
			if l < f.layers {
				n = max(n, f.kept[l])
			}
		}
	}
	return n
}

// allows reports whether every layer keeps enough without ids.
func (f *floor) allows(ids []int) bool {
	f.add(ids, -1)
	ok := true
	for _, id := range ids {
		for l := range f.of[id] {
			ok = ok && f.kept[l] >= f.least[l]
		}
	}
	f.add(ids, 1)
	return ok
}

// units makes what can be removed at once, family by family: classes of the same layers, the least important first.
func units(a *group.Analysis, importance map[int]float64, f *floor, round int) []*unit {
	families := map[string][]int{}
	var keys []string
	for _, id := range a.Free() {
		var ls []int
		for l := range f.of[id] {
			ls = append(ls, l)
		}
		if len(ls) == 0 {
			continue
		}
		slices.Sort(ls)
		k := fmt.Sprint(ls)
		if families[k] == nil {
			keys = append(keys, k)
		}
		families[k] = append(families[k], id)
	}
	var us []*unit
	for fam, k := range keys {
		ids := families[k]
		slices.SortStableFunc(ids, func(x, y int) int {
			switch {
			case importance[x] < importance[y]:
				return -1
			case importance[x] > importance[y]:
				return 1
			}
			return x - y
		})
		first := len(ids) % round // what is over makes the first step, then whole blocks follow
		for order := 0; len(ids) > 0; order++ {
			n := min(round, len(ids))
			if order == 0 && first > 0 {
				n = first
			}
			u := &unit{ids: ids[:n], family: fam, order: order}
			for _, id := range u.ids {
				u.importance += importance[id]
			}
			us, ids = append(us, u), ids[n:]
		}
	}
	return us
}

// budget is what a choice has to keep to.
type budget struct {
	opt   Options
	from  int64          // the target's figure for the original
	goal  int64          // what of it may be left
	least map[string]int // the fewest channels of each layer, by the name of its output
}

// ErrUnreachable is wrapped by the error of a target that asks for more than can be removed.
var ErrUnreachable = errors.New("cannot be reached")

// ease says what lets more go.
func ease(opt Options) string {
	s := "Ask for less, or let more of a layer go (--max-layer)"
	if opt.Round > 1 {
		s += fmt.Sprintf("; widths are multiples of %d (--round)", opt.Round)
	}
	if opt.Keep != nil {
		s += fmt.Sprintf("; what %v matches is kept (--keep)", opt.Keep)
	}
	return s
}

// choose returns the smallest set of classes whose removal reaches the target, the least important for what they save
// first. It is a greedy walk in which savings are computed anew as the model shrinks, and a walk back that keeps
// whatever the target does not need.
// It leaves c counting the result.
func choose(a *group.Analysis, importance map[int]float64, c *costs, b budget) (map[int]bool, error) {
	f := newFloor(a, b.least)
	opt, kind, from, goal := b.opt, b.opt.Target.counts(), b.from, b.goal
	us := units(a, importance, f, max(opt.Round, 1))
	own := criteria[opt.Criterion].rank
	rank := func(u *unit) float64 {
		if own != nil {
			return own(u, f)
		}
		if kind == "filters" {
			return u.importance
		}
		s := c.saved(u.ids, kind)
		if s <= 0 {
			return math.Inf(1)
		}
		return u.importance / float64(s)
	}
	q := queue(us)
	for _, u := range us {
		u.rank = rank(u)
	}
	heap.Init(&q)
	var taken []*unit
	removed := map[int]bool{}
	for c.of(kind) > goal && len(q) > 0 {
		u := heap.Pop(&q).(*unit)
		if now := rank(u); now > u.rank { // the model has shrunk since, and the unit saves less
			u.rank = now
			if len(q) > 0 && now > q[0].rank {
				heap.Push(&q, u)
				continue
			}
		}
		if !f.allows(u.ids) {
			continue
		}
		f.add(u.ids, -1)
		for _, id := range u.ids {
			c.remove(id, 1)
			removed[id] = true
		}
		taken = append(taken, u)
	}
	if c.of(kind) > goal {
		return nil, fmt.Errorf("target %v %w: at most %.1f %% of the %s can be removed with at least %g %% and %d channels of each layer kept; %d of %d channel classes are pinned. %s",
			opt.Target, ErrUnreachable, 100*(1-float64(c.of(kind))/float64(max(from, 1))), kind, math.Round(100*(1-opt.MaxLayer)), max(opt.MinChannels, 1), len(a.Classes)-len(a.Free()), len(a.Classes), ease(opt))
	}
	lastOfFamily := map[int]int{}
	for i := len(taken) - 1; i >= 0; i-- {
		u := taken[i]
		if o, ok := lastOfFamily[u.family]; ok && o > u.order && max(opt.Round, 1) > 1 {
			continue // a block in the middle of its family would leave an odd number
		}
		if c.of(kind)+c.back(u.ids, kind) <= goal {
			for _, id := range u.ids {
				c.remove(id, -1)
				delete(removed, id)
			}
			f.add(u.ids, 1)
			continue
		}
		lastOfFamily[u.family] = u.order
	}
	return removed, nil
}
