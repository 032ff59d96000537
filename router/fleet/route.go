package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/placement"
	"paddock/internal/tenant"
	"paddock/router"
)

// route is what this router knows of one tenant's calls. Safe for concurrent use.
type route struct {
	mu    sync.Mutex
	where map[*member]*traffic
}

// traffic is a tenant's at one controller, from this router.
type traffic struct {
	inFlight int
	served   time.Time // a call was served there last
}

// orderKey is what an order of controllers depends on: another pointer is another state of things.
type orderKey struct {
	tenant  tenant.ID
	policy  *tenant.Policy
	members *members
	fleet   *catalog.Fleet
	runtime string
}

// order returns the controllers that may run a tenant's code: regions in the order of preference, and within each by rank, the
// tenant's home first. Alive or not, full or not: that is asked with each call.
func (f *Fleet) order(req *call.Request) []*member {
	ms := f.members.Load()
	key := orderKey{req.Tenant, req.Policy, ms, f.o.Catalogue.Fleet(), req.Runtime}
	if order, ok := f.orders.Get(key); ok {
		return order
	}
	regions := req.Policy.Regions
	if len(regions) == 0 {
		regions = []string{f.o.Region}
	}
	var may []*member
	var candidates []placement.Candidate
	for _, m := range ms.all {
		if c := m.record.Load(); f.eligible(c, req, regions) {
			may = append(may, m)
			candidates = append(candidates, c.Candidate())
		}
	}
	order := make([]*member, 0, len(may))
	for _, i := range placement.Rank(req.Tenant, candidates) {
		order = append(order, may[i])
	}
	slices.SortStableFunc(order, func(a, b *member) int {
		return cmp.Compare(slices.Index(regions, a.record.Load().Region), slices.Index(regions, b.record.Load().Region))
	})
	f.orders.Add(key, order)
	return order
}

func (f *Fleet) eligible(c *catalog.ControllerView, req *call.Request, regions []string) bool {
	p := req.Policy
	return slices.Contains(regions, c.Region) && c.TrustClass == p.TrustClass &&
		(p.Isolation == tenant.IsolationAny || p.Isolation == c.Isolation) &&
		(len(c.Runtimes) == 0 || slices.Contains(c.Runtimes, req.Runtime))
}

// Route implements router.Nodes.
func (f *Fleet) Route(req *call.Request) func() (router.Node, bool) {
	order := f.order(req)
	r := f.routeOf(req.Tenant)
	var tried []*member
	return func() (router.Node, bool) {
		p := f.pick(req, order, r, tried)
		if p == nil {
			return nil, false
		}
		tried = append(tried, p.member)
		return p, true
	}
}

func (f *Fleet) routeOf(t tenant.ID) *route {
	if r, ok := f.routes.Get(t); ok {
		return r
	}
	r := &route{where: map[*member]*traffic{}}
	if old, ok, _ := f.routes.PeekOrAdd(t, r); ok {
		return old
	}
	return r
}

// place is a controller as a choice for one call.
type place struct {
	m          *member
	containers int
	inFlight   int
}

// pick chooses who is asked next:
//
//   - of those that have the tenant's containers and room in them, the one with the fewest calls in flight per container;
//   - none: whoever ranks first and has none yet, up to the tenant's number of containers, then whoever ranks first;
//   - at that number: the one with the fewest calls, where the call waits.
//
// Who drains is asked only where nobody else is left, and who does not answer never, unless that is all there is.
func (f *Fleet) pick(req *call.Request, order []*member, r *route, tried []*member) *pick {
	places, total := f.places(req, order, r, tried)
	if len(places) == 0 {
		return nil
	}
	others := len(places) > 1 && len(tried) < mostTried
	per, most := req.Policy.CallsPerContainer, req.Policy.MaxContainers
	if req.Fresh {
		return f.choose(req, r, places[0], 0, false, others)
	}
	var best, waits *place
	for i := range places {
		p := &places[i]
		if p.containers == 0 {
			continue
		}
		if p.inFlight < p.containers*per && (best == nil || p.load() < best.load()) {
			best = p
		}
		if waits == nil || p.load() < waits.load() {
			waits = p
		}
	}
	switch {
	case best != nil:
		return f.choose(req, r, *best, best.containers, false, others)
	case total < most || waits == nil:
		at := places[0]
		if i := slices.IndexFunc(places, func(p place) bool { return p.containers == 0 }); i >= 0 {
			at = places[i]
		}
		return f.choose(req, r, at, max(1, min(at.containers+1, at.containers+most-total)), total > 0, others)
	}
	return f.choose(req, r, *waits, waits.containers, false, false)
}

func (p *place) load() float64 { return float64(p.inFlight) / float64(p.containers) }

// places returns who can be asked, in order, and how many containers the tenant has in all.
func (f *Fleet) places(req *call.Request, order []*member, r *route, tried []*member) (places []place, total int) {
	holdings := f.o.Catalogue.Holdings(req.Tenant)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var last []place // those that drain, or do not answer
	for _, m := range order {
		p := place{m: m}
		for _, h := range holdings {
			if h.Controller == m.id && h.Runtime == req.Runtime {
				p.containers = h.Containers
			}
		}
		if t := r.where[m]; t != nil {
			p.inFlight = t.inFlight
			if p.containers == 0 && (t.inFlight > 0 || now.Sub(t.served) < recentTime) {
				p.containers = 1
			}
		}
		usable := m.usable()
		if usable {
			total += p.containers
		}
		switch {
		case slices.Contains(tried, m):
		case !usable, m.drains():
			last = append(last, p)
		default:
			places = append(places, p)
		}
	}
	if len(places) == 0 {
		// Who drains before who does not answer.
		slices.SortStableFunc(last, func(a, b place) int { return cmp.Compare(b2i(!a.m.usable()), b2i(!b.m.usable())) })
		places = last
	}
	return places, total
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// choose makes the choice. others says that there is somebody else to ask.
func (f *Fleet) choose(req *call.Request, r *route, p place, most int, extra, others bool) *pick {
	if most >= req.Policy.MaxContainers {
		most = 0
	}
	return &pick{member: p.m, route: r, most: most, extra: extra, spill: others}
}

// pick is a controller that was chosen for one call. It implements router.Node.
type pick struct {
	member *member
	route  *route
	most   int
	extra  bool
	spill  bool
}

// mostTried controllers are asked whether they have room; the next one is where the call waits.
const mostTried = 2

// Invoke implements router.Node and keeps account of the call.
func (p *pick) Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	p.begin()
	if p.extra || p.spill {
		more := *req
		more.Extra, more.Spill = p.extra, p.spill
		req = &more
	}
	res, err := p.member.node.InvokeAtMost(ctx, req, sink, p.most)
	e := errs.From(err)
	lost := e != nil && e.Kind == errs.SandboxLost && e.Cause == "controller"
	if lost && e.WhetherStarted() == errs.StartedNo {
		p.member.unreachable()
	}
	p.end(res != nil && res.Container != "" && !lost)
	return res, err
}

func (p *pick) begin() {
	p.member.inFlight.Add(1)
	p.route.mu.Lock()
	defer p.route.mu.Unlock()
	t := p.route.where[p.member]
	if t == nil {
		t = &traffic{}
		p.route.where[p.member] = t
	}
	t.inFlight++
}

func (p *pick) end(served bool) {
	p.member.inFlight.Add(-1)
	p.route.mu.Lock()
	defer p.route.mu.Unlock()
	t := p.route.where[p.member]
	t.inFlight--
	if served {
		t.served = time.Now()
	}
	if t.inFlight == 0 && time.Since(t.served) > recentTime {
		delete(p.route.where, p.member)
	}
}
