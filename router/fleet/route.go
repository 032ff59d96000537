package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/router"
)

// route is what this router knows of one tenant's calls. Safe for concurrent use.
type route struct {
	mu    sync.Mutex
	where map[*member]*traffic

	class *class // whose order it is
	order []*member
}

// traffic is a tenant's at one controller, from this router.
type traffic struct {
	inFlight int
	began    time.Time // the last call was sent there
	served   time.Time // a call was served there last
	bound    time.Time // the last one that was served there was sent
	moved    time.Time // it said last that the tenant is served elsewhere
	listed   bool      // by its records it has containers
	gone     time.Time // they said so last, and then no more
}

// note takes in what its records say now. Calls that were sent there before they went say nothing of what is there.
func (t *traffic) note(listed bool, now time.Time) {
	if t.listed && !listed {
		t.gone = now
	}
	t.listed = listed
}

// holds says whether a container is there whose record has not come yet.
func (t *traffic) holds(now time.Time) bool {
	return t.inFlight > 0 && t.began.After(t.gone) || now.Sub(t.served) < recentTime && t.bound.After(t.gone)
}

// Route implements router.Nodes.
func (f *Fleet) Route(req *call.Request) func() (router.Node, bool) {
	r := f.routeOf(req.Tenant)
	var tried []*pick
	return func() (router.Node, bool) {
		p := f.pick(req, r, tried)
		if p == nil {
			return nil, false
		}
		tried = append(tried, p)
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
//   - at that number, or with nobody else left to ask: the one with the fewest calls, where the call waits, if need be one that has sent
//     it on already.
//
// Who drains is asked while it alone has the tenant's containers: another controller is about to have some. Else it is asked only where
// nobody else is left, and who does not answer never, unless that is all there is: a call rather goes back to who has sent it on.
func (f *Fleet) pick(req *call.Request, r *route, tried []*pick) *pick {
	c := f.classOf(req)
	v := f.look(req, c, r, tried, false)
	if v.needsAll() {
		v = f.look(req, c, r, tried, true)
	}
	if len(v.places) == 0 {
		if v.waits == nil {
			return nil
		}
		return f.choose(req, r, *v.waits, v.waits.containers, false, false)
	}
	others := len(v.places) > 1 && len(tried) < mostTried && !v.alone()
	most := req.Policy.MaxContainers
	switch {
	case req.Fresh:
		return f.choose(req, r, v.places[0], 0, false, others)
	case v.best != nil:
		// What says that it has room may be old: the call rather waits where containers are.
		others = others || v.holders() && len(tried) <= mostTried
		return f.choose(req, r, *v.best, v.best.containers, false, others)
	case v.grows:
		at := v.places[0]
		if v.empty != nil {
			at = *v.empty
		}
		return f.choose(req, r, at, max(1, min(at.containers+1, at.containers+most-v.total)), v.total > 0, others)
	}
	return f.choose(req, r, *v.waits, v.waits.containers, false, false)
}

// holders says whether somebody who has sent the call on has the tenant's containers.
func (v *prospect) holders() bool {
	return slices.ContainsFunc(v.sent, func(p place) bool { return p.containers > 0 })
}

// alone says that of who is left no more than one answers.
func (v *prospect) alone() bool {
	return v.resort && !v.places[1].m.usable() // who answers comes before who does not
}

func (p *place) load() float64 { return float64(p.inFlight) / float64(p.containers) }

// prospect is who can be asked for one call.
type prospect struct {
	places []place // in order
	sent   []place // those that have been asked, and have sent the call on because they are full, or drain
	total  int     // containers that the tenant has
	whole  bool    // everybody was looked at
	resort bool    // places are those that drain, or do not answer

	best, waits *place // who has room; who has the fewest calls
	empty       *place // the first that has none of the tenant's containers
	grows       bool   // nobody has room, and the tenant may have one more
}

// needsAll says that the first few do not answer the question.
func (v *prospect) needsAll() bool {
	return !v.whole && (len(v.places) == 0 || v.resort || v.grows && v.empty == nil)
}

// look judges who can be asked: the first few of the order and who has the tenant's containers, or everybody.
func (f *Fleet) look(req *call.Request, c *class, r *route, tried []*pick, whole bool) *prospect {
	v := &prospect{whole: whole || c.size <= firstFew}
	f.places(v, req, c, r, tried)
	per := req.Policy.CallsPerContainer
	for i := range v.places {
		p := &v.places[i]
		if p.containers == 0 {
			if v.empty == nil {
				v.empty = p
			}
			continue
		}
		if p.inFlight < p.containers*per && (v.best == nil || p.load() < v.best.load()) {
			v.best = p
		}
		if v.waits == nil || p.load() < v.waits.load() {
			v.waits = p
		}
	}
	for i := range v.sent {
		if p := &v.sent[i]; p.containers > 0 && (v.waits == nil || p.load() < v.waits.load()) {
			v.waits = p
		}
	}
	if len(v.places) == 0 && len(v.sent) > 0 && v.waits == nil {
		v.waits = &v.sent[0]
	}
	v.grows = v.best == nil && (v.total < req.Policy.MaxContainers || v.waits == nil)
	return v
}

// places fills in who can be asked, in order, and how many containers the tenant has in all.
func (f *Fleet) places(v *prospect, req *call.Request, c *class, r *route, tried []*pick) {
	holdings := f.o.Catalogue.Holdings(req.Tenant)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var last, leaving []place // those that drain, or do not answer; those that drain and have the tenant's containers
	staying := false          // somebody else has some
	order := r.orderLocked(req.Tenant, c, v.whole)
	if !v.whole {
		order = r.withHoldersLocked(order, c, holdings)
	}
	v.places = make([]place, 0, len(order))
	for _, m := range order {
		p := place{m: m}
		for _, h := range holdings {
			if h.Controller == m.id && h.Runtime == req.Runtime {
				p.containers = h.Containers
			}
		}
		if t := r.where[m]; t != nil {
			p.inFlight = t.inFlight
			t.note(p.containers > 0, now)
			if p.containers == 0 && t.holds(now) {
				p.containers = 1
			}
			if now.Sub(t.moved) < movedTime {
				p.containers = 0
			}
		}
		usable := m.usable()
		if usable {
			v.total += p.containers
		}
		var before *pick // the last time that it was asked
		for _, t := range tried {
			if t.member == m {
				before = t
			}
		}
		switch {
		case before != nil && before.sent && before.spill && usable:
			v.sent = append(v.sent, p)
		case before != nil:
		case usable && !m.drains():
			v.places = append(v.places, p)
			staying = staying || p.containers > 0
		case usable && p.containers > 0:
			leaving = append(leaving, p)
		default:
			last = append(last, p)
		}
	}
	if staying {
		last = append(leaving, last...)
	} else {
		v.places = append(v.places, leaving...)
	}
	if len(v.places) == 0 && !slices.ContainsFunc(tried, func(t *pick) bool { return t.sent }) {
		// Who drains before who does not answer.
		slices.SortStableFunc(last, func(a, b place) int { return cmp.Compare(b2i(!a.m.usable()), b2i(!b.m.usable())) })
		v.places, v.resort = last, true
	}
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
	began  time.Time
	sent   bool // it has sent the call on: it is full, or drains
}

// mostTried controllers are asked whether they have room; the next one is where the call waits, unless one of them is better for that.
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
	p.sent = e != nil && e.Kind == errs.NoCapacity && (e.Cause == errs.CauseFull || e.Cause == errs.CauseDraining)
	p.end(res != nil && res.Container != "" && !lost, e != nil && e.Kind == errs.NoCapacity && e.Cause == errs.CauseMoved)
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
	p.began = time.Now()
	t.began = p.began
}

// end takes the call off the account. moved says that the tenant has no containers there any more, whatever its record says yet.
func (p *pick) end(served, moved bool) {
	p.member.inFlight.Add(-1)
	p.route.mu.Lock()
	defer p.route.mu.Unlock()
	t := p.route.where[p.member]
	t.inFlight--
	switch {
	case served:
		t.served, t.moved = time.Now(), time.Time{}
		if p.began.After(t.bound) {
			t.bound = p.began
		}
	case moved:
		t.served, t.moved = time.Time{}, time.Now()
	}
	if t.inFlight == 0 && time.Since(t.served) > recentTime && time.Since(t.moved) > movedTime {
		delete(p.route.where, p.member)
	}
}
