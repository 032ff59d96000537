package pool

import (
	"context"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// The queue: first in, first out within a tenant; between tenants, one container each in turn. A waiter has a channel of
// its own with room for one grant, so that granting never blocks; one that was granted something and is not there any more
// hands it back.

// waiter is a call that waits for a slot of its tenant's or for a container.
type waiter struct {
	node  node[*waiter]
	t     *tenantState
	req   *call.Request
	since time.Time
	ch    chan grant
	given bool // ch has, or had, its grant
}

// grant is what a waiter gets: one of the three.
type grant struct {
	slot      *flight    // in a container of its tenant's
	container *container // Ready, in no list, to be bound by the waiter
	err       *errs.Error
}

func (p *Pool) enqueueLocked(t *tenantState, req *call.Request, now time.Time) *waiter {
	w := &waiter{t: t, req: req, since: now, ch: make(chan grant, 1)}
	w.node.v = w
	if req.Fresh {
		t.freshes.pushBack(&w.node)
	} else {
		t.slots.pushBack(&w.node)
		t.pace.wait(now)
	}
	p.waiting++
	return w
}

// giveLocked answers a waiter and takes it off its queue.
func (p *Pool) giveLocked(w *waiter, g grant) {
	p.dequeueLocked(w)
	w.given = true
	w.ch <- g
}

func (p *Pool) dequeueLocked(w *waiter) {
	if w.t.slots.remove(&w.node) || w.t.freshes.remove(&w.node) {
		p.waiting--
	}
	if w.t.slots.len() == 0 {
		w.t.pace.over(time.Now())
	}
}

// refuseLocked answers all waiters of a tenant with err.
func (p *Pool) refuseLocked(t *tenantState, err *errs.Error) {
	e := *err
	e.Started = errs.StartedNo
	for _, q := range []*list[*waiter]{&t.slots, &t.freshes} {
		for w, ok := q.front(); ok; w, ok = q.front() {
			p.giveLocked(w, grant{err: &e})
		}
	}
	p.trimLocked(t)
}

// serveLocked gives the tenant's free slots to its waiting calls.
func (p *Pool) serveLocked(t *tenantState, now time.Time) {
	if t.slots.len() == 0 {
		return
	}
	for {
		w, ok := p.firstLocked(&t.slots, now)
		if !ok {
			break
		}
		c := t.pick()
		if c == nil {
			break
		}
		if t.tooLate(w.req, now) {
			p.counts.shed++
			p.giveLocked(w, grant{err: t.tooBusy(time.Second)})
			continue
		}
		p.giveLocked(w, grant{slot: p.takeLocked(c, w.req, now)})
	}
	p.trimLocked(t)
}

// firstLocked returns the first waiter of q whose deadline has not passed; the others are told that theirs has.
func (p *Pool) firstLocked(q *list[*waiter], now time.Time) (*waiter, bool) {
	for {
		w, ok := q.front()
		if !ok || w.req.Deadline.IsZero() || now.Before(w.req.Deadline) {
			return w, ok
		}
		p.counts.expired++
		p.giveLocked(w, grant{err: p.overdueLocked(w)})
	}
}

// grantLocked hands Ready containers to the tenants that have paid for one of their size, in turn.
func (p *Pool) grantLocked(now time.Time) {
	if p.demand == 0 {
		return
	}
	for _, s := range p.stocks {
		p.grantOfLocked(s, now)
	}
}

func (p *Pool) grantOfLocked(s *stock, now time.Time) {
	for s.ready.len() > 0 {
		t, ok := s.ring.popFront()
		if !ok {
			return
		}
		w := p.claimantLocked(t, now)
		if w == nil {
			p.trimLocked(t)
			continue
		}
		c := p.popReadyLocked(s)
		t.granting++
		p.demand--
		s.demand--
		if w.req.Fresh {
			t.paid--
		} else {
			t.claims--
		}
		p.giveLocked(w, grant{container: c})
		p.trimLocked(t)
		if t.claims+t.paid > 0 {
			s.ring.pushBack(&t.ringNode)
		}
	}
}

// claimantLocked returns who gets the tenant's next container: the call that has waited longest among those for which one
// was paid.
func (p *Pool) claimantLocked(t *tenantState, now time.Time) *waiter {
	var best *waiter
	if t.claims > 0 {
		best, _ = p.firstLocked(&t.slots, now)
	}
	if t.paid > 0 {
		if w, ok := p.firstLocked(&t.freshes, now); ok && (best == nil || w.since.Before(best.since)) {
			best = w
		}
	}
	return best
}

// await waits for w's grant until its deadline or the end of ctx.
func (p *Pool) await(ctx context.Context, w *waiter) grant {
	expired, stop := deadlineTimer(w.req.Deadline)
	defer stop()
	select {
	case g := <-w.ch:
		return g
	case <-ctx.Done():
	case <-expired:
	}
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	err := errs.New(errs.Cancelled, "the caller went away while the call waited")
	err.Started = errs.StartedNo
	if ctx.Err() == nil || ctx.Err() == context.DeadlineExceeded {
		err = p.overdueLocked(w)
		p.counts.expired++
	}
	if w.given {
		p.handBackLocked(w, <-w.ch, now)
	} else {
		p.dequeueLocked(w)
		p.trimLocked(w.t)
	}
	p.dispatchLocked(now)
	return grant{err: err}
}

// handBackLocked takes back what a waiter got that is not there any more.
func (p *Pool) handBackLocked(w *waiter, g grant, now time.Time) {
	switch {
	case g.slot != nil:
		g.slot.marks.Store(flightReturned | flightSettled)
		g.slot.c.served--
		p.leaveLocked(g.slot, true, true, now)
	case g.container != nil:
		p.counts.handedBack++
		p.ungrantLocked(w.t, g.container)
	}
}

// ungrantLocked returns a container that was granted and not bound: no byte of the tenant has entered it.
func (p *Pool) ungrantLocked(t *tenantState, c *container) {
	t.granting--
	t.bucket.refund(t.policy, 1)
	if c.state == Ready {
		p.stockLocked(c.size).ready.pushFront(&c.readyNode)
	}
}

// overdueLocked is the answer to a call whose deadline passed in the queue: its tenant's own containers were busy, or
// there was none to be had.
func (p *Pool) overdueLocked(w *waiter) *errs.Error {
	if len(w.t.live) > 0 && !w.req.Fresh {
		e := errs.New(errs.Timeout, "the deadline passed while the call waited: all of the tenant's sandboxes were busy")
		e.Started = errs.StartedNo
		return e
	}
	return p.noCapacityLocked("no sandbox became free before the deadline")
}

// noCapacityLocked is the refusal of a call for want of containers or memory, with a guess when there will be some.
func (p *Pool) noCapacityLocked(why string) *errs.Error {
	e := errs.New(errs.NoCapacity, "%s; retry later", why)
	one := max(p.refill.createTime, 100*time.Millisecond)
	e.RetryAfter = min(max(one*time.Duration(1+p.waiting/p.cfg.CreateParallel), time.Second), 30*time.Second)
	return e
}

// deadlineTimer returns a channel that yields at d; never for the zero time.
func deadlineTimer(d time.Time) (<-chan time.Time, func()) {
	if d.IsZero() {
		return nil, func() {}
	}
	t := time.NewTimer(time.Until(d))
	return t.C, func() { t.Stop() }
}
