package pool

import (
	"math/rand/v2"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// assignLocked makes a Ready container the tenant's for ever and takes the first slot in it. The caller must bind it next:
// until then its power is off and no byte of the tenant goes in.
func (p *Pool) assignLocked(c *container, t *tenantState, req *call.Request, start call.StartKind, now time.Time) *flight {
	p.assignToLocked(c, t, req.Fresh, now)
	c.extra = req.Extra
	f := p.takeLocked(c, req, now)
	f.start, c.start = start, start
	p.serveLocked(t, now) // they wait for the latch in the container instead of in the queue
	p.counts.claims[start]++
	return f
}

func (p *Pool) assignToLocked(c *container, t *tenantState, fresh bool, now time.Time) {
	p.setStateLocked(c, Assigned)
	t.granting--
	t.remains++
	c.tenant, c.fresh, c.power = t, fresh, powerBinding
	c.assigned, c.idleSince = now, now
	c.life = jitter(t.policy.MaxLife)
	if fresh {
		t.fresh++
	} else {
		t.live = append(t.live, c)
	}
	p.stockLocked(c.size).claims.claimed(now)
	p.setTimerLocked(&c.timer, now.Add(lookAgain))
}

// jitter spreads d by ± 10 %, so that what began together does not end together.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	return d*9/10 + rand.N(d/5+1)
}

// bind writes the latch and only then lets the tenant in.
func (p *Pool) bind(f *flight, began time.Time) (*flight, *errs.Error) {
	from := time.Now()
	if err := p.latch(f.c); err != nil {
		p.mu.Lock()
		now := time.Now()
		p.cfg.Logger.Error("a container could not be bound to its tenant", "container", f.c.id, "err", err)
		p.failLocked(f.c, CauseBind, now)
		p.dispatchLocked(now)
		return nil, p.abandonLocked(f, unstarted("the sandbox could not be bound to its tenant"))
	}
	f.queue, f.assign = from.Sub(began), time.Since(from)
	p.mu.Lock()
	if f.c.lostLocked() {
		return nil, p.abandonLocked(f, f.c.lostBeforeLocked())
	}
	p.unlock()
	return f, nil
}

// latch binds c to its tenant on disk, then on the link and the door, and switches it on.
func (p *Pool) latch(c *container) error {
	id := c.tenant.id // set once, before this
	if err := writeLatch(p.cfg.secretDir(c.id), c.id, id); err != nil {
		return err
	}
	if err := p.awaitAwake(c); err != nil {
		return err
	}
	if err := p.setCPU(c); err != nil {
		return err
	}
	p.mu.Lock()
	c.latch = id
	policy := c.tenant.policy
	p.mu.Unlock()
	c.conn.Bind(id, policy)
	p.setRules(c, id)
	p.mu.Lock()
	defer p.unlock()
	c.setPowerLocked(powerOn)
	a := p.assignmentLocked(c)
	if c.state == Assigned {
		c.told = true
		p.noteLocked(func(o Observer) { o.Assigned(a) })
		if c.quiet() && !c.fresh { // a successor; a call would hold a slot
			p.idleLocked(c, time.Now())
		}
	}
	if c.tenant.policy != policy {
		p.laterLocked(func() { p.setRules(c, id) })
	}
	return nil
}
