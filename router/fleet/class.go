package fleet

import (
	"slices"
	"strings"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/placement"
	"paddock/internal/tenant"
)

// firstFew of a tenant's order are remembered with its route: a call asks three controllers at most, and to look at a thousand
// with each call, or to keep a thousand for each tenant, is what a large fleet cannot afford.
const firstFew = 16

// mostClasses are remembered; more of them, since policies can be written without end, are worked out with each call.
const mostClasses = 1000

// classKey is what decides which controllers may run a tenant's code. regions are in the order of preference.
type classKey struct {
	isolation                    tenant.Isolation
	trustClass, runtime, regions string
}

// class is the controllers that may run the code of tenants with the same classKey, region by region in the order of preference.
// Nobody changes one: where the pointer is the same, so is every tenant's order.
type class struct {
	may        [][]*member // each by id
	candidates [][]placement.Candidate
	size       int
}

// classOf returns the controllers that may run a call. Alive or not, full or not: that is asked with each call.
func (f *Fleet) classOf(req *call.Request) *class {
	ms, p := f.members.Load(), req.Policy
	key := classKey{p.Isolation, p.TrustClass, req.Runtime, f.o.Region}
	if len(p.Regions) > 0 {
		key.regions = strings.Join(p.Regions, "\n")
	}
	ms.mu.RLock()
	c := ms.classes[key]
	ms.mu.RUnlock()
	if c != nil {
		return c
	}
	c = newClass(ms, key)
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if old := ms.classes[key]; old != nil {
		return old
	}
	if len(ms.classes) < mostClasses {
		ms.classes[key] = c
	}
	return c
}

func newClass(ms *members, key classKey) *class {
	regions := strings.Split(key.regions, "\n")
	c := &class{may: make([][]*member, len(regions)), candidates: make([][]placement.Candidate, len(regions))}
	for i, m := range ms.all {
		r := ms.records[i]
		if at := slices.Index(regions, r.Region); at >= 0 && key.admits(r) {
			c.may[at], c.candidates[at] = append(c.may[at], m), append(c.candidates[at], r.Candidate())
			c.size++
		}
	}
	return c
}

func (k classKey) admits(c *catalog.ControllerView) bool {
	return c.TrustClass == k.trustClass && (k.isolation == tenant.IsolationAny || k.isolation == c.Isolation) &&
		(len(c.Runtimes) == 0 || slices.Contains(c.Runtimes, k.runtime))
}

// samePlace says whether placement makes no difference between two records of a controller.
func samePlace(a, b *catalog.ControllerView) bool {
	return a == b || a.Region == b.Region && a.TrustClass == b.TrustClass && a.Isolation == b.Isolation && a.Capacity == b.Capacity &&
		slices.Equal(a.Runtimes, b.Runtimes)
}

// first returns the first n of a tenant's order: regions in the order of preference, and within each by rank, its home first.
func (c *class) first(t tenant.ID, n int) []*member {
	n = min(n, c.size)
	order := make([]*member, 0, n)
	for i, may := range c.may {
		few := placement.Top
		if n == c.size {
			few = all
		}
		for _, at := range few(t, c.candidates[i], n-len(order)) {
			order = append(order, may[at])
		}
	}
	return order
}

func all(t tenant.ID, candidates []placement.Candidate, _ int) []int {
	return placement.Rank(t, candidates)
}

// member returns a controller by id, if it is one of the class.
func (c *class) member(id string) *member {
	for _, may := range c.may {
		if i, ok := slices.BinarySearchFunc(may, id, func(m *member, id string) int { return compareIDs(m.id, id) }); ok {
			return may[i]
		}
	}
	return nil
}

// orderLocked returns a tenant's order, or its beginning.
func (r *route) orderLocked(t tenant.ID, c *class, whole bool) []*member {
	if whole && c.size > firstFew {
		return c.first(t, c.size)
	}
	if r.class != c {
		r.class, r.order = c, c.first(t, firstFew)
	}
	return r.order
}

// withHoldersLocked adds to the beginning of an order who has the tenant's containers, or its calls.
func (r *route) withHoldersLocked(order []*member, c *class, holdings []catalog.Holding) []*member {
	few := len(order)
	add := func(m *member) {
		if m != nil && !slices.Contains(order, m) {
			order = append(order[:len(order):len(order)], m)
		}
	}
	for _, h := range holdings {
		add(c.member(h.Controller))
	}
	for m := range r.where {
		if c.member(m.id) == m {
			add(m)
		}
	}
	slices.SortFunc(order[few:], func(a, b *member) int { return compareIDs(a.id, b.id) })
	return order
}
