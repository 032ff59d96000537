package pool

import (
	"context"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// acquire returns a slot for req in a container that is on: one of the tenant's, or one out of the pool, waiting in the
// queue if there is none.
func (p *Pool) acquire(ctx context.Context, req *call.Request) (*flight, *errs.Error) {
	began := time.Now()
	p.mu.Lock()
	t, refusal := p.admitLocked(req, began)
	if refusal != nil {
		p.unlock()
		return nil, refusal
	}
	if !req.Fresh && t.slots.len() == 0 {
		if c := t.pick(); c != nil {
			f := p.takeLocked(c, req, began)
			if c.power == powerOn {
				p.unlock()
				return f, nil
			}
			p.unlock()
			return p.whenOn(ctx, f, req, began)
		}
	}
	if c := p.claimNowLocked(t, req, began); c != nil {
		f := p.assignLocked(c, t, req, call.StartPooled, began)
		p.dispatchLocked(began)
		p.unlock()
		return p.bind(f, began)
	}
	w, refusal := p.queueLocked(t, req, began)
	p.unlock()
	if refusal != nil {
		return nil, refusal
	}
	return p.redeem(ctx, w, p.await(ctx, w))
}

// admitLocked refuses what must not even wait.
func (p *Pool) admitLocked(req *call.Request, now time.Time) (*tenantState, *errs.Error) {
	if p.phase != phaseOpen {
		e := errs.New(errs.NoCapacity, "this controller is going away; retry")
		e.RetryAfter = time.Second
		return nil, e
	}
	if !req.Deadline.IsZero() && !now.Before(req.Deadline) {
		p.counts.expired++
		e := errs.New(errs.Timeout, "the deadline had passed before the call began")
		e.Started = errs.StartedNo
		return nil, e
	}
	if req.Runtime != "" && p.cfg.Image.Runtime != "" && req.Runtime != p.cfg.Image.Runtime {
		return nil, errs.New(errs.NotFound, "runtime %q is not served here; there is %q", req.Runtime, p.cfg.Image.Runtime)
	}
	t := p.tenantLocked(req.Tenant, req.Policy, now)
	if !t.set && req.Policy != nil && req.Policy != t.policy {
		p.usePolicyLocked(t, req.Policy, now)
	}
	if !p.isolates(t.policy) {
		e := errs.New(errs.NoCapacity, "tenant %s must run under %s; this controller has %s", t.id, t.policy.Isolation,
			p.cfg.Engine.Isolation())
		e.RetryAfter = 10 * time.Second
		return nil, e
	}
	if most := p.cfg.MemoryBudgetBytes - p.cfg.ReserveBytes; p.cfg.MemoryBudgetBytes > 0 && p.limitOf(t.stock.size) > most {
		e := errs.New(errs.NoCapacity, "a sandbox of tenant %s takes %d MiB with what the isolation needs; all sandboxes of this "+
			"controller together have %d MiB: lower the tenant's memory, or raise the memory budget", t.id,
			p.limitOf(t.stock.size)>>20, most>>20)
		e.RetryAfter = 10 * time.Second
		return nil, e
	}
	t.atMost = req.AtMost
	if e := p.elsewhereLocked(t, req, now); e != nil {
		return nil, e
	}
	if len(t.marks) > 0 {
		if e := t.quarantined(req.Code.Hash, now); e != nil {
			p.counts.quarantined++
			return nil, e
		}
	}
	return t, nil
}

// claimNowLocked pops a Ready container if there is one and nobody waits for it.
func (p *Pool) claimNowLocked(t *tenantState, req *call.Request, now time.Time) *container {
	if !t.stock.free() || t.waiting() > 0 || !req.Fresh && t.suspects() {
		return nil
	}
	if !t.mayHold() || !t.bucket.take(t.policy, now) {
		return nil
	}
	t.granting++
	return p.popReadyLocked(t.stock)
}

// queueLocked puts the call into its tenant's queue, unless it would wait there in vain.
func (p *Pool) queueLocked(t *tenantState, req *call.Request, now time.Time) (*waiter, *errs.Error) {
	if e := t.budgetLocked(req.Fresh, req.Deadline, now); e != nil {
		p.counts.overBudget++
		return nil, e
	}
	if t.waiting() >= p.cfg.MaxWaiting {
		e := errs.New(errs.Limited, "%d calls of tenant %s wait already; retry later", t.waiting(), t.id)
		e.Cause, e.RetryAfter = "concurrency", time.Second
		return nil, e
	}
	if !req.Fresh {
		if e := t.hopelessLocked(req, now); e != nil {
			p.counts.shed++
			return nil, e
		}
	}
	if len(t.live) == 0 && p.hopelessLocked(t.stock, req.Deadline, now) {
		return nil, p.noCapacityLocked("no sandbox can be made at the moment")
	}
	if req.Spill && len(t.live) == 0 && p.fullLocked(t.stock) {
		return nil, p.noCapacityLocked("this machine is full")
	}
	if req.Spill && !req.Fresh && len(t.live) > 0 && t.full() && (p.retired || !t.mayHold()) {
		e := p.noCapacityLocked("the tenant's containers on this machine are full")
		e.Cause = errs.CauseFull
		return nil, e
	}
	w := p.enqueueLocked(t, req, now)
	p.wantLocked(t, now)
	p.dispatchLocked(now)
	return w, nil
}

// redeem turns a waiter's grant into a slot in a container that is on.
func (p *Pool) redeem(ctx context.Context, w *waiter, g grant) (*flight, *errs.Error) {
	switch {
	case g.err != nil:
		return nil, g.err
	case g.slot != nil:
		return p.whenOn(ctx, g.slot, w.req, w.since)
	}
	p.mu.Lock()
	c, now := g.container, time.Now()
	if c.state != Ready || p.phase != phaseOpen {
		p.ungrantLocked(w.t, c)
		p.dispatchLocked(now)
		p.unlock()
		return nil, unstarted("the sandbox was lost before the call reached it")
	}
	start := call.StartPooled
	if c.readyAt.After(w.since) {
		start = call.StartCold
	}
	f := p.assignLocked(c, w.t, w.req, start, now)
	p.unlock()
	return p.bind(f, w.since)
}

// whenOn waits until f's container is on, thawing it if need be. It gives f back if that does not happen.
func (p *Pool) whenOn(ctx context.Context, f *flight, req *call.Request, began time.Time) (*flight, *errs.Error) {
	expired, stop := deadlineTimer(req.Deadline)
	defer stop()
	for {
		p.mu.Lock()
		c := f.c
		if c.power == powerOn && !c.lostLocked() {
			f.queue = time.Since(began)
			p.unlock()
			return f, nil
		}
		if c.lostLocked() {
			return nil, p.abandonLocked(f, c.lostBeforeLocked())
		}
		if c.power == powerFrozen {
			p.requestThawLocked(c)
		}
		if f.start = call.StartThawed; c.power == powerBinding {
			f.start = c.start // it shares the wait of the call that got the container
		}
		changed := c.changeLocked()
		p.unlock()
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		case <-expired:
		}
		p.mu.Lock()
		if ctx.Err() != nil && ctx.Err() != context.DeadlineExceeded {
			e := errs.New(errs.Cancelled, "the caller went away while the call waited")
			e.Started = errs.StartedNo
			return nil, p.abandonLocked(f, e)
		}
		p.counts.expired++
		return nil, p.abandonLocked(f, p.noCapacityLocked("the sandbox could not be woken before the deadline"))
	}
}

// abandonLocked gives back the slot of a call that never reached the link, and unlocks.
func (p *Pool) abandonLocked(f *flight, e *errs.Error) *errs.Error {
	f.marks.Store(flightReturned | flightSettled)
	p.leaveLocked(f, true, true, time.Now())
	p.unlock()
	return e
}

// unstarted is a loss that the pool itself may mend by another try.
func unstarted(why string) *errs.Error {
	e := errs.New(errs.SandboxLost, "%s", why)
	e.Cause, e.Started, e.Fault = "crashed", errs.StartedNo, errs.FaultPlatform
	return e
}
