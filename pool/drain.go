package pool

import (
	"time"

	"paddock/internal/tenant"
)

// Selector names containers: one, a tenant's, or all. The first field that is set counts.
type Selector struct {
	Container ContainerID
	Tenant    tenant.ID
	All       bool
}

// Drain takes the selected containers out of service and returns how many it took. Calls in flight may finish.
func (p *Pool) Drain(s Selector, cause Cause) int {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	n := 0
	for _, c := range p.selectLocked(s) {
		if p.drainLocked(c, cause, now) {
			n++
		}
	}
	p.dispatchLocked(now)
	return n
}

func (p *Pool) selectLocked(s Selector) []*container {
	var all []*container
	for _, c := range p.containers {
		switch {
		case s.Container != "":
			if c.id != s.Container {
				continue
			}
		case s.Tenant != "":
			if c.tenant == nil || c.tenant.id != s.Tenant {
				continue
			}
		case !s.All:
			continue
		}
		all = append(all, c)
	}
	return all
}

// drainLocked takes c out of service: no new calls; it is destroyed when those in flight are over, or after the tenant's
// drain_timeout. It says whether c was in service.
func (p *Pool) drainLocked(c *container, cause Cause, now time.Time) bool {
	switch c.state {
	case Creating:
		if c.doomed != "" {
			return false
		}
		c.doomed = cause
		return true
	case Ready, Assigned:
	default:
		return false
	}
	p.setStateLocked(c, Draining)
	c.cause = cause
	p.unlistLocked(c, now)
	if p.drainedLocked(c) {
		p.teardownLocked(c, now)
		return true
	}
	limit := c.tenant.policy.DrainTimeout
	if cause == CauseMaxCalls { // the last call has only begun
		limit = max(limit, c.tenant.policy.MaxTimeout)
	}
	c.drainUntil = now.Add(limit)
	p.lingerLocked(c, now)
	return true
}

// lingering is how long code that goes on after its call has been answered holds up a draining container.
const lingering = time.Second

// lingerLocked sets c's timer to the end of its draining; that is soon when nobody waits for an answer.
func (p *Pool) lingerLocked(c *container, now time.Time) {
	if c.inflight == 0 {
		c.drainUntil = sooner(c.drainUntil, now.Add(lingering))
	}
	p.setTimerLocked(&c.timer, c.drainUntil)
}

// drainedLocked says whether nothing is left to wait for. Code that outlived its call holds up the draining of a healthy
// container, but not of one that drains because of it.
func (p *Pool) drainedLocked(c *container) bool {
	return c.inflight == 0 && (c.running == 0 || c.cause == CauseTainted || c.cause == CauseFresh)
}

// failLocked ends c at once: calls in flight fail.
func (p *Pool) failLocked(c *container, cause Cause, now time.Time) {
	if c.state == Failed || c.state == Destroyed || c.tearing {
		return
	}
	p.setStateLocked(c, Failed)
	c.cause = cause
	p.unlistLocked(c, now)
	p.teardownLocked(c, now)
}

// unlistLocked removes c from wherever the pool would find it for a call.
func (p *Pool) unlistLocked(c *container, now time.Time) {
	p.stockLocked(c.size).ready.remove(&c.readyNode)
	p.leaveIdleLocked(c)
	p.unqueueThawLocked(c)
	p.stopTimerLocked(&c.timer)
	p.stopTimerLocked(&c.suspect.again)
	t := c.tenant
	if t == nil || !t.dropLocked(c) {
		return
	}
	if c.told {
		a, cause := p.assignmentLocked(c), c.cause
		p.noteLocked(func(o Observer) { o.Released(a, cause) })
	}
	c.setPowerLocked(c.power) // calls that wait for it must look again
	p.wantLocked(t, now)
}

// visitDrainingLocked ends calls that outlive a draining container's time.
func (p *Pool) visitDrainingLocked(c *container, now time.Time) {
	if !now.Before(c.drainUntil) {
		if c.inflight == 0 {
			p.teardownLocked(c, now)
			return
		}
		p.counts.overdueCalls += uint64(c.inflight)
		p.loseLocked(c, loss{lossKilled, CauseOverdue}, now)
		p.dispatchLocked(now)
		return
	}
	p.setTimerLocked(&c.timer, c.drainUntil)
}
