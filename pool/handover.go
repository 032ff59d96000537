package pool

import (
	"context"
	"slices"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// Several controllers serve one set of tenants. Which of them a tenant's containers belong on is not the pool's to know: it is
// told to bind one ahead of calls (Warm), to give a tenant, or some of its containers, up to others (Handover), or all of them (Retire).

// movedFor is how long calls of a tenant that was given up are refused where others can be asked: routers have heard of it by then.
const movedFor = 15 * time.Second

// elsewhereLocked refuses a call that another controller should run. One that has nowhere else to go is served all the same.
func (p *Pool) elsewhereLocked(t *tenantState, req *call.Request, now time.Time) *errs.Error {
	if !req.Spill || len(t.live) > 0 {
		return nil
	}
	switch {
	case p.retired:
		return goElsewhere(errs.CauseDraining, "this controller is being drained: another one takes the call")
	case !req.Extra && !req.Fresh && now.Before(t.moved):
		return goElsewhere(errs.CauseMoved, "the tenant is served by another controller now")
	}
	return nil
}

func goElsewhere(cause, why string) *errs.Error {
	e := errs.New(errs.NoCapacity, "%s", why)
	e.Cause, e.RetryAfter = cause, time.Second
	return e
}

// Handover takes a tenant's containers out of service until keep of them are left, those with the fewest calls first, because
// other controllers have some of their own: calls in flight may finish. If none are kept, calls that wait are refused as not
// started where others can be asked, and so are calls that come within movedFor. It returns what is not assigned any more.
func (p *Pool) Handover(id tenant.ID, keep int, cause Cause) (given []Assignment) {
	p.mu.Lock()
	defer p.unlock()
	t, now := p.tenants[id], time.Now()
	if t == nil {
		return nil
	}
	for len(t.live) > keep {
		c := slices.MinFunc(t.live, func(a, b *container) int { return a.inflight - b.inflight })
		if c.told {
			given = append(given, p.assignmentLocked(c))
		}
		p.drainLocked(c, cause, now)
	}
	if keep == 0 {
		p.moveLocked(t, now)
	}
	p.trimLocked(t)
	p.wantLocked(t, now)
	p.dispatchLocked(now)
	return given
}

// moveLocked sends a tenant's calls elsewhere, those that wait and, for a while, those that come.
func (p *Pool) moveLocked(t *tenantState, now time.Time) {
	t.moved = now.Add(movedFor)
	var next *node[*waiter]
	for e := t.slots.head; e != nil; e = next {
		if next = e.next; e.v.req.Spill {
			p.giveLocked(e.v, grant{err: goElsewhere(errs.CauseMoved, "the tenant is served by another controller now")})
		}
	}
}

// Retire stops, or begins again, to keep warm containers and to take tenants that have none here. Calls that have nowhere else to
// go are still served.
func (p *Pool) Retire(on bool) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	p.retired = on
	if on {
		for _, c := range p.containers {
			if c.state == Creating || c.state == Ready {
				p.drainLocked(c, CauseAdmin, now)
			}
		}
	}
	p.dispatchLocked(now)
}

// Warm sees to it that a tenant has a container here that is on, before any call of it comes. It costs what a call's container
// costs. req names tenant, policy, runtime and deadline.
func (p *Pool) Warm(ctx context.Context, req *call.Request) error {
	p.mu.Lock()
	if t := p.tenants[req.Tenant]; t != nil {
		t.moved = time.Time{} // it comes back
	}
	p.unlock()
	f, refusal := p.acquire(ctx, req)
	if refusal != nil {
		return refusal
	}
	p.mu.Lock()
	f.c.served-- // it was no call
	f.marks.Store(flightReturned | flightSettled)
	p.leaveLocked(f, true, true, time.Now())
	p.unlock()
	return nil
}
