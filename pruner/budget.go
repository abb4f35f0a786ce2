package pruner

import (
	"container/heap"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/secateur/secateur/engine"
	"github.com/secateur/secateur/engine/graph"
	"github.com/secateur/secateur/pruner/group"
)

// Target is how much to remove.
type Target struct {
	Kind     string  // macs, params or filters
	Fraction float64 // in (0,1): the part to remove
}

// String is the form that ParseTarget reads.
func (t Target) String() string { return t.Kind + "=" + strconv.FormatFloat(t.Fraction, 'g', -1, 64) }

// ParseTarget reads "macs=0.5", "params=30%" or "filters=0.4": what to count and the part of it to remove.
func ParseTarget(s string) (Target, error) {
	const want = "want macs=F, params=F or filters=F with F the part to remove, as in macs=0.4"
	kind, value, ok := strings.Cut(strings.TrimSpace(s), "=")
	if !ok {
		return Target{}, fmt.Errorf("target %q: %s", s, want)
	}
	percent := strings.HasSuffix(value, "%")
	f, err := strconv.ParseFloat(strings.TrimSuffix(value, "%"), 64)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %q is not a number; %s", s, value, want)
	}
	if percent {
		f /= 100
	}
	t := Target{Kind: strings.ToLower(strings.TrimSpace(kind)), Fraction: f}
	return t, t.check()
}

func (t Target) check() error {
	switch t.Kind {
	case "macs", "params", "filters":
	case "":
		return fmt.Errorf("no target is set: say macs, params or filters, and the part to remove")
	default:
		return fmt.Errorf("target %q: %q cannot be counted; there are macs, params and filters", t, t.Kind)
	}
	if !(t.Fraction > 0 && t.Fraction < 1) {
		return fmt.Errorf("target %q: the part to remove must lie between 0 and 1", t)
	}
	return nil
}

// axis is one sliced axis of a weight tensor.
type axis struct {
	kept int
}

// weight is a constant that a cut makes smaller. Its elements after a cut are the product of what stays of each axis.
type weight struct {
	rest   int64 // product of the axes that no class slices
	axes   []axis
	params int64 // 1 if it counts as parameters, 0 if it was counted before
	macs   int64 // multiply-adds for each element
}

func (w *weight) elems() int64 {
	n := w.rest
	for _, a := range w.axes {
		n *= int64(a.kept)
	}
	return n
}

// touch is what removing a class does to an axis of a weight.
type touch struct{ weight, axis, count int }

// costs follows parameters, multiply-adds and filters through a series of removals. The figures are exact for graphs
// whose shared constants are cut alike; the multiply-adds of a node are those for each element of its weights times
// their number, which slicing leaves as it is.
type costs struct {
	weights []weight
	touches map[int][]touch // by class
	filters map[int]int64   // by class: channels of layers that go with it
	params  int64
	macs    int64
	count   int64 // filters that are there
}

func newCosts(a *group.Analysis, base engine.Cost) *costs {
	c := &costs{touches: map[int][]touch{}, filters: map[int]int64{}, params: base.Parameters, macs: base.MACs}
	type place struct {
		n     *graph.Node
		input int
	}
	at := map[place]int{}
	counted := map[*graph.Value]bool{}
	for _, s := range a.Slices {
		v := s.Node.Inputs[s.Input]
		t := group.WeightTensor(v)
		if t == nil {
			continue
		}
		p := place{s.Node, s.Input}
		i, ok := at[p]
		if !ok {
			i = len(c.weights)
			at[p] = i
			w := weight{rest: int64(t.Elems())}
			if v.Const != nil && v.Const.DType.IsFloat() && !counted[v] {
				w.params, counted[v] = 1, true
			}
			if m := base.Nodes[s.Node].MACs; s.Input == 1 && m > 0 && w.rest > 0 {
				w.macs = m / w.rest
			}
			c.weights = append(c.weights, w)
		}
		w := &c.weights[i]
		w.rest /= int64(len(s.Class))
		w.axes = append(w.axes, axis{len(s.Class)})
		n := map[int]int{}
		for _, id := range s.Class {
			if id >= 0 {
				n[id]++
			}
		}
		for id, k := range n {
			c.touches[id] = append(c.touches[id], touch{i, len(w.axes) - 1, k})
		}
	}
	for _, l := range a.Layers() {
		if l.Follows {
			continue
		}
		c.count += int64(l.Channels)
		for _, id := range l.Class {
			if id >= 0 {
				c.filters[id]++
			}
		}
	}
	return c
}

// remove takes class id away (sign 1), or puts it back (sign -1).
func (c *costs) remove(id int, sign int) {
	for _, t := range c.touches[id] {
		w := &c.weights[t.weight]
		before := w.elems()
		w.axes[t.axis].kept -= sign * t.count
		less := before - w.elems()
		c.params -= less * w.params
		c.macs -= less * w.macs
	}
	c.count -= int64(sign) * c.filters[id]
}

// of is the figure that a target counts.
func (c *costs) of(kind string) int64 {
	switch kind {
	case "macs":
		return c.macs
	case "params":
		return c.params
	}
	return c.count
}

// saved is by how much the figure would fall without these classes.
func (c *costs) saved(ids []int, kind string) int64 {
	before := c.of(kind)
	for _, id := range ids {
		c.remove(id, 1)
	}
	after := c.of(kind)
	for _, id := range ids {
		c.remove(id, -1)
	}
	return before - after
}

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
	for _, s := range a.Slices {
		keep(s.Class, 1)
	}
	for _, c := range a.Counts {
		if !c.Start() {
			keep(c.Class[:c.Of], 1)
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

// choose returns the smallest set of classes whose removal reaches the target, the least important for what they save
// first. It is a greedy walk in which savings are computed anew as the model shrinks, and a walk back that keeps
// whatever the target does not need.
func choose(a *group.Analysis, importance map[int]float64, base engine.Cost, b budget) (map[int]bool, error) {
	c, f := newCosts(a, base), newFloor(a, b.least)
	opt, kind, from, goal := b.opt, b.opt.Target.Kind, b.from, b.goal
	us := units(a, importance, f, max(opt.Round, 1))
	rank := func(u *unit) float64 {
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
		return nil, fmt.Errorf("target %v cannot be reached: at most %.1f %% of the %s can be removed with at least %g %% and %d channels of each layer kept; %d of %d channel classes are pinned",
			opt.Target, 100*(1-float64(c.of(kind))/float64(max(from, 1))), kind, math.Round(100*(1-opt.MaxLayer)), max(opt.MinChannels, 1), len(a.Classes)-len(a.Free()), len(a.Classes))
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

// back is by how much the figure would rise with these classes put back.
func (c *costs) back(ids []int, kind string) int64 {
	before := c.of(kind)
	for _, id := range ids {
		c.remove(id, -1)
	}
	after := c.of(kind)
	for _, id := range ids {
		c.remove(id, 1)
	}
	return after - before
}
